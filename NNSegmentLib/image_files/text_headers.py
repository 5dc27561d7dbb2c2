"""Headers that are text, of NRRD and MetaImage files: read here before SimpleITK, which believes whatever they say.

They may name another file for the voxels. Only one beside the header is taken: data of a stranger should not be able to
bring in other files. ITK ends the process on many axes and on names with formats such as '%n'.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import ImageError
from ..records import copy_whole, written_whole
from .refusals import many_axes, unreadable

HEADER_TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}
"""How a header names its voxel file: in UTF-8, or by bytes that are kept as they are."""
_META_ENDINGS = (".mha", ".mhd")
_LONGEST = 1 << 24
"""Bytes of a header; those of segmentations hold a table of segments."""
_META_AXES = re.compile(rb"^[ \t]*NDims\s*[=:]\s*(\S*)", re.MULTILINE)
_META_VOXELS = re.compile(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\r\n]*?)[ \t]*\r?$", re.MULTILINE)
_LIST = "LIST"
"""What ITK takes for a list of files, one for each slice, whatever follows."""
_NRRD_AXES = re.compile(rb"^dimension:(?!=) *(.*)", re.IGNORECASE | re.MULTILINE)
_NRRD_VOXELS = re.compile(rb"^data ?file:(?!=)[ \t]*(.*?)[ \t]*$", re.IGNORECASE | re.MULTILINE)


def require_sound_header(path: Path) -> None:
    """Raise ImageError when a header of text has another number of axes than 2 to 4, or names a file elsewhere."""
    voxel_file(path)


def voxel_file(path: Path) -> Path | None:
    """The file beside a .nrrd, .mha or .mhd file that holds its voxels; None where it holds them itself.

    Raises ImageError for a header that cannot be understood, and for one that names anything but a file beside it.
    """
    found = _voxels_named(path)
    return _beside(path, found[1].decode(**HEADER_TEXT)) if found else None


def copy_with_voxels(source: Path, target: Path) -> None:
    """Copy a header and the voxel file that it names, which then has the header's new name; raises ImageError, StorageError."""
    voxels = voxel_file(source)
    if voxels is None:
        copy_whole(source, target)
        return
    beside = target.with_suffix(voxels.suffix)
    if beside == target:  # the voxels of a .nrrd may lie in a file that ends so, too
        beside = target.with_name(f"{target.name}.raw")
    copy_whole(voxels, beside)
    start, end = _voxels_named(source).span(1)
    header = source.read_bytes()
    with written_whole(target) as temporary:
        temporary.write_bytes(header[:start] + beside.name.encode(**HEADER_TEXT) + header[end:])


def _voxels_named(path: Path) -> re.Match[bytes] | None:
    """Where a header names the file of its voxels; None where it holds them, and for files without a header of text."""
    name = path.name.lower()
    if name.endswith(_META_ENDINGS):
        return _meta_voxels(path)
    return _nrrd_voxels(path) if name.endswith(".nrrd") else None


def _meta_voxels(path: Path) -> re.Match[bytes] | None:
    header = _header(path, lambda line: _META_VOXELS.match(line) is not None)
    _require_axes(path, _META_AXES.findall(header))
    found = _META_VOXELS.search(header)
    if not found:
        raise unreadable(path)
    return None if found[1] in (b"LOCAL", b"Local", b"local") else found


def _nrrd_voxels(path: Path) -> re.Match[bytes] | None:
    header = _header(path, lambda line: line in (b"\n", b"\r\n")).replace(b"\r\n", b" \n")
    _require_axes(path, _NRRD_AXES.findall(header))
    named = list(_NRRD_VOXELS.finditer(header))
    if b"\r" in header or len(named) > 1:  # old line ends, by which SimpleITK sees other lines
        raise unreadable(path)
    return named[0] if named else None


def _header(path: Path, is_last: Callable[[bytes], bool]) -> bytes:
    """The lines up to the last one of a header."""
    lines, left = [], _LONGEST
    try:
        with path.open("rb") as file:
            while left > 0 and (line := file.readline(left)):
                lines.append(line)
                left -= len(line)
                if is_last(line):
                    break
    except OSError as error:
        raise unreadable(path) from error
    return b"".join(lines)


def _require_axes(path: Path, found: list[bytes]) -> None:
    if not found:
        raise unreadable(path)
    wrong = [number for number in found if number.strip() not in (b"2", b"3", b"4")]
    if wrong:
        raise many_axes(path, wrong[0].decode("ascii", "replace"))


def _beside(path: Path, name: str) -> Path:
    plain = name.removeprefix("./")
    is_plain = not {"%", "\0"} & {*plain} and not plain.startswith(_LIST) and plain not in ("", ".", "..")
    if is_plain and plain == PurePosixPath(plain).name == PureWindowsPath(plain).name:
        beside = path.with_name(plain)
        if beside.is_file():
            return beside
        raise ImageError(
            f"{path} expects its voxels in the file {plain} beside it, found none; put both into one folder."
        )
    raise ImageError(
        f"{path} should hold its voxels or name one file beside it, without % and not beginning with LIST, found "
        f"{name!r:.60}; save the image as a single file, such as .nrrd or .mha."
    )
