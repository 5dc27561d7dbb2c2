"""What the .ui files hold is translated where a person reads it, and only there."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).resolve().parents[2] / "NNSegment" / "Resources" / "UI").glob("*.ui"))
READ = ("noneDisplay", "placeholderText", "specialValueText", "suffix", "text", "title", "toolTip")
"""Properties that a person reads; but the text of a line edit is what the user would have written."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_a_person_reads_is_translated_and_no_value_is(file):
    wrong = []
    for widget in ElementTree.parse(file).iter("widget"):
        for item in widget.findall("property"):
            name, text = item.get("name"), next((item.find(kind) for kind in ("string", "stringlist")), None)
            if text is None or not "".join(text.itertext()).strip():
                continue
            is_read = name in READ and (widget.get("class"), name) != ("QLineEdit", "text")
            if is_read == (text.get("notr") == "true"):
                wrong.append(f"{widget.get('name')}.{name}")

    assert not wrong


@pytest.mark.parametrize(
    ("widget", "taken"),
    [
        ("importEdit", ("nnU-Net (version 1 or 2)", "Decathlon", "TotalSegmentator", "MONAI Label", "DICOM", "images")),
        ("applyModelBox", ("nnU-Net, version 1 or 2",)),
        ("applyModelPath", ("nnU-Net, version 1 or 2", "checkpoint", "dataset.json", "plans.json", "zip")),
        ("trainPretrainedPath", ("folder", ".pth")),
    ],
)
def test_a_tooltip_names_all_that_the_library_takes(widget, taken):
    (found,) = [part for file in FILES for part in ElementTree.parse(file).iterfind(f".//widget[@name='{widget}']")]
    tip = found.findtext("property[@name='toolTip']/string")

    assert not [words for words in taken if words not in tip]
