"""Model archives: zip files unpacked without letting them write anywhere else or fill the disk."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ..errors import ModelError, StorageError
from ..records import move, working_folder

MAX_BYTES = 20 * 1024**3
"""Most that a model archive may hold when unpacked; five folds of the largest preset are about 8 GB."""
_MAX_FILES = 20_000
_MAX_RATIO = 100
_ALWAYS_FINE_BYTES = 50 * 1024**2
"""Below this size a high compression ratio is no reason for suspicion (text files)."""


def unpack(archive: Path, target: Path, max_bytes: int = MAX_BYTES) -> None:
    """Unpack a zip into the folder `target`; either everything is there afterwards or nothing.

    Raises ModelError for a damaged zip, and for one with absolute paths, '..', links, the same file twice or more
    than `max_bytes` of content; StorageError when the disk cannot take it.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [m for m in opened.infolist() if not m.is_dir()]
            _require_harmless(archive, members, max_bytes)
            _extract(opened, members, target)
    except FileNotFoundError as error:
        raise ModelError(f"Expected the model archive {archive}, found nothing there; correct the path.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{archive} cannot be unpacked ({error}); it is damaged, incomplete or no zip, get it again."
        ) from error
    except OSError as error:
        raise StorageError(
            f"Cannot unpack {archive} ({error.strerror or error}); free space or choose another folder."
        ) from error


def _require_harmless(archive: Path, members: list[zipfile.ZipInfo], max_bytes: int) -> None:
    names = [_safe_name(archive, member) for member in members]
    if len(set(n.lower() for n in map(str, names))) != len(names):
        raise ModelError(f"{archive} holds the same file twice and was not unpacked; get it from a source you trust.")
    total = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if total > max_bytes or len(names) > _MAX_FILES:
        raise ModelError(
            f"{archive} would unpack to {total / 1024**3:.1f} GiB in {len(names)} files; "
            f"a model holds at most {max_bytes / 1024**3:.1f} GiB in {_MAX_FILES} files."
        )
    if total > _ALWAYS_FINE_BYTES and total > _MAX_RATIO * max(packed, 1):
        raise ModelError(
            f"{archive} would unpack to {total // max(packed, 1)} times its size; that is no model, do not use it."
        )


def _safe_name(archive: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    name = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    strange = "\\" in member.filename or ":" in member.filename or "\0" in member.filename
    if name.is_absolute() or ".." in name.parts or strange or kind not in (0, stat.S_IFREG):
        raise ModelError(
            f"{archive} holds {member.filename!r}, which is a link or would be written outside its folder; "
            "nothing was unpacked, get the model from a source you trust."
        )
    return name


def _extract(opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with working_folder(target.parent, ".unpacking-") as unfinished:
        for member in members:
            path = unfinished.joinpath(*PurePosixPath(member.filename).parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(member) as source, path.open("wb") as written:
                shutil.copyfileobj(source, written, 1 << 20)
        target.mkdir(exist_ok=True)
        for child in unfinished.iterdir():
            move(child, target / child.name)
