"""TIFF files of all kinds that tifffile writes: the numbers that went in come out, or a sentence."""

from __future__ import annotations

import contextlib
import json
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from task_on_disk import noise

from NNSegmentLib.errors import ImageError
from NNSegmentLib.formats.source import stored_layout, stored_voxels
from NNSegmentLib.image import read_array, read_geometry, read_image
from NNSegmentLib.image_files.tiff import header_spacing, require_one_time, unused_spacing

KINDS = [np.uint8, np.uint16, np.int8, np.int16, np.int32, np.uint32, np.float32, np.float64, bool]


def stack(kind, shape=(5, 20, 30)):
    return (np.abs(noise(2, shape)) * 40 % 120).astype(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slices", [1, 3, 4, 5])
def test_a_stack_of_any_type_and_height_is_a_volume(tmp_path, kind, slices):
    voxels = stack(kind, (slices, 20, 30))
    tifffile.imwrite(tmp_path / "case_0000.tif", voxels)
    (tmp_path / "case.json").write_text(json.dumps({"spacing": [2.5, 0.9, 0.8]}))

    array, geometry = read_array(tmp_path / "case_0000.tif")

    assert array.dtype == kind and np.array_equal(array, voxels[None])
    assert geometry.spacing_mm == (2.5, 0.9, 0.8) and geometry.dimension == 3
    assert read_geometry(tmp_path / "case_0000.tif") == geometry


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"imagej": True}, {"bigtiff": True}, {"tile": (16, 16)}])
def test_a_stack_stored_in_another_way_is_the_same(tmp_path, options):
    tifffile.imwrite(tmp_path / "case.tif", stack(np.uint16), **options)

    assert np.array_equal(read_image(tmp_path / "case.tif").array[0], stack(np.uint16))


@pytest.mark.parametrize("kind", KINDS)
def test_a_plane_of_any_type_keeps_its_numbers(tmp_path, kind):
    plane = stack(kind)[0]
    tifffile.imwrite(tmp_path / "cell.tif", plane)

    array, geometry = read_array(tmp_path / "cell.tif")

    assert array.dtype == kind and np.array_equal(array, plane[None, None])
    assert geometry.spacing_mm == (999.0, 1.0, 1.0) and geometry.dimension == 2
    assert read_geometry(tmp_path / "cell.tif") == geometry


@pytest.mark.parametrize("colours", [3, 4])
def test_the_colours_of_a_plane_are_channels(tmp_path, colours):
    plane = stack(np.uint16, (20, 30, colours))
    tifffile.imwrite(tmp_path / "cell.tif", plane, photometric="rgb")

    array, geometry = read_array(tmp_path / "cell.tif")

    assert np.array_equal(array[:, 0], np.moveaxis(plane, -1, 0))
    assert read_geometry(tmp_path / "cell.tif") == geometry


def test_what_is_compressed_beyond_tifffile_is_read_by_simpleitk(tmp_path):
    by_simpleitk(tmp_path / "case.tif", compressor="LZW")

    assert np.array_equal(read_array(tmp_path / "case.tif")[0][0], stack(np.uint16))


def test_planes_that_are_called_times_are_slices_in_tasks_and_refused_in_plain_folders(tmp_path):
    tifffile.imwrite(tmp_path / "case.tif", stack(np.uint8, (5, 20, 30)), imagej=True, metadata={"axes": "TYX"})

    assert read_image(tmp_path / "case.tif").geometry.shape == (5, 20, 30)
    with pytest.raises(ImageError, match=r"one volume of one time, found 5 times \(axes TYX\); save each time"):
        require_one_time(tmp_path / "case.tif")


