"""Image files: what is written is read back at the same place, and nibabel sees it there too."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from task_on_disk import PLAIN, blocks, four_d, noise, write_plane, write_volume

from NNSegmentLib.errors import ImageError, SettingsError, StorageError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import (
    Image,
    LabelMap,
    copy_image,
    file_ending,
    read_array,
    read_geometry,
    read_image,
    read_labels,
    write_image,
    write_labels,
)

VOLUMES = [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"]


@pytest.mark.parametrize("ending", VOLUMES)
def test_a_volume_comes_back_at_the_same_place(tmp_path, any_geometry, ending):
    path = tmp_path / f"case{ending}"
    write_image(path, noise(3, any_geometry.shape), any_geometry)

    image = read_image(path)

    assert np.array_equal(image.array[0], noise(3, any_geometry.shape))
    assert image.array.dtype == np.float32
    assert image.geometry.same_grid(any_geometry)
    assert read_geometry(path) == image.geometry


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_nibabel_sees_the_written_voxels_at_the_same_world_position(tmp_path, any_geometry, ending):
    path = tmp_path / f"case{ending}"
    write_image(path, noise(3, any_geometry.shape), any_geometry)

    opinion = nibabel.load(path)

    assert np.array_equal(np.asarray(opinion.dataobj).T, noise(3, any_geometry.shape))
    assert np.allclose(opinion.affine, any_geometry.ijk_to_ras, atol=1e-4)


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_volumes_written_by_nibabel_are_read_at_the_same_world_position(tmp_path, any_geometry, kind):
    voxels = noise(4, any_geometry.shape).astype(kind)
    nibabel.save(nibabel.Nifti1Image(voxels.T, any_geometry.ijk_to_ras), tmp_path / "case.nii.gz")

    image = read_image(tmp_path / "case.nii.gz")

    assert np.array_equal(image.array[0], voxels)
    assert image.geometry.same_grid(any_geometry, 1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_axis_of_negative_spacing_runs_the_other_way_as_for_simpleitk(tmp_path, any_geometry, axis):
    path = with_negative_spacing(tmp_path / "case.mha", noise(3, any_geometry.shape), any_geometry, axis)

    spacing, origin, direction = read_geometry(path).to_lps()

    opinion = sitk.ReadImage(str(path))
    assert np.allclose(spacing, opinion.GetSpacing()) and np.allclose(origin, opinion.GetOrigin())
    assert np.allclose(direction, opinion.GetDirection())
    assert read_image(path).geometry.same_grid(read_geometry(path))


@pytest.mark.parametrize("axis", [0, 1])
def test_an_axis_of_negative_spacing_runs_the_other_way_in_a_plane_too(tmp_path, axis):
    plane = Geometry((1, 10, 12), (999.0, 2.0, 1.0), dimension=2)

    path = with_negative_spacing(tmp_path / "case.mha", noise(3, plane.shape), plane, axis)

    assert read_geometry(path).same_grid(read_image(path).geometry)
    assert read_geometry(path).direction[axis][axis] == -plane.direction[axis][axis]


def with_negative_spacing(path, voxels, geometry, axis: int):
    """A .mha whose header gives the spacing of x (0), y or z a minus sign."""
    write_image(path, voxels, geometry)
    header, data = path.read_bytes().split(b"ElementDataFile", 1)
    lines = header.decode().splitlines()
    n = next(n for n, line in enumerate(lines) if line.startswith("ElementSpacing"))
    spacing = lines[n].removeprefix("ElementSpacing = ").split()
    spacing[axis] = f"-{spacing[axis]}"
    lines[n] = f"ElementSpacing = {' '.join(spacing)}"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode() + b"ElementDataFile" + data)
    return path


@pytest.mark.parametrize("kind", [np.complex64, np.complex128])
@pytest.mark.parametrize("shear", [0, 0.4])
@pytest.mark.parametrize("reader", ["", "NibabelIOWithReorient"])
def test_complex_numbers_are_refused_instead_of_losing_a_part(tmp_path, kind, shear, reader):
    affine = np.eye(4)
    affine[0, 1] = shear
    nibabel.save(nibabel.Nifti1Image((noise(4) * (1 + 2j)).T.astype(kind), affine), tmp_path / "case.nii.gz")

    for read in (read_image, read_labels):
        with pytest.raises(ImageError, match="should hold real numbers, found complex ones; save their magnitude"):
            read(tmp_path / "case.nii.gz", reader)


def test_axes_that_are_nearly_perpendicular_are_read_though_simpleitk_refuses_them(tmp_path):
    affine = np.diag([2.0, 3.0, 1.0, 1.0])
    affine[0, 1] = 5e-4 * 3
    nibabel.save(nibabel.Nifti1Image(noise(4).T, affine), tmp_path / "case.nii.gz")
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(tmp_path / "case.nii.gz"))

    image = read_image(tmp_path / "case.nii.gz")

    assert np.array_equal(image.array[0], noise(4))
    assert image.geometry == read_geometry(tmp_path / "case.nii.gz")
    np.testing.assert_allclose(image.geometry.ijk_to_ras, affine, atol=1e-5)


def test_several_files_are_several_channels_and_must_share_their_grid(tmp_path):
    for n in range(3):
        write_image(tmp_path / f"{n}.nrrd", noise(n), PLAIN)
    write_image(tmp_path / "thick.nrrd", noise(0), Geometry(PLAIN.shape, (3.0, 1.0, 1.0), PLAIN.origin_mm))
    write_image(tmp_path / "short.nrrd", noise(0)[1:], PLAIN.cropped((1, 0, 0), (7, 10, 12)))

    image = read_image([tmp_path / f"{n}.nrrd" for n in range(3)])

    assert np.array_equal(image.array, np.stack([noise(n) for n in range(3)]))
    for other, sentence in (("thick", r"voxels of \(3.0"), ("short", r"\(7, 10, 12\) voxels")):
        with pytest.raises(ImageError, match=sentence):
            read_image([tmp_path / "0.nrrd", tmp_path / f"{other}.nrrd"])


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_fourth_axis_holds_channels(tmp_path, ending):
    write_volume(tmp_path / f"brain{ending}", four_d(0, 3))

    image = read_image(tmp_path / f"brain{ending}")

    assert np.array_equal(image.array, np.stack([noise(n) for n in range(3)]))
    assert image.geometry.same_grid(PLAIN)
    assert read_geometry(tmp_path / f"brain{ending}").same_grid(PLAIN)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_a_picture_is_one_plane_with_nnunets_thickness(tmp_path, ending):
    plane = noise(1, (1, 20, 30)).astype(np.uint8)
    write_plane(tmp_path / f"cell{ending}", plane[0])

    image = read_image(tmp_path / f"cell{ending}")

    assert np.array_equal(image.array, plane[None])
    assert image.geometry.spacing_mm == (999.0, 1.0, 1.0)
    assert image.geometry.dimension == 2
    write_labels(tmp_path / f"mask{ending}", blocks((1, 20, 30)), image.geometry)
    assert np.array_equal(read_labels(tmp_path / f"mask{ending}").array, blocks((1, 20, 30)))


def test_a_colour_picture_has_three_channels(tmp_path):
    colours = np.dstack([noise(n, (20, 30)) for n in range(3)]).astype(np.uint8)
    write_plane(tmp_path / "cell.png", colours)

    assert np.array_equal(read_image(tmp_path / "cell.png").array[:, 0], np.moveaxis(colours, -1, 0))


def test_a_two_dimensional_medical_file_keeps_its_place(tmp_path):
    plane = sitk.GetImageFromArray(noise(1, (20, 30)))
    plane.SetSpacing((0.5, 0.25)), plane.SetOrigin((3.0, -4.0))
    write_volume(tmp_path / "slice.nrrd", plane)

    image = read_image(tmp_path / "slice.nrrd")
    write_image(tmp_path / "again.nrrd", image.array[0], image.geometry)
    again = sitk.ReadImage(str(tmp_path / "again.nrrd"))

    assert image.geometry.spacing_mm == (499.5, 0.25, 0.5)
    assert (again.GetSize(), again.GetSpacing(), again.GetOrigin()) == ((30, 20), (0.5, 0.25), (3.0, -4.0))


def test_tif_volumes_find_their_spacing_with_and_without_channel_number(tmp_path):
    write_image(tmp_path / "case.tif", noise(1).astype(np.uint16), PLAIN)
    (tmp_path / "case.tif").rename(tmp_path / "case_0000.tif")

    assert json.loads((tmp_path / "case.json").read_text()) == {"spacing": [2.0, 1.0, 1.0]}
    grid = read_image(tmp_path / "case_0000.tif").geometry
    assert grid.spacing_mm == (2.0, 1.0, 1.0)
    assert grid.world([(0, 0, 0), (1, 2, 3)]).tolist() == [[0, 0, 0], [-3, -2, 2]]  # as SimpleITK would place it


@pytest.mark.parametrize("content", ["no json", "[1, 1, 1]", '{"size": [1, 1, 1]}', '{"spacing": [1, "x", 1]}'])
def test_a_damaged_voxel_size_beside_a_tif_is_told_in_a_sentence(tmp_path, content):
    write_image(tmp_path / "case.tif", noise(1).astype(np.uint16), PLAIN)
    (tmp_path / "case.json").write_text(content)

    with pytest.raises(ImageError, match=r"case\.json"):
        read_image(tmp_path / "case.tif")


@pytest.mark.parametrize(("highest", "kind"), [(3, np.uint8), (254, np.uint8), (255, np.uint16), (40000, np.uint16)])
def test_label_maps_are_written_in_nnunets_number_type(tmp_path, highest, kind):
    labels = blocks(values=(1, highest))
    write_labels(tmp_path / "l.nii.gz", labels, PLAIN)

    assert np.asarray(nibabel.load(tmp_path / "l.nii.gz").dataobj).dtype == kind
    assert np.array_equal(read_labels(tmp_path / "l.nii.gz").array, labels)


def test_labels_stored_as_floats_are_read_and_fractions_refused(tmp_path):
    write_image(tmp_path / "whole.nii.gz", blocks().astype(np.float32), PLAIN)
    write_image(tmp_path / "half.nii.gz", blocks().astype(np.float32) / 2, PLAIN)

    assert np.array_equal(read_labels(tmp_path / "whole.nii.gz").array, blocks())
    with pytest.raises(ImageError, match="whole numbers"):
        read_labels(tmp_path / "half.nii.gz")
    write_volume(tmp_path / "two.nii.gz", four_d(0, 2))
    with pytest.raises(ImageError, match="one label map, found 2 channels"):
        read_labels(tmp_path / "two.nii.gz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_in_nifti_files_survive_reading(tmp_path, value):
    voxels = noise(0).astype(np.float32)
    voxels[1, 2, 3] = value
    nibabel.save(nibabel.Nifti1Image(voxels.T, PLAIN.ijk_to_ras), tmp_path / "bad.nii.gz")

    assert np.array_equal(read_array(tmp_path / "bad.nii.gz")[0][0], voxels, equal_nan=True)


def test_reorienting_readers_turn_the_array_to_ras(tmp_path, any_geometry):
    path = tmp_path / "case.nii.gz"
    write_image(path, noise(3, any_geometry.shape), any_geometry)
    opinion = nibabel.as_closest_canonical(nibabel.load(path))

    image = read_image(path, reader="NibabelIOWithReorient")

    assert np.array_equal(image.array[0], np.asarray(opinion.dataobj).T)
    assert np.allclose(image.geometry.ijk_to_ras, opinion.affine, atol=1e-4)


def test_a_plane_lies_alike_whatever_its_number_type_and_reader(tmp_path):
    plane, affine = np.arange(12).reshape(3, 4), np.diag([-2.0, 3.0, 1.0, 1.0])
    read = {}
    for kind in ("int16", "float32"):
        nibabel.save(nibabel.Nifti1Image(plane.astype(kind), affine), tmp_path / f"{kind}.nii.gz")
        for reader in ("", "NibabelIOWithReorient"):
            read[kind, reader] = read_array(tmp_path / f"{kind}.nii.gz", reader)

    assert {geometry.dimension for _array, geometry in read.values()} == {2}
    first, grid = read["int16", ""]
    assert all(np.array_equal(array, first) and geometry == grid for array, geometry in read.values())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".bmp", ".gipl"])
def test_a_file_cut_off_in_the_middle_is_refused(tmp_path, ending):
    path = tmp_path / f"case{ending}"
    if ending in (".png", ".bmp"):
        write_plane(path, noise(1, (1, 200, 300))[0].astype(np.uint8))
    else:
        write_image(path, noise(1), PLAIN)
    whole = path.read_bytes()

    read_array(path)
    path.write_bytes(whole[: len(whole) * 6 // 10])

    with pytest.raises(ImageError, match="cut off|cannot be read"):
        read_array(path)


def test_a_compressed_file_in_several_members_is_complete(tmp_path):
    import gzip

    write_image(tmp_path / "plain.nii", noise(1), PLAIN)
    data = (tmp_path / "plain.nii").read_bytes()
    (tmp_path / "members.nii.gz").write_bytes(gzip.compress(data[:900]) + gzip.compress(data[900:]))

    assert np.array_equal(read_array(tmp_path / "members.nii.gz")[0][0], noise(1))


@pytest.mark.parametrize("ending", [".mhd", ".tif", ".nrrd"])
def test_a_copied_image_lies_where_the_original_does(tmp_path, ending):
    geometry = Geometry((3, 4, 5), (2.0, 0.5, 0.7))
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    write_labels(tmp_path / "from" / f"a{ending}", labels, geometry)

    copy_image(tmp_path / "from" / f"a{ending}", tmp_path / "to" / f"b{ending}")
    shutil.rmtree(tmp_path / "from")

    copied = read_labels(tmp_path / "to" / f"b{ending}")
    np.testing.assert_array_equal(copied.array, labels)
    np.testing.assert_allclose(copied.geometry.spacing_mm, geometry.spacing_mm)


def test_a_copied_picture_needs_nothing_beside_it_and_takes_nothing_along(tmp_path):
    for ending in (".tif", ".nrrd"):
        write_plane(tmp_path / f"a{ending}", noise(0)[0])
    (tmp_path / "a.nrrd").with_suffix(".json").write_text("notes of somebody")

    copy_image(tmp_path / "a.nrrd", tmp_path / "to" / "b.nrrd")
    (tmp_path / "a.json").unlink()
    copy_image(tmp_path / "a.tif", tmp_path / "to" / "b.tif")

    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["b.nrrd", "b.tif"]


def test_missing_foreign_and_damaged_files_are_told_apart(tmp_path):
    (tmp_path / "text.nii.gz").write_text("no image")
    (tmp_path / "text.nrrd").write_text("no image")

    for name, sentence in (
        ("gone.nrrd", "nothing there"),
        ("text.nii.gz", "is not compressed, as a name ending with .nii.gz tells"),
        ("text.nrrd", "cannot be"),
    ):
        with pytest.raises(ImageError, match=sentence):
            read_image(tmp_path / name)
    with pytest.raises(ImageError, match="no image file known here"):
        file_ending("scan.dcm")


def test_an_image_must_fit_its_grid():
    with pytest.raises(ImageError, match="matching its grid"):
        Image(np.zeros((1, 2, 3, 4), np.float32), Geometry((2, 3, 5)))


@pytest.mark.parametrize("ending", [".nii.gz", ".mhd", ".png"])
def test_writing_leaves_only_the_file_itself(tmp_path, ending):
    grid = Geometry((1, 10, 12), (999.0, 1.0, 1.0), dimension=2) if ending == ".png" else PLAIN
    write_image(tmp_path / f"a{ending}", noise(1, grid.shape).astype(np.uint8), grid)

    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        {f"a{ending}"} | ({"a.raw"} if ending == ".mhd" else set())
    )


def test_an_unwritable_place_is_said_plainly_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        write_image(tmp_path / "file" / "a.nii.gz", noise(1), PLAIN)
    with pytest.raises(StorageError, match="Cannot write"):
        write_image(tmp_path / "a.png", noise(1, (1, 4, 4)).astype(np.float32), Geometry((1, 4, 4), dimension=2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.full(PLAIN.shape, -1), "whole numbers from 0 to 65535, found -1 to -1 for l.nii.gz"),
        (np.full(PLAIN.shape, 70000), "found 70000 to 70000"),
        (np.full(PLAIN.shape, 1.5), "found fractions"),
        (np.full(PLAIN.shape, np.nan), "found fractions, NaN"),
        (np.ones(PLAIN.shape, np.int16)[1:], r"shape \(z, y, x\) of their grid, \(8, 10, 12\), found \(7, 10, 12\)"),
        (np.ones((1, *PLAIN.shape), np.int16), r"found \(1, 8, 10, 12\)"),
        (np.ones(PLAIN.shape).tolist(), "an array .* and its Geometry, found list and Geometry"),
    ],
)
def test_label_maps_that_a_file_would_change_are_refused(tmp_path, labels, sentence):
    with pytest.raises(ImageError, match=sentence):
        write_labels(tmp_path / "l.nii.gz", labels, PLAIN)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [bool, np.float32, np.int64, np.uint16])
def test_label_maps_of_any_number_type_keep_their_values(tmp_path, kind):
    labels = (blocks() > 0).astype(kind)

    write_labels(tmp_path / "l.nii.gz", labels, PLAIN)

    assert np.array_equal(read_labels(tmp_path / "l.nii.gz").array, labels)


@pytest.mark.parametrize("write", [write_labels, write_image])
def test_a_volume_is_not_written_into_a_picture_nor_without_its_grid(tmp_path, write):
    voxels = blocks().astype(np.uint8)

    with pytest.raises(ImageError, match="single slice, found 8 for a.png"):
        write(tmp_path / "a.png", voxels, PLAIN)
    with pytest.raises(ImageError, match="found ndarray and NoneType"):
        write(tmp_path / "a.nii.gz", voxels, None)


def test_a_label_map_must_fit_its_grid():
    with pytest.raises(ImageError, match="matching its grid"):
        LabelMap(np.zeros((2, 3, 4), np.uint8), Geometry((2, 3, 5)))


def test_a_tilde_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # what Windows asks
    write_image("~/a.nii.gz", noise(1), PLAIN)
    write_labels("~/l.nii.gz", blocks(), PLAIN)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "l.nii.gz"]
    assert np.array_equal(read_image("~/a.nii.gz").array[0], noise(1))
    assert np.array_equal(read_labels("~/l.nii.gz").array, blocks())
    assert read_geometry("~/l.nii.gz").shape == PLAIN.shape


def test_an_image_needs_a_file():
    with pytest.raises(SettingsError, match=r"an image file, or one for each channel, found \[\]"):
        read_image([])
