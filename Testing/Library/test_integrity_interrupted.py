"""A mending that fails, is killed, or meets another one or somebody who saves a file: all of it is done once, or nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from task_on_disk import PLAIN, blocks, nnunet_v2, tree

from NNSegmentLib.cases import load_origin
from NNSegmentLib.errors import StorageError, TaskError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.formats import convert
from NNSegmentLib.image import read_labels, write_labels
from NNSegmentLib.integrity import check_task, fix, fix_task, install
from NNSegmentLib.task import load_task

LATE = {"background": 0, "tumor": 2, "liver": 4}
"""Mended twice, the liver would become the tumor: 4 to 2, 2 to 1."""


def late_task(tmp_path):
    """A task of which every file changes when it is mended: labels, dataset.json, labels.csv and cases.json."""
    return convert(nnunet_v2(tmp_path / "Dataset003_B", labels=LATE), Workspace.at(tmp_path / "w"))


def require_mended_once(folder):
    task = load_task(folder)
    assert [label.values for label in task.labels.labels] == [(0,), (1,), (2,)]
    assert all(np.array_equal(read_labels(case.labels).array, blocks()) for case in task.cases)
    assert [case.fixes for case in load_origin(folder).cases] == [("values renumbered 2 to 1, 4 to 2",)] * 3
    assert sorted(p.name for p in folder.iterdir()) == [
        "cases.json", "dataset.json", "imagesTr", "labels.csv", "labelsTr", "originals"
    ]  # fmt: skip
    assert np.array_equal(read_labels(folder / "originals" / "labelsTr" / "case0.nii.gz").array, blocks(values=(2, 4)))
    assert json.loads((folder / "originals" / "dataset.json").read_text())["labels"] == LATE
    assert check_task(task) == []


def failing_once(work, at: int, failure: BaseException):
    """`work`, of which call number `at` (from 0) raises."""
    calls = iter(range(10**6))

    def called(*args):
        if next(calls) == at:
            raise failure
        return work(*args)

    return called


RENAMES = range(6)
"""originals, the old labels, the new ones, dataset.json, labels.csv, cases.json."""


def test_a_mending_renames_six_things(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(install, "move", lambda *paths: (done.append(paths[1].name), os.replace(*paths)))

    fix_task(late_task(tmp_path))

    assert done == ["originals", "labelsTr", "labelsTr", "dataset.json", "labels.csv", "cases.json"]


@pytest.mark.parametrize("step", RENAMES)
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_renames_that_fail_or_are_stopped_are_undone(tmp_path, monkeypatch, step, failure):
    task = late_task(tmp_path)
    before, names = tree(task.folder), sorted(task.folder.iterdir())

    with monkeypatch.context() as patched, pytest.raises((StorageError, KeyboardInterrupt)):
        patched.setattr(install, "move", failing_once(install.move, step, failure))
        fix_task(task)

    assert (tree(task.folder), sorted(task.folder.iterdir())) == (before, names)
    fix_task(task)
    require_mended_once(task.folder)


class Killed(BaseException):
    """Nothing runs after it."""


@pytest.mark.parametrize("step", RENAMES)
def test_a_mending_that_was_killed_between_renames_is_finished_by_the_next(tmp_path, monkeypatch, step):
    task = late_task(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(install, "move", failing_once(install.move, step, Killed()))
        patched.setattr(install, "_put_back", lambda *_: None)
        fix_task(task)
    told = [f.check for f in check_task(load_task(task.folder)) if f.check == "mended as a whole"]

    fix_task(task)

    assert told == ["mended as a whole"] * (step > 0)
    require_mended_once(task.folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from NNSegmentLib.integrity import fix_task, install
from NNSegmentLib.task import load_task
plain = install.move
def move(source, target):
    if target.name == "dataset.json":
        os.kill(os.getpid(), signal.SIGKILL)
    plain(source, target)
install.move = move
fix_task(load_task(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_process_that_is_killed_between_labels_and_dataset_json_leaves_no_task_that_is_mended_twice(tmp_path):
    task = late_task(tmp_path)

    killed = subprocess.run([sys.executable, "-c", KILLED, str(task.folder)], check=False)
    fixed = fix_task(task)

    assert (killed.returncode, fixed) == (-signal.SIGKILL, [])
    require_mended_once(task.folder)


def test_what_a_killed_process_had_merely_gathered_is_not_put_in_place(tmp_path, monkeypatch):
    """Labels drawn since then would be lost."""
    task = late_task(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(install, "move", failing_once(install.move, 0, Killed()))
        patched.setattr(install, "_put_back", lambda *_: None)
        fix_task(task)
    drawn = np.zeros(PLAIN.shape, np.uint8)
    drawn[4] = 4
    write_labels(task.cases[0].labels, drawn, PLAIN)

    fix_task(task)

    assert np.array_equal(read_labels(task.cases[0].labels).array, np.where(drawn, 2, 0))


def test_a_mending_that_cannot_even_be_undone_says_how_to_finish_it(tmp_path, monkeypatch):
    task, busy = late_task(tmp_path), OSError(errno.EBUSY, "Device or resource busy")
    with monkeypatch.context() as patched:
        for name in ("move", "_restore"):
            patched.setattr(install, name, failing_once(getattr(install, name), 4 if name == "move" else 0, busy))
        with pytest.raises(StorageError, match="only half .*busy.*; close programs .* 'nnsegment check --fix' again"):
            fix_task(task)

    fix_task(task)

    require_mended_once(task.folder)


@pytest.mark.parametrize("write", ["write_json", "save_label_colors", "save_origin"])
def test_a_full_disk_shows_before_anything_is_put_in_place(tmp_path, monkeypatch, write):
    task = late_task(tmp_path)
    before, names = tree(task.folder), sorted(task.folder.iterdir())

    full = StorageError("Cannot write it (No space left on device); choose another folder.")
    with monkeypatch.context() as patched, pytest.raises(StorageError, match="No space left"):
        patched.setattr(fix, write, failing_once(getattr(fix, write), 0, full))
        fix_task(task)

    assert (tree(task.folder), sorted(task.folder.iterdir())) == (before, names)


def test_of_two_mendings_at_once_the_second_finds_the_task_mended(tmp_path, monkeypatch):
    task, both, examine = late_task(tmp_path), threading.Barrier(2), fix.examine_task

    def examined_together(*args):
        reports = examine(*args)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(timeout=1)
        return reports

    monkeypatch.setattr(fix, "examine_task", examined_together)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(fix_task, [task, task]))

    assert sorted([f.check for f in fixed] for fixed in found) == [[], ["label numbers"]]
    require_mended_once(task.folder)


@pytest.mark.parametrize("name", ["labelsTr/case1.nii.gz", "labelsTr/case7.nii.gz", "dataset.json"])
def test_files_that_are_saved_while_a_task_is_mended_are_not_replaced(tmp_path, monkeypatch, name):
    task, saved, gather = late_task(tmp_path), b"saved by somebody meanwhile", fix._gather

    def gathered_before_somebody_saves(*args):
        labels = gather(*args)
        (task.folder / name).write_bytes(saved)
        return labels

    monkeypatch.setattr(fix, "_gather", gathered_before_somebody_saves)
    with pytest.raises(TaskError, match=rf"but {name.split('/')[-1]} changed; the task was left alone"):
        fix_task(task)

    assert (task.folder / name).read_bytes() == saved
    assert not list(task.folder.glob("originals*")) and not list(task.folder.glob(".*"))


def test_a_faultless_task_that_cannot_be_written_to_is_checked_all_the_same(tmp_path, monkeypatch):
    task = load_task(nnunet_v2(tmp_path / "Dataset003_B"))

    def refused(*_):
        raise StorageError("Cannot write running.json (Permission denied).")

    monkeypatch.setattr(fix, "one_after_another_in", refused)

    assert fix_task(task) == []


@pytest.mark.parametrize(
    "strange",
    [
        {"originals": "../originals"},
        {"labels": "{elsewhere}/autostart"},
        {"labels": "imagesTr"},
        {"descriptions": ["../../.bashrc"]},
        {"descriptions": ["dataset.json", "{elsewhere}/.bashrc"]},
    ],
)
def test_renames_that_no_mending_recorded_are_not_followed(tmp_path, strange):
    task, elsewhere = late_task(tmp_path), tmp_path / "elsewhere"
    staging = task.folder / ".mending-1"
    for name in ("new", "labels"):
        (staging / name).mkdir(parents=True)
    (staging / "new" / "dataset.json").write_text("{}")
    (task.folder / ".bashrc").write_text("of a stranger")
    elsewhere.mkdir()
    record = {"originals": "originals", "labels": "", "descriptions": []} | strange
    (staging / "renames.json").write_text(json.dumps(record).replace("{elsewhere}", elsewhere.as_posix()))
    before = tree(tmp_path)

    with pytest.raises(TaskError, match="should name files of a mending"):
        fix_task(task)

    assert tree(tmp_path) == before


def test_renames_through_a_link_are_not_followed(tmp_path):
    task, elsewhere = late_task(tmp_path), tmp_path / "elsewhere"
    (elsewhere / "new").mkdir(parents=True)
    (elsewhere / "new" / "cases.json").write_text("{}")
    record = {"originals": "originals", "labels": "", "descriptions": ["cases.json"]}
    (elsewhere / "renames.json").write_text(json.dumps(record))
    (task.folder / ".mending-1").symlink_to(elsewhere)

    with pytest.raises(TaskError, match="found others or links"):
        fix_task(task)

    assert (elsewhere / "new" / "cases.json").is_file()