@pytest.mark.parametrize(
    ("axes", "shape", "sentence"),
    [
        ("TZYX", (2, 5, 20, 30), r"one volume of one time, found 2 times \(axes TZYX\); save each time"),
        ("ZCYX", (5, 2, 20, 30), r"found 2 channels \(axes ZCYX\); split them .* save them as CASE_0000.tif"),
    ],
)
def test_several_times_or_channels_in_a_stack_are_refused_by_name(tmp_path, axes, shape, sentence):
    tifffile.imwrite(tmp_path / "case.tif", stack(np.uint8, shape), imagej=True, metadata={"axes": axes})

    for read in (read_image, read_geometry, stored_layout):
        with pytest.raises(ImageError, match=sentence):
            read(tmp_path / "case.tif")


IMAGEJ = {"imagej": True, "resolution": (4, 5), "metadata": {"axes": "ZYX", "spacing": 2.0, "unit": "um"}}
OME = {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.2, "PhysicalSizeZ": 2.0}}


@pytest.mark.parametrize("options", [IMAGEJ, OME], ids=["ImageJ", "OME"])
def test_the_voxel_size_in_a_header_is_told_and_not_read(tmp_path, options):
    path = tmp_path / "case_0000.tif"
    tifffile.imwrite(path, stack(np.uint16), **options)

    assert unused_spacing(path) == pytest.approx((2.0, 0.2, 0.25))
    assert read_geometry(path).spacing_mm == (1.0, 1.0, 1.0)
    (tmp_path / "case.json").write_text(json.dumps({"spacing": [2.5, 0.9, 0.8]}))
    assert unused_spacing(path) is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"imagej": True, "resolution": (4, 4)},
        {"imagej": True, "metadata": {"spacing": 1.0, "unit": "um"}},
        {"ome": True},
        {"ome": True, "metadata": OME["metadata"] | {"PhysicalSizeZUnit": "reference frame"}},
        {"imagej": True, "resolution": (72, 72), "metadata": {"unit": "inch"}},
    ],
)
def test_a_header_that_tells_no_other_voxel_size_is_nothing_to_speak_of(tmp_path, options):
    tifffile.imwrite(tmp_path / "case.tif", stack(np.uint16), **options)

    assert unused_spacing(tmp_path / "case.tif") is None


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("nm", 0.001), ("micron", 1), ("µm", 1), ("mm", 1000), ("cm", 1e4), ("m", 1e6), ("furlong", 1)],
)
def test_voxel_sizes_in_known_units_are_brought_to_micrometres(tmp_path, unit, factor):
    imagej = IMAGEJ["metadata"] | {"unit": unit.replace("µ", "\\u00B5")}
    ome = OME["metadata"] | {f"PhysicalSize{axis}Unit": unit for axis in "XYZ"}
    tifffile.imwrite(tmp_path / "imagej.tif", stack(np.uint16), **(IMAGEJ | {"metadata": imagej}))
    tifffile.imwrite(tmp_path / "ome.tif", stack(np.uint16), ome=True, metadata=ome)

    for name in ("imagej.tif", "ome.tif"):
        assert header_spacing(tmp_path / name) == pytest.approx((2.0 * factor, 0.2 * factor, 0.25 * factor))


