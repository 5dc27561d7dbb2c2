"""The validations of several folds as one set of predictions: every case predicted by a model that never saw it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunError
from ..evaluation import evaluate_folder, label_files
from ..folders import ModelFolders, visible
from ..given import is_digits
from ..image import copy_image
from ..labels import LabelSet
from ..postprocessing import PostProcessing, determine_postprocessing
from ..progress import Progress, silent
from ..records import copy_whole
from ..scores import Scores, case_id
from .comparison import FoldName

CARDS = ("plans.json", "dataset.json")


@dataclass(frozen=True)
class Scoring:
    """What predictions are compared with, and how."""

    label_set: LabelSet
    references: Path
    file_ending: str | None = None
    reader: str = ""
    workers: int = 2
    progress: Progress = silent

    def evaluate(self, folder: Path) -> Scores:
        """Score a folder and write its summary.json."""
        return evaluate_folder(
            folder, self.references, self.label_set, file_ending=self.file_ending, reader=self.reader,
            workers=self.workers, progress=self.progress,
        )  # fmt: skip

    def determine(self, folder: Path, scores: Scores) -> PostProcessing:
        """Find and write the post-processing of a folder that was scored."""
        return determine_postprocessing(
            folder, self.references, self.label_set, scores=scores, file_ending=self.file_ending, reader=self.reader,
            workers=self.workers, progress=self.progress,
        )  # fmt: skip


def crossvalidate(model: ModelFolders, folds: Sequence[FoldName], scoring: Scoring) -> tuple[Path, Scores]:
    """Gather the folds' validations into the model's crossval_results folder and score them; returns both."""
    folder = gather(model, folds, scoring.file_ending)
    return folder, scoring.evaluate(folder)


def gather(model: ModelFolders, folds: Sequence[FoldName], ending: str | None = None) -> Path:
    """Copy the folds' validated label maps into crossval_results_folds_… (made anew) and return that folder.

    Raises RunError when a case was predicted in two folds.
    """
    sources: dict[str, Path] = {}
    for fold in folds:
        for path in label_files(model.fold(fold).validation, ending):
            if path.name in sources:
                raise RunError(
                    f"Case {case_id(path)} was predicted in two folds, {sources[path.name]} and {path}; each case "
                    "validates once, so delete the validation that does not belong to splits_final.json."
                )
            sources[path.name] = path
    target = model.crossvalidation(tuple(folds))
    shutil.rmtree(target, ignore_errors=True)
    for path in sources.values():
        copy_image(path, target / path.name)
    for path in cards(model):
        copy_whole(path, target / path.name)
    return target


def folds_to_predict(models: Sequence[ModelFolders], compared: Sequence[int]) -> tuple[int, ...]:
    """The compared folds, and those whose training every one of the models has finished all the same; sorted."""
    finished = [{p.parent.name[5:] for p in visible(model.folder, "fold_*/checkpoint_final.pth")} for model in models]
    return tuple(sorted({*compared, *(int(name) for name in set.intersection(*finished) if is_digits(name))}))


def cards(model: ModelFolders) -> list[Path]:
    """plans.json and dataset.json of a model, where it has them."""
    return [model.folder / name for name in CARDS if (model.folder / name).is_file()]
