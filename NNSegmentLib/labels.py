"""Label names and values, regions of several labels, the ignore label: what nnU-Net's `labels` entry means."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .errors import TaskError, some
from .escapes import command_in, printable
from .given import is_whole

Region = tuple[int, ...]
"""The label values that make up one target; a plain label is a region of one value."""
IGNORE = "ignore"
BACKGROUND = "background"
LARGEST_VALUE = 65535
"""Label maps are written with 16 bits."""
_LONGEST_NAME = 500


@dataclass(frozen=True)
class Label:
    """One named target: the voxel values it covers, and how Slicer shows it."""

    name: str
    values: Region
    color: tuple[int, int, int] | None = None
    """RGB, 0 to 255."""
    terminology: str = ""
    """Slicer's terminology entry as a string; empty when unknown."""
    is_list: bool = field(default=False, compare=False)
    """Whether dataset.json writes a single value as a list, by which nnU-Net tells regions from labels."""

    def __post_init__(self) -> None:
        values = (self.values,) if is_whole(self.values) else self.values
        are_whole = isinstance(values, Collection) and len(values) > 0 and all(map(is_whole, values))
        if not isinstance(self.name, str) or not are_whole:
            raise TaskError(
                f"A label has a name and the whole numbers that it covers, found {self.name!r:.60} and {self.values!r:.60}; "
                "write Label('liver', (1,))."
            )
        require_name(self.name, "label")
        object.__setattr__(self, "values", tuple(int(value) for value in values))

    @property
    def is_background(self) -> bool:
        return set(self.values) == {0}


@dataclass(frozen=True)
class LabelSet:
    """All labels of a task in the order of dataset.json, background and ignore included.

    Raises TaskError when the background is missing, a value is negative, or regions lack their painting order.
    """

    labels: tuple[Label, ...]
    regions_class_order: tuple[int, ...] = ()
    """With regions: the value painted for each foreground region in turn; later ones overwrite earlier ones."""

    def __post_init__(self) -> None:
        names = [label.name for label in self.labels]
        if len(set(names)) != len(names):
            raise TaskError(f"Label names must differ, found {', '.join(names)}; rename one of them.")
        if not any(label.name == BACKGROUND and label.values == (0,) for label in self.labels):
            raise TaskError('The labels must contain "background": 0; add it to dataset.json.')
        if any(value < 0 for label in self.labels for value in label.values):
            raise TaskError("Label values must be 0 or larger whole numbers; renumber them in dataset.json.")
        painted = [*self.regions_class_order, *(value for label in self.labels for value in label.values)]
        if max(painted) > LARGEST_VALUE:
            raise TaskError(
                f"Label values must be at most {LARGEST_VALUE}, found {max(painted)}; renumber them in dataset.json."
            )
        ignore = self.ignore_value
        if ignore is not None and ignore != max(self.values, default=0) + 1:
            raise TaskError(
                f"The ignore label must be the highest value plus one ({max(self.values) + 1}), found {ignore}."
            )
        if self.has_regions and len(self.regions_class_order) != len(self.foreground):
            raise TaskError(
                f"Labels that overlap (regions) need regions_class_order with {len(self.foreground)} values, "
                f"found {len(self.regions_class_order)}."
            )

    @classmethod
    def from_dataset_json(cls, values: Mapping) -> LabelSet:
        """From parsed dataset.json (keys `labels`, `regions_class_order`)."""
        labels = values.get("labels") if isinstance(values, Mapping) else None
        if not isinstance(labels, Mapping) or not labels:
            raise TaskError('dataset.json should hold "labels": {"background": 0, "name": 1, …}, found none.')
        return cls(
            tuple(
                Label(str(name), _region(name, value), is_list=isinstance(value, Sequence))
                for name, value in labels.items()
            ),
            _painting_order(values.get("regions_class_order") or ()),
        )

    def to_dataset_json(self) -> dict:
        """The `labels` (and, with regions, `regions_class_order`) entries of dataset.json."""
        labels = {
            label.name: list(label.values) if len(label.values) > 1 or label.is_list else label.values[0]
            for label in self.labels
        }
        return {"labels": labels} | (
            {"regions_class_order": list(self.regions_class_order)} if self.regions_class_order else {}
        )

    @property
    def has_regions(self) -> bool:
        """Whether any label covers several values; the network then has sigmoid outputs, one per region."""
        return any(len(label.values) > 1 for label in self.labels)

    @property
    def ignore_value(self) -> int | None:
        """The value of voxels that count neither in training nor in evaluation."""
        return next((label.values[0] for label in self.labels if label.name == IGNORE), None)

    @property
    def values(self) -> tuple[int, ...]:
        """All values in ascending order, background included, ignore excluded."""
        return tuple(sorted({v for label in self.labels if label.name != IGNORE for v in label.values}))

    @property
    def foreground_values(self) -> tuple[int, ...]:
        """All values but background and ignore."""
        return tuple(v for v in self.values if v != 0)

    @property
    def foreground(self) -> tuple[Label, ...]:
        """The targets to find: every label but background and ignore, in file order."""
        return tuple(label for label in self.labels if label.name != IGNORE and not label.is_background)

    @property
    def targets(self) -> tuple[Region, ...]:
        """The regions that are scored: the foreground labels' values with regions, else each foreground value."""
        return (
            tuple(label.values for label in self.foreground)
            if self.has_regions
            else tuple((v,) for v in self.foreground_values)
        )

    @property
    def target_keys(self) -> tuple[str, ...]:
        """nnU-Net's names of the targets in summary.json: beside regions a list of one value is a region, '(3,)'."""
        if not self.has_regions:
            return tuple(map(region_key, self.targets))
        return tuple(str(label.values) if label.is_list else region_key(label.values) for label in self.foreground)

    @property
    def n_outputs(self) -> int:
        """Channels the network gives: one per region, or one per value with the background."""
        return len(self.foreground) if self.has_regions else len(self.values)

    def name_of(self, region: Region | int) -> str:
        """The name of a target; 'label 7' when it has none."""
        region = (region,) if is_whole(region) else tuple(region)
        return next((label.name for label in self.foreground if label.values == region), f"label {_shown(region)}")

    def changed_meaning(self, now: LabelSet) -> str:
        """What a network that was trained with these labels means otherwise than others say; empty for nothing.

        Names and colours may change, and an ignore label may come or go.
        """
        was, names = _told_apart(self), _told_apart(now)
        moved = [
            f"{name} is {names[name]} and was {was[name]}" for name in was if was[name] != names.get(name, was[name])
        ]
        if moved or self._outputs == now._outputs:
            return some(moved)
        if {*was.values()} == {*names.values()}:
            return "regions are painted in another order"
        return f"{some([*was.values()])} became {some([*names.values()])}"

    @property
    def _outputs(self) -> tuple[tuple[Region, ...], tuple[int, ...]]:
        """What a network's outputs stand for, and with regions in which order they are painted."""
        regions = tuple(tuple(sorted(target)) for target in self.targets)
        return regions, self.regions_class_order if self.has_regions else ()

    def decide(self, scores: np.ndarray, probabilities: bool = False) -> np.ndarray:
        """Label map (Z, Y, X) from network outputs (n_outputs, Z, Y, X).

        Without regions the highest output wins; with regions every region above one half (logit 0, or 0.5 when
        `probabilities`) is painted in `regions_class_order`.
        """
        if not self.has_regions:
            return np.asarray(self.values, number_type(max(self.values)))[scores.argmax(0)]
        labels = np.zeros(scores.shape[1:], number_type(max(self.regions_class_order)))
        for region, value in zip(scores, self.regions_class_order, strict=True):
            labels[region > (0.5 if probabilities else 0.0)] = value
        return labels


