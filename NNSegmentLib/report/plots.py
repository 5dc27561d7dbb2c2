"""What all our pictures share: colours that colour-blind readers tell apart, plain axes, files written whole.

Figures are matplotlib's own objects drawn by Agg, never pyplot's: nothing global, no window, no display needed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..escapes import printable
from ..records import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, RED, CYAN = "#2f6fb0", "#d9822b", "#2e9d6b", "#8a5fbf", "#c8453c", "#2b9bb3"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, RED, CYAN)
INK, FAINT = "#2b3038", "#9aa3ad"
"""Ink is replaced by the page's text colour when a figure is put into a page."""
PICTURE_ENDINGS = (".png", ".svg", ".pdf")
_PICTURE_DPI = 200
"""Of those parts of a drawing in a page that are pictures."""
_SVG_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "nnsegment"}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes, xlabel: str = "", ylabel: str = "", title: str = "", above: float | None = None) -> Axes:
    """Axes with labels, faint horizontal lines and no box; the title stands `above` points over them."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, color=FAINT)
    axes.set_xlabel(verbatim(xlabel), color=INK, fontsize=9.5)
    axes.set_ylabel(verbatim(ylabel), color=INK, fontsize=9.5)
    axes.set_title(verbatim(title), color=INK, fontsize=10.5, loc="left", fontweight="bold", pad=above)
    axes.grid(axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def verbatim(text: str) -> str:
    """A text that is drawn as it is written; matplotlib takes what stands between two $ for a formula."""
    return printable(text).replace("$", r"\$")


def legend(axes: Axes, handles: Sequence, **where) -> None:
    """A legend without a box, of these handles."""
    axes.legend(handles=handles, frameon=False, fontsize=9, labelcolor=INK, **where)


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> Path:
    """Write a figure as .png, .svg or .pdf by the file's ending, whole or not at all.

    Raises SettingsError for another ending, StorageError when the folder cannot be written.
    """
    from matplotlib import rc_context

    path = Path(path)
    if path.suffix.lower() not in PICTURE_ENDINGS:
        raise SettingsError(f"A picture's file name must end in {', '.join(PICTURE_ENDINGS)}, found {path.name}.")
    with written_whole(path) as temporary, rc_context(_SVG_STYLE):
        figure.savefig(temporary, dpi=dpi, facecolor="white", metadata=_undated(path.suffix.lower()))
    return path


def inline_svg(figure: Figure, description: str) -> str:
    """The figure as an <svg> element for a page: transparent, scaled to its column, ink in the text's colour."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context(_SVG_STYLE | {"svg.hashsalt": description}):
        figure.savefig(text, format="svg", dpi=_PICTURE_DPI, transparent=True, metadata=_undated(".svg"))
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    svg = svg.replace(INK, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{_attribute(description)}" ', 1)


def _undated(suffix: str) -> Mapping[str, None]:
    """Metadata without the time of day: the same content gives the same file."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})


def _attribute(text: str) -> str:
    return printable(text).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
