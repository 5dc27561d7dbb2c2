"""The report's sections about training, scores and pictures of the results."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import NNSegmentError, counted, some
from ..folders import FoldFolder
from ..image import read_image, read_labels
from ..labels import Label
from ..model.selected import trained_again
from ..scores import CaseScores, Scores, nan_mean, shown
from ..selection.record import Selection
from ..terminal import duration
from .charts import dice_figure, runs_figure
from .contents import Contents, TrainedFold, TrainedModel
from .curves import latest_epochs, progress_figure
from .doubts import doubts_of
from .markup import (
    Markup,
    absent,
    code,
    element,
    figure,
    folded,
    joined,
    paragraph,
    picture,
    section,
    swatch,
    table,
    text,
)
from .overlays import Overlay, draw_overlay
from .plots import inline_svg

N_WORST = 2
"""Worst validation cases shown beside the best one."""
MOST_NAMED = 6
"""Classes named one by one where space is short."""
N_LOWEST = 3
"""Classes named of more."""
MOST_CASES = 500
"""Of a table, which names `MOST_NAMED` classes at most; more would make the page heavy and nobody reads them."""
_SEEN = "The fold 'all' trains on every case, so its scores are on cases it has seen and say nothing about new ones."
_SEEN_TOO = "Fold {} was trained on {} that it validates with ({}); such scores say nothing about new cases."


def training_section(contents: Contents) -> Markup:
    """Learning curves of every run."""
    lead = (
        "The loss should fall and the Dice on small patches rise; the two losses drifting apart means that the network "
        "learns the training cases by heart."
    )
    if not contents.models:
        line = absent(f"Nothing is trained yet; run: nnsegment train {contents.folders.name} 3d_fullres 0")
        return section("training", "Training", lead, line)
    return section("training", "Training", lead, *(_training(model) for model in contents.models))


def results_section(contents: Contents) -> Markup:
    """Dice and surface distances per class and case of every validated model."""
    lead = (
        "Each validation case was segmented by a network that had not seen it, unless a remark below tells otherwise. "
        "Dice is the overlap with the reference: 0 none, 1 identical."
    )
    validated = [model for model in contents.models if model.scores]
    if not validated:
        line = absent("No run is validated yet; a run validates itself at its end, or run: nnsegment validate")
        return section("results", "Results", lead, line)
    return section("results", "Results", lead, *(_results(model, contents) for model in validated))


def selection_section(contents: Contents) -> Markup:
    """The table of models and ensembles with the best marked."""
    lead = "Single models and pairs of them (ensembles), compared by their mean Dice in cross-validation."
    chosen = contents.selection
    if chosen is None:
        line = absent(f"No model was chosen yet; run: nnsegment best {contents.folders.name}")
        return section("selection", "Selection", lead, line)
    ranked = sorted(chosen.candidates, key=lambda candidate: -candidate.rank)
    rows = [(c.title, *map(shown, (c.dice, *c.dice_per_target))) for c in ranked]
    return section(
        "selection",
        "Selection",
        lead,
        absent(outdated) if (outdated := trained_again(contents.folders.results)) else "",
        table(("model or ensemble", "mean Dice", *chosen.targets), _even(rows), best=ranked.index(chosen.best)),
        paragraph(_postprocessing(chosen)),
    )


def pictures_section(contents: Contents) -> Markup:
    """Outlines over the best and the worst validation cases of the best model."""
    lead = (
        "Reference solid, prediction dashed and paler, in the slices where they fill and differ most; radiological view: "
        "the patient's right is on the left."
    )
    model = contents.best_model
    if model is None:
        return section("pictures", "Best and worst cases", lead, absent("There is no validated run to show yet."))
    cases = best_and_worst(model.scores.cases)
    names = [label.name for label in contents.labels.foreground]
    return section(
        "pictures",
        "Best and worst cases",
        lead,
        paragraph(f"Model {model.title}; outlines: {_outlines(names)}."),
        *(_overlay(kind, case, model, contents) for kind, case in cases),
    )


def prediction_section(contents: Contents) -> Markup:
    """The command lines that apply the result."""
    lead = "The folder IMAGES holds new cases named like the training images, one file per channel (CASE_0000, CASE_0001, …)."
    name = shlex.quote(contents.folders.name)
    if not contents.models:
        return section("predict", "How to predict", lead, absent("A model has to be trained first."))
    configurations = dict.fromkeys(model.folders.configuration for model in contents.models)
    commands = [f"nnsegment predict -t {name} -c {c} -i IMAGES -o PREDICTIONS" for c in configurations]
    if contents.selection is None:
        return section("predict", "How to predict", lead, code("\n".join(commands)))
    return section(
        "predict",
        "How to predict",
        lead,
        paragraph(f"What was selected ({contents.selection.best.title}), ensemble and post-processing included:"),
        code(f"nnsegment predict -t {name} -i IMAGES -o PREDICTIONS"),
        paragraph("A single configuration:"),
        code("\n".join(commands)),
    )


def best_and_worst(cases: Sequence[CaseScores]) -> list[tuple[str, CaseScores]]:
    """The best case and up to `N_WORST` worst ones by mean Dice, none twice; cases without a Dice are left out."""
    ordered = sorted((c for c in cases if not math.isnan(c.mean_dice)), key=lambda c: c.mean_dice)
    worst = [("worst" if i == 0 else f"worst but {i}", case) for i, case in enumerate(ordered[:-1][:N_WORST])]
    return [("best", ordered[-1]), *worst] if ordered else []


def _training(model: TrainedModel) -> Markup:
    told = [fold for fold in model.folds if fold.epochs]
    if not told:
        return joined([element("h3", model.title), absent("These folds have no record of their epochs.")])
    overview = runs_figure({f"fold {fold.name}": fold.epochs for fold in told}, "Quick Dice of every epoch")
    curves = [
        folded(f"All curves of fold {f.name}", figure(inline_svg(progress_figure(f.epochs), f"Fold {f.name}")))
        for f in told
    ]
    header = ("fold", "epochs", "time", "s per epoch", "quick Dice", "validation Dice", "state")
    return joined(
        [
            element("h3", model.title),
            table(header, [_run_row(fold) for fold in model.folds]),
            figure(inline_svg(overview, f"Quick Dice of {model.title}")),
            *curves,
        ]
    )


def _run_row(fold: TrainedFold) -> tuple:
    epochs = latest_epochs(fold.epochs)
    validated = shown(fold.scores.dice) if fold.scores else "–"
    if not epochs:
        return fold.name, "–", "–", "–", "–", validated, fold.state
    seconds = [e.seconds for e in epochs]
    done = f"{epochs[-1].epoch} of {epochs[-1].epochs}"
    typical = f"{np.median(seconds):.3g}"
    return fold.name, done, duration(sum(seconds)), typical, shown(epochs[-1].mean_dice), validated, fold.state


def _results(model: TrainedModel, contents: Contents) -> Markup:
    scores = model.scores
    names = [contents.labels.name_of(target) for target in scores.targets]
    colors = [_color(contents, target) for target in scores.targets]
    dice = {name: [case.metrics[i].dice for case in scores.cases] for i, name in enumerate(names)}
    drawn = dice_figure(dice, colors, f"Dice of {len(scores.cases)} validation cases")
    return joined(
        [
            element("h3", model.title),
            *(absent(_seen(fold)) for fold in model.folds if fold.scores and _seen(fold)),
            *map(absent, doubts_of(model, contents)),
            table(*_class_table(scores, names, _unit(contents))),
            figure(
                inline_svg(drawn, f"Dice per class of {model.title}"),
                "One dot per case; box: middle half; bar: median.",
            ),
            folded(_case_title(len(scores.cases)), table(*_case_table(model, names, _unit(contents)))),
        ]
    )


def _seen(fold: TrainedFold) -> str:
    """What to say of scores on cases that the network has seen; empty where it has seen none of them."""
    if fold.name == "all":
        return _SEEN
    return _SEEN_TOO.format(fold.name, counted(len(fold.seen), "case"), some(fold.seen)) if fold.seen else ""


def _unit(contents: Contents) -> str:
    """Of distances: mm, but for pictures."""
    return "pixels" if contents.fingerprint and contents.fingerprint.are_pictures else "mm"


def _class_table(scores: Scores, names: Sequence[str], unit: str) -> tuple[tuple, list]:
    surface = any(m.hd95_mm is not None for m in scores.mean)
    header = ("class", "mean Dice", "± std", "median", "lowest", "cases")
    rows = []
    for i, (name, mean) in enumerate(zip(names, scores.mean, strict=True)):
        values = np.array([c.metrics[i].dice for c in scores.cases if not math.isnan(c.metrics[i].dice)])
        spread = [f"{v:.3f}" for v in (values.std(), np.median(values), values.min())] if len(values) else ["–"] * 3
        rows.append((name, shown(mean.dice), *spread, len(values), *(_surface(mean) if surface else ())))
    rows.append(("mean of classes", shown(scores.dice), *[""] * (len(header) - 2 + 2 * surface)))
    return header + (((f"HD95, {unit}", _nsd_title(scores, unit))) if surface else ()), rows


def _surface(metrics) -> tuple[str, str]:
    return shown(metrics.hd95_mm, 2), shown(metrics.nsd, 3)


def _nsd_title(scores: Scores, unit: str) -> str:
    tolerance = scores.mean[0].nsd_tolerance_mm
    return f"surface Dice at {tolerance:g} {unit}" if tolerance else "surface Dice"


def _case_title(n_cases: int) -> str:
    if n_cases <= MOST_CASES:
        return f"All {n_cases} cases, the worst first"
    return f"The {MOST_CASES} worst of {n_cases} cases, the worst first; validation/summary.json of each fold has all"


def _case_table(model: TrainedModel, names: Sequence[str], unit: str = "mm") -> tuple[tuple, list]:
    scores = model.scores
    ordered = sorted(scores.cases, key=lambda c: (not math.isnan(c.mean_dice), c.mean_dice))[:MOST_CASES]
    surface = any(m.hd95_mm is not None for m in scores.mean)
    many = len(names) > MOST_NAMED
    classes = ("mean Dice", "lowest classes") if many else names
    header = ("case", "fold", *classes, *((f"mean HD95, {unit}", "mean surface Dice") if surface else ()))
    return header, [
        (
            c.case_id,
            model.fold_of(c).name,
            *((shown(c.mean_dice, 3), _lowest(c, names)) if many else (shown(m.dice, 3) for m in c.metrics)),
            *(_case_surface(c) if surface else ()),
        )
        for c in ordered
    ]


def _case_surface(case: CaseScores) -> tuple[str, str]:
    values = [[getattr(m, name) for m in case.metrics] for name in ("hd95_mm", "nsd")]
    hd95, nsd = (nan_mean(math.nan if v is None else v for v in column) for column in values)
    return shown(hd95, 2), shown(nsd, 3)


def _overlay(kind: str, case: CaseScores, model: TrainedModel, contents: Contents) -> Markup:
    names = [contents.labels.name_of(target) for target in model.scores.targets]
    title = f"{case.case_id} ({kind}) · {_dice_sentence(case, names)}"
    try:
        drawn = _drawn(case, model.fold_of(case).folder, contents, title)
        return picture(drawn.png, title, _swatches(drawn.labels) if len(names) > MOST_NAMED else "")
    except NNSegmentError as error:
        return absent(f"{title}: the picture is left out. {error}")


def _dice_sentence(case: CaseScores, names: Sequence[str]) -> str:
    """The Dice of every class, or of many the mean and the lowest."""
    if len(names) <= MOST_NAMED:
        return "Dice " + _listed(_scored(case, names))
    return f"mean Dice {shown(case.mean_dice, 3)} · lowest: {_lowest(case, names)}"


def _lowest(case: CaseScores, names: Sequence[str]) -> str:
    defined = (pair for pair in _scored(case, names) if not math.isnan(pair[1]))
    return _listed(sorted(defined, key=lambda pair: pair[1])[:N_LOWEST])


def _scored(case: CaseScores, names: Sequence[str]) -> list[tuple[str, float]]:
    return [(name, metrics.dice) for name, metrics in zip(names, case.metrics, strict=True)]


def _listed(scored: Sequence[tuple[str, float]]) -> str:
    return " · ".join(f"{name} {shown(dice, 3)}" for name, dice in scored)


def _outlines(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= MOST_NAMED else "named below each picture"


def _swatches(labels: Sequence[Label]) -> Markup:
    return joined((Markup(swatch(label.color) + text(label.name)) for label in labels), ", ")


def _drawn(case: CaseScores, fold: FoldFolder, contents: Contents, title: str) -> Overlay:
    reader = contents.task.reader if contents.task else ""
    reference = read_labels(_reference_file(case, contents), reader)
    prediction = read_labels(_moved(case.prediction_file, fold.validation), reader)
    if contents.task is None:
        image = np.zeros(reference.array.shape, np.float32)
    else:
        image = read_image(contents.task.case(case.case_id).images, reader).array[0]
    return draw_overlay(image, reference.array, prediction.array, reference.geometry, contents.labels, title)


def _reference_file(case: CaseScores, contents: Contents) -> Path:
    kept = _moved(case.reference_file, contents.folders.reference_labels)
    return kept if kept.is_file() or contents.task is None else contents.task.case(case.case_id).labels


def _moved(file: Path, folder: Path) -> Path:
    """The file where its record says, else of the same name in `folder`: model folders travel."""
    return file if file.is_file() else folder / file.name


def _color(contents: Contents, target) -> tuple[float, ...]:
    found = next((label.color for label in contents.labels.foreground if label.values == target), (90, 120, 150))
    return tuple(part / 255 for part in found)


def _even(rows: Sequence[tuple]) -> list[tuple]:
    """Rows of one length: a candidate whose predictions are gone has no Dice per class."""
    longest = max(map(len, rows))
    return [row + ("–",) * (longest - len(row)) for row in rows]


def _postprocessing(chosen: Selection) -> str:
    if not chosen.postprocessing.steps:
        return "Keeping only the largest component does not raise the Dice, so predictions are left as they are."
    what = chosen.postprocessing_text or "keep only the largest component"
    before, after = shown(chosen.best.mean_dice), shown(chosen.mean_dice_after)
    return f"Post-processing: {what}; it takes the Dice from {before} to {after}."
