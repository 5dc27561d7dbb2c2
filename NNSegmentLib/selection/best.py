"""Which configuration, or pair of configurations, to predict with: decided by cross-validation, as nnU-Net does."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from ..errors import InputError, RunError
from ..evaluation import SUMMARY, Scores, load_scores
from ..folders import ModelFolders, TaskFolders
from ..labels import LabelSet
from ..postprocessing_rules import PICKLE_FILE
from ..progress import Progress, silent
from ..records import copy_whole, remove, write_text
from ..task import Case
from .comparison import Comparison, FoldName, choose_folds, replaced_images, seen_cases, weights_of
from .crossvalidation import Scoring, cards, crossvalidate, folds_to_predict
from .ensembling import EnsembleCase, ensemble_cases, write_ensemble
from .record import (
    POSTPROCESSED,
    Candidate,
    Member,
    Selection,
    ensemble_name,
    instructions,
    load_selection,
    member_of,
    prediction_notes,
    save_selection,
)

__all__ = ["Candidate", "Member", "Selection", "find_best", "load_selection", "save_selection"]
INSTRUCTIONS = "inference_instructions.txt"


def find_best(
    folders: TaskFolders,
    label_set: LabelSet,
    candidates: Sequence[tuple[str, str] | ModelFolders],
    folds: Sequence[FoldName] | None = None,
    *,
    ensembles: bool = True,
    references: Path,
    file_ending: str | None = None,
    reader: str = "",
    cases: Sequence[Case] = (),
    workers: int = 2,
    progress: Progress = silent,
) -> Selection:
    """Compare trained configurations and all pairs of them as ensembles, and settle the best one's post-processing.

    `candidates` are (plans name, configuration) or model folders; `folds` None compares those that all have finished
    and predicts with every fold that the best one has. Ensembles whose probabilities are missing are left out with a
    note; folds that have seen what they validate with, and images of `cases` that are not those which were validated,
    get one. Writes crossval_results_folds_…, ensembles/, inference_information.json and inference_instructions.txt
    into the results folder. Raises RunError for missing or incomplete folds, SettingsError for the fold 'all'.
    """
    scoring = Scoring(label_set, Path(references), file_ending, reader, workers, progress)
    compared = choose_folds(folders, _models(folders, candidates), folds, file_ending, label_set, cases)
    for told in (folders.selection, folders.results / INSTRUCTIONS):
        remove(told)  # what it names is made anew from here on, and would be missing if that ended early
    found = [_single(model, compared.folds, scoring) for model in compared.models]
    pairs, notes = _pairs(folders, compared, scoring) if ensembles else ((), ())
    notes = (*notes, *seen_cases(compared), *replaced_images(compared, cases))
    selection = _select(folders, compared, [*found, *pairs], notes, scoring, ensembles, every_fold=folds is None)
    save_selection(selection, folders.selection)
    write_text(folders.results / INSTRUCTIONS, instructions(selection, folders))
    return selection


@dataclass(frozen=True)
class _Scored:
    candidate: Candidate
    scores: Scores

    @classmethod
    def of(cls, members: Sequence[Member], folder: Path, scores: Scores) -> _Scored:
        dice = tuple(metrics.dice for metrics in scores.mean)
        return cls(Candidate(tuple(members), folder, scores.foreground_mean.dice, dice), scores)


def _models(folders: TaskFolders, candidates: Sequence[tuple[str, str] | ModelFolders]) -> list[ModelFolders]:
    """The model folders; raises RunError when there are none or one does not exist."""
    models = [c if isinstance(c, ModelFolders) else folders.model(*c) for c in candidates]
    if not models:
        raise RunError(f"There is nothing to compare for {folders.name}; train a configuration with 'nnsegment train'.")
    for model in models:
        if not model.folder.is_dir():
            raise RunError(
                f"{folders.name} has no trained {model.configuration} with {model.plans_name} (expected {model.folder}); "
                f"run '{model.command('train', 'folds')}'."
            )
    return models


def _single(model: ModelFolders, folds: Sequence[FoldName], scoring: Scoring) -> _Scored:
    return _Scored.of([member_of(model)], *crossvalidate(model, folds, scoring))


def _pairs(folders: TaskFolders, compared: Comparison, scoring: Scoring) -> tuple[tuple[_Scored, ...], tuple[str, ...]]:
    """All ensembles of two that can be made, and why others cannot."""
    found, notes = [], []
    for pair in combinations(compared.models, 2):
        try:
            cases = _cases(pair, compared.folds, scoring.file_ending)
        except InputError as missing:
            notes.append(f"Left out the ensemble {' + '.join(member_of(m).title for m in pair)}: {missing}")
        else:
            found.append(_ensemble(folders, pair, compared.folds, cases, scoring))
    return tuple(found), tuple(notes)


def _cases(pair: Sequence[ModelFolders], folds: Sequence[FoldName], ending: str | None) -> list[EnsembleCase]:
    """The validation cases of all folds with both models' probabilities; raises InputError when some are missing."""
    return [case for f in folds for case in ensemble_cases([model.fold(f).validation for model in pair], ending)]


def _ensemble(
    folders: TaskFolders,
    pair: Sequence[ModelFolders],
    folds: Sequence[FoldName],
    cases: Sequence[EnsembleCase],
    scoring: Scoring,
) -> _Scored:
    members = [member_of(model) for model in pair]
    folder = folders.ensembles / ensemble_name(members, folds)
    shutil.rmtree(folder, ignore_errors=True)
    write_ensemble(
        cases, folder, scoring.label_set, reader=scoring.reader, workers=scoring.workers, progress=scoring.progress
    )
    for card in cards(pair[0]):
        copy_whole(card, folder / card.name)
    return _Scored.of(members, folder, scoring.evaluate(folder))


def _select(
    folders: TaskFolders,
    compared: Comparison,
    found: Sequence[_Scored],
    notes: Sequence[str],
    scoring: Scoring,
    ensembles: bool,
    every_fold: bool,
) -> Selection:
    """The first of those with the highest Dice, its post-processing and, if `every_fold`, all folds it has."""
    index = max(range(len(found)), key=lambda i: found[i].candidate.rank)
    best = found[index]
    rules = scoring.determine(best.candidate.folder, best.scores)
    after = load_scores(best.candidate.folder / POSTPROCESSED / SUMMARY)
    members = [ModelFolders(folders.results / member.name) for member in best.candidate.members]
    trained = folds_to_predict(members, compared.folds) if every_fold else compared.folds
    return Selection(
        task=folders.name,
        folds=compared.folds,
        targets=best.scores.titles,
        candidates=tuple(scored.candidate for scored in found),
        best_index=index,
        ensembling_allowed=ensembles,
        dice_after=after.foreground_mean.dice,
        dice_after_per_target=tuple(after.of(target).dice for target in best.scores.targets),
        postprocessing=rules,
        postprocessing_file=best.candidate.folder / PICKLE_FILE,
        plans_file=best.candidate.folder / "plans.json",
        postprocessing_text=rules.describe(scoring.label_set),
        notes=(*compared.notes, *prediction_notes(best.candidate, compared.folds, trained), *notes),
        prediction_folds=trained,
        compared=weights_of(compared),
    )
