"""Folders that appear whole or not at all, and files copied with a sentence for everything that can go wrong."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import StorageError, TaskError
from .image import copy_image
from .records import cannot_write, umask


@contextlib.contextmanager
def folder_made_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to fill; renamed to `folder` on success, removed on failure."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    except OSError as error:
        raise StorageError(cannot_write(folder, error)) from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~umask())
        temporary.rename(folder)
    except OSError as error:
        raise StorageError(cannot_write(folder, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
