"""The scores of a folder of predictions, and nnU-Net's summary.json that holds them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import TaskError, counted
from .image import file_ending
from .labels import Region, parse_region_key, region_key
from .records import lack_of, read_json, write_json

OVERLAP = {
    "Dice": "dice", "IoU": "iou", "TP": "tp", "FP": "fp", "FN": "fn", "TN": "tn", "n_pred": "n_pred", "n_ref": "n_ref",
}  # fmt: skip
SURFACE = {"HD95": "hd95_mm", "NSD": "nsd", "NSD_tolerance_mm": "nsd_tolerance_mm"}
"""Ours beside nnU-Net's; absent from files nnU-Net wrote."""


@dataclass(frozen=True)
class Metrics:
    """The scores of one target, of a case or averaged; NaN where a score is undefined."""

    dice: float
    iou: float
    tp: float
    fp: float
    fn: float
    tn: float
    n_pred: float
    n_ref: float
    hd95_mm: float | None = None
    """95th percentile Hausdorff distance in mm; infinite when only one side has voxels; None when not measured."""
    nsd: float | None = None
    """Normalised surface Dice at `nsd_tolerance_mm`; None when not measured."""
    nsd_tolerance_mm: float | None = None


@dataclass(frozen=True)
class CaseScores:
    """The scores of one case, one `Metrics` per target."""

    case_id: str
    metrics: tuple[Metrics, ...]
    prediction_file: Path
    reference_file: Path

    @property
    def mean_dice(self) -> float:
        """Dice averaged over the targets the case has; NaN when it has none."""
        return nan_mean(m.dice for m in self.metrics)


@dataclass(frozen=True)
class Scores:
    """Scores of all cases, in file order, for `targets`, and their averages."""

    targets: tuple[Region, ...]
    cases: tuple[CaseScores, ...]
    names: tuple[str, ...] = ()
    """What people call the targets; empty in files of nnU-Net."""
    keys: tuple[str, ...] = ()
    """What summary.json calls the targets (`LabelSet.target_keys`); empty takes what follows from their values."""

    mean: tuple[Metrics, ...] = field(init=False)
    """Per target, averaged over the cases where the score is defined."""
    foreground_mean: Metrics = field(init=False)
    """Plain mean over the targets other than background: NaN as soon as one target is nowhere (nnU-Net's rule)."""

    def __post_init__(self) -> None:
        mean = tuple(_average((c.metrics[i] for c in self.cases), nan_mean) for i in range(len(self.targets)))
        foreground = [m for m, target in zip(mean, self.targets, strict=True) if target != (0,)]
        object.__setattr__(self, "keys", self.keys or tuple(map(region_key, self.targets)))
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "foreground_mean", _average(foreground, plain_mean))

    @property
    def dice(self) -> float:
        """Mean Dice over the targets that occur: what configurations are ranked by."""
        return nan_mean(m.dice for m, t in zip(self.mean, self.targets, strict=True) if t != (0,))

    def of(self, target: Region | int) -> Metrics:
        """The averaged scores of one target; raises TaskError when it was not scored."""
        target = (target,) if isinstance(target, int) else tuple(target)
        if target not in self.targets:
            raise TaskError(f"Label {region_key(target)} was not scored; there are {', '.join(self.titles)}.")
        return self.mean[self.targets.index(target)]

    @property
    def titles(self) -> tuple[str, ...]:
        """The targets' names, or 'label 1' where none are known."""
        return self.names or tuple(f"label {region_key(t)}" for t in self.targets)

    def table(self) -> str:
        """The averages as aligned text, a line per target."""
        lines = [("", *METRIC_TITLES)]
        lines += [(title, *_row(m)) for title, m in zip(self.titles, self.mean, strict=True)]
        lines.append(("mean of foreground", *_row(self.foreground_mean)))
        return f"{counted(len(self.cases), 'case')}\n" + aligned(lines)


METRIC_TITLES = ("Dice", "IoU", "HD95 mm", "NSD")


def _row(metrics: Metrics) -> tuple[str, ...]:
    return (*map(shown, (metrics.dice, metrics.iou)), shown(metrics.hd95_mm, 2), shown(metrics.nsd))


def shown(value: float | None, digits: int = 4) -> str:
    """A score for people: '–' where it is undefined or was not measured."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as text: first column left-aligned, numbers right-aligned, two blanks between."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    )


def nan_mean(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN when there is none."""
    return plain_mean([v for v in values if not math.isnan(v)])


def plain_mean(values: Iterable[float]) -> float:
    """Mean; NaN of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def save_scores(scores: Scores, path: Path) -> None:
    """Write summary.json as nnU-Net does: keys sorted, bare NaN, surface metrics beside its own. Raises StorageError."""
    cases = [_case_json(case, scores.keys) for case in scores.cases]
    write_json(path, averages_json(scores) | {"metric_per_case": cases}, sort_keys=True)


def averages_json(scores: Scores) -> dict:
    """The `foreground_mean` and `mean` entries of summary.json."""
    mean = {key: _metrics_json(m) for key, m in zip(scores.keys, scores.mean, strict=True)}
    return {"foreground_mean": _metrics_json(scores.foreground_mean), "mean": mean}


def load_scores(path: Path) -> Scores:
    """Read a summary.json, ours or nnU-Net's; raises TaskError when it is none."""
    values = read_json(path, TaskError)
    try:
        keys = sorted(values["mean"], key=parse_region_key)
        cases = tuple(_case(entry, keys) for entry in values["metric_per_case"])
    except (KeyError, TypeError, ValueError) as wrong:
        raise TaskError(
            f"{path} is no summary.json of nnU-Net ({lack_of(wrong)}); evaluate the predictions again."
        ) from wrong
    return Scores(tuple(parse_region_key(key) for key in keys), cases, keys=tuple(keys))


def _average(metrics: Iterable[Metrics], mean) -> Metrics:
    metrics = list(metrics)
    values = {name: [getattr(m, name) for m in metrics] for name in (OVERLAP | SURFACE).values()}
    return Metrics(**{name: None if None in found else mean(found) for name, found in values.items()})


def _metrics_json(metrics: Metrics) -> dict:
    named = {name: getattr(metrics, attribute) for name, attribute in (OVERLAP | SURFACE).items()}
    return {name: value for name, value in named.items() if value is not None}


def _case_json(case: CaseScores, keys: Sequence[str]) -> dict:
    return {
        "metrics": {key: _metrics_json(m) for key, m in zip(keys, case.metrics, strict=True)},
        "prediction_file": str(case.prediction_file),
        "reference_file": str(case.reference_file),
    }


def _case(entry: dict, keys: Sequence[str]) -> CaseScores:
    prediction, reference = Path(entry["prediction_file"]), Path(entry["reference_file"])
    metrics = tuple(_metrics(entry["metrics"][key]) for key in keys)
    return CaseScores(case_id(prediction), metrics, prediction, reference)


def _metrics(values: dict) -> Metrics:
    required = {attribute: values[name] for name, attribute in OVERLAP.items()}
    return Metrics(**required, **{attribute: values[name] for name, attribute in SURFACE.items() if name in values})


def case_id(path: Path) -> str:
    """The case of a prediction file: its name without the image ending."""
    return path.name[: -len(file_ending(path))]
