"""Folders that appear whole or not at all, and files copied with a sentence for everything that can go wrong."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import StorageError, TaskError
from .image import copy_image
from .records import cannot_write, new_folder, patiently

_MAKING = ".making-"
_ABANDONED_S = 24 * 3600.0


@contextlib.contextmanager
def folder_made_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to fill; renamed to `folder` on success, removed on failure."""
    with folder_in_making(folder.parent) as temporary:
        yield temporary
        give_name(temporary, folder)


@contextlib.contextmanager
def folder_in_making(parent: Path) -> Iterator[Path]:
    """A temporary folder to fill, removed at the end unless `give_name` made it appear.

    What a killed process left of its own a day ago is removed before. Raises StorageError.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        temporary = new_folder(parent, _MAKING)
    except OSError as error:
        raise StorageError(cannot_write(parent, error)) from error
    try:
        yield temporary
    except OSError as error:
        raise StorageError(cannot_write(parent, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def give_name(temporary: Path, folder: Path) -> None:
    """Make a filled folder appear under its name; raises StorageError when there is one of that name."""
    try:
        patiently(lambda: temporary.rename(folder))
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise StorageError(f"{folder} exists already; choose another name, or delete that folder first.") from error
        raise StorageError(cannot_write(folder, error)) from error


def _remove_abandoned(parent: Path) -> None:
    """Remove unfinished folders that nothing was written into for a day."""
    for left in parent.glob(_MAKING + "*"):
        with contextlib.suppress(OSError):  # another process may be removing it too
            latest = max(path.stat().st_mtime for path in (left, *left.iterdir()))
            if time.time() - latest > _ABANDONED_S:
                shutil.rmtree(left)


def copy_file(source: Path, target: Path) -> None:
    """Copy one file, a .mhd with its voxels; raises TaskError when it cannot be read, StorageError when it cannot be written."""
    try:
        with source.open("rb"):
            pass
    except OSError as error:
        raise TaskError(f"{source} cannot be read ({error.strerror}); check its permissions.") from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".mhd":
            copy_image(source, target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        raise StorageError(cannot_write(target, error)) from error
