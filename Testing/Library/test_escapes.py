"""Text of strangers is written out where terminals and pages would obey it; what people write stays as it is."""

from __future__ import annotations

import pytest

from NNSegmentLib.errors import TaskError
from NNSegmentLib.escapes import printable
from NNSegmentLib.labels import Label

WRITTEN = ["liver", "Tumour (left/right) <2 cm> & $5", "Leber – Ödem", "肝臓", "كبد", "می‌خواهم", "👩‍⚕️", "a\tb\nc"]
UNSEEN = ["Leber\u00adlappen", "ตับ\u200bอ่อน", "\ufeffliver", "🏴\U000e0067\U000e007f"]
"""Written by people, too: a soft hyphen, a space of no width, a file's first mark, a flag's letters."""


@pytest.mark.parametrize("text", WRITTEN)
def test_what_people_write_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07\x1b[2J", r"\x1b]0;owned\x07\x1b[2J"),
        ("a\rb\x00\x7f\x9b31m", r"a\x0db\x00\x7f\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("one\u2028two\u2029", r"one\u2028two\u2029"),
    ],
)
def test_what_is_obeyed_is_written_out(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "\ud800", "\u202ea", "a" * 501, "a" * 200_000])
def test_names_that_nobody_can_read_are_refused_in_a_short_sentence(name):
    with pytest.raises(TaskError, match="one line of at most 500 letters") as raised:
        Label(name, (1,))
    assert printable(str(raised.value)) == str(raised.value) and len(str(raised.value)) < 250


@pytest.mark.parametrize("name", [*(name for name in WRITTEN if "\n" not in name), *UNSEEN])
def test_names_that_people_write_are_taken(name):
    assert Label(name, (1,)).name == name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a\x1b[31m", "the control character U\\+001B in"),
        ("a\nb", "the control character U\\+000A in"),
        ("\ud800", "the half character U\\+D800 in"),
        ("a\u2066b", "the direction mark U\\+2066 in"),
        ("a\u2028b", "the line end U\\+2028 in"),
        ("a" * 501, "501 letters in"),
    ],
)
def test_a_refused_name_tells_what_is_wrong_with_it(name, found):
    with pytest.raises(TaskError, match=f"at most 500 letters, found {found} '"):
        Label(name, (1,))


def test_a_refused_name_is_shown_as_people_write_it():
    with pytest.raises(TaskError, match=r"in 'Gefäß\\nWand'; choose another\."):
        Label("Gefäß\nWand", (1,))
