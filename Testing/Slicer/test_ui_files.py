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
