"""A network's topology as a picture: the encoder left, the decoder right, one row per stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..labels import LabelSet
from ..planning.architecture import RESIDUAL, NetworkSpec, supervision_weights
from ..planning.parameters import count_parameters
from ..planning.plan import Configuration
from .plots import BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, new_figure, save_figure, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# lengths in points (1/72 inch)
_WIDTH, _HEIGHT, _PITCH, _INSET, _GAP = 184.0, 52.0, 84.0, 20.0, 44.0
_COLUMN, _MARGIN, _HEAD = 118.0, 16.0, 62.0


@dataclass(frozen=True)
class _Layout:
    """Where the blocks of a U-Net with `n` stages lie; y grows upward, row 0 is on top."""

    n: int

    @property
    def middle(self) -> float:
        return (self.n - 2) * _INSET + _WIDTH + _GAP / 2

    @property
    def column(self) -> float:
        return 2 * self.middle + 34

    @property
    def size(self) -> tuple[float, float]:
        return self.column + _COLUMN + 2 * _MARGIN, self.n * _PITCH + _HEIGHT + _HEAD + 2 * _MARGIN

    def encoder(self, stage: int) -> float:
        """Left edge of an encoder block; the last one stands in the middle."""
        return self.middle - _WIDTH / 2 if stage == self.n - 1 else stage * _INSET

    def decoder(self, stage: int) -> float:
        return 2 * self.middle - stage * _INSET - _WIDTH

    def row(self, stage: int) -> float:
        """Lower edge of a row's blocks."""
        return (self.n - 1 - stage) * _PITCH + 20


def draw_network(
    configuration: Configuration, labels: LabelSet, n_channels: int, path: Path, title: str = "", in_mm: bool = True
) -> Path:
    """Write the topology of a plan's configuration as .svg, .png or .pdf by the file's ending.

    Without `in_mm` the sizes of voxels are left out, which pictures do not have.
    Raises SettingsError for another ending and StorageError when the file cannot be written.
    """
    return save_figure(configuration_figure(configuration, labels, n_channels, title, in_mm), path, dpi=130)


def configuration_figure(
    configuration: Configuration, labels: LabelSet, n_channels: int, title: str = "", in_mm: bool = True
) -> Figure:
    """The network of a plan's configuration; a cascade's second stage also takes the first one's labels as input."""
    return network_figure(
        configuration.network,
        configuration.patch_size,
        configuration.spacing_mm if in_mm else None,
        configuration.n_inputs(n_channels, len(labels.foreground_values)),
        labels.n_outputs,
        title or configuration.name,
    )


def network_figure(
    spec: NetworkSpec,
    patch_size: tuple[int, ...],
    spacing_mm: tuple[float, ...] | None,
    in_channels: int,
    out_channels: int,
    title: str = "",
) -> Figure:
    """The topology as a figure: features, convolutions, strides and feature-map sizes of every stage.

    `patch_size` in voxels and `spacing_mm` along (z, y, x), or (y, x) for a 2-D network; None for voxels without size.
    """
    layout = _Layout(spec.n_stages)
    width, height = layout.size
    figure = new_figure(width / 72, height / 72)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-_MARGIN, width - _MARGIN)
    axes.set_ylim(-_MARGIN, height - _MARGIN)
    _draw_heading(axes, layout, spec, in_channels, out_channels, title)
    _draw_input(axes, layout, patch_size, in_channels)
    shapes = stage_shapes(spec, patch_size)
    sizes = [
        _size(shapes[stage], spacing_mm and stage_spacing_mm(spec, spacing_mm, stage)) for stage in range(len(shapes))
    ]
    for stage in range(spec.n_stages):
        _draw_encoder(axes, layout, spec, stage, sizes[stage])
    for stage in range(spec.n_stages - 1):
        _draw_decoder(axes, layout, spec, stage, sizes[stage])
        _draw_output(axes, layout, spec, stage, out_channels, shapes[stage])
    return figure


