"""Files that other programs have open for a moment, as Windows lets them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from NNSegmentLib import records, run
from NNSegmentLib.errors import StorageError
from NNSegmentLib.folders import FoldFolder
from NNSegmentLib.machine.locks import LOCK, only_one_in
from NNSegmentLib.records import write_text
from NNSegmentLib.run import Message, Run, append_event


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Its only entry is the time that passes by waiting."""
    now = [0.0]
    monkeypatch.setattr(records.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(records.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


@pytest.fixture
def opened(monkeypatch, clock):
    """Call it with a number of seconds: so long another program has the files open. Returns the clock."""
    replace, unlink = os.replace, Path.unlink

    def until(seconds: float) -> list[float]:
        def when_closed(work):
            def try_it(path, *others, **options):
                if clock[0] < seconds and Path(path).exists():
                    raise PermissionError(13, "The process cannot access the file", str(path))
                return work(path, *others, **options)

            return try_it

        monkeypatch.setattr(os, "replace", when_closed(replace))
        monkeypatch.setattr(Path, "unlink", when_closed(unlink))
        return clock

    return until


def test_a_file_that_is_open_for_a_moment_on_windows_is_waited_for(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(records.sys, "platform", "win32")
    clock = opened(1.0)

    write_text(tmp_path / "a.json", "new")

    assert (tmp_path / "a.json").read_text() == "new"
    assert 1.0 <= clock[0] < 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(("platform", "waited"), [("win32", 2.0), ("linux", 0.0)])
def test_a_file_that_stays_open_is_told_in_the_end_and_elsewhere_at_once(
    tmp_path, monkeypatch, opened, platform, waited
):
    monkeypatch.setattr(records.sys, "platform", platform)
    (tmp_path / "a.json").write_text("old")
    clock = opened(1000.0)

    with pytest.raises(StorageError, match=r"Cannot write .*a\.json \(The process cannot access the file\)"):
        write_text(tmp_path / "a.json", "new")

    assert (tmp_path / "a.json").read_text() == "old"
    assert waited <= clock[0] <= 2.5 * waited  # for the file, and for what was to take its place


def test_a_lock_that_is_open_for_a_moment_on_windows_is_given_back(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(records.sys, "platform", "win32")

    with only_one_in(tmp_path):
        opened(records.time.monotonic() + 1.0)

    assert not (tmp_path / LOCK).exists()


@pytest.fixture
def events_open(monkeypatch, clock):
    """Call it with a number of seconds: so long a backup has the events open."""
    plain = records.open_at_end

    def until(seconds: float) -> None:
        def when_closed(path):
            if clock[0] < seconds:
                raise PermissionError(13, "The process cannot access the file", str(path))
            return plain(path)

        monkeypatch.setattr(run, "open_at_end", when_closed)

    return until


def test_an_event_waits_for_a_backup_on_windows(tmp_path, monkeypatch, events_open):
    monkeypatch.setattr(records.sys, "platform", "win32")
    training = Run(FoldFolder(tmp_path), "2d", 0)
    events_open(1.0)

    training.record(Message("one", 1.0))

    assert training.events() == [Message("one", 1.0)]


def test_a_training_goes_on_without_a_line_that_cannot_be_written_and_says_so_once(
    tmp_path, clock, caplog, events_open
):
    training = Run(FoldFolder(tmp_path), "2d", 0)
    events_open(10.0)

    training.record(Message("lost", 1.0))
    training.record(Message("lost too", 2.0))
    clock[0] = 10.0
    training.record(Message("kept", 3.0))

    assert training.events() == [Message("kept", 3.0)]
    [said] = caplog.messages
    assert "cannot be written (The process cannot access the file); the work goes on" in said


def test_a_name_as_long_as_the_disk_allows_can_be_written(tmp_path):
    name = "a." + "b" * (255 - len("a..nii.gz")) + ".nii.gz"

    write_text(tmp_path / name, "new")

    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system follows links everywhere")
def test_an_event_is_not_written_through_a_link(tmp_path):
    (tmp_path / "theirs").write_text("echo mine\n")
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "theirs")

    with pytest.raises(OSError, match="symbolic link"):
        append_event(tmp_path / "events.jsonl", Message("hello", 1.0))

    assert (tmp_path / "theirs").read_text() == "echo mine\n"
