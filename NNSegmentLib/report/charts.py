"""The report's charts: distributions of the data, Dice over the epochs of several runs, Dice per case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..fingerprint import PERCENTILES, CaseFacts
from ..run import EpochFinished
from .curves import latest_epochs
from .plots import FAINT, INK, PALETTE, legend, new_figure, plain, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXES = ("z", "y", "x")
_MOST_COLUMNS = 12
"""Classes whose columns and names fit into the width of a page; more become rows."""
_LONGEST_IN_ROW = 36
"""Characters of a name that stands before its row."""
_MOST_DOTS = 600
"""Drawn one by one; more are a small picture inside the figure, as each takes a hundred characters."""
_CROWDED_COLUMN, _CROWDED_ROW = 300, 60
"""Dots that have room beside each other; more are smaller and fainter."""
_MOST_LINES = 300
"""Cases with a line of their own; more share some."""
_SHARED_LINES = 150


def axes_figure(values: Sequence[Sequence[float]], title: str, unit: str) -> Figure:
    """How a quantity along (z, y, x), or (y, x), is spread over the cases: a dot a case, a bar at the median."""
    figure = new_figure(4.1, 2.7)
    axes = plain(figure.add_subplot(), ylabel=unit, title=title)
    _strips(axes, {name: [v[i] for v in values] for i, name in enumerate(_AXES[-len(values[0]) :])})
    axes.set_ylim(0, max(max(v) for v in values) * 1.12)
    figure.subplots_adjust(left=0.15, right=0.98, top=0.89, bottom=0.11)
    return figure


def intensity_figure(cases: Sequence[CaseFacts], channel: int, name: str) -> Figure | None:
    """Foreground intensities of a channel, a column a case ordered by median; None when nothing is known.

    The thin line spans the 0.5th to 99.5th percentile, the thick one the middle half, the dot is the median. Where
    there are very many cases, neighbours share a line (`cases_a_line`) from the lowest to the highest of them.
    """
    found = sorted((c.channels[channel].percentiles for c in cases if c.channels), key=lambda p: p[_at(50.0)])
    if not found:
        return None
    x, table = _shared(np.array(found))
    figure = new_figure(8.4, 2.5)
    axes = plain(figure.add_subplot(), "cases, ordered by median", "intensity", f"{name}: intensities of the labels")
    color = PALETTE[channel % len(PALETTE)]
    thick = float(np.clip(160 / len(table), 1.2, 7))
    axes.vlines(x, table[:, 0], table[:, -1], color=color, linewidth=min(thick / 3, 1.2), alpha=0.7)
    axes.vlines(x, table[:, _at(25.0)], table[:, _at(75.0)], color=color, linewidth=thick, alpha=0.75)
    axes.plot(x, table[:, _at(50.0)], ".", color=INK, markersize=min(5, thick + 1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    if table.min() > 0 and table.max() / table.min() > 300:
        axes.set_yscale("log")
    figure.subplots_adjust(left=0.09, right=0.99, top=0.88, bottom=0.19)
    return figure


def cases_a_line(n_cases: int) -> int:
    """How many neighbouring cases share a line of the intensities."""
    return 1 if n_cases <= _MOST_LINES else math.ceil(n_cases / _SHARED_LINES)


def _shared(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places and percentiles of the lines: the cases' own, or medians of neighbours with the extremes of them all."""
    places, n = np.arange(1, len(table) + 1), cases_a_line(len(table))
    if n == 1:
        return places, table
    groups = [table[start : start + n] for start in range(0, len(table), n)]
    lines = [np.hstack([g[:, 0].min(), np.median(g[:, 1:-1], axis=0), g[:, -1].max()]) for g in groups]
    return np.array([places[start : start + n].mean() for start in range(0, len(table), n)]), np.array(lines)


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
    """Dice of every case, a column per class: a dot a case, a box over the middle half, a bar at the median.

    Many classes are rows instead, the lowest median first.
    """
    if len(dice) > _MOST_COLUMNS:
        return _dice_rows(dice, colors, title)
    figure = new_figure(max(4.2, 1.5 + 1.15 * len(dice)), 3.1)
    axes = plain(figure.add_subplot(), ylabel="Dice", title=title)
    _strips(axes, dice, colors)
    axes.set_ylim(-0.03, 1.03)
    figure.subplots_adjust(left=0.14 if len(dice) < 4 else 0.09, right=0.98, top=0.9, bottom=0.1)
    return figure


