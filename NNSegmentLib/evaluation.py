"""Predictions against references: one case, two folders, nnU-Net's summary.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from .errors import ImageError, SettingsError, some
from .folders import visible
from .geometry import HARDLY_ASKEW
from .given import is_whole
from .image import FILE_ENDINGS, LabelMap, file_ending, read_labels
from .labels import LabelSet, Region
from .machine.memory import Say, unsaid
from .metrics import Counts, PairTable, SurfaceDistances, region_surface_distances, tabulate
from .progress import Progress, in_parallel, silent
from .scores import CaseScores, Metrics, Scores, case_id, load_scores, save_scores

__all__ = [
    "CaseScores", "Metrics", "Scores", "evaluate_files", "evaluate_folder", "evaluate_pair", "evaluate_simple",
    "label_files", "load_scores", "save_scores",
]  # fmt: skip
SUMMARY = "summary.json"
_GRID_TOLERANCE_VOXELS = 0.1
"""Headers of the same grid differ by rounding, never by a tenth of a voxel."""


@dataclass(frozen=True)
class Measure:
    """What to score: targets, the reference value to leave out, and the surfaces (tolerance in mm, None for none)."""

    targets: tuple[Region, ...]
    ignore: int | None = None
    tolerance_mm: float | None = None
    names: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """What summary.json calls the targets, as in `Scores`."""
    known: frozenset[int] = frozenset()
    """The values that references may hold; empty where only the caller knows."""

    def __post_init__(self) -> None:
        if not self.targets:
            raise SettingsError("There is nothing to score: name at least one label.")
        tolerance = self.tolerance_mm
        if tolerance is not None and not (isinstance(tolerance, Real) and tolerance >= 0):
            raise SettingsError(f"The surface tolerance must be 0 mm or more, found {tolerance!r:.60}.")

    @classmethod
    def of(cls, label_set: LabelSet, surface: bool = True, tolerance_mm: float = 1.0) -> Measure:
        """All targets of a task."""
        names = tuple(label_set.name_of(target) for target in label_set.targets)
        known = frozenset(label_set.values) | ({label_set.ignore_value} - {None})
        tolerance = tolerance_mm if surface else None
        return cls(label_set.targets, label_set.ignore_value, tolerance, names, label_set.target_keys, known)

    def scores(self, cases: Sequence[CaseScores]) -> Scores:
        """The scores of cases that were measured so."""
        return Scores(self.targets, tuple(cases), self.names, self.keys)


def evaluate_folder(
    predictions: Path,
    references: Path,
    label_set: LabelSet,
    *,
    file_ending: str | None = None,
    reader: str = "",
    surface: bool = True,
    tolerance_mm: float = 1.0,
    say: Say = unsaid,
    output: Path | None = None,
    workers: int = 2,
    progress: Progress = silent,
) -> Scores:
    """Score every prediction of a folder and write summary.json (`output`, by default into the folder).

    References without a prediction are left out, which `say` hears, as it does of values that are no label. Surface
    metrics are HD95 in mm and the surface Dice at `tolerance_mm`. Raises ImageError for missing references and for
    predictions on another grid.
    """
    measure = Measure.of(label_set, surface, tolerance_mm)
    return _evaluate_folder(predictions, references, measure, file_ending, reader, say, output, workers, progress)


def evaluate_simple(
    predictions: Path,
    references: Path,
    targets: Sequence[Region | int],
    *,
    ignore: int | None = None,
    file_ending: str | None = None,
    reader: str = "",
    surface: bool = True,
    tolerance_mm: float = 1.0,
    say: Say = unsaid,
    output: Path | None = None,
    workers: int = 2,
    progress: Progress = silent,
) -> Scores:
    """Like `evaluate_folder`, for label values or regions given one by one instead of a task's labels.

    Raises SettingsError, too, for targets that are no label values.
    """
    measure = Measure(tuple(map(_region, targets)), ignore, tolerance_mm if surface else None)
    return _evaluate_folder(predictions, references, measure, file_ending, reader, say, output, workers, progress)


def evaluate_pair(
    prediction: LabelMap, reference: LabelMap, label_set: LabelSet, *, surface: bool = True, tolerance_mm: float = 1.0
) -> tuple[Metrics, ...]:
    """The scores of one label map, one per target; raises ImageError when the grids differ."""
    if problem := _grid_problem(prediction, reference):
        raise ImageError(f"The prediction {problem} its reference; resample it onto the reference's grid.")
    return measured(prediction, reference, Measure.of(label_set, surface, tolerance_mm))


def evaluate_files(
    pairs: Sequence[tuple[Path, Path]], measure: Measure, *, reader: str = "", workers: int = 2,
    progress: Progress = silent, say: Say = unsaid,
) -> Scores:  # fmt: skip
    """Score (prediction, reference) files, each read once; `say` hears of reference values that are no label."""

    def score(pair: tuple[Path, Path]) -> tuple[CaseScores, frozenset[int]]:
        maps = read_pair(*pair, reader)
        table = tabulate(maps[0].array, maps[1].array, measure.ignore)
        return CaseScores(case_id(pair[0]), _scored(table, *maps, measure), *pair), table.reference_values

    scored = in_parallel(score, pairs, workers, progress, "evaluating")
    _tell_unknown([values - measure.known for _, values in scored] if measure.known else [], measure, say)
    return measure.scores([scores for scores, _ in scored])


def read_pair(prediction: Path, reference: Path, reader: str = "") -> tuple[LabelMap, LabelMap]:
    """Both label maps; raises ImageError when they lie on different grids, naming the files."""
    maps = read_labels(prediction, reader), read_labels(reference, reader)
    if problem := _grid_problem(*maps):
        raise ImageError(f"{prediction} {problem} its reference {reference}; resample it onto the reference's grid.")
    return maps


def measured(prediction: LabelMap, reference: LabelMap, measure: Measure) -> tuple[Metrics, ...]:
    """The scores of two label maps that lie on one grid, one per target."""
    return _scored(tabulate(prediction.array, reference.array, measure.ignore), prediction, reference, measure)


def _scored(table: PairTable, prediction: LabelMap, reference: LabelMap, measure: Measure) -> tuple[Metrics, ...]:
    counts = [table.counts(target) for target in measure.targets]
    if measure.tolerance_mm is None:
        return tuple(map(overlap, counts))
    grid = reference.geometry
    steps = grid.ijk_to_ras[:3, 2::-1].T if grid.shear > HARDLY_ASKEW else grid.spacing_mm
    surfaces = region_surface_distances(prediction.array, reference.array, measure.targets, steps, measure.ignore)
    return tuple(_with_surface(c, s, measure.tolerance_mm) for c, s in zip(counts, surfaces, strict=True))


def overlap(counts: Counts) -> Metrics:
    """The scores that need no surface."""
    return Metrics(
        counts.dice, counts.iou, counts.tp, counts.fp, counts.fn, counts.tn, n_pred=counts.n_pred, n_ref=counts.n_ref
    )


def label_files(folder: Path, ending: str | None = None) -> tuple[Path, ...]:
    """The label files of a folder, sorted; without `ending` all of the most frequent image ending.

    Raises ImageError when there is none.
    """
    folder = Path(folder)
    names = visible(folder)
    by_ending = {
        e: [p for p in names if p.name.lower().endswith(e.lower())] for e in ([ending] if ending else FILE_ENDINGS)
    }
    found = max(by_ending.values(), key=len)
    if not found:
        raise ImageError(
            f"{folder} should hold label maps ({ending or 'NIfTI, NRRD, MHA, …'}), found none; choose another folder."
        )
    return tuple(found)


def pair_with_references(predictions: Sequence[Path], references: Path) -> list[tuple[Path, Path]]:
    """Each prediction with the reference of the same case, whatever its ending; raises ImageError naming those missing."""
    present = _by_name(Path(references))
    pairs = [(p, _reference(p, present)) for p in predictions]
    missing = [p.name for p, reference in pairs if reference is None]
    if missing:
        raise ImageError(
            f"Every prediction needs a reference in {references}, missing for {len(missing)} of {len(pairs)}: "
            f"{some(missing)}; give the folder with the labels of these cases."
        )
    return pairs


def _evaluate_folder(predictions, references, measure, ending, reader, say, output, workers, progress) -> Scores:
    predictions, references = Path(predictions), Path(references)
    files = label_files(predictions, ending)
    pairs = pair_with_references(files, references)
    _tell_missing(files, label_files(references), say)
    scores = evaluate_files(pairs, measure, reader=reader, workers=workers, progress=progress, say=say)
    save_scores(scores, output or predictions / SUMMARY)
    return scores


def _region(target: Region | int) -> Region:
    values = (target,) if is_whole(target) or not isinstance(target, Iterable) else tuple(target)
    if not values or not all(is_whole(value) and value >= 0 for value in values):
        raise SettingsError(
            f"Labels to score are whole numbers such as 1, or several that make a region such as (1, 2), found {target!r}; "
            "give the values in the label maps."
        )
    return tuple(int(value) for value in values)


def _by_name(folder: Path) -> dict[str, Path]:
    """The label files of a folder by their names, the ending in small letters."""
    files = visible(folder)
    return {case_id(p) + file_ending(p): p for p in files if p.name.lower().endswith(FILE_ENDINGS) and p.is_file()}


def _reference(prediction: Path, present: Mapping[str, Path]) -> Path | None:
    endings = (file_ending(prediction), *FILE_ENDINGS)
    return next((present[name] for ending in endings if (name := case_id(prediction) + ending) in present), None)


def _tell_missing(predictions: Sequence[Path], references: Sequence[Path], say: Say) -> None:
    missing = sorted({case_id(p) for p in references} - {case_id(p) for p in predictions})
    if missing:
        say(f"Left out {len(missing)} of {len(references)} references, which have no prediction: {some(missing)}.")


def _tell_unknown(unknown: Sequence[frozenset[int]], measure: Measure, say: Say) -> None:
    """Masks of 0 and 255 would score 0 without a word, since conversion made 1 of the 255."""
    values = sorted(frozenset().union(*unknown))
    if values:
        what = "are no labels" if len(values) > 1 else "is no label"
        say(
            f"{sum(map(bool, unknown))} of {len(unknown)} references hold {some(values)}, which {what} of the "
            f"task ({some(sorted(measure.known))}) and count as background: score with the label files in labelsTr, "
            "or give the values to score with --labels."
        )


def _with_surface(counts: Counts, surface: SurfaceDistances, tolerance_mm: float) -> Metrics:
    flat = overlap(counts)
    return Metrics(
        **{**vars(flat), "hd95_mm": surface.hd95_mm, "nsd": surface.nsd(tolerance_mm), "nsd_tolerance_mm": tolerance_mm}
    )


def _grid_problem(prediction: LabelMap, reference: LabelMap) -> str:
    """What is wrong, between 'The prediction' and 'its reference'; empty when the grids agree."""
    found, expected = prediction.geometry, reference.geometry
    if found.shape != expected.shape:
        return f"has {found.shape} voxels (z, y, x) instead of the {expected.shape} of"
    distance = found.corner_distance_mm(expected)
    if distance > _GRID_TOLERANCE_VOXELS * min(expected.spacing_mm):
        return f"lies {distance:.3g} mm away from"
    return ""
