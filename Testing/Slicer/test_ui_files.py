"""What the .ui files say: translated where a person reads it, and only there; told by tooltips, and to screen readers."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from finished_runs import NAME, make_task, train

MODULE = Path(__file__).resolve().parents[2] / "NNSegment" / "NNSegment.py"
FILES = sorted((MODULE.parent / "Resources" / "UI").glob("*.ui"))
READ = ("noneDisplay", "placeholderText", "specialValueText", "suffix", "text", "title", "toolTip")
"""Properties that a person reads; but the text of a line edit is what the user would have written."""
UNTOLD = ("QFrame", "QLabel", "QProgressBar", "QWidget", "qMRMLWidget")
"""Classes of widgets that take nothing from the user."""


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


def names_of_inputs() -> set[str]:
    widgets = [widget for file in FILES for widget in ElementTree.parse(file).iter("widget")]
    return {widget.get("name") for widget in widgets if widget.get("class") not in UNTOLD}


def test_every_input_has_a_tooltip_and_every_label_before_one_its_buddy(bench, root):
    import slicer

    made = {"volumeSelector0", "applyVolume0"}
    train(make_task(root), "3d_fullres", 0)
    panel = bench.open_module(MODULE)
    panel.choose("workspaceEdit", root)
    panel.choose("taskCombo", NAME)

    told = {name for name in names_of_inputs() | made if panel[name].toolTip}
    labels = [label for label in slicer.util.findChildren(panel.representation, className="QLabel")]
    before = {label.buddy().name for label in labels if label.buddy() is not None}
    lonely = {label.text for label in labels if label.text.endswith(":") and label.buddy() is None}
    panel.close()

    assert told == names_of_inputs() | made
    assert not lonely
    assert before >= made
