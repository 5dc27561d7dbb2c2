"""Paths that SimpleITK can open, which on Windows are those of ASCII letters.

There ITK hands the UTF-8 bytes of a path to functions that take them for letters of the ANSI code page, so that it finds
nothing in C:\\Users\\Müller (ITK issues 4388 and 6739). Every path that SimpleITK gets passes through here. Elsewhere,
and for programs whose code page is UTF-8, it comes back as it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import StorageError
from ..records import ascii_name, copy_whole, patiently

_UTF_8 = 65001
"""The number of that code page."""
_LONGEST = 32768
"""Letters of the longest path on Windows."""


@contextlib.contextmanager
def path_to_read(path: Path, copy: Callable[[Path, Path], None] = copy_whole) -> Iterator[str]:
    """A path that SimpleITK finds the file at; `copy` makes a copy under another name where nothing else helps.

    Raises StorageError when there is no place for a copy.
    """
    plain = _plain(path)
    if plain:
        yield plain
        return
    with _plain_folder(path) as folder:
        copied = folder / ascii_name(path.name)
        copy(path, copied)
        yield str(copied)


@contextlib.contextmanager
def path_to_write(path: Path) -> Iterator[str]:
    """A path that SimpleITK can write to, in an existing folder; what it wrote is at `path` afterwards.

    Raises StorageError when there is no place to write to, OSError when the file cannot be put at `path`.
    """
    plain = _plain(path)
    if plain:
        yield plain
        return
    with _plain_folder(path) as folder:
        written = folder / ascii_name(path.name)
        yield str(written)
        for file in folder.iterdir():  # a .mhd comes with a file of voxels
            target = path if file == written else path.with_name(file.name)
            patiently(lambda file=file, target=target: shutil.copyfile(file, target))


def _plain(path: Path) -> str:
    """The path as SimpleITK can take it; empty when there is none.

    The file keeps its name, because Windows' short names lose the endings by which formats are known.
    """
    if str(path).isascii() or not _takes_ascii_only():
        return str(path)
    short = _short_form(path.parent) / path.name
    return str(short) if str(short).isascii() else ""


def _takes_ascii_only() -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    return ctypes.windll.kernel32.GetACP() != _UTF_8


def _short_form(folder: Path) -> Path:
    """The folder by its names of 8 + 3 letters; as it is on disks that have none."""
    import ctypes

    buffer = ctypes.create_unicode_buffer(_LONGEST)
    length = ctypes.windll.kernel32.GetShortPathNameW(str(folder.absolute()), buffer, _LONGEST)
    return Path(buffer.value) if length else folder


@contextlib.contextmanager
def _plain_folder(wanted_for: Path) -> Iterator[Path]:
    """An empty folder whose path is ASCII, removed at the end."""
    made = _made_plain_folder()
    if made is None:
        raise StorageError(
            f"The image {wanted_for} cannot be opened by that name, and no folder with a name of English letters was found "
            "to work in; use a folder such as C:\\NNSegment for images and workspace."
        )
    with made as folder:
        yield Path(folder)


def _made_plain_folder() -> tempfile.TemporaryDirectory | None:
    places = [tempfile.gettempdir(), *(os.environ[name] for name in ("PUBLIC", "ProgramData") if name in os.environ)]
    for place in (_short_form(Path(place)) for place in places):
        with contextlib.suppress(OSError):  # a place that may not be written to
            if str(place).isascii():
                return tempfile.TemporaryDirectory(prefix="nnsegment-", dir=place, ignore_cleanup_errors=True)
    return None
