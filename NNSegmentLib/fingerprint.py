"""What a data set looks like to the planner: sizes, spacings and foreground intensities, in one read per case.

nnU-Net draws the same number of foreground voxels from every case (10^8 in all) and takes their statistics, so every
case with foreground weighs the same. Here the same weighting is applied to exact moments and to sorted values, of
which a case keeps at most `MAX_KEPT_VALUES / cases`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .errors import ImageError, TaskError
from .grids.planes import is_of_pictures, is_plane
from .grids.stray_channels import channels_apart_mm, tell_apart
from .image import Image, LabelMap, read_image, read_labels
from .labels import LARGEST_VALUE
from .machine.memory import Say, unsaid
from .planning.plan import IntensityStats
from .preprocessing.crop import cropped, nonzero_box
from .progress import Progress, in_parallel, silent
from .records import from_json, lack_of, read_json, to_json, write_json
from .task import Case, Task

PERCENTILES = (0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5)
"""Of the foreground of one case, kept for the report."""
MAX_KEPT_VALUES = 4_000_000
"""Foreground values of all cases together that are kept per channel; more would only cost memory."""
_BLOCK = 1 << 20
_LARGEST = 1 << 31
"""Number of voxels or mm along an axis."""
_ROUNDING = 1e-9
"""Of summed shares."""


@dataclass(frozen=True)
class ChannelFacts:
    """Foreground intensities of one channel of one case."""

    mean: float
    std: float
    min: float
    max: float
    percentiles: tuple[float, ...]
    """At `PERCENTILES`."""


@dataclass(frozen=True)
class CaseFacts:
    """One case as it is on disk, axes in file order (z, y, x)."""

    id: str
    shape: tuple[int, int, int]
    """Before cropping."""
    shape_after_crop: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    label_voxels: tuple[tuple[int, int], ...]
    """(value, number of voxels) of every value in the label map, background included."""
    channels: tuple[ChannelFacts, ...]
    """Empty when the case has no foreground."""


@dataclass(frozen=True)
class Fingerprint:
    """nnU-Net's fingerprint of a task; shapes and spacings in file order (z, y, x), one per case."""

    shapes_after_crop: tuple[tuple[int, int, int], ...]
    spacings_mm: tuple[tuple[float, float, float], ...]
    intensities: tuple[IntensityStats, ...]
    """One per channel, over the foreground of all cases."""
    median_relative_size_after_cropping: float
    cases: tuple[CaseFacts, ...] = ()
    """For the report; empty when the file came from nnU-Net."""

    @property
    def are_planes(self) -> bool:
        """Whether all images are 2-D: their thickness is made up, and says nothing about volumes."""
        return all(map(is_plane, self.shapes_after_crop, self.spacings_mm))

    @property
    def are_pictures(self) -> bool:
        """Whether all images are 2-D and have no size in mm."""
        return self.are_planes and all(map(is_of_pictures, self.spacings_mm))

    def is_of(self, case_ids: Iterable[str]) -> bool:
        """Whether these cases were measured; of a file of nnU-Net, which does not tell, whether as many."""
        ids = set(case_ids)
        return ids == {facts.id for facts in self.cases} if self.cases else len(ids) == len(self.spacings_mm)


@dataclass(frozen=True)
class _Values:
    """Ascending foreground values of one case and channel, each standing for `weight` of the case."""

    values: np.ndarray
    weights: np.ndarray