def _dice_rows(dice: Mapping[str, Sequence[float]], colors: Sequence, title: str) -> Figure:
    rows = [(name, _defined(values), colors[i % len(colors)]) for i, (name, values) in enumerate(dice.items())]
    rows.sort(key=lambda row: np.median(row[1]) if len(row[1]) else np.inf)
    names = [_short(name, _LONGEST_IN_ROW) for name, _, _ in rows]
    head, foot, left, width = 0.75, 0.55, 0.25 + 0.075 * max(map(len, names)), 8.4
    height = head + 0.2 * len(rows) + foot
    figure = new_figure(width, height)
    axes = plain(figure.add_subplot(), xlabel="Dice", title=title, above=22)
    many = sum(len(values) for _, values, _ in rows) > _MOST_DOTS
    for place, (_, values, color) in enumerate(rows):
        _strip(axes, place, values, color, many, lying=True)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-0.03, 1.03)
    axes.grid(axis="x", color=FAINT, alpha=0.35, linewidth=0.6)
    axes.tick_params(axis="x", labeltop=True)
    figure.subplots_adjust(left=left / width, right=0.98, top=1 - head / height, bottom=foot / height)
    return figure


def _strips(axes: Axes, columns: Mapping[str, Sequence[float]], colors: Sequence = PALETTE) -> None:
    """Columns of dots over a box."""
    found = [_defined(values) for values in columns.values()]
    many = sum(map(len, found)) > _MOST_DOTS
    for index, values in enumerate(found):
        _strip(axes, index, values, colors[index % len(colors)], many)
    axes.set_xticks(range(len(columns)), [_short(name) for name in columns])
    axes.set_xlim(-0.6, len(columns) - 0.4)


def _strip(axes: Axes, place: int, values: np.ndarray, color, many: bool, lying: bool = False) -> None:
    """Dots moved sideways by a fixed pattern so that equal values stay visible, a box and a bar at the median.

    Very many dots are a small picture below a bar in the text's colour.
    """
    if not len(values):
        return
    bar, line = (axes.barh, axes.vlines) if lying else (axes.bar, axes.hlines)
    low, middle, high = np.percentile(values, (25, 50, 75))
    bar(place, high - low, 0.62, low, color=color, alpha=0.22, linewidth=0)
    line(middle, place - 0.31, place + 0.31, color=INK if many else color, linewidth=2.2)
    sideways = place + ((np.arange(len(values)) * 0.618) % 1 - 0.5) * 0.5
    dots = (values, sideways) if lying else (sideways, values)
    axes.plot(*dots, "o", color=color, markeredgewidth=0, **_dot_style(len(values), many, lying))


def _dot_style(n_dots: int, many: bool, lying: bool) -> dict:
    if not many:
        return {"markersize": 3.4, "alpha": 0.75}
    share = min(1.0, ((_CROWDED_ROW if lying else _CROWDED_COLUMN) / n_dots) ** 0.5)
    return {"markersize": 3.4 * max(share, 0.45), "alpha": 0.75 * max(share, 0.2), "rasterized": True, "zorder": 1.9}


def _defined(values: Sequence[float | None]) -> np.ndarray:
    return np.asarray([v for v in values if v is not None and np.isfinite(v)], float)


def _short(name: str, longest: int = 14) -> str:
    return verbatim(name if len(name) <= longest else name[: longest - 1] + "…")


def _at(percentile: float) -> int:
    return PERCENTILES.index(percentile)
