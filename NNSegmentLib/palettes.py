"""Pictures whose pixels are numbers of colours in a palette: for masks the numbers are the labels, not the colours.

SimpleITK gives the colours alone. Read here are PNG files without interlacing, and BMP files of 8 bits without compression.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

_PNG = b"\x89PNG\r\n\x1a\n"
_PALETTE, _GREY_WITH_ALPHA = 3, 4
"""PNG's numbers for kinds of pixels."""
_MOST_PIXELS = 1 << 28


def palette_numbers(path: Path) -> np.ndarray | None:
    """The numbers (Y, X) of a PNG or BMP picture with a palette; None for any other file, and for those not understood."""
    data = path.read_bytes()
    try:
        if data.startswith(_PNG):
            return _png_numbers(data)
        return _bmp_numbers(data) if data.startswith(b"BM") else None
    except (struct.error, zlib.error, ValueError, IndexError):
        return None


def is_grey_with_alpha(path: Path) -> bool:
    """Whether a file is a PNG of grey values with opacity, which SimpleITK does not read."""
    with path.open("rb") as file:
        start = file.read(26)
    return start.startswith(_PNG) and len(start) == 26 and start[25] == _GREY_WITH_ALPHA


def _png_numbers(data: bytes) -> np.ndarray | None:
    width, height, bits, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if kind != _PALETTE or interlaced or not 0 < width * height <= _MOST_PIXELS:
        return None
    length = -(-width * bits // 8)
    packed = zlib.decompressobj().decompress(b"".join(_png_chunks(data, b"IDAT")), height * (length + 1))
    rows = np.frombuffer(packed, np.uint8).reshape(height, length + 1)
    return _unpacked(_unfiltered(rows[:, 0], rows[:, 1:]), bits, width)


def _png_chunks(data: bytes, wanted: bytes):
    start = len(_PNG)
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        if name == wanted:
            yield data[start + 8 : start + 8 + length]
        start += length + 12


def _unfiltered(filters: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Bytes (Y, bytes) from their differences to the bytes before and above, as PNG stores them."""
    found, above = np.empty_like(rows), np.zeros(rows.shape[1], np.uint8)
    for y, (how, row) in enumerate(zip(filters, rows, strict=True)):
        if how == 0:
            found[y] = row
        elif how == 1:
            found[y] = np.cumsum(row, dtype=np.uint64) % 256
        elif how == 2:
            found[y] = row + above
        else:
            found[y] = _predicted(row.tolist(), above.tolist(), by_mean=how == 3)
        above = found[y]
    return found


def _predicted(row: list[int], above: list[int], by_mean: bool) -> list[int]:
    left = corner = 0
    found = []
    for byte, up in zip(row, above, strict=True):
        guess = (left + up) // 2 if by_mean else _nearest(left, up, corner)
        left, corner = (byte + guess) % 256, up
        found.append(left)
    return found


def _nearest(left: int, up: int, corner: int) -> int:
    """PNG's Paeth predictor."""
    target = left + up - corner
    return min((left, up, corner), key=lambda byte: abs(target - byte))


def _bmp_numbers(data: bytes) -> np.ndarray | None:
    start, size, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    if size < 40 or bits != 8 or compression or not 0 < width * abs(height) <= _MOST_PIXELS:
        return None
    length = -(-width // 4) * 4
    rows = np.frombuffer(data, np.uint8, abs(height) * length, start).reshape(abs(height), length)[:, :width]
    return (rows[::-1] if height > 0 else rows).copy()


def _unpacked(rows: np.ndarray, bits: int, width: int) -> np.ndarray:
    """One number for each pixel (Y, X) from bytes that hold several, the first in the highest bits."""
    if bits == 8:
        return rows[:, :width].copy()
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    numbers = (rows[:, :, None] >> shifts) & (2**bits - 1)
    return numbers.reshape(len(rows), -1)[:, :width].astype(np.uint8)
