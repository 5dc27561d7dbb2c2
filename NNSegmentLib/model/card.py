"""What a model takes and gives, read from its folder or its zip without unpacking it and without torch."""

from __future__ import annotations

import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..colors import colored, load_label_colors, with_colors
from ..errors import InputError, ModelError
from ..folders import LABELS_CSV
from ..given import expanded
from ..labels import LabelSet
from ..records import parse_json
from ..task import parse_dataset_json
from .archive import opened
from .loading import load_model

_TEXT_BYTES = 50 * 1024**2


@dataclass(frozen=True)
class ModelCard:
    """The outside of a model."""

    channels: tuple[str, ...]
    label_set: LabelSet
    """With the colours and terminology of training, or with distinct colours where the model has none."""
    file_ending: str

    def text(self) -> str:
        """One line for people."""
        channels = ", ".join(self.channels)
        return f"{channels} → {', '.join(label.name for label in self.label_set.foreground)}"


def read_card(path: Path | str, configuration: str | None = None) -> ModelCard:
    """The card of the model in a folder or zip; raises ModelError."""
    path = expanded(path)
    is_zip = path.suffix == ".zip" and os.path.isfile(path)  # Path's own raises for a text that is too long
    return _card_of_zip(path) if is_zip else _card_of_folder(path, configuration)


def _card_of_folder(path: Path, configuration: str | None) -> ModelCard:
    model = load_model(path, configuration)
    return ModelCard(model.channels, painted(model.label_set, model.folder / LABELS_CSV), model.file_ending)


def _card_of_zip(path: Path) -> ModelCard:
    with opened(path) as archive:
        files = {PurePosixPath(n).name for n in archive.namelist()}
        if "plans.pkl" in files and "plans.json" not in files:
            return _card_of_folder(path, None)
        names = [n for n in archive.namelist() if PurePosixPath(n).name == "dataset.json"]
        if not names:
            raise ModelError(f"{path} holds neither dataset.json nor plans.pkl, so it is no model; choose another.")
        first = min(names, key=lambda n: n.count("/"))
        values = parse_json(_text(archive, first, path), f"{first} in {path}", ModelError)
        colors = str(PurePosixPath(first).with_name(LABELS_CSV))
        known = _text(archive, colors, path) if colors in archive.namelist() else ""
    channels, labels, ending = parse_dataset_json(values, path)
    return ModelCard(channels, _painted_by_text(labels, known), ending)


def _text(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    if archive.getinfo(name).file_size > _TEXT_BYTES:
        raise ModelError(f"{name} in {path} is far too large for a description; get the model from a source you trust.")
    return archive.read(name).decode("utf-8")


def _painted_by_text(labels: LabelSet, text: str) -> LabelSet:
    if not text:
        return colored(labels)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / LABELS_CSV
        file.write_text(text, encoding="utf-8")
        return painted(labels, file)


def painted(labels: LabelSet, file: Path) -> LabelSet:
    """The labels in the colours of a labels.csv; a damaged table must not keep a model from being used."""
    try:
        return colored(with_colors(labels, load_label_colors(file))) if file.is_file() else colored(labels)
    except InputError:
        return colored(labels)
