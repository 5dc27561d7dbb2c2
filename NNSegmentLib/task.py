"""A task: cases with images and labels, named channels and labels, in nnU-Net v2's folder layout."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .colors import load_label_colors, with_colors
from .errors import TaskError
from .file_names import is_plain
from .folders import DATASET_NAME, LABELS_CSV, visible
from .given import expanded, path_of
from .labels import LabelSet, require_name
from .records import kind_of, lack_of, read_json, write_json

REQUIRED_KEYS = ("channel_names", "labels", "file_ending")
"""Of models and data sets alike; those to train on also need `numTraining`."""


@dataclass(frozen=True)
class Channel:
    """One input image of every case; its name selects the normalisation ('CT', 'noNorm', 'rescale_to_0_1', …)."""

    name: str


@dataclass(frozen=True)
class Case:
    """One subject: an image file per channel (a single file may hold all) and, for training, a label file."""

    id: str
    images: tuple[Path, ...]
    labels: Path | None = None


@dataclass(frozen=True)
class Task:
    """A data set in nnU-Net v2's raw layout; `cases` are the training cases in nnU-Net's order."""

    folder: Path
    channels: tuple[Channel, ...]
    labels: LabelSet
    cases: tuple[Case, ...]
    file_ending: str
    declared_training_cases: int
    """`numTraining` of dataset.json, which the planner uses."""
    reader: str = ""
    """`overwrite_image_reader_writer` of dataset.json, empty for the automatic choice."""
    description: str = ""

    @property
    def name(self) -> str:
        """The data set's folder name, 'Dataset004_Hippocampus'."""
        return self.folder.name

    @property
    def id(self) -> int:
        """The number in the name."""
        return int(DATASET_NAME.match(self.name).group(1)) if DATASET_NAME.match(self.name) else -1

    @property
    def dataset_json(self) -> dict:
        """dataset.json as it is on disk."""
        return read_json(self.folder / "dataset.json")

    def case(self, case_id: str) -> Case:
        """The case of this id; raises TaskError."""
        for case in self.cases:
            if case.id == case_id:
                return case
        raise TaskError(f"{self.name} has no case {case_id}; it has {len(self.cases)} cases from {self.folder}.")


def load_task(folder: Path | str) -> Task:
    """Read a task from its raw folder (with dataset.json); raises TaskError when a part is missing or wrong."""
    folder = path_of(folder)
    if not (folder / "dataset.json").is_file():
        raise TaskError(f"{folder} is no task: expected a file dataset.json in it; make one with 'nnsegment convert'.")
    values = read_json(folder / "dataset.json")
    names, labels, file_ending = parse_dataset_json(values, folder)
    if (folder / LABELS_CSV).is_file():
        labels = with_colors(labels, load_label_colors(folder / LABELS_CSV))
    return Task(
        folder=folder,
        channels=tuple(Channel(name) for name in names),
        labels=labels,
        cases=tuple(
            _listed_cases(folder, values["dataset"]) if "dataset" in values else _found_cases(folder, file_ending)
        ),
        file_ending=file_ending,
        declared_training_cases=_whole(values.get("numTraining"), folder),
        reader=_reader(values),
        description=str(values.get("description", "")),
    )


def parse_dataset_json(values: Mapping, where: Path) -> tuple[tuple[str, ...], LabelSet, str]:
    """(channel names in order, labels, file ending) of a parsed dataset.json; raises TaskError."""
    if not isinstance(values, Mapping):
        raise TaskError(f"dataset.json in {where} should be a JSON object, found {kind_of(values)}; restore the file.")
    values = {"channel_names": values.get("modality")} | dict(values)
    missing = [key for key in REQUIRED_KEYS if values.get(key) is None]
    if missing:
        raise TaskError(
            f"dataset.json in {where} lacks {', '.join(missing)}; add them, or run 'nnsegment convert' on the folder."
        )
    if not is_plain(f"case{values['file_ending']}"):
        raise TaskError(
            f"file_ending in dataset.json of {where} should be like '.nii.gz', found {values['file_ending']!r:.60}; correct it."
        )
    try:
        return _channel_names(values["channel_names"]), LabelSet.from_dataset_json(values), str(values["file_ending"])
    except TaskError as wrong:
        raise TaskError(f"{where / 'dataset.json'}: {wrong}") from wrong


