"""Names out of data sets and models of strangers are shown as they are: Qt would load the pictures of HTML in them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

MODULE = Path(__file__).resolve().parents[2] / "NNSegment" / "NNSegment.py"
UI = MODULE.parent / "Resources" / "UI"
ESCAPED = ("summaryLabel", "reasonsLabel", "commonReasonsLabel")
"""Labels that are rich text on purpose; what is foreign in them is escaped."""
PICTURES = ("statusIcon", "fingerprintPicture", "diagramPicture")
NAME = '<img src="file:///nowhere/a.png"><h1>x & y'


@pytest.fixture
def panel(bench):
    panel = bench.open_module(MODULE)
    yield panel
    panel.close()


def filled_labels() -> list[tuple[str, str]]:
    """(name, text format) of every label of the panel that gets its text when the panel runs."""
    labels = [label for file in UI.glob("*.ui") for label in ElementTree.parse(file).iter("widget")
              if label.get("class") == "QLabel"]  # fmt: skip
    return [
        (label.get("name"), "".join(label.findtext("property[@name='textFormat']/enum", "")))
        for label in labels
        if not label.findtext("property[@name='text']/string") and label.get("name") not in PICTURES
    ]


def test_labels_that_are_filled_later_say_whether_they_hold_html():
    assert len(filled_labels()) > 10
    for name, kind in filled_labels():
        assert kind == ("Qt::RichText" if name in ESCAPED else "Qt::PlainText"), name


def test_a_sentence_with_html_in_it_is_shown_in_letters(panel):
    import qt

    panel.widget.context.say(NAME)

    label = panel["statusLabel"]
    assert label.text == NAME and label.textFormat == qt.Qt.PlainText
    assert "<img" not in label.toolTip and "&lt;img" in label.toolTip


@pytest.mark.parametrize("text", ["liver", "Tumour (left)", "a\nb", "5 > 3"])
def test_plain_tooltips_stay_as_they_are(panel, text):
    from NNSegmentUI.widgets import tip

    assert tip(text) == text


def test_cells_of_tables_have_tooltips_without_html(panel):
    import qt
    from NNSegmentUI.widgets import fill_table

    table = qt.QTableWidget()
    fill_table(table, [NAME, NAME], [[NAME, "b"]])

    for item in (table.horizontalHeaderItem(1), table.item(0, 0)):
        assert item.toolTip().startswith("<p style") and "<img" not in item.toolTip()
