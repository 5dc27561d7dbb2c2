"""Durations, tables and what is shown while working."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from NNSegmentLib import terminal
from NNSegmentLib.progress import within
from NNSegmentLib.run import Message, append_event
from NNSegmentLib.terminal import Terminal, duration, parse_duration, table


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Its only entry is the time that a terminal sees."""
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("45s", 45), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1d 2h", 93600),
        ("10 min", 600), ("3 h 20 min", 12000), ("40 sec", 40), ("1.5 hours", 5400), ("1 Minute 5 seconds", 65),
    ],
)  # fmt: skip
def test_times_are_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "5 minuets", "5 ms", "m30", "-5m", "30", "1h30", "0.5"])
def test_other_texts_are_no_times(text):
    with pytest.raises(ValueError, match=f"with its unit, like 30s, 30m or 2h, found {text!r}"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.4, "12 s"), (300, "5 min"), (7260, "2 h 1 min"), (10795, "3 h 0 min"), (200000, "2 d 7 h")],
)
def test_times_are_shown_in_two_units_at_most(seconds, text):
    assert duration(seconds) == text


@given(st.integers(1, 10**6))
def test_a_shown_duration_is_read_back_within_its_precision(seconds):
    back = parse_duration(duration(seconds))

    assert abs(back - seconds) <= max(31, 0.05 * seconds)


def test_a_table_aligns_its_columns():
    text = table([["2d", "0.81"], ["3d_fullres", "0.9"]], ["configuration", "Dice"])

    assert [line.index(word) for line, word in zip(text.splitlines()[2:], ["0.81", "0.9"], strict=True)] == [15, 15]


def test_a_terminal_obeys_no_text(clock):
    stream = io.StringIO()
    shown = Terminal(stream)

    shown.say("\x1b[2Jimage")
    shown(0, 2, "\x1b]0;case\x07")
    clock[0] = 20.0
    shown(1, 2, "\x1b]0;case\x07")

    assert stream.getvalue().startswith("\\x1b[2Jimage\n\\x1b]0;case\\x07: 1 of 2") and "\x1b" not in stream.getvalue()


def test_short_work_shows_nothing():
    stream = io.StringIO()
    shown = Terminal(stream)

    for done in range(4):
        shown(done, 3, "Reading")

    assert stream.getvalue() == ""


def test_piped_work_tells_the_time_left_in_plain_lines(clock):
    stream = io.StringIO()
    shown = Terminal(stream)

    shown(0, 4, "Reading")
    clock[0] = 30.0
    shown(1, 4, "Reading")
    clock[0] = 31.0
    shown(2, 4, "Reading")

    assert stream.getvalue() == "Reading: 1 of 4, about 2 min left\n"


def test_a_changing_text_tells_more_about_the_same_work(clock):
    stream = io.StringIO()
    shown = Terminal(stream)

    for step in range(5):
        shown(step, 10, f"epoch 1, loss {1 - step / 10:.1f}")
        clock[0] += 6.0

    assert stream.getvalue().splitlines() == [
        "epoch 1, loss 0.8: 2 of 10, about 48 s left",
        "epoch 1, loss 0.6: 4 of 10, about 36 s left",
    ]


def test_work_inside_a_step_counts_for_the_time_left(clock):
    stream = io.StringIO()
    shown = Terminal(stream)

    shown(0, 4, "cases")
    tiles = within(shown, 0, 4, lambda tiles: f"cases (a: {tiles})")
    tiles(0, 8, "tiles")
    clock[0] = 30.0
    tiles(2, 8, "tiles")

    assert stream.getvalue() == "cases (a: 2 of 8 tiles): 0.25 of 4, about 8 min left\n"


def test_rounds_inside_a_step_share_it():
    seen = []
    tiles = within(lambda *told: seen.append(told), 1, 3, str.upper, rounds=2)

    for _ in range(2):
        for done in range(3):
            tiles(done, 2, "tiles")

    assert [done for done, _, _ in seen] == [1, 1.25, 1.5, 1.5, 1.75, 2]
    assert seen[1] == (1.25, 3, "1 OF 2 TILES")


def test_a_bar_shows_parts_of_a_step_shortly(clock, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    shown = Terminal(stream)

    shown(0, 3, "cases")
    clock[0] = 5.0
    for part in (0.1, 0.2, 0.3):
        shown(part, 3, "cases")
    shown(3, 3, "cases")

    assert "| 0.1/3 [" in stream.getvalue()
    assert "| 3/3 [" in stream.getvalue()
    assert "000000" not in stream.getvalue()


def test_the_time_left_of_resumed_work_counts_only_what_was_done_now(clock):
    stream = io.StringIO()
    shown = Terminal(stream)

    shown(800, 1000, "Training")
    clock[0] = 60.0
    shown(802, 1000, "Training")

    assert stream.getvalue() == "Training: 802 of 1000, about 1 h 39 min left\n"


def test_what_a_training_run_says_is_shown(clock, tmp_path):
    events, stream = tmp_path / "events.jsonl", io.StringIO()
    append_event(events, Message("of an earlier run", 0.0))
    shown = Terminal(stream)
    shown.watch(events)
    now = time.time()

    shown(0, 4, "epoch 1")
    append_event(events, Message("Nothing is stored to resume from.", now))
    clock[0] = 1.0
    shown(1, 4, "epoch 1")
    append_event(events, Message("The last word.", now))
    shown.close()

    assert stream.getvalue() == "Nothing is stored to resume from.\nThe last word.\n"


class Unreadable(io.StringIO):
    """A pipe whose reader has gone."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.isatty = lambda: is_terminal

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("stream", [Unreadable(False), Unreadable(True), None], ids=["pipe", "terminal", "closed"])
def test_work_goes_on_when_nobody_reads_what_it_says(clock, monkeypatch, stream):
    monkeypatch.setattr(terminal.sys, "stderr", stream)
    shown = Terminal(stream)

    shown.say("begun")
    for clock[0], done in ((0.0, 0), (20.0, 1), (40.0, 2)):
        shown(done, 2, "working")
    shown.say("done")
    shown.close()
