"""A model's zip is unpacked for one process, and nothing of it stays, even after processes that could not tidy up."""

from __future__ import annotations

import gc
import json
import os
import tempfile
import weakref
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from NNSegmentLib.errors import ModelError, StorageError
from NNSegmentLib.machine.locks import LOCK
from NNSegmentLib.machine.processes import ProcessIdentity
from NNSegmentLib.model import loading
from NNSegmentLib.model.archive import opened
from NNSegmentLib.model.loading import load_model
from NNSegmentLib.records import to_json


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    """The folder for temporary files; nothing is deleted at the end of the process."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(loading.atexit, "register", lambda *_: None)
    return folder


def unpacked_by(process: ProcessIdentity, folder: Path) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "checkpoint_final.pth").touch()
    (folder / LOCK).write_text(json.dumps(to_json(process)))
    return folder


@pytest.fixture
def archive(tmp_path) -> Path:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as opened:
        opened.writestr("plans.json", "{}")
    return tmp_path / "model.zip"


def test_what_ended_processes_left_is_deleted_before_the_next_zip_is_unpacked(temporary, archive):
    own = ProcessIdentity.own()
    left = unpacked_by(replace(own, started="long ago"), temporary / "nnsegment-model-left")
    others = [
        unpacked_by(own, temporary / "nnsegment-model-alive"),
        unpacked_by(replace(own, host="node2", computer="another"), temporary / "nnsegment-model-elsewhere"),
        unpacked_by(replace(own, started="long ago"), temporary / "not-ours"),
    ]

    elsewhere = unpacked_by(replace(own, started="long ago"), temporary.parent / "of somebody")
    (temporary / "nnsegment-model-link").symlink_to(elsewhere)

    with pytest.raises(ModelError, match="holds no model"):
        load_model(archive)

    assert not left.exists()
    assert (elsewhere / "model").is_dir()
    assert all((folder / "model").is_dir() for folder in others)


def test_an_unpacked_model_is_deleted_with_its_lock(temporary):
    folder = unpacked_by(ProcessIdentity.own(), temporary / "nnsegment-model-own")

    loading._forget(folder)

    assert list(temporary.iterdir()) == []


def test_what_windows_does_not_let_delete_is_still_found_afterwards(temporary, monkeypatch):
    folder = unpacked_by(ProcessIdentity.own(), temporary / "nnsegment-model-own")
    monkeypatch.setattr(os, "unlink", _refused)

    loading._forget(folder)

    assert (folder / LOCK).is_file()


def _refused(path, **_options):
    raise PermissionError(13, "The process cannot access the file", str(path))


class Mapping:
    """Has a file open as long as it lives, and refers to itself, as a network kept by a traceback does."""

    def __init__(self) -> None:
        self.own = self


def test_windows_is_asked_only_after_forgotten_objects_have_let_go_of_their_files(temporary, monkeypatch):
    folder, mapping, seen = unpacked_by(ProcessIdentity.own(), temporary / "nnsegment-model-own"), Mapping(), []
    mapped = weakref.ref(mapping)
    gc.freeze()
    del mapping
    monkeypatch.setattr(loading.shutil, "rmtree", lambda *_, **__: seen.append(mapped()))

    loading._forget(folder, windows=True)

    assert seen == [None]


def test_a_folder_of_another_user_is_not_looked_into(temporary, archive, monkeypatch):
    left = unpacked_by(replace(ProcessIdentity.own(), started="long ago"), temporary / "nnsegment-model-theirs")
    monkeypatch.setattr(loading, "is_own", lambda path: path != left)
    monkeypatch.setattr(loading, "holder", lambda folder: pytest.fail("it was read"))

    with pytest.raises(ModelError, match="holds no model"):
        load_model(archive)

    assert (left / "model" / "checkpoint_final.pth").is_file()


def test_what_goes_wrong_with_the_content_of_a_zip_is_not_taken_for_damage_of_the_zip(archive):
    with pytest.raises(KeyError), opened(archive):
        raise KeyError("a mistake of ours")


def test_temporary_files_that_cannot_be_written_are_told_as_such(tmp_path, monkeypatch):
    def full(**_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading.tempfile, "mkdtemp", full)
    (tmp_path / "knee.zip").touch()

    with pytest.raises(StorageError, match="No space left on device.*free space"):
        load_model(tmp_path / "knee.zip")
