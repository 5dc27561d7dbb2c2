"""What `best` decided, as a record, and nnU-Net's inference_information.json for it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from ..evaluation import SUMMARY, Scores, load_scores
from ..folders import TRAINER, ModelFolders, TaskFolders
from ..labels import LabelSet
from ..model.selected import COMPARED_WEIGHTS, ComparedFold, compared_folds
from ..postprocessing_rules import JSON_FILE, PICKLE_FILE, PostProcessing, load_postprocessing
from ..records import lack_of, read_json, to_json, write_json
from ..scores import aligned, nan_mean, shown
from .comparison import FoldName

POSTPROCESSED = "postprocessed"


@dataclass(frozen=True)
class Member:
    """One trained configuration."""

    trainer: str
    plans_name: str
    configuration: str

    @property
    def name(self) -> str:
        """Its model folder's name."""
        return f"{self.trainer}__{self.plans_name}__{self.configuration}"

    @property
    def title(self) -> str:
        """The configuration, with plans and trainer where they are not nnU-Net's own."""
        usual = (("nnUNetPlans", self.plans_name), (TRAINER, self.trainer))
        special = [name for expected, name in usual if name != expected]
        return f"{self.configuration} ({', '.join(special)})" if special else self.configuration


@dataclass(frozen=True)
class Candidate:
    """A configuration or an ensemble of two, and its cross-validated Dice."""

    members: tuple[Member, ...]
    folder: Path
    """Where its gathered predictions and their summary.json are."""
    dice: float
    """nnU-Net's foreground mean: NaN as soon as one class is nowhere."""
    dice_per_target: tuple[float, ...]

    @property
    def title(self) -> str:
        """Short name for people."""
        return " + ".join(member.title for member in self.members)

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes that occur; NaN when none does."""
        return nan_mean(self.dice_per_target or (self.dice,))

    @property
    def rank(self) -> float:
        """The mean Dice; -1 when no class occurs."""
        return -1.0 if math.isnan(self.mean_dice) else self.mean_dice


@dataclass(frozen=True)
class Selection:
    """What `best` found, and what `predict` uses."""

    task: str
    folds: tuple[FoldName, ...]
    """Those that were compared."""
    targets: tuple[str, ...]
    """Names of the classes that were scored."""
    candidates: tuple[Candidate, ...]
    """Single configurations, then ensembles."""
    best_index: int
    ensembling_allowed: bool
    dice_after: float
    """Foreground mean of the best one after post-processing."""
    dice_after_per_target: tuple[float, ...]
    postprocessing: PostProcessing
    postprocessing_file: Path
    plans_file: Path
    postprocessing_text: str = ""
    notes: tuple[str, ...] = ()
    prediction_folds: tuple[FoldName, ...] = ()
    """Those to predict with, at least the compared ones; empty means just these."""
    compared: tuple[ComparedFold, ...] = ()
    """The weights that were compared, where validations tell them."""

    @property
    def best(self) -> Candidate:
        return self.candidates[self.best_index]

    @property
    def mean_dice_after(self) -> float:
        """Mean Dice of the best one after post-processing, over the classes that occur."""
        return nan_mean(self.dice_after_per_target or (self.dice_after,))

    @property
    def members(self) -> tuple[Member, ...]:
        """The configurations to predict with and average."""
        return self.best.members

    def table(self) -> str:
        """The comparison as aligned text, the best one marked, and what it becomes by post-processing."""
        lines = [("", "Dice", *self.targets, "")]
        for candidate in self.candidates:
            mark = "← best" if candidate is self.best else ""
            lines.append((candidate.title, *map(shown, (candidate.dice, *candidate.dice_per_target)), mark))
        if self.postprocessing.steps:
            lines.append(("  after post-processing", *map(shown, (self.dice_after, *self.dice_after_per_target)), ""))
        said = (*self.notes, f"Post-processing: {self.postprocessing_text}." if self.postprocessing_text else "")
        return "\n".join([aligned([_filled(line, len(lines[0])) for line in lines]), "", *filter(None, said)])


def save_selection(selection: Selection, path: Path) -> None:
    """Write nnU-Net's inference_information.json; raises StorageError.

    Its "folds" are those to predict with; "compared_folds", which nnU-Net does not know, is there where these differ,
    and "compared_weights" where they are known.
    """
    considered = [c.members[0] for c in selection.candidates if len(c.members) == 1]
    folds = selection.prediction_folds or selection.folds
    compared = {} if folds == selection.folds else {"compared_folds": list(selection.folds)}
    if selection.compared:
        compared |= {COMPARED_WEIGHTS: to_json(selection.compared)}
    write_json(
        path,
        {
            "folds": list(folds),
            "dataset_name_or_id": selection.task,
            "considered_models": [
                {"plans": m.plans_name, "configuration": m.configuration, "trainer": m.trainer} for m in considered
            ],
            "ensembling_allowed": selection.ensembling_allowed,
            "all_results": {result_name(c, selection.folds): c.dice for c in selection.candidates},
            "best_model_or_ensemble": {
                "result_on_crossval_pre_pp": selection.best.dice,
                "result_on_crossval_post_pp": selection.dice_after,
                "postprocessing_file": str(selection.postprocessing_file),
                "some_plans_file": str(selection.plans_file),
                "selected_model_or_models": [
                    {"configuration": m.configuration, "trainer": m.trainer, "plans_identifier": m.plans_name}
                    for m in selection.members
                ],
            },
        }
        | compared,
    )


def load_selection(path: Path) -> Selection:
    """Read inference_information.json, ours or nnU-Net's, with the scores of the folders beside it that exist.

    Raises ModelError when the file is missing or something else.
    """
    values = read_json(path, ModelError)
    try:
        return _parsed(values, Path(path).parent)
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as wrong:
        raise ModelError(
            f"{path} is no inference_information.json ({lack_of(wrong)}); run 'nnsegment best {Path(path).parent.name}' again."
        ) from wrong


def instructions(selection: Selection, folders: TaskFolders) -> str:
    """How to predict with the selection, as command lines."""
    models = [shlex.quote(str(folders.results / member.name)) for member in selection.members]
    folds = " ".join(map(str, selection.prediction_folds or selection.folds))
    several = len(models) > 1
    outputs = [f"OUTPUT_FOLDER_MODEL_{n}" for n in range(1, len(models) + 1)] if several else ["OUTPUT_FOLDER"]
    lines = [
        f"# {selection.best.title}, cross-validated Dice {shown(selection.best.dice)}",
        "# Everything in one command:",
        f"nnsegment predict -i INPUT_FOLDER -o OUTPUT_FOLDER -t {selection.task}{_workspace(folders)}",
        "# The same step by step:",
    ]
    for model, output in zip(models, outputs, strict=True):
        keep = " --save-probabilities" if several else ""
        lines.append(f"nnsegment predict -i INPUT_FOLDER -o {output} -m {model} -f {folds}{keep}")
    if several:
        lines.append(f"nnsegment ensemble -i {' '.join(outputs)} -o OUTPUT_FOLDER")
    if selection.postprocessing.steps:
        rules = shlex.quote(str(selection.postprocessing_file))
        lines.append(f"nnsegment postprocess -i OUTPUT_FOLDER -o OUTPUT_FOLDER_PP --rules {rules}")
    return "\n".join(lines) + "\n"


def prediction_notes(best: Candidate, compared: Sequence[FoldName], folds: Sequence[FoldName]) -> tuple[str, ...]:
    """What to say where the best one predicts with more folds than were compared."""
    if set(folds) == set(compared):
        return ()
    trained = "all that are trained" if len(best.members) == 1 else "all that each of them has trained"
    return (f"Predictions use fold {', '.join(map(str, folds))} of {best.title}, {trained}, not only those compared.",)


def member_of(model: ModelFolders) -> Member:
    """The member a model folder's name tells."""
    return _member(model.folder.name)


