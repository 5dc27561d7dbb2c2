"""Masks whose pixels are numbers of colours: the numbers come out, whatever way they are packed."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from task_on_disk import write_plane

from NNSegmentLib.errors import ImageError
from NNSegmentLib.image import read_array, read_labels
from NNSegmentLib.image_files.palettes import coloured_palette, holds_colours, palette_labels

COLOURS = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
NUMBERS = np.random.default_rng(3).integers(0, 2, (9, 13)).astype(np.uint8)


def packed(row: np.ndarray, bits: int) -> bytes:
    text = "".join(f"{number:0{bits}b}" for number in row)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def paeth(a: int, b: int, c: int) -> int:
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    if pa <= pb and pa <= pc:
        return a
    return b if pb <= pc else c


def filtered(rows: list[bytes], how: int) -> bytes:
    """Rows as PNG stores them, written down from its specification."""
    out, above = b"", bytes(len(rows[0]))
    for row in rows:
        left, corner = b"\0" + row[:-1], b"\0" + above[:-1]
        guesses = {
            0: bytes(len(row)),
            1: left,
            2: above,
            3: bytes((a + b) // 2 for a, b in zip(left, above, strict=True)),
            4: bytes(paeth(*three) for three in zip(left, above, corner, strict=True)),
        }
        out += bytes([how]) + bytes((x - g) % 256 for x, g in zip(row, guesses[how], strict=True))
        above = row
    return out


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def interlaced_rows(numbers: np.ndarray, how: int) -> bytes:
    """The seven small pictures that PNG makes of one."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    small = (numbers[top::down, left::across] for top, left, down, across in passes)
    return b"".join(filtered([row.tobytes() for row in picture], how) for picture in small if picture.size)


def png(
    path,
    numbers: np.ndarray,
    bits: int = 8,
    how: int = 0,
    kind: int = 3,
    interlaced: int = 0,
    colours=COLOURS,
    rows=b"",
):
    height, width = numbers.shape
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    colours = colours[: 2**bits]
    if not rows:
        rows = interlaced_rows(numbers, how) if interlaced else filtered([packed(row, bits) for row in numbers], how)
    pixels = zlib.compress(rows)
    chunks = (
        [chunk(b"IHDR", header), chunk(b"PLTE", bytes(sum(colours, ())))] if kind == 3 else [chunk(b"IHDR", header)]
    )
    chunks += [chunk(b"IDAT", pixels[:20]), chunk(b"IDAT", pixels[20:]), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def bmp(path, numbers: np.ndarray, upside_down: bool = True, colours=COLOURS):
    height, width = numbers.shape
    n_colours, colours = len(colours), b"".join(bytes([b, g, r, 0]) for r, g, b in colours)
    rows = [row + b"\0" * (-len(row) % 4) for row in (row.tobytes() for row in numbers)]
    pixels, start = b"".join(rows[::-1] if upside_down else rows), 54 + len(colours)
    sign = 1 if upside_down else -1
    header = struct.pack("<IiiHHIIiiII", 40, width, sign * height, 1, 8, 0, len(pixels), 0, 0, n_colours, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + colours + pixels)
    return path


@pytest.mark.parametrize("how", range(5))
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_numbers_of_a_png_are_its_labels(tmp_path, bits, how):
    numbers = np.random.default_rng(bits).integers(0, min(2**bits, 4), (9, 13)).astype(np.uint8)
    path = png(tmp_path / "mask.png", numbers, bits, how)

    assert len(read_array(path)[0]) == 3  # what other programs see
    assert np.array_equal(read_labels(path).array[0], numbers)


@pytest.mark.parametrize("upside_down", [True, False])
def test_the_numbers_of_a_bmp_are_its_labels(tmp_path, upside_down):
    path = bmp(tmp_path / "mask.bmp", NUMBERS, upside_down)

    assert np.array_equal(palette_labels(path), NUMBERS)
    assert np.array_equal(read_labels(path).array[0], NUMBERS)


@pytest.mark.parametrize("write", [png, bmp])
def test_the_greys_of_a_grey_palette_are_the_labels(tmp_path, write):
    path = write(tmp_path / f"mask.{write.__name__}", NUMBERS, colours=[(255, 255, 255), (0, 0, 0)])

    assert np.array_equal(read_labels(path).array[0], 255 * (1 - NUMBERS))
    assert coloured_palette(path) == ()


@pytest.mark.parametrize("write", [png, bmp])
def test_a_coloured_palette_counts_where_a_mask_uses_only_its_greys(tmp_path, write):
    path = write(tmp_path / f"mask.{write.__name__}", NUMBERS * 0, colours=[(255, 255, 255), (255, 0, 0)])

    assert not read_labels(path).array.any()
    assert coloured_palette(path) == ((255, 255, 255), (255, 0, 0))


def test_numbers_without_a_grey_are_no_labels(tmp_path):
    assert palette_labels(png(tmp_path / "mask.png", NUMBERS, colours=[(9, 9, 9)])) is None


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 3), (5, 6, 4)])
@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_the_header_tells_colours_from_greys(tmp_path, shape, ending):
    write_plane(tmp_path / f"mask{ending}", np.zeros(shape, np.uint8))

    assert holds_colours(tmp_path / f"mask{ending}") == (len(shape) == 3)


def test_the_numbers_of_an_interlaced_mask_are_its_labels(tmp_path):
    path = png(tmp_path / "mask.png", NUMBERS, interlaced=1)

    assert np.array_equal(read_labels(path).array[0], NUMBERS)


@pytest.mark.timeout(30)
def test_a_large_mask_takes_seconds(tmp_path):
    numbers = np.zeros((4000, 4000), np.uint8)
    numbers[1000:3000, 1000:3000] = 1
    rows = b"".join(b"\4" + row.tobytes() for row in paeth_differences(numbers))

    path = png(tmp_path / "mask.png", numbers, rows=rows)

    assert np.array_equal(palette_labels(path), numbers)


def paeth_differences(numbers: np.ndarray) -> np.ndarray:
    """Of a picture that is 0 but for one rectangle of 1: what lies above where left and corner are equal, else left."""
    padded = np.pad(numbers, ((1, 0), (1, 0)))
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    return numbers - np.where(left == corner, above, left)


def test_colours_without_a_palette_are_no_labels(tmp_path):
    write_plane(tmp_path / "mask.png", np.zeros((5, 6, 3), np.uint8))

    assert palette_labels(tmp_path / "mask.png") is None
    with pytest.raises(ImageError, match="3 channels"):
        read_labels(tmp_path / "mask.png")


@pytest.mark.parametrize("write", [png, bmp])
def test_damaged_pictures_give_no_numbers_that_are_not_there(tmp_path, write):
    whole = write(tmp_path / "mask", NUMBERS).read_bytes()

    for length in range(0, len(whole) - 40, 7):
        (tmp_path / "mask").write_bytes(whole[:length])
        found = palette_labels(tmp_path / "mask")
        assert found is None or np.array_equal(found, NUMBERS)


def test_grey_pictures_with_opacity_are_refused_with_what_to_do(tmp_path):
    path = png(tmp_path / "cell.png", np.zeros((4, 8), np.uint8), kind=4)

    with pytest.raises(ImageError, match="alpha channel .* save it without alpha"):
        read_array(path)
