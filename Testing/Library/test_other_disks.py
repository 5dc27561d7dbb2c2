"""Disks of other systems: hidden twins of files, permissions that cannot be set, paths that are too long, scanners."""

from __future__ import annotations

import os
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from task_on_disk import PLAIN, blocks, nnunet_v2, noise

from NNSegmentLib import pipeline, records
from NNSegmentLib.copying import folder_made_whole
from NNSegmentLib.errors import ImageError, StorageError, TaskError
from NNSegmentLib.folders import Workspace, visible
from NNSegmentLib.formats import convert
from NNSegmentLib.image import read_image, read_labels, write_image, write_labels
from NNSegmentLib.integrity.install import gathering
from NNSegmentLib.lookup import folders_of, plan_of
from NNSegmentLib.model.archive import unpack
from NNSegmentLib.preprocessing.storage import PreparedStore
from NNSegmentLib.records import cannot_write, new_folder, read_json, working_folder, write_json
from NNSegmentLib.report.contents import gather
from NNSegmentLib.selection.ensembling import ensemble_cases


@pytest.fixture
def on_windows(monkeypatch):
    """What another program has open is waited for, without passing time."""
    monkeypatch.setattr(records.sys, "platform", "win32")
    monkeypatch.setattr(records, "_LOOK_S", 0.0)


