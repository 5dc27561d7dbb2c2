"""Pictures whose pixels are numbers of colours in a palette: for masks the numbers are the labels, not the colours.

Where all colours are grey, the grey values are the labels, as for nnU-Net. SimpleITK gives three colours for both.
Numbers are read from PNG files without interlacing, and from BMP files of 8 bits without compression.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE, _GREY_WITH_ALPHA = 0, 3, 4
"""PNG's numbers for kinds of pixels."""
_MOST_PIXELS = 1 << 28


def palette_labels(path: Path) -> np.ndarray | None:
    """The labels (Y, X) of a PNG or BMP picture with a palette: the grey values, or the numbers of colours.

    None for any other file, and for those not understood.
    """
    data = path.read_bytes()
    numbers, colours = _numbers(data), _colours(data)
    if numbers is None or colours is None or not _are_grey(colours):
        return numbers
    return colours[:, 0][numbers] if numbers.max() < len(colours) else None


def coloured_palette(path: Path) -> tuple[tuple[int, ...], ...]:
    """The (red, green, blue) of each number of a PNG or BMP picture; empty without a palette, and where all are grey."""
    colours = _colours(path.read_bytes())
    if colours is None or _are_grey(colours):
        return ()
    return tuple(tuple(colour) for colour in colours.tolist())


def holds_colours(path: Path) -> bool:
    """Whether a PNG or BMP has colours, opacity or a palette by its header; a grey palette counts in a PNG alone."""
    with path.open("rb") as file:
        start = file.read(30)
    if start.startswith(b"BM") and len(start) == 30:
        return int.from_bytes(start[28:30], "little") > 8 or bool(coloured_palette(path))
    return _kind(start) not in (None, _GREY)


def is_grey_with_alpha(path: Path) -> bool:
    """Whether a file is a PNG of grey values with opacity, which SimpleITK does not read."""
    with path.open("rb") as file:
        return _kind(file.read(26)) == _GREY_WITH_ALPHA


def without_grey_palette(array: np.ndarray, path: Path) -> np.ndarray:
    """One channel of a grey BMP of 8 bits or less, whose palette SimpleITK expands to three equal colours."""
    with path.open("rb") as file:
        bits = int.from_bytes(file.read(30)[28:30], "little")
    is_grey = bits <= 8 and all(np.array_equal(array[0], channel) for channel in array[1:])
    return array[:1] if is_grey else array


def _kind(start: bytes) -> int | None:
    """PNG's number for the kind of pixels; None for other files."""
    return start[25] if start.startswith(_PNG) and len(start) >= 26 else None


def _numbers(data: bytes) -> np.ndarray | None:
    try:
        if data.startswith(_PNG):
            return _png_numbers(data)
        return _bmp_numbers(data) if data.startswith(b"BM") else None
    except (struct.error, zlib.error, ValueError, IndexError):
        return None


def _colours(data: bytes) -> np.ndarray | None:
    """The palette (number, RGB) of a picture; None where it has none."""
    try:
        if _kind(data[:26]) == _PALETTE:
            return np.frombuffer(next(_png_chunks(data, b"PLTE")), np.uint8).reshape(-1, 3)
        return _bmp_colours(data) if data.startswith(b"BM") else None
    except (struct.error, ValueError, StopIteration):
        return None


def _are_grey(colours: np.ndarray) -> bool:
    return bool((colours == colours[:, :1]).all())


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


def _bmp_colours(data: bytes) -> np.ndarray | None:
    size, bits, used = struct.unpack_from("<I10xH16xI", data, 14)
    if size < 40 or bits > 8:
        return None
    table = np.frombuffer(data, np.uint8, 4 * min(used or 2**bits, 2**bits), 14 + size)
    return table.reshape(-1, 4)[:, 2::-1]


def _unpacked(rows: np.ndarray, bits: int, width: int) -> np.ndarray:
    """One number for each pixel (Y, X) from bytes that hold several, the first in the highest bits."""
    if bits == 8:
        return rows[:, :width].copy()
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    numbers = (rows[:, :, None] >> shifts) & (2**bits - 1)
    return numbers.reshape(len(rows), -1)[:, :width].astype(np.uint8)
