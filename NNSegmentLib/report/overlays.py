"""Outlines of reference and prediction over the image, in the three anatomical planes as a radiologist reads them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..colors import colored
from ..errors import ImageError
from ..geometry import Geometry
from ..labels import Label, LabelSet, Region
from .plots import new_figure, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT_IN = 3.1
"""Of a view, or less where it would become too wide."""
_WIDEST = 6
"""Width of a picture in heights, which its views share evenly at most."""
_MOST_ELONGATED = 6
"""Longer side over shorter side of a view that still shows something beside others."""
_LEAST_IN = 0.1
_LEAST_TITLED_IN = 2.5
_CHARACTER_IN = 0.085
"""Of the title, generously."""


@dataclass(frozen=True)
class View:
    """One plane through a volume whose axes run to superior, anterior and right."""

    name: str
    axis: int
    flip_rows: bool
    flip_columns: bool
    left: str
    top: str


VIEWS = (
    View("axial", 0, True, True, "R", "A"),
    View("coronal", 1, True, True, "R", "S"),
    View("sagittal", 2, True, True, "A", "S"),
)
"""Radiological: the patient's right is at the left of the picture."""


@dataclass(frozen=True)
class Overlay:
    """A picture of outlines, and the labels that have one in it."""

    png: bytes
    labels: tuple[Label, ...]


def draw_overlay(
    image: np.ndarray,
    reference: np.ndarray,
    prediction: np.ndarray | None,
    geometry: Geometry,
    labels: LabelSet,
    title: str = "",
) -> Overlay:
    """Planes through one channel (Z, Y, X): reference solid, prediction dashed and paler.

    The planes are those with most disagreement and foreground in each view that shows something: one for a 2-D image
    or a flat volume, else up to three.
    Raises ImageError when the arrays do not lie on the grid `geometry`.
    """
    shown = [a for a in (image, reference, prediction) if a is not None]
    if any(a.shape != geometry.shape for a in shown):
        raise ImageError(
            f"Image, reference and prediction should have {geometry.shape} voxels (z, y, x), "
            f"found {', '.join(str(a.shape) for a in shown)}."
        )
    volumes = [None if a is None else to_patient_axes(a, geometry) for a in (image, reference, prediction)]
    spacing = _patient_spacing_mm(geometry)
    views = _views(volumes[0].shape, spacing) if geometry.dimension == 3 else VIEWS[:1]
    return _drawn(views, volumes, spacing, labels, title, lettered=geometry.dimension == 3)