def compute_fingerprint(task: Task, workers: int = 2, progress: Progress = silent, say: Say = unsaid) -> Fingerprint:
    """Read every case once and summarise it; `say` hears of channels that lie apart.

    Raises ImageError for unusable files, TaskError without foreground.
    """
    if not task.cases:
        raise TaskError(f"{task.name} has no training case; add images and labels to imagesTr and labelsTr.")
    kept = max(1000, MAX_KEPT_VALUES // len(task.cases))
    results = in_parallel(lambda case: _examine(case, task, kept), task.cases, workers, progress, "fingerprint")
    cases = tuple(facts for facts, _, _ in results)
    tell_apart({facts.id: apart_mm for facts, _, apart_mm in results}, say)
    if not any(facts.channels for facts in cases):
        raise TaskError(
            f"No case of {task.name} has a labelled voxel (value above 0) in {len(cases)} cases; "
            "a network needs examples, check the label files."
        )
    return Fingerprint(
        shapes_after_crop=tuple(facts.shape_after_crop for facts in cases),
        spacings_mm=tuple(facts.spacing_mm for facts in cases),
        intensities=tuple(
            _over_cases([facts.channels[c] for facts in cases if facts.channels], [v[c] for _, v, _ in results if v])
            for c in range(len(task.channels))
        ),
        median_relative_size_after_cropping=float(
            np.median([np.prod(facts.shape_after_crop) / np.prod(facts.shape) for facts in cases])
        ),
        cases=cases,
    )


def save_fingerprint(fingerprint: Fingerprint, path: Path) -> None:
    """Write nnU-Net's dataset_fingerprint.json, and the facts of each case beside it; raises StorageError."""
    write_json(
        path,
        {
            "spacings": [list(spacing) for spacing in fingerprint.spacings_mm],
            "shapes_after_crop": [list(shape) for shape in fingerprint.shapes_after_crop],
            "foreground_intensity_properties_per_channel": {
                str(i): asdict(stats) for i, stats in enumerate(fingerprint.intensities)
            },
            "median_relative_size_after_cropping": fingerprint.median_relative_size_after_cropping,
        },
        sort_keys=True,
    )
    if fingerprint.cases:
        write_json(cases_path(path), to_json(fingerprint.cases))


def load_fingerprint(path: Path) -> Fingerprint:
    """Read a dataset_fingerprint.json, nnU-Net's or ours; raises TaskError."""
    values = read_json(path)
    try:
        intensities = values["foreground_intensity_properties_per_channel"]
        shapes, spacings = values["shapes_after_crop"], values["spacings"]
        _require_grids(shapes, spacings)
        return Fingerprint(
            shapes_after_crop=tuple(tuple(int(n) for n in shape) for shape in shapes),
            spacings_mm=tuple(tuple(float(s) for s in spacing) for spacing in spacings),
            intensities=tuple(from_json(IntensityStats, intensities[key]) for key in sorted(intensities, key=int)),
            median_relative_size_after_cropping=float(values["median_relative_size_after_cropping"]),
            cases=_load_cases(cases_path(path)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as wrong:
        raise TaskError(f"{path} is no fingerprint ({lack_of(wrong)}); delete it and plan again.") from wrong


def _require_grids(shapes: Sequence, spacings: Sequence) -> None:
    """Raises ValueError or TypeError unless there is a size and a spacing along three axes for each case."""
    if not shapes or len(shapes) != len(spacings):
        raise ValueError(f"{len(shapes)} sizes and {len(spacings)} spacings")
    for shape, spacing in zip(shapes, spacings, strict=True):
        if len(shape) != 3 or not all(1 <= n <= _LARGEST for n in shape):
            raise ValueError("a size")
        if len(spacing) != 3 or not all(0 < s < _LARGEST for s in spacing):
            raise ValueError("a spacing")


def _load_cases(path: Path) -> tuple[CaseFacts, ...]:
    values = read_json(path) if path.is_file() else []
    try:
        return tuple(from_json(CaseFacts, facts) for facts in values)
    except (TaskError, TypeError) as wrong:
        raise TaskError(
            f"{path} should list the cases that were measured, found something else ({str(wrong).split(';')[0]}); measure "
            "them again with 'nnsegment plan --clean'."
        ) from wrong


def cases_path(path: Path) -> Path:
    """Where the facts of the cases are kept beside a fingerprint file."""
    return Path(path).with_suffix(".cases")


def _examine(case: Case, task: Task, kept: int) -> tuple[CaseFacts, tuple[_Values, ...], float]:
    """The facts of a case, its foreground values by channel, and how far its channels lie apart in mm."""
    image = read_image(case.images, task.reader)
    labels = read_labels(_label_file(case), task.reader)
    _require_usable(case, image, labels, len(task.channels))
    box = nonzero_box(image.array)
    foreground = cropped(labels.array, box) > 0
    ordered = [np.sort(channel[foreground]) for channel in cropped(image.array, box)] if foreground.any() else []
    facts = CaseFacts(
        id=case.id,
        shape=image.geometry.shape,
        shape_after_crop=tuple(int(n) for n in box[1]),
        spacing_mm=tuple(float(s) for s in image.geometry.spacing_mm),
        label_voxels=_label_voxels(labels.array),
        channels=tuple(_channel_facts(values) for values in ordered),
    )
    return facts, tuple(_weighted(values, kept) for values in ordered), channels_apart_mm(case.images, task.reader)


def _label_file(case: Case) -> Path:
    if case.labels is None:
        raise TaskError(f"Case {case.id} should have a label file, found none; add it or remove the case.")
    return case.labels


def _require_usable(case: Case, image: Image, labels: LabelMap, n_channels: int) -> None:
    if image.array.shape[1:] != labels.array.shape:
        raise ImageError(
            f"Case {case.id}: the image has {image.array.shape[1:]} voxels (z, y, x) but its label map "
            f"{labels.array.shape}; resample the labels onto the image ('nnsegment check --fix' does it)."
        )
    if len(image.array) != n_channels:
        raise ImageError(
            f"Case {case.id} has {len(image.array)} channels, dataset.json names {n_channels}; "
            "add the missing files or correct channel_names."
        )
    if np.isnan(image.array.min()):
        raise ImageError(f"Case {case.id} holds voxels that are not a number (NaN); replace them or remove the case.")
    low, high = int(labels.array.min()), int(labels.array.max())
    if low < 0 or high > LARGEST_VALUE:
        raise ImageError(
            f"Case {case.id} has labels from {low} to {high}; they should be 0 (background) to {LARGEST_VALUE}, "
            "renumber them or export the file again."
        )


def _label_voxels(labels: np.ndarray) -> tuple[tuple[int, int], ...]:
    counts = np.zeros(int(labels.max()) + 1, np.int64)
    for plane in labels:
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    return tuple((int(value), int(counts[value])) for value in np.flatnonzero(counts))


def _channel_facts(ordered: np.ndarray) -> ChannelFacts:
    mean = float(ordered.mean(dtype=np.float64))
    blocks = (ordered[i : i + _BLOCK].astype(np.float64) - mean for i in range(0, len(ordered), _BLOCK))
    positions = np.asarray(PERCENTILES) / 100 * (len(ordered) - 1)
    return ChannelFacts(
        mean=mean,
        std=float(np.sqrt(sum(np.dot(block, block) for block in blocks) / len(ordered))),
        min=float(ordered[0]),
        max=float(ordered[-1]),
        percentiles=tuple(float(v) for v in ordered[np.rint(positions).astype(int)]),
    )


def _weighted(ordered: np.ndarray, kept: int) -> _Values:
    """The distinct values with their shares; where too many, values at evenly spaced ranks."""
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    if len(first) <= kept:
        return _Values(ordered[first], np.diff(first, append=len(ordered)) / len(ordered))
    ranks = ((np.arange(kept) + 0.5) * (len(ordered) / kept)).astype(np.int64)
    return _Values(ordered[ranks], np.full(kept, 1 / kept))


def _over_cases(facts: Sequence[ChannelFacts], values: Sequence[_Values]) -> IntensityStats:
    """Statistics of the mixture of all cases in equal parts."""
    means, stds = np.array([f.mean for f in facts]), np.array([f.std for f in facts])
    low, median, high = _weighted_percentiles(values, (0.5, 50.0, 99.5))
    return IntensityStats(
        mean=float(means.mean()),
        std=float(np.sqrt((stds**2).mean() + means.var())),
        min=min(f.min for f in facts),
        max=max(f.max for f in facts),
        median=median,
        percentile_00_5=low,
        percentile_99_5=high,
    )


def _weighted_percentiles(parts: Sequence[_Values], percentiles: Sequence[float]) -> list[float]:
    """As numpy's of very many draws: where a percentile falls just between two values, between them.

    So it does when half of the cases lie wholly below the others: the median is the middle of the gap.
    """
    shares = np.asarray(percentiles) / 100
    values = np.concatenate([part.values for part in parts])
    order = np.argsort(values)
    values, reached = values[order].astype(float), np.cumsum(np.concatenate([part.weights for part in parts])[order])
    reached /= reached[-1]
    last = len(values) - 1
    found = np.minimum(np.searchsorted(reached, shares - _ROUNDING), last)
    between = np.abs(reached[found] - shares) <= _ROUNDING
    following = np.minimum(found + 1, last)
    return np.where(between, shares * values[found] + (1 - shares) * values[following], values[found]).tolist()
