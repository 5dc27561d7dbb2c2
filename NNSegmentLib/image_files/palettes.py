"""Pictures whose pixels are numbers of colours in a palette: for masks the numbers are the labels, not the colours.

Where all colours are grey, the grey values are the labels, as for nnU-Net. SimpleITK gives three colours for both.
Numbers are read from PNG files, and from BMP files of 8 bits without compression.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np

from .itk_paths import path_to_read

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
    except (struct.error, ValueError, IndexError, RuntimeError):
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
    """The numbers, which SimpleITK gives where the header calls them greys; it spreads those of few bits up to 255."""
    width, height, bits, kind = struct.unpack_from(">IIBB", data, 16)
    if kind != _PALETTE or bits not in (1, 2, 4, 8) or not 0 < width * height <= _MOST_PIXELS:
        return None
    header = data[16:25] + bytes([_GREY]) + data[26:29]
    chunks = ((b"IHDR", header), (b"IDAT", b"".join(_png_chunks(data, b"IDAT"))), (b"IEND", b""))
    greys = _read_picture(_PNG + b"".join(_png_chunk(*chunk) for chunk in chunks))
    return greys // (255 // (2**bits - 1)) if greys.dtype == np.uint8 and greys.shape == (height, width) else None


def _read_picture(data: bytes) -> np.ndarray:
    """The array of a PNG by SimpleITK, which reads from disk alone; raises RuntimeError."""
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory(prefix="nnsegment-") as folder:
        file = Path(folder) / "greys.png"
        file.write_bytes(data)
        with path_to_read(file) as plain:
            return sitk.GetArrayFromImage(sitk.ReadImage(plain))


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png_chunks(data: bytes, wanted: bytes):
    start = len(_PNG)
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        if name == wanted:
            yield data[start + 8 : start + 8 + length]
        start += length + 12


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
