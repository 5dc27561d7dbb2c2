"""MONAI Label's study folders: images, and below labels/final what people have submitted under the same names.

Images without a final label become test cases; labels/original (made by models) is left alone. datastore_v2.json,
where there is one, says what the values of each label file are called; else they are called "label 1", "label 2", …
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import TaskError, some
from ..given import is_digits
from ..image import read_labels
from ..progress import Progress, in_parallel
from ..records import kind_of, read_json
from ..segments.names import SegmentRow
from . import seg_nrrd
from .pairs import describe_segmented
from .source import SegmentLayer, Segments, Source, SourceCase, image_files, label_stem, stem

FORMAT = "MONAI Label"
_DATASTORE = "datastore_v2.json"
_FINAL = "final"


@dataclass(frozen=True)
class _Store:
    """What datastore_v2.json tells."""

    images: Path
    labels: Path
    rows: Mapping[str, tuple[SegmentRow, ...]]
    """Image id → the labels of its final label file, by value."""


def recognises(folder: Path) -> bool:
    """Whether the folder has final labels, or MONAI Label's list of files."""
    return (folder / _DATASTORE).is_file() or (folder / "labels" / _FINAL).is_dir()


def read(folder: Path, workers: int, progress: Progress) -> Source:
    """Describe a study folder; raises TaskError when nothing is labelled, or a label has no image."""
    store = _store(folder)
    images = {stem(path): path for path in image_files(store.images)}
    labels = {label_stem(path): path for path in image_files(store.labels)}
    _require_images(store, images, labels)
    ids = sorted(labels)
    segments = in_parallel(partial(_segments, store, labels), ids, workers, progress, "Reading labels")
    cases = [SourceCase(i, (images[i],), segments=own) for i, own in zip(ids, segments, strict=True)]
    tests = [SourceCase(i, (path,), group="Ts") for i, path in images.items() if i not in labels]
    return describe_segmented(folder, FORMAT, cases, tests, _order(segments))


def _store(folder: Path) -> _Store:
    path = folder / _DATASTORE
    if not path.is_file():
        return _Store(_image_folder(folder), folder / "labels" / _FINAL, {})
    values = read_json(path)
    if not isinstance(values, Mapping):
        raise TaskError(f"{path} should be a JSON object, found {kind_of(values)}; mend or delete it.")
    objects = values.get("objects")
    rows = {str(i): _named(entry) for i, entry in objects.items()} if isinstance(objects, Mapping) else {}
    images = folder / str(values.get("images_dir") or ".")
    return _Store(_image_folder(images), folder / str(values.get("labels_dir") or "labels") / _FINAL, rows)


def _image_folder(folder: Path) -> Path:
    return folder if image_files(folder) or not (folder / "images").is_dir() else folder / "images"


def _named(entry: object) -> tuple[SegmentRow, ...]:
    """The labels of one image's final label file from its `label_info`; empty where that is missing or incomplete."""
    info = _inner(entry, "labels", _FINAL, "info")
    listed = info.get("label_info") or _inner(info, "params").get("label_info")
    found = [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    return tuple(_row(int(item["idx"]), str(item["name"]), item) for item in found if _is_complete(item))


def _inner(values: object, *keys: str) -> Mapping:
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def _is_complete(item: Mapping) -> bool:
    return bool(item.get("name")) and is_digits(str(item.get("idx", ""))) and int(item["idx"]) > 0


def _row(value: int, name: str, item: Mapping) -> SegmentRow:
    color = item.get("color")
    is_color = isinstance(color, list) and len(color) >= 3 and all(isinstance(part, int) for part in color)
    return SegmentRow(str(value), name, tuple(color[:3]) if is_color else None, "", False, value)


def _segments(store: _Store, labels: Mapping[str, Path], case_id: str) -> Segments:
    path = labels[case_id]
    if path.name.lower().endswith(".nrrd") and seg_nrrd.is_segmentation(path):
        return seg_nrrd.read(path)
    named = store.rows.get(case_id, ())
    known = {row.value for row in named}
    others = [value for value in _values(path) if value and value not in known]
    rows = (*named, *(_row(value, f"label {value}", {}) for value in others))
    return Segments((path,), rows, partial(_layer, path, tuple((row.value, row.id) for row in rows)))


def _values(path: Path) -> list[int]:
    values = [int(value) for value in np.unique(read_labels(path).array)]
    if values[0] < 0:
        raise TaskError(f"{path} should hold labels from 0 on, found {values[0]}; renumber its labels.")
    return values


def _layer(path: Path, ids: tuple[tuple[int, str], ...]) -> Iterator[SegmentLayer]:
    found = read_labels(path)
    yield SegmentLayer(found.array, found.geometry.ijk_to_ras, ids)


def _order(segments: list[Segments]) -> list[str] | None:
    """Label names by their value in the files; None when the files keep an order of their own."""
    rows = [row for own in segments for row in own.rows]
    if not all(row.value for row in rows):
        return None
    return list(dict.fromkeys(row.name for row in sorted(rows, key=lambda row: row.value)))


def _require_images(store: _Store, images: Mapping[str, Path], labels: Mapping[str, Path]) -> None:
    if not labels:
        raise TaskError(
            f"{store.labels} should hold the labels that were submitted, found none; submit labels in MONAI Label first."
        )
    lonely = [path.name for case_id, path in labels.items() if case_id not in images]
    if lonely:
        raise TaskError(
            f"Every label in {store.labels} needs an image of the same name in {store.images}, but {some(lonely)} have "
            "none; put the images back, or move these labels away."
        )