def with_twins(folder: Path) -> Path:
    """Lay what macOS lays on a memory stick beside every file."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        path.with_name("._" + path.name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        \xff\xfe")
    return folder


# hidden twins


def test_what_is_hidden_is_not_listed(tmp_path):
    for name in ("b.json", "a.json", "._a.json", ".hidden/c.json", "deep/d.json", "deep/._d.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert visible(tmp_path, "*.json") == [tmp_path / "a.json", tmp_path / "b.json"]
    assert visible(tmp_path, "*/*.json") == [tmp_path / "deep" / "d.json"]
    assert visible(tmp_path) == [tmp_path / "a.json", tmp_path / "b.json", tmp_path / "deep"]
    assert visible(tmp_path / "a.json") == visible(tmp_path / "none", "*") == []


def test_twins_of_macos_take_part_in_nothing(tmp_path):
    nnunet_v2(tmp_path / "nnUNet_raw" / "Dataset501_Blocks", n_cases=5)
    pipeline.plan(501, tmp_path)
    pipeline.preprocess(501, tmp_path, configurations=["2d"])
    with_twins(tmp_path)

    (done,) = pipeline.preprocess(501, tmp_path, configurations=["2d"])

    folders = folders_of(501, tmp_path)
    assert pipeline.check(501, tmp_path) == []
    assert done.computed == 0
    assert PreparedStore(done.folder).ids == tuple(f"case{n}" for n in range(5))
    assert [plan.name for plan in gather(folders).plans] == [plan_of(folders).name] == ["nnUNetPlans"]


def test_twins_are_no_members_of_an_ensemble(tmp_path):
    write_labels(tmp_path / "a" / "case.nii.gz", blocks(), PLAIN)
    np.savez(tmp_path / "a" / "case.npz", probabilities=np.zeros(1))
    with_twins(tmp_path)

    assert [case.case_id for case in ensemble_cases([tmp_path / "a"])] == ["case"]


# other programs


def busy_once(monkeypatch, owner: object, name: str, counts=lambda path: True) -> list:
    """Let the first call for a path that counts fail as on Windows while a virus scanner reads; returns those calls."""
    plain, failed = getattr(owner, name), []

    def refused(path, *others, **options):
        if not failed and counts(Path(path)):
            failed.append(path)
            raise PermissionError(13, "Access is denied", str(path))
        return plain(path, *others, **options)

    monkeypatch.setattr(owner, name, refused)
    return failed


def test_hours_of_work_outlast_a_virus_scanner(tmp_path, monkeypatch, on_windows):
    failed = busy_once(monkeypatch, os, "rename")

    with folder_made_whole(tmp_path / "made") as building:
        (building / "file").touch()

    assert failed
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["file"]


def test_an_unpacked_model_outlasts_a_virus_scanner(tmp_path, monkeypatch, on_windows):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("Dataset501_X/plans.json", "{}")
    failed = [busy_once(monkeypatch, os, name, lambda path: path.is_dir()) for name in ("rename", "replace")]

    unpack(tmp_path / "m.zip", tmp_path / "model")

    assert any(failed)
    assert (tmp_path / "model" / "Dataset501_X" / "plans.json").read_text() == "{}"


def test_voxels_of_a_header_outlast_a_virus_scanner(tmp_path, monkeypatch, on_windows):
    failed = busy_once(monkeypatch, os, "replace", lambda path: path.suffix == ".raw")

    write_image(tmp_path / "case.mhd", noise(1), PLAIN)

    assert failed
    assert np.array_equal(read_image(tmp_path / "case.mhd").array[0], noise(1))


def test_what_cannot_be_removed_at_the_end_hides_no_result(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "The process cannot access the file")

    with working_folder(tmp_path, ".working-") as folder:
        (folder / "file").touch()
        monkeypatch.setattr(os, "unlink", refused)

    assert folder.exists()


# permissions


def test_a_disk_without_permissions_can_be_written(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    nnunet_v2(tmp_path / "source" / "Dataset501_Blocks")
    for name in ("chmod", "utime"):
        monkeypatch.setattr(os, name, refused)
    workspace = Workspace.at(tmp_path / "stick")

    task = convert(tmp_path / "source" / "Dataset501_Blocks", workspace)
    with gathering(task.folder):
        pipeline.plan(501, tmp_path / "stick")
    pipeline.preprocess(501, tmp_path / "stick", configurations=["2d"])

    kept = folders_of(501, tmp_path / "stick").reference_labels / "case0.nii.gz"
    assert np.array_equal(read_labels(kept).array, read_labels(task.cases[0].labels).array)


def test_folders_that_are_given_to_the_user_were_never_closed_to_others(tmp_path, monkeypatch):
    """On Windows those made with the mode 0o700 stay so under their later names, with all that is in them."""
    modes, mkdir = {}, os.mkdir
    monkeypatch.setattr(
        os, "mkdir", lambda path, mode=0o777, **k: (modes.update({str(path): mode}), mkdir(path, mode, **k))
    )
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("plans.json", "{}")

    with folder_made_whole(tmp_path / "made") as building, gathering(building):
        write_image(building / "case.mhd", noise(1), PLAIN)
    unpack(tmp_path / "m.zip", tmp_path / "model")

    assert len(modes) >= 4
    assert set(modes.values()) == {0o777}


def test_new_folders_have_names_of_their_own(tmp_path, monkeypatch):
    names = iter(["one", "one", "two"])
    monkeypatch.setattr(records.secrets, "token_hex", lambda _: next(names))

    assert [new_folder(tmp_path, ".made-").name for _ in range(2)] == [".made-one", ".made-two"]


# paths that are too long


@pytest.fixture
def short_paths(monkeypatch):
    monkeypatch.setattr(records, "allows_long_paths", lambda: False)


LONG = "/".join(["folder" * 10] * 5)


def test_a_path_that_is_too_long_for_windows_is_told_instead_of_lack_of_space(tmp_path, monkeypatch, short_paths):
    missing = FileNotFoundError(2, "No such file or directory")

    def refused(*_, **__):
        raise missing

    monkeypatch.setattr(records.tempfile, "mkstemp", refused)
    with pytest.raises(StorageError, match=r"case\.json: its path is too long for Windows; choose a folder nearer to"):
        write_json(tmp_path / LONG / "case.json", {})

    assert "too long" in cannot_write(Path("short"), FileNotFoundError(2, "No such file", f"/{LONG}/.writing-1"))
    assert "free space" in cannot_write(Path("short"), missing)
    assert "(No space left on device)" in cannot_write(tmp_path / LONG, OSError(28, "No space left on device"))


def test_a_file_whose_path_is_too_long_for_windows_is_not_called_missing(tmp_path, short_paths):
    with pytest.raises(TaskError, match="its path is too long for Windows"):
        read_json(tmp_path / LONG / "plans.json")
    with pytest.raises(ImageError, match="its path is too long for Windows"):
        read_image(tmp_path / LONG / "case.nii.gz")
    with pytest.raises(TaskError, match="correct the path or put the file there"):
        read_json(tmp_path / "plans.json")


@pytest.mark.parametrize(
    ("platform", "set_to", "allowed"), [("linux", 0, True), ("win32", 0, False), ("win32", 1, True)]
)
def test_windows_says_itself_whether_it_allows_long_paths(monkeypatch, platform, set_to, allowed):
    monkeypatch.setattr(records.sys, "platform", platform)
    registry = SimpleNamespace(
        HKEY_LOCAL_MACHINE=0, OpenKey=lambda *_: nullcontext(), QueryValueEx=lambda *_: (set_to, 4)
    )
    monkeypatch.setitem(sys.modules, "winreg", registry)

    assert records.allows_long_paths() == allowed
