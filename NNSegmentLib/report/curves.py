"""The learning curves of one run: losses and quick Dice, seconds per epoch, learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..run import HIGHEST_DRAWN, EpochFinished
from .plots import BLUE, CYAN, GREEN, INK, ORANGE, PURPLE, legend, new_figure, plain, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKED_EPOCHS = 40
"""Up to so many epochs every value gets a dot; a single epoch would be invisible as a line."""
_GAP = float("nan")


def draw_progress(events: Iterable[EpochFinished], path: Path) -> Path:
    """Write the learning curves of a run as a picture (.png, .svg, .pdf), whole or not at all.

    An epoch told twice (a resumed run) counts with its last telling. Raises StorageError.
    """
    return save_figure(progress_figure(events), path)


def progress_figure(events: Iterable[EpochFinished]) -> Figure:
    """Three panels over the epochs: losses with the quick Dice, seconds per epoch, learning rate."""
    epochs = latest_epochs(events)
    figure = new_figure(9, 8.4)
    upper, middle, lower = figure.subplots(3, 1, height_ratios=(3.2, 1, 1), sharex=True)
    _draw_losses(upper, epochs)
    _draw_line(middle, epochs, "seconds", PURPLE, "seconds per epoch")
    _draw_line(lower, epochs, "learning_rate", CYAN, "learning rate")
    lower.set_xlabel("epoch", color=INK, fontsize=9.5)
    lower.set_xlim(0.5, max((e.epoch for e in epochs), default=1) + 0.5)
    lower.xaxis.get_major_locator().set_params(integer=True)
    figure.align_ylabels((upper, middle, lower))
    figure.subplots_adjust(left=0.09, right=0.91, top=0.95, bottom=0.065, hspace=0.16)
    return figure


def latest_epochs(events: Iterable[EpochFinished]) -> tuple[EpochFinished, ...]:
    """The last telling of each epoch, in order; a resumed run repeats those after its checkpoint."""
    told = {event.epoch: event for event in events}
    return tuple(told[epoch] for epoch in sorted(told))


def _draw_losses(axes: Axes, epochs: Sequence[EpochFinished]) -> None:
    plain(axes, ylabel="loss", title=_headline(epochs))
    handles = [
        _plotted(axes, epochs, "train_loss", BLUE, "loss, training"),
        _plotted(axes, epochs, "validation_loss", ORANGE, "loss, validation"),
    ]
    dice = axes.twinx()
    plain(dice, ylabel="Dice on patches (quick estimate)")
    dice.grid(False)
    dice.spines["left"].set_visible(False)
    dice.set_ylim(0, 1)
    handles.append(_plotted(dice, epochs, "mean_dice", GREEN, "Dice", linewidth=0.9, linestyle=(0, (2, 1.5))))
    handles.append(_plotted(dice, epochs, "smoothed_dice", GREEN, "Dice, moving average", linewidth=2.2))
    legend(axes, handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=4)


def _draw_line(axes: Axes, epochs, name: str, color: str, label: str) -> None:
    plain(axes, ylabel=label)
    _plotted(axes, epochs, name, color, label)
    highest = max((value for e in epochs if abs(value := getattr(e, name)) < HIGHEST_DRAWN), default=1)
    axes.set_ylim(0, max(highest, 0) * 1.1 or 1)


def _plotted(axes: Axes, epochs: Sequence[EpochFinished], name: str, color: str, label: str, **style):
    values = [getattr(e, name) for e in epochs]
    marked = {"marker": "o", "markersize": 3.2} if len(epochs) <= _MARKED_EPOCHS else {}
    return axes.plot(
        [e.epoch for e in epochs],
        [_GAP if v is None or abs(v) > HIGHEST_DRAWN else v for v in values],
        color=color,
        label=label,
        **({"linewidth": 1.4} | marked | style),
    )[0]


def _headline(epochs: Sequence[EpochFinished]) -> str:
    if not epochs:
        return "no epoch finished yet"
    last = epochs[-1]
    dice = "" if last.mean_dice is None else f" · Dice {last.mean_dice:.3f}"
    return f"epoch {last.epoch} of {last.epochs}{dice}"