def ensemble_name(members: Sequence[Member], folds: Sequence[FoldName]) -> str:
    """nnU-Net's name of an ensemble's folder."""
    return "___".join(["ensemble", *(member.name for member in members), "_".join(map(str, folds))])


def result_name(candidate: Candidate, folds: Sequence[FoldName]) -> str:
    """nnU-Net's name of a candidate in `all_results`."""
    return candidate.members[0].name if len(candidate.members) == 1 else ensemble_name(candidate.members, folds)


def _parsed(values: Mapping, results: Path) -> Selection:
    folds, best = tuple(values["folds"]), values["best_model_or_ensemble"]
    compared = tuple(values.get("compared_folds", folds))
    candidates = tuple(_read_candidate(name, dice, compared, results) for name, dice in values["all_results"].items())
    chosen = {Member(m["trainer"], m["plans_identifier"], m["configuration"]) for m in best["selected_model_or_models"]}
    index = next(i for i, c in enumerate(candidates) if set(c.members) == chosen)
    folder = candidates[index].folder
    rules = _nearest(Path(best["postprocessing_file"]), folder / PICKLE_FILE, folder / JSON_FILE)
    labels, after = _labels(results, candidates), _averages(folder / POSTPROCESSED / SUMMARY)
    postprocessing = load_postprocessing(rules)
    return Selection(
        task=str(values["dataset_name_or_id"]),
        folds=compared,
        targets=_titles(labels, _averages(folder / SUMMARY)),
        candidates=candidates,
        best_index=index,
        ensembling_allowed=bool(values["ensembling_allowed"]),
        dice_after=float(best["result_on_crossval_post_pp"]),
        dice_after_per_target=_dice(after),
        postprocessing=postprocessing,
        postprocessing_file=rules,
        plans_file=_nearest(Path(best["some_plans_file"]), folder / "plans.json"),
        postprocessing_text=postprocessing.describe(labels) if labels else "",
        notes=prediction_notes(candidates[index], compared, folds),
        prediction_folds=folds,
        compared=compared_folds(values),
    )


