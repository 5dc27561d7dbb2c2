"""labels.csv: names, colours and terminology of a task's labels in the colour table format that Slicer reads."""

from __future__ import annotations

import colorsys
import csv
import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .errors import TaskError
from .labels import IGNORE, Label, LabelSet
from .records import cause_of, lack_of, write_text

_CONCEPTS = ("Category", "Type", "TypeModifier", "Region", "RegionModifier")
_PARTS = ("CodingScheme", "CodeValue", "CodeMeaning")
COLUMNS = ("LabelValue", "Name", "Color_R", "Color_G", "Color_B", "Color_A") + tuple(
    f"{concept}_{part}" for concept in _CONCEPTS for part in _PARTS
)
_IGNORE_COLOR = (128, 128, 128)
_GOLDEN_RATIO = 0.618033988749895


def distinct_color(index: int) -> tuple[int, int, int]:
    """The colour of the label at position `index`: RGB 0 to 255, neighbours far apart on the colour circle."""
    hue = (0.02 + index * _GOLDEN_RATIO) % 1.0
    saturation, value = ((0.75, 0.95), (0.55, 0.8), (0.9, 0.7))[(index // 2) % 3]
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))


def colored(labels: LabelSet) -> LabelSet:
    """The same labels, each foreground label without a colour given a distinct one."""
    positions = {label.name: n for n, label in enumerate(labels.foreground)}
    return replace(
        labels,
        labels=tuple(
            replace(label, color=distinct_color(positions[label.name]))
            if label.color is None and label.name in positions
            else label
            for label in labels.labels
        ),
    )


def save_label_colors(path: Path, labels: LabelSet) -> None:
    """Write labels.csv, one row per label but the background; raises StorageError.

    Overlapping labels (regions) get the value they are painted with. Slicer's reader knows no quotation marks inside
    a value, so they are left out of names.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(colored(labels)))
    write_text(path, text.getvalue())


def load_label_colors(path: Path) -> tuple[Label, ...]:
    """The labels of a labels.csv with name, value, colour and terminology; raises TaskError when it is no colour table."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            return tuple(_label(row) for row in csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise _no_table(path, cause_of(error)) from error
    except (KeyError, ValueError, csv.Error) as error:
        raise _no_table(path, lack_of(error)) from error


def _no_table(path: Path, reason: str) -> TaskError:
    return TaskError(
        f"{path} should be a colour table with the columns {', '.join(COLUMNS[:5])}, but it cannot be read as one "
        f"({reason}); correct or delete it."
    )


def with_colors(labels: LabelSet, known: Iterable[Label]) -> LabelSet:
    """The labels with the colour and terminology of those `known` by the same name."""
    by_name = {_plain_name(label.name): label for label in known}

    def painted(label: Label) -> Label:
        found = by_name.get(_plain_name(label.name))
        return replace(label, color=found.color, terminology=found.terminology) if found else label

    return replace(labels, labels=tuple(painted(label) for label in labels.labels))


def _rows(labels: LabelSet) -> Iterable[dict]:
    painted = labels.regions_class_order or tuple(label.values[0] for label in labels.foreground)
    for label, value in zip(labels.foreground, painted, strict=True):
        yield _row(label, value)
    if labels.ignore_value is not None:
        yield _row(Label(IGNORE, (labels.ignore_value,), _IGNORE_COLOR), labels.ignore_value)


def _row(label: Label, value: int) -> dict:
    numbers = (value, _plain_name(label.name), *label.color, 255)
    return dict(zip(COLUMNS, (*numbers, *_codes(label.terminology)), strict=True))


def _codes(terminology: str) -> list[str]:
    """The 15 terminology columns of Slicer's entry 'context~category~type~modifier~context~region~modifier'."""
    parts = (terminology.split("~") + [""] * 7)[:7]
    concepts = (parts[1], parts[2], parts[3], parts[5], parts[6])
    return [code for concept in concepts for code in (concept.split("^") + ["", "", ""])[:3]]


def _label(row: dict) -> Label:
    value, *color = (_whole(row, column) for column in ("LabelValue", "Color_R", "Color_G", "Color_B"))
    return Label(row.get("Name") or f"label {value}", (value,), tuple(color), _terminology(row))


def _whole(row: dict, column: str) -> int:
    text = row[column] or ""  # rows may end early
    try:
        return int(text)
    except ValueError as wrong:
        raise ValueError(f"{column} should be a whole number, found {text!r:.40}") from wrong


def _terminology(row: dict) -> str:
    concepts = ["^".join(row.get(f"{concept}_{part}") or "" for part in _PARTS) for concept in _CONCEPTS]
    if concepts[0] == "^^":
        return ""
    category, kind, modifier, region, region_modifier = concepts
    return "~".join(("", category, kind, modifier, "", region, region_modifier))


def _plain_name(name: str) -> str:
    return name.replace('"', "")