def _channel_names(channels: object) -> tuple[str, ...]:
    if not isinstance(channels, Mapping) or not all(str(k).isdecimal() and len(k) < 10 for k in channels):
        raise TaskError(f'channel_names should be like {{"0": "CT"}}, found {channels!r:.60}; correct them.')
    names = tuple(str(channels[key]) for key in sorted(channels, key=int))
    for name in names:
        require_name(name, "channel")
    return names


def write_dataset_json(
    folder: Path,
    channel_names: tuple[str, ...],
    labels: LabelSet,
    n_training: int,
    file_ending: str,
    **extra: object,
) -> None:
    """Write nnU-Net v2's dataset.json; `extra` entries (description, reference, licence, …) are kept as given."""
    write_json(
        folder / "dataset.json",
        {"channel_names": {str(i): name for i, name in enumerate(channel_names)}}
        | labels.to_dataset_json()
        | {"numTraining": n_training, "file_ending": file_ending}
        | extra,
    )


def find_images(folder: Path, file_ending: str) -> dict[str, tuple[Path, ...]]:
    """Case id → channel files of a folder of `ID_0000.ending` files, ids sorted; dot files are ignored.

    Endings in capitals count as well, which Windows and microscopes write; of two files that differ by that alone, the
    one with the exact ending counts.
    """
    pattern = re.compile(rf"^(?P<id>.+)_(?P<channel>\d{{4}})(?i:{re.escape(file_ending)})$")
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(visible(folder), key=lambda path: not path.name.endswith(file_ending)):
        match = pattern.match(path.name)
        if match:
            found.setdefault(match["id"], {}).setdefault(match["channel"], path)
    return {case_id: tuple(path for _, path in sorted(found[case_id].items())) for case_id in sorted(found)}


def _found_cases(folder: Path, file_ending: str) -> list[Case]:
    images = find_images(folder / "imagesTr", file_ending)
    if not images:
        raise TaskError(
            f"{folder / 'imagesTr'} should hold files like CASE_0000{file_ending}, found none; "
            "check file_ending in dataset.json or run 'nnsegment convert'."
        )
    labels = find_labels(folder / "labelsTr", images, file_ending)
    return [Case(case_id, files, labels[case_id]) for case_id, files in images.items()]


def find_labels(folder: Path, case_ids: Iterable[str], file_ending: str) -> dict[str, Path]:
    """Case id → the label file of each case, whose ending may be in capitals; the exact name where there is none."""
    same_ending = [path for path in visible(folder) if path.name.lower().endswith(file_ending.lower())]
    by_id = {path.name[: -len(file_ending)]: path for path in same_ending}
    exact = {case_id: folder / (case_id + file_ending) for case_id in case_ids}
    return {case_id: path if path.is_file() else by_id.get(case_id, path) for case_id, path in exact.items()}


def _listed_cases(folder: Path, listed: Mapping) -> list[Case]:
    def located(name: str) -> Path:
        path = expanded(os.path.expandvars(name))
        return path if path.is_absolute() else folder / path

    impossible = [case_id for case_id in listed if not is_plain(case_id)] if isinstance(listed, Mapping) else []
    if impossible:
        raise TaskError(
            f'"dataset" in {folder / "dataset.json"} should name cases by what can be a file\'s name, found '
            f"{impossible[0]!r:.60}; rename that case there."
        )
    try:
        return [
            Case(case_id, tuple(located(p) for p in entry["images"]), located(entry["label"]))
            for case_id, entry in listed.items()
        ]
    except (KeyError, TypeError, AttributeError) as wrong:
        raise TaskError(
            f'"dataset" in {folder / "dataset.json"} should be like {{"case": {{"images": ["…"], "label": "…"}}}} ({lack_of(wrong)}).'
        ) from wrong


def _whole(value: object, folder: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TaskError(f"numTraining in {folder / 'dataset.json'} should be a number of cases, found {value!r}.")
    return value


def _reader(values: Mapping) -> str:
    reader = values.get("overwrite_image_reader_writer")
    return "" if reader in (None, "None") else str(reader)
