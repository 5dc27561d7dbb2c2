"""Model archives: zip files read and unpacked without letting them write anywhere else or fill disk and memory."""

from __future__ import annotations

import contextlib
import io
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ..errors import ModelError, StorageError
from ..file_names import composed, is_portable
from ..records import move, working_folder

try:
    from lzma import LZMAError
except ImportError:  # a Python that was built without; its zipfile then refuses such members by itself
    LZMAError = zlib.error

MAX_BYTES = 20 * 1024**3
"""Most that a model archive may hold when unpacked; five folds of the largest preset are about 8 GB."""
_MAX_FILES, _MAX_DEPTH = 20_000, 20
_MAX_CONTENTS_BYTES = 4 * 1024**2
"""Of a zip's table of contents, which zipfile reads at once and keeps; two hundred for each of the most files."""
_MAX_RATIO = 100
_ALWAYS_FINE_BYTES = 50 * 1024**2
"""Below this size a high compression ratio is no reason for suspicion (text files)."""
_DAMAGED_MEMBER = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, RuntimeError, struct.error)
"""What zipfile raises for other bytes of a member; RuntimeError for passwords and unknown methods of compression."""
_DAMAGED = (*_DAMAGED_MEMBER, ValueError, LookupError)


@contextlib.contextmanager
def opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """The zip of a model to read, with files of which each could be a file on every system.

    Raises ModelError for a missing or damaged zip, also when damage shows while it is read, and for one with absolute
    paths, '..', links, names that no system or not every one can write or show, or the same file twice.
    """
    try:
        file = ZipOnDisk(archive)
    except FileNotFoundError as error:
        raise ModelError(f"Expected the model archive {archive}, found nothing there; correct the path.") from error
    except OSError as error:
        if archive.is_dir():
            raise ModelError(
                f"Expected the zip of a model, found the folder {archive}; it needs no import: predict with -m, or move it "
                "into nnUNet_results."
            ) from error
        raise ModelError(f"{archive} cannot be read ({error.strerror}); check its permissions.") from error
    with file:
        with _damage(archive, _DAMAGED):
            zipped = file.listed()
        with zipped, _damage(archive, _DAMAGED_MEMBER):
            _require_harmless_names(archive, files_of(zipped))
            yield zipped


@contextlib.contextmanager
def _damage(archive: Path, kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except (*kinds, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # bz2 tells damage as an error of no number
            raise
        raise ModelError(
            f"{archive} cannot be read ({error}); it is damaged, encrypted or no zip, get it again."
        ) from error


def files_of(zipped: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The members that are no folders."""
    return [member for member in zipped.infolist() if not member.is_dir()]


class ZipOnDisk(io.BufferedReader):
    """A zip whose table of contents is not read when it is far longer than a model's; raises OSError."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._is_listed = False

    def listed(self) -> zipfile.ZipFile:
        """The zip in this file; raises what zipfile does."""
        zipped = zipfile.ZipFile(self)
        self._is_listed = True
        return zipped

    def read(self, size: int | None = -1) -> bytes:
        if not self._is_listed and (size or 0) > _MAX_CONTENTS_BYTES:
            raise zipfile.BadZipFile(f"a table of contents of {size} bytes, which no model has")
        return super().read(size)


def unpack(archive: Path, target: Path, max_bytes: int = MAX_BYTES) -> None:
    """Unpack a zip into the folder `target`; either everything is there afterwards or nothing.

    Raises ModelError as `opened` does, and for more than `max_bytes` of content; StorageError when the disk cannot take it.
    """
    try:
        with opened(archive) as zipped:
            members = files_of(zipped)
            _require_harmless_size(archive, members, max_bytes)
            _extract(zipped, members, target)
    except OSError as error:
        raise StorageError(
            f"Cannot unpack {archive} ({error.strerror or error}); free space or choose another folder."
        ) from error


def _require_harmless_names(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > _MAX_FILES:
        raise ModelError(f"{archive} holds {len(members)} files, a model at most {_MAX_FILES}; do not use it.")
    names = [_safe_name(archive, member) for member in members]
    files, folders = [_as_written(name) for name in names], {_as_written(p) for name in names for p in name.parents}
    if len({*files}) < len(files) or not folders.isdisjoint(files):
        raise ModelError(f"{archive} holds the same file twice and was not unpacked; get it from a source you trust.")


def _as_written(name: PurePosixPath) -> str:
    """Equal for names that are one on a disk: those of macOS and Windows tell no capitals, the former no accents apart."""
    return composed(str(name)).casefold()


def _safe_name(archive: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    name, kind = PurePosixPath(member.filename), stat.S_IFMT(member.external_attr >> 16)
    is_safe = 0 < len(name.parts) <= _MAX_DEPTH and all(map(is_portable, name.parts))
    if not is_safe or kind not in (0, stat.S_IFREG):
        raise ModelError(
            f"{archive} holds {ascii(member.filename)[:200]}, which is a link, would be written outside its folder or has a "
            "name that not every system can write; nothing was unpacked, get the model from a source you trust."
        )
    return name


def _require_harmless_size(archive: Path, members: Sequence[zipfile.ZipInfo], max_bytes: int) -> None:
    total = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if total > max_bytes:
        raise ModelError(
            f"{archive} would unpack to {total / 1024**3:.1f} GiB; a model holds at most {max_bytes / 1024**3:.1f} GiB."
        )
    if total > _ALWAYS_FINE_BYTES and total > _MAX_RATIO * max(packed, 1):
        raise ModelError(
            f"{archive} would unpack to {total // max(packed, 1)} times its size; that is no model, do not use it."
        )


def _extract(zipped: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with working_folder(target.parent, ".unpacking-") as unfinished:
        for member in members:
            path = unfinished.joinpath(*PurePosixPath(member.filename).parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(member) as source, path.open("wb") as written:
                shutil.copyfileobj(source, written, 1 << 20)
        target.mkdir(exist_ok=True)
        for child in unfinished.iterdir():
            move(child, target / child.name)