def to_patient_axes(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The array turned so that its axes run, as nearly as they can, to (superior, anterior, right)."""
    order, signs = _patient_axes(geometry)
    turned = np.transpose(array, order)
    return turned[tuple(slice(None, None, -1) if sign < 0 else slice(None) for sign in signs)]


def best_slice(reference: np.ndarray, prediction: np.ndarray | None, axis: int) -> int:
    """The slice along `axis` with the largest shares of every label and of the disagreement; the middle without any.

    Shares, not voxels: a small structure inside a large one has its say.
    """
    across = tuple(a for a in range(3) if a != axis)
    planes, n = np.moveaxis(reference, axis, 0), max(0, int(reference.max())) + 1
    counts = [np.bincount(np.maximum(plane, 0).astype(np.intp).ravel(), minlength=n) for plane in planes]
    inside = np.stack(counts)[:, 1:]  # a column a label
    inside = inside[:, inside.any(axis=0)]
    score = (inside / inside.sum(axis=0)).sum(axis=1)
    if prediction is not None:
        score = score + (reference != prediction).sum(axis=across) / max(1, np.count_nonzero(reference))
    best = np.flatnonzero(score == score.max())
    return int(best[len(best) // 2])


def window(image: np.ndarray) -> tuple[float, float]:
    """Grey values shown black and white: the 1st and 99.5th percentile, or the range of a nearly constant image."""
    low, high = np.percentile(image, (1, 99.5))
    if high <= low:
        low, high = float(image.min()), float(image.max())
    return float(low), float(high) if high > low else float(low) + 1.0


def _patient_axes(geometry: Geometry) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(array axis, sign) for superior, anterior and right, each array axis used once, the clearest choice first."""
    columns = np.asarray(geometry.direction)[::-1, ::-1]  # rows: S, A, R; columns: array axes z, y, x
    strength = np.abs(columns)
    order, signs = [0, 0, 0], [1, 1, 1]
    for _ in range(3):
        world, axis = np.unravel_index(strength.argmax(), strength.shape)
        order[world], signs[world] = int(axis), 1 if columns[world, axis] > 0 else -1
        strength[world, :] = strength[:, axis] = -1
    return tuple(order), tuple(signs)


def _patient_spacing_mm(geometry: Geometry) -> tuple[float, ...]:
    return tuple(geometry.spacing_mm[axis] for axis in _patient_axes(geometry)[0])


def _views(shape: Sequence[int], spacing_mm: Sequence[float]) -> list[View]:
    """The views of more than one row and column that are not too elongated; where there is none, the best of them."""

    def is_line(view: View) -> bool:
        return min(n for axis, n in enumerate(shape) if axis != view.axis) == 1

    def elongation(view: View) -> float:
        sides = _extent_mm(shape, spacing_mm, view.axis)
        return max(sides) / min(sides)

    shown = [view for view in VIEWS if not is_line(view) and elongation(view) <= _MOST_ELONGATED]
    return shown or [min(VIEWS, key=lambda view: (is_line(view), elongation(view)))]


def _drawn(views: Sequence[View], volumes, spacing_mm, labels: LabelSet, title: str, lettered: bool) -> Overlay:
    image, reference, prediction = volumes
    sizes = [_size_in(_extent_mm(image.shape, spacing_mm, view.axis), _WIDEST / len(views)) for view in views]
    body = max(height for height, _ in sizes)
    wide = max(sum(width for _, width in sizes), _LEAST_TITLED_IN if title else 0)
    lines = textwrap.wrap(title, int(wide / _CHARACTER_IN))
    head = 0.15 + 0.19 * len(lines) if lines else 0.0
    high = body + head
    figure = new_figure(wide, high)
    figure.set_facecolor("black")
    left, low_high, annotated = 0.0, window(image), _annotated(reference, prediction, labels)
    found: set[int] = set()
    for view, (height, width) in zip(views, sizes, strict=True):
        axes = figure.add_axes((left / wide, (body - height) / 2 / high, width / wide, height / high))
        index = best_slice(*annotated, view.axis)
        planes = [None if v is None else _plane(v, view, index) for v in volumes]
        _draw_view(axes, planes, labels, low_high)
        found.update(int(value) for plane in planes[1:] if plane is not None for value in np.unique(plane))
        if lettered:
            _letter(axes, view, f"{view.name} {index + 1}/{image.shape[view.axis]}")
        left += width
    if lines:
        figure.text(0.012, 1 - head / 2 / high, verbatim("\n".join(lines)), color="white", fontsize=11, va="center")
    return Overlay(_png(figure), tuple(x for x in colored(labels).foreground if not found.isdisjoint(x.values)))


def _annotated(
    reference: np.ndarray, prediction: np.ndarray | None, labels: LabelSet
) -> tuple[np.ndarray, np.ndarray | None]:
    """Both maps with 0 where the reference is to be ignored: those voxels are neither foreground nor disagreement."""
    if labels.ignore_value is None:
        return reference, prediction
    counts = reference != labels.ignore_value
    return reference * counts, None if prediction is None else prediction * counts


def _size_in(extent_mm: tuple[float, float], widest: float) -> tuple[float, float]:
    """Height and width in inches of a view in true proportions, at most `widest` standard heights wide."""
    height, width = extent_mm
    scale = min(_HEIGHT_IN / height, widest * _HEIGHT_IN / width)
    return max(scale * height, _LEAST_IN), max(scale * width, _LEAST_IN)  # a line has to be seen


def _extent_mm(shape, spacing_mm, axis: int) -> tuple[float, float]:
    height, width = (n * s for a, (n, s) in enumerate(zip(shape, spacing_mm, strict=True)) if a != axis)
    return height, width


def _plane(volume: np.ndarray, view: View, index: int) -> np.ndarray:
    plane = volume.take(index, axis=view.axis)
    return plane[:: -1 if view.flip_rows else 1, :: -1 if view.flip_columns else 1]


def _draw_view(axes: Axes, planes, labels: LabelSet, low_high: tuple[float, float]) -> None:
    image, reference, prediction = planes
    axes.set_axis_off()
    axes.imshow(
        image, cmap="gray", vmin=low_high[0], vmax=low_high[1], interpolation="bilinear", aspect="auto", origin="upper"
    )
    for mask, color in _largest_first(reference, labels):
        _outline(axes, mask, color, "solid", 1.9)
    for mask, color in _largest_first(prediction, labels) if prediction is not None else ():
        _outline(axes, mask, _paler(color), (0, (2.4, 1.5)), 1.3, cased=True)


def _largest_first(plane: np.ndarray, labels: LabelSet) -> list[tuple[np.ndarray, tuple[float, ...]]]:
    """Every target's mask and colour; the small ones last, so that outlines inside others stay visible."""
    masks = [(np.isin(plane, region), color) for region, color in region_colors(labels)]
    return sorted(masks, key=lambda pair: -int(pair[0].sum()))


def region_colors(labels: LabelSet) -> list[tuple[Region, tuple[float, ...]]]:
    """Every foreground target with its colour, red, green, blue from 0 to 1."""
    return [(label.values, tuple(part / 255 for part in label.color)) for label in colored(labels).foreground]


def _outline(axes: Axes, mask: np.ndarray, color, style, width: float, cased: bool = False) -> None:
    from matplotlib.patheffects import Normal, Stroke

    if not mask.any():
        return
    padded = np.pad(mask.astype(np.float32), 1)  # closes outlines at the picture's edge
    rows, columns = (np.arange(-1, n + 1) for n in mask.shape)
    drawn = axes.contour(columns, rows, padded, levels=[0.5], colors=[color], linewidths=width)
    drawn.set_linestyle(style)
    if cased:
        drawn.set_path_effects([Stroke(linewidth=width + 1.4, foreground="black"), Normal()])
    axes.set_xlim(-0.5, mask.shape[1] - 0.5)
    axes.set_ylim(mask.shape[0] - 0.5, -0.5)


def _paler(color: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(0.55 * part + 0.45 for part in color)


def _letter(axes: Axes, view: View, name: str) -> None:
    from matplotlib.patheffects import Normal, Stroke

    outlined = [Stroke(linewidth=2.2, foreground="black"), Normal()]
    style = {"color": "#e8e8e8", "fontsize": 9.5, "transform": axes.transAxes, "path_effects": outlined}
    axes.text(0.015, 0.5, view.left, ha="left", va="center", **style)
    axes.text(0.5, 0.985, view.top, ha="center", va="top", **style)
    axes.text(0.015, 0.015, name, ha="left", va="bottom", **(style | {"fontsize": 8, "color": "#b9b9b9"}))


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="black")
    return buffer.getvalue()