def test_units_of_ome_may_differ_from_axis_to_axis(tmp_path):
    units = {"PhysicalSizeZ": 0.002, "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(tmp_path / "case.tif", stack(np.uint16), ome=True, metadata=OME["metadata"] | units)

    assert header_spacing(tmp_path / "case.tif") == pytest.approx((2.0, 0.2, 0.25))


@pytest.mark.parametrize(("extra", "has_alpha"), [(["unassalpha"], True), (["unassalpha", "unspecified"], False)])
def test_only_the_last_sample_is_taken_for_opacity(tmp_path, extra, has_alpha):
    plane = stack(np.uint8, (20, 30, 3 + len(extra)))
    tifffile.imwrite(tmp_path / "cell.tif", plane, photometric="rgb", extrasamples=extra)

    assert stored_layout(tmp_path / "cell.tif").has_alpha == has_alpha


def test_the_header_of_a_plane_or_of_a_damaged_stack_tells_no_voxel_size(tmp_path):
    tifffile.imwrite(
        tmp_path / "plane.tif", stack(np.uint16)[0], imagej=True, resolution=(4, 4), metadata={"unit": "um"}
    )
    (tmp_path / "broken.tif").write_bytes(b"II*\0")

    assert unused_spacing(tmp_path / "plane.tif") is None
    assert header_spacing(tmp_path / "broken.tif") is None


@pytest.mark.parametrize(
    ("options", "colours"),
    [({"tile": (16, 16)}, 1), ({"tile": (16, 16), "photometric": "rgb"}, 3), ({"photometric": "rgb"}, 3)],
)
def test_the_layout_of_tiled_files_is_that_of_their_voxels(tmp_path, options, colours):
    plane = stack(np.uint8, (20, 30, colours) if colours > 1 else (20, 30))
    tifffile.imwrite(tmp_path / "cell.tif", plane, **options)

    found = stored_layout(tmp_path / "cell.tif")

    assert (found.axes, found.channels, found.fits_png) == (2, colours, True)


@pytest.mark.parametrize(
    "options",
    [{"photometric": "rgb", "planarconfig": "separate"}, {"imagej": True, "metadata": {"axes": "CYX"}}],
    ids=["colours one after the other", "channels of ImageJ"],
)
def test_leading_channels_count_where_the_labels_are_planes(tmp_path, options):
    planes = stack(np.uint8, (3, 20, 30))
    tifffile.imwrite(tmp_path / "cell.tif", planes, **options)

    array, geometry = stored_voxels(tmp_path / "cell.tif", planes=True)

    assert np.array_equal(array[:, 0], planes) and (geometry.dimension, geometry.shape) == (2, (1, 20, 30))
    assert stored_layout(tmp_path / "cell.tif", planes=True).channels == 3
    assert stored_voxels(tmp_path / "cell.tif")[0].shape == (1, 3, 20, 30)  # nnU-Net's stack of three slices


def by_tifffile(path, **options):
    tifffile.imwrite(path, stack(np.uint16), **options)


def by_simpleitk(path, compressor=""):
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path)), writer.SetUseCompression(bool(compressor))
    writer.SetCompressor(compressor)
    writer.Execute(sitk.GetImageFromArray(stack(np.uint16)))


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (by_tifffile, {}),
        (by_tifffile, {"compression": "zlib"}),
        (by_tifffile, {"imagej": True}),
        (by_tifffile, {"bigtiff": True, "metadata": None}),
        (by_tifffile, {"byteorder": ">", "metadata": None}),
        (by_simpleitk, {}),
        (by_simpleitk, {"compressor": "PackBits"}),
        (by_simpleitk, {"compressor": "LZW"}),
    ],
)
def test_a_tif_cut_off_anywhere_gives_no_other_numbers(tmp_path, write, options):
    path = tmp_path / "case.tif"
    write(path, **options)
    whole = path.read_bytes()
    assert np.array_equal(read_image(path).array[0], stack(np.uint16))

    for length in np.linspace(0, len(whole) - 1, 100).astype(int):
        path.write_bytes(whole[:length])
        try:
            found = read_image(path).array[0]
        except ImageError:
            continue
        assert length > len(whole) * 0.8 and np.array_equal(found, stack(np.uint16))  # nothing but notes were lost


def test_a_tif_with_wrong_bytes_is_read_or_refused_in_a_sentence(tmp_path):
    path, random = tmp_path / "case.tif", np.random.default_rng(1)
    tifffile.imwrite(path, stack(np.uint16), bigtiff=True, metadata=None)
    whole = path.read_bytes()

    for _ in range(200):
        damaged = bytearray(whole)
        for place in random.integers(0, 600, 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ImageError):
            read_image(path)


def test_without_tifffile_a_tif_is_refused_with_what_to_do(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "case.tif", stack(np.uint8))
    monkeypatch.setitem(sys.modules, "tifffile", None)

    with pytest.raises(ImageError, match="pip install tifffile"):
        read_image(tmp_path / "case.tif")