def _read_candidate(name: str, dice: float, folds: Sequence[FoldName], results: Path) -> Candidate:
    if not name.startswith("ensemble___"):
        members, folder = (_member(name),), ModelFolders(results / name).crossvalidation(tuple(folds))
    else:
        members, folder = tuple(map(_member, name.split("___")[1:-1])), results / "ensembles" / name
    return Candidate(members, folder, float(dice), _dice(_averages(folder / SUMMARY)))


def _member(name: str) -> Member:
    trainer, *plans_name, configuration = name.split("__")
    return Member(trainer, "__".join(plans_name), configuration)


def _averages(path: Path) -> Scores | None:
    return load_scores(path) if path.is_file() else None


def _dice(scores: Scores | None) -> tuple[float, ...]:
    return tuple(metrics.dice for metrics in scores.mean) if scores else ()


def _nearest(named: Path, *beside: Path) -> Path:
    """The file that was named, or where it is after the results folder was moved."""
    return next((path for path in (named, *beside) if path.is_file()), named)


def _labels(results: Path, candidates: Sequence[Candidate]) -> LabelSet | None:
    """The label names from the dataset.json of a member."""
    for member in (m for c in candidates for m in c.members):
        if (results / member.name / "dataset.json").is_file():
            return LabelSet.from_dataset_json(read_json(results / member.name / "dataset.json", ModelError))
    return None


def _titles(labels: LabelSet | None, scores: Scores | None) -> tuple[str, ...]:
    if scores is None:
        return ()
    return tuple(labels.name_of(target) for target in scores.targets) if labels else scores.titles


def _workspace(folders: TaskFolders) -> str:
    """The option that finds the task again, where one folder holds everything."""
    root = folders.workspace.results.parent
    return f" --workspace {shlex.quote(str(root))}" if folders.workspace == type(folders.workspace).at(root) else ""


def _filled(line: tuple[str, ...], length: int) -> tuple[str, ...]:
    """A line with its mark in the last column, blanks where a score is missing."""
    return (*line[:-1], *[""] * (length - len(line)), line[-1])