def require_name(name: str, what: str) -> None:
    """Raises TaskError for the name of a label or channel that deceives its readers, or that no file could hold."""
    wrong = f"{len(name)} letters" if len(name) > _LONGEST_NAME else command_in(name)
    if wrong:
        shown = printable(name[:60]).replace("\n", r"\n")
        raise TaskError(
            f"The name of a {what} should be one line of at most {_LONGEST_NAME} letters, found {wrong} in '{shown}'; "
            "choose another."
        )


def region_key(region: Region) -> str:
    """nnU-Net's name of a target in summary.json: '1' for one value, '(1, 2)' for several."""
    return str(region[0]) if len(region) == 1 else str(tuple(int(v) for v in region))


def parse_region_key(key: str) -> Region:
    """The inverse of `region_key`."""
    return tuple(int(part) for part in key.strip("()").split(",") if part.strip())


def _painting_order(values: object) -> tuple[int, ...]:
    if isinstance(values, (list, tuple)) and all(type(v) is int and v >= 0 for v in values):
        return tuple(values)
    raise TaskError(f"regions_class_order in dataset.json should be a list of whole numbers, found {values!r:.60}.")


def _region(name: str, value: object) -> Region:
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not values or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        raise TaskError(f'Label "{name}" should be a whole number or a list of whole numbers, found {value!r:.60}.')
    if name == IGNORE and len(values) > 1:
        raise TaskError(f"The ignore label should be one whole number, found {value!r:.60}.")
    return tuple(int(v) for v in values)


def number_type(highest: int) -> np.dtype:
    """nnU-Net's number type of label maps with values up to `highest`: uint8, and uint16 already from 255 on."""
    return np.dtype(np.uint8 if highest < 255 else np.uint16)


def _told_apart(labels: LabelSet) -> dict[str, str]:
    """The values of each foreground label, in words."""
    return {label.name: _shown(sorted(label.values)) for label in labels.foreground}


def _shown(region: Sequence[int]) -> str:
    return "+".join(str(v) for v in region)
