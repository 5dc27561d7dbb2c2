"""The report's charts: distributions of the data, Dice over the epochs of several runs, Dice per case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..fingerprint import PERCENTILES, CaseFacts
from ..run import EpochFinished
from .curves import latest_epochs
from .plots import INK, PALETTE, legend, new_figure, plain, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXES = ("z", "y", "x")


def axes_figure(values: Sequence[Sequence[float]], title: str, unit: str) -> Figure:
    """How a quantity along (z, y, x) is spread over the cases: a dot a case, a bar at the median."""
    figure = new_figure(4.1, 2.7)
    axes = plain(figure.add_subplot(), ylabel=unit, title=title)
    _strips(axes, {name: [v[i] for v in values] for i, name in enumerate(_AXES)})
    axes.set_ylim(0, max(max(v) for v in values) * 1.12)
    figure.subplots_adjust(left=0.15, right=0.98, top=0.89, bottom=0.11)
    return figure


def intensity_figure(cases: Sequence[CaseFacts], channel: int, name: str) -> Figure | None:
    """Foreground intensities of a channel, a column a case ordered by median; None when nothing is known.

    The thin line spans the 0.5th to 99.5th percentile, the thick one the middle half, the dot is the median.
    """
    found = sorted((c.channels[channel].percentiles for c in cases if c.channels), key=lambda p: p[_at(50.0)])
    if not found:
        return None
    table = np.array(found)
    figure = new_figure(8.4, 2.5)
    axes = plain(figure.add_subplot(), "cases, ordered by median", "intensity", f"{name}: intensities of the labels")
    x, color = np.arange(1, len(table) + 1), PALETTE[channel % len(PALETTE)]
    thick = float(np.clip(160 / len(table), 1.2, 7))
    axes.vlines(x, table[:, 0], table[:, -1], color=color, linewidth=min(thick / 3, 1.2), alpha=0.7)
    axes.vlines(x, table[:, _at(25.0)], table[:, _at(75.0)], color=color, linewidth=thick, alpha=0.75)
    axes.plot(x, table[:, _at(50.0)], ".", color=INK, markersize=min(5, thick + 1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    if table.min() > 0 and table.max() / table.min() > 300:
        axes.set_yscale("log")
    figure.subplots_adjust(left=0.09, right=0.99, top=0.88, bottom=0.19)
    return figure


def runs_figure(runs: Mapping[str, Sequence[EpochFinished]], title: str) -> Figure:
    """The quick Dice over the epochs, a line per run."""
    figure = new_figure(8.4, 2.9)
    axes = plain(figure.add_subplot(), "epoch", "Dice on patches", title)
    handles = []
    for index, (name, events) in enumerate(runs.items()):
        epochs = latest_epochs(events)
        dice = [np.nan if e.mean_dice is None else e.mean_dice for e in epochs]
        mark = "o" if len(epochs) <= 40 else ""
        style = {
            "color": PALETTE[index % len(PALETTE)],
            "linewidth": 1.6,
            "marker": mark,
            "markersize": 3,
            "label": verbatim(name),
        }
        handles += axes.plot([e.epoch for e in epochs], dice, **style)
    axes.set_ylim(0, 1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    legend(axes, handles, loc="lower right", ncols=max(1, min(5, len(handles))))
    figure.subplots_adjust(left=0.08, right=0.99, top=0.89, bottom=0.17)
    return figure


def dice_figure(dice: Mapping[str, Sequence[float]], colors: Sequence, title: str) -> Figure:
    """Dice of every case, a column per class: a dot a case, a box over the middle half, a bar at the median."""
    figure = new_figure(max(4.2, 1.5 + 1.15 * len(dice)), 3.1)
    axes = plain(figure.add_subplot(), ylabel="Dice", title=title)
    _strips(axes, dice, colors)
    axes.set_ylim(-0.03, 1.03)
    figure.subplots_adjust(left=0.14 if len(dice) < 4 else 0.09, right=0.98, top=0.9, bottom=0.1)
    return figure


def _strips(axes: Axes, columns: Mapping[str, Sequence[float]], colors: Sequence = PALETTE) -> None:
    """Columns of dots, moved sideways by a fixed pattern so that equal values stay visible, over a box."""
    for index, values in enumerate(columns.values()):
        values = np.asarray([v for v in values if v is not None and np.isfinite(v)], float)
        if not len(values):
            continue
        color = colors[index % len(colors)]
        low, middle, high = np.percentile(values, (25, 50, 75))
        axes.bar(index, high - low, 0.62, low, color=color, alpha=0.22, linewidth=0)
        axes.hlines(middle, index - 0.31, index + 0.31, color=color, linewidth=2.2)
        sideways = ((np.arange(len(values)) * 0.618) % 1 - 0.5) * 0.5
        axes.plot(index + sideways, values, "o", color=color, markersize=3.4, alpha=0.75, markeredgewidth=0)
    axes.set_xticks(range(len(columns)), [_short(name) for name in columns])
    axes.set_xlim(-0.6, len(columns) - 0.4)


def _short(name: str) -> str:
    return verbatim(name if len(name) <= 14 else name[:13] + "…")


def _at(percentile: float) -> int:
    return PERCENTILES.index(percentile)
