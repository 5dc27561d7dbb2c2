"""Files cut off in the middle (a broken download, a full disk), where the readers give rubbish without a word."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from ..errors import ImageError

_NIFTI_1_HEADER, _NIFTI_2_HEADER = 348, 540
_NIFTI_FIELDS = {
    _NIFTI_1_HEADER: (("8h", 40), ("h", 72), ("f", 108)),
    _NIFTI_2_HEADER: (("8q", 16), ("h", 14), ("q", 168)),
}
"""Dimensions, bits a voxel and where the voxels begin: the kind of number and its place in the header of this length."""
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
"""How every gzip file begins."""
_MOST_COMPRESSED = 1032
"""Bytes that a byte of a gzip file can stand for at most."""


def require_complete(path: Path) -> None:
    """Raise ImageError when a .nii, .nii.gz, .gipl, .bmp or .tif file holds less than its header announces."""
    name = path.name.lower()
    try:
        if name.endswith(".nii.gz"):
            complete = _whole_compressed_nifti(path)
        elif name.endswith((".tif", ".tiff")):
            complete = _has_all_pages(path)
        elif name.endswith((".nii", ".bmp", ".gipl")):
            complete = path.stat().st_size >= _announced(path, name)
        else:
            complete = True
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, struct.error):
        complete = False
    if not complete:
        raise ImageError(f"{path} is cut off: it holds fewer voxels than its header announces; copy it again.")


def _announced(path: Path, name: str) -> int:
    with path.open("rb") as file:
        header = file.read(_NIFTI_2_HEADER)
    if name.endswith(".bmp"):
        return struct.unpack_from("<I", header, 2)[0]
    return _gipl_size(header) if name.endswith(".gipl") else _nifti_size(header)


def _whole_compressed_nifti(path: Path) -> bool:
    """The length noted at the end of the file decides; only where it is off is the file decompressed to count."""
    with path.open("rb") as file:
        if file.read(2) not in (_GZIP, b"", _GZIP[:1]):
            raise ImageError(
                f"{path} is not compressed, as a name ending with .nii.gz tells; check what it is, or rename it to .nii."
            )
    with gzip.open(path) as file:
        announced = _nifti_size(file.read(_NIFTI_2_HEADER))
    if announced > _MOST_COMPRESSED * path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-4, 2)
        noted = struct.unpack("<I", file.read(4))[0]
    return noted == announced % 2**32 or _decompressed_size(path) >= announced


def _has_all_pages(path: Path) -> bool:
    """Whether each page of a TIFF leads to the next one and the last one to none; readers stop at a missing one."""
    with path.open("rb") as file:
        order = {b"II": "<", b"MM": ">"}.get(file.read(2))
        if order is None:
            return True  # no TIFF, as whoever reads it will say
        big = struct.unpack(order + "H", file.read(2))[0] == 43
        count, offset, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
        file.seek(8 if big else 4)
        seen = set()
        while (place := _number(file, order + offset)) and place not in seen:
            seen.add(place)
            file.seek(place)
            file.seek(_number(file, order + count) * entry, 1)
    return True


def _number(file: BinaryIO, kind: str) -> int:
    """The next number of a file; struct.error where the file ends."""
    return struct.unpack(kind, file.read(struct.calcsize(kind)))[0]


def _decompressed_size(path: Path) -> int:
    size = 0
    with gzip.open(path) as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
    return size


def _nifti_size(header: bytes) -> int:
    """Bytes of a NIfTI file: where the voxels begin plus their number times their size; 0 for other headers."""
    lengths = {order: struct.unpack_from(order + "i", header)[0] for order in "<>"}
    order = next((order for order, length in lengths.items() if length in _NIFTI_FIELDS), None)
    if order is None:
        return 0
    fields = _NIFTI_FIELDS[lengths[order]]
    dimensions, (bits,), (offset,) = (struct.unpack_from(order + kind, header, place) for kind, place in fields)
    if offset < 0:  # SimpleITK would take the end of the header for voxels
        raise ValueError(offset)
    return int(offset) + math.prod(dimensions[1 : 1 + dimensions[0]]) * bits // 8


def _gipl_size(header: bytes) -> int:
    """Bytes of a GIPL file: 256 of header, big-endian sizes and number type."""
    sizes, kind = struct.unpack_from(">4H", header), struct.unpack_from(">H", header, 8)[0]
    width = {7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}.get(kind, 0)
    return 256 + math.prod(max(size, 1) for size in sizes) * width
