"""What there is to report about a task: everything found on disk, read once; what is missing stays empty."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from ..colors import colored, load_label_colors, with_colors
from ..errors import NNSegmentError, PlanError, TaskError
from ..fingerprint import Fingerprint, load_fingerprint
from ..folders import LABELS_CSV, FoldFolder, ModelFolders, TaskFolders, visible
from ..labels import LabelSet
from ..planning.plan import Plan, load_plan
from ..provenance.corrected import corrected_cases
from ..provenance.made_of import trained_and_validated
from ..records import read_json
from ..run import EpochFinished, Event, Failed, Finished, Stopped, read_events
from ..scores import CaseScores, Scores, load_scores
from ..selection.record import Selection, load_selection
from ..task import Task, load_task, parse_dataset_json

T = TypeVar("T")
_NO_PLANS = ("dataset.json", "dataset_fingerprint.json", "splits_final.json")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedFold:
    """One run of a model: its events and, once validated, its scores."""

    folder: FoldFolder
    events: tuple[Event, ...]
    scores: Scores | None
    seen: tuple[str, ...] = ()
    """Cases that it was trained on and validates with all the same."""

    @property
    def name(self) -> str:
        return self.folder.folder.name.removeprefix("fold_")

    @property
    def epochs(self) -> tuple[EpochFinished, ...]:
        return tuple(event for event in self.events if isinstance(event, EpochFinished))

    @property
    def state(self) -> str:
        """How the run stands, in a few words."""
        last = next((e for e in reversed(self.events) if isinstance(e, (Finished, Stopped, Failed))), None)
        if isinstance(last, Failed):
            return f"failed: {last.text}"
        if self.folder.checkpoint_final.is_file() or isinstance(last, Finished):
            return "finished"
        return "stopped, can be resumed" if isinstance(last, Stopped) else "not finished"


@dataclass(frozen=True)
class TrainedModel:
    """One configuration of one plan with all its folds."""

    folders: ModelFolders
    folds: tuple[TrainedFold, ...]

    @property
    def title(self) -> str:
        return f"{self.folders.configuration} ({self.folders.plans_name})"

    @cached_property
    def scores(self) -> Scores | None:
        """The validation cases of all folds together; None before the first validation."""
        found = [fold.scores for fold in self.folds if fold.scores]
        if not found:
            return None
        alike = [scores for scores in found if scores.targets == found[0].targets]
        return Scores(found[0].targets, tuple(case for scores in alike for case in scores.cases))

    def fold_of(self, case: CaseScores) -> TrainedFold:
        """The fold that validated a case."""
        return self._folds[id(case)]

    @cached_property
    def _folds(self) -> dict[int, TrainedFold]:
        return {id(case): fold for fold in reversed(self.folds) if fold.scores for case in fold.scores.cases}


@dataclass(frozen=True)
class Contents:
    """Everything the report shows."""

    folders: TaskFolders
    task: Task | None
    """None when the raw images are gone."""
    channels: tuple[str, ...]
    labels: LabelSet
    fingerprint: Fingerprint | None
    plans: tuple[Plan, ...]
    models: tuple[TrainedModel, ...]
    selection: Selection | None
    corrected: frozenset[str] = frozenset()
    """Cases that at least one trained fold has not seen as they are now."""

    @property
    def best_model(self) -> TrainedModel | None:
        """The validated model with the highest Dice; those whose cases show no class come last."""
        scored = [model for model in self.models if model.scores]
        return max(scored, key=lambda model: (not math.isnan(model.scores.dice), model.scores.dice), default=None)


def gather(folders: TaskFolders) -> Contents:
    """Read what exists about a task; raises TaskError when not even a dataset.json does.

    A damaged file counts as missing and is named in the log.
    """
    models = tuple(_model(folder) for folder in folders.models())
    channels, labels = _channels_and_labels(folders)
    task = _readable(load_task, folders.raw, folders.raw / "dataset.json")
    corrected = _readable(lambda _: corrected_cases(folders, task), folders.raw / "dataset.json") if task else ()
    return Contents(
        folders=folders,
        task=task,
        channels=channels,
        labels=labels,
        fingerprint=_readable(load_fingerprint, folders.fingerprint),
        plans=_plans(folders),
        models=tuple(model for model in models if model.folds),
        selection=_readable(load_selection, folders.selection),
        corrected=frozenset(corrected or ()),
    )


def _readable(read: Callable[[Path], T], path: Path, needed: Path | None = None) -> T | None:
    if not (needed or path).is_file():
        return None
    try:
        return read(path)
    except NNSegmentError as error:
        _log.warning("Left out of the report: %s", error)
        return None


def _channels_and_labels(folders: TaskFolders) -> tuple[tuple[str, ...], LabelSet]:
    homes = [folders.raw, folders.preprocessed, *(model.folder for model in folders.models())]
    home = next((home for home in homes if (home / "dataset.json").is_file()), None)
    if home is None:
        raise TaskError(
            f"{folders.name} has no dataset.json in {folders.raw} or beside its models, so there is nothing to report; "
            "make the task with 'nnsegment convert'."
        )
    channels, labels, _ = parse_dataset_json(read_json(home / "dataset.json"), home)
    known = next((k for k in (_readable(load_label_colors, h / LABELS_CSV) for h in homes) if k), ())
    return channels, colored(with_colors(labels, known))


def _plans(folders: TaskFolders) -> tuple[Plan, ...]:
    paths = [p for p in visible(folders.preprocessed, "*.json") if p.name not in _NO_PLANS]
    paths = paths or [model.plan for model in folders.models()]
    plans = {plan.name: plan for plan in (_readable(_plan_or_error, path) for path in paths) if plan}
    return tuple(plans.values())


def _plan_or_error(path: Path) -> Plan:
    plan = load_plan(path)
    if not plan.configurations:
        raise PlanError(f"{path} has no configuration.")
    return plan


def _model(folders: ModelFolders) -> TrainedModel:
    names = [p.name.removeprefix("fold_") for p in visible(folders.folder, "fold_*") if p.is_dir()]
    return TrainedModel(folders, tuple(_fold(folders.fold(name)) for name in names))


def _fold(folder: FoldFolder) -> TrainedFold:
    seen = _readable(lambda _: trained_and_validated(folder), folder.made_of)
    return TrainedFold(
        folder, tuple(read_events(folder.events)), _readable(load_scores, folder.summary), tuple(seen or ())
    )