def stage_shapes(spec: NetworkSpec, patch_size: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Feature-map size of every stage, in voxels along the patch's axes."""
    shapes, shape = [], tuple(patch_size)
    for stride in spec.strides:
        shape = tuple(math.ceil(n / s) for n, s in zip(shape, stride, strict=True))
        shapes.append(shape)
    return tuple(shapes)


def stage_spacing_mm(spec: NetworkSpec, spacing_mm: tuple[float, ...], stage: int) -> tuple[float, ...]:
    """Distance in mm between the voxels of a stage's feature map, along the patch's axes."""
    return tuple(s * math.prod(row[a] for row in spec.strides[: stage + 1]) for a, s in enumerate(spacing_mm))


def _draw_heading(axes: Axes, layout: _Layout, spec: NetworkSpec, n_in: int, n_out: int, title: str) -> None:
    kind = "residual-encoder U-Net" if spec.kind == RESIDUAL else "plain U-Net"
    parameters = f"{count_parameters(spec, n_in, n_out):,}".replace(",", "\u202f")
    axes_names = "z × y × x" if spec.dimensions == 3 else "y × x"
    top = layout.size[1] - 2 * _MARGIN
    _text(axes, 0, top, f"{title}: {kind}" if title else kind.capitalize(), size=14, ha="left", va="top", weight="bold")
    below = f"{parameters} parameters · {spec.n_stages} stages · sizes, kernels and strides are {axes_names}"
    _text(axes, 0, top - 23, below, size=9.5, ha="left", va="top")


def _draw_input(axes: Axes, layout: _Layout, patch_size: tuple[int, ...], in_channels: int) -> None:
    y = layout.row(0) + _PITCH - 8
    _box(axes, 0, y, _WIDTH, 32, PURPLE, 0.16)
    _text(axes, _WIDTH / 2, y + 16, f"input: {_counted(in_channels, 'channel')} · {_times(patch_size)}", size=9.5)
    _arrow(axes, (_WIDTH / 2, y), (_WIDTH / 2, layout.row(0) + _HEIGHT))


def _draw_encoder(axes: Axes, layout: _Layout, spec: NetworkSpec, stage: int, size: str) -> None:
    blocks, kernel = spec.blocks[stage], _times(spec.kernel_sizes[stage])
    work = (
        f"{_counted(blocks, 'residual block')} {kernel}"
        if spec.kind == RESIDUAL
        else f"{_counted(blocks, 'convolution')} {kernel}"
    )
    x, y = layout.encoder(stage), layout.row(stage)
    _block(axes, x, y, BLUE if stage < spec.n_stages - 1 else ORANGE, spec, stage, work, size)
    if stage:
        above = layout.encoder(stage - 1)
        down = (max(x, above) + min(x, above) + _WIDTH) / 2
        _arrow(axes, (down, layout.row(stage - 1)), (down, y + _HEIGHT))
        middle = y + _HEIGHT + (_PITCH - _HEIGHT) / 2
        _text(axes, down - 7, middle, f"stride {_times(spec.strides[stage])}", size=8.5, ha="right")


def _draw_decoder(axes: Axes, layout: _Layout, spec: NetworkSpec, stage: int, size: str) -> None:
    work = f"{_counted(spec.decoder_convs[-1 - stage], 'convolution')} {_times(spec.decoder_kernels[stage])}"
    x, y = layout.decoder(stage), layout.row(stage)
    _block(axes, x, y, GREEN, spec, stage, work, size)
    bottom = stage == spec.n_stages - 2
    below = layout.encoder(stage + 1) if bottom else layout.decoder(stage + 1)
    up = (max(x, below) + min(x, below) + _WIDTH) / 2
    _arrow(axes, (up, layout.row(stage + 1) + _HEIGHT), (up, y))
    _text(
        axes, up + 7, y - (_PITCH - _HEIGHT) / 2, f"transposed {_times(spec.strides[stage + 1])}", size=8.5, ha="left"
    )
    start, end = (layout.encoder(stage) + _WIDTH, y + _HEIGHT / 2), (x, y + _HEIGHT / 2)
    _arrow(axes, start, end, color=FAINT, dashed=True)
    if not bottom:
        _text(axes, layout.middle, y + _HEIGHT / 2 + 7, "skip connection", size=8)


def _draw_output(
    axes: Axes, layout: _Layout, spec: NetworkSpec, stage: int, out_channels: int, shape: tuple[int, ...]
) -> None:
    x, y = layout.column, layout.row(stage)
    weight = supervision_weights(spec.n_stages - 1)[stage]
    final = stage == 0
    _arrow(axes, (layout.decoder(stage) + _WIDTH, y + _HEIGHT / 2), (x, y + _HEIGHT / 2), dashed=not final)
    _box(axes, x, y + 7, _COLUMN, _HEIGHT - 14, PURPLE, 0.16 if final else 0.07)
    name = "output" if final else "training only"
    _text(axes, x + _COLUMN / 2, y + 33, f"{name}: {_counted(out_channels, 'map')}", size=8.5, weight="bold" * final)
    below = f"{_times(shape)} · loss × {weight:.2f}" if weight else f"{_times(shape)} · unused"
    _text(axes, x + _COLUMN / 2, y + 19, below, size=8)


def _block(axes: Axes, x: float, y: float, color: str, spec: NetworkSpec, stage: int, work: str, size: str) -> None:
    """A card with the features, the work and the size, and a bar as long as the features are many."""
    _box(axes, x, y, _WIDTH, _HEIGHT, color, 0.13)
    features = spec.features[stage]
    length = (_WIDTH - 16) * features / max(spec.features)
    axes.plot([x + 8, x + 8 + length], [y + 4.5] * 2, color=color, linewidth=2.6, solid_capstyle="butt")
    _text(axes, x + 9, y + 38, f"{features} features", size=10, weight="bold", ha="left")
    _text(axes, x + 9, y + 25, work, size=8.8, ha="left")
    _text(axes, x + 9, y + 13, size, size=8.3, ha="left")


def _box(axes: Axes, x: float, y: float, width: float, height: float, color: str, opacity: float) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=6"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, style, facecolor=to_rgba(color, opacity), edgecolor=color, linewidth=1.1)
    )


def _arrow(axes: Axes, start, end, color: str = INK, dashed: bool = False) -> None:
    style = {"arrowstyle": "-|>,head_width=0.22,head_length=0.45", "color": color, "linewidth": 1.1}
    style |= {"shrinkA": 1, "shrinkB": 1, "linestyle": (0, (4, 2.5)) if dashed else "solid"}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def _text(
    axes: Axes, x: float, y: float, text: str, size: float, ha="center", va="center", weight="", color=INK
) -> None:
    axes.text(x, y, verbatim(text), fontsize=size, ha=ha, va=va, fontweight=weight or "normal", color=color)


def _size(shape: tuple[int, ...], spacing_mm: tuple[float, ...] | None) -> str:
    return _times(shape) + (f" at {_times(tuple(f'{s:.3g}' for s in spacing_mm))} mm" if spacing_mm else "")


def _times(values: tuple) -> str:
    return "×".join(str(v) for v in values)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
