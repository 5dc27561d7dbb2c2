"""Folders appear whole, once, and under a name that nobody else took meanwhile."""

from __future__ import annotations

import os
import time

import pytest
from task_on_disk import nnunet_v2, tree

from NNSegmentLib.copying import folder_made_whole
from NNSegmentLib.errors import StorageError, TaskError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.formats import convert


def test_what_a_killed_conversion_left_goes_after_a_day(tmp_path):
    old, new = tmp_path / ".making-old", tmp_path / ".making-new"
    for folder, hours in ((old, 25), (new, 1)):
        (folder / "imagesTr").mkdir(parents=True)
        for path in (folder, folder / "imagesTr"):
            os.utime(path, (time.time() - 3600 * hours,) * 2)

    with folder_made_whole(tmp_path / "made") as building:
        (building / "file").touch()

    assert sorted(path.name for path in tmp_path.iterdir()) == [".making-new", "made"]


def test_a_name_that_was_taken_meanwhile_is_told_and_not_replaced(tmp_path):
    with (
        pytest.raises(StorageError, match="made exists already; choose another name"),
        folder_made_whole(tmp_path / "made") as building,
    ):
        (building / "mine").touch()
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "theirs").touch()

    assert list(tree(tmp_path)) == ["made/theirs"]


def while_converting(work):
    """A progress receiver that does something else once, in the middle of the work."""
    left = [work]
    return lambda *_: left and left.pop()()


def test_of_two_conversions_at_once_the_later_takes_the_next_number(tmp_path):
    workspace, sources = Workspace.at(tmp_path / "w"), [nnunet_v2(tmp_path / name) for name in ("Lung", "Liver")]

    task = convert(sources[0], workspace, progress=while_converting(lambda: convert(sources[1], workspace)))

    assert workspace.task_names() == ("Dataset501_Liver", "Dataset502_Lung")
    assert task.name == "Dataset502_Lung"


@pytest.mark.parametrize("rival", ["Lung", "Liver"])
def test_a_given_number_that_was_taken_during_the_conversion_is_refused(tmp_path, rival):
    workspace, source = Workspace.at(tmp_path / "w"), nnunet_v2(tmp_path / "Scans")

    with pytest.raises(TaskError, match=f"The number 7 is taken by .*Dataset007_{rival}; give another number"):
        convert(
            source, workspace, id=7, name="Lung",
            progress=while_converting(lambda: convert(source, workspace, id=7, name=rival)),
        )  # fmt: skip

    assert [path.name for path in workspace.raw.iterdir()] == [f"Dataset007_{rival}"]
