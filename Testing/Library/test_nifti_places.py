"""NIfTI headers that nibabel and SimpleITK read in two ways are noticed, those they read alike are not."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from task_on_disk import PLAIN, blocks, nnunet_v2, noise

from NNSegmentLib import pipeline
from NNSegmentLib.errors import some
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.grids.two_places import TwoPlaces, tell_two_places, two_places
from NNSegmentLib.image import read_geometry, write_image
from NNSegmentLib.predicting.doubts import doubts_of, tell_doubts
from NNSegmentLib.task import Case

MOVED = PLAIN.ijk_to_ras + np.array([[0, 0, 0, 3], [0, 0, 0, 4], [0, 0, 0, 0], [0, 0, 0, 0]])
TURNED = np.diag([1.0, 1.0, 1.0, 1.0])
TURNED[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]


def volume(path, sform=None, qform=None, codes=(1, 1), voxels=None, pixdim=None):
    """A NIfTI file of PLAIN's size with any header."""
    image = nibabel.Nifti1Image(noise(3) if voxels is None else voxels, None)
    image = nibabel.Nifti1Image(image.dataobj[...].T, None)
    image.header.set_qform(qform, codes[1] if qform is not None else 0)
    image.header.set_sform(sform, codes[0] if sform is not None else 0)
    if pixdim:
        image.header["pixdim"][1:4] = pixdim
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(image.dataobj, None, image.header), path)
    return path


def found_at(path) -> TwoPlaces | None:
    return two_places(path, read_geometry(path))


def test_a_voxel_size_that_the_sform_does_not_have_moves_the_last_slice(tmp_path):
    path = volume(tmp_path / "case.nii.gz", PLAIN.ijk_to_ras, pixdim=(1.0, 1.0, 0.5))

    assert found_at(path).apart_mm == pytest.approx((PLAIN.shape[0] - 1) * 1.5)
    assert found_at(path).forms == "sform code 1, qform code 0, voxel size 0.5 × 1 × 1 (z, y, x)"


@pytest.mark.parametrize("other", [MOVED, TURNED @ PLAIN.ijk_to_ras])
def test_two_forms_of_which_each_side_takes_another_are_as_far_apart_as_their_furthest_corners(tmp_path, other):
    path = volume(tmp_path / "case.nii.gz", PLAIN.ijk_to_ras, other, codes=(2, 1))

    corners = [(x, y, z) for x in (0, 11) for y in (0, 9) for z in (0, 7)]
    places = [nibabel.affines.apply_affine(matrix, corners) for matrix in (PLAIN.ijk_to_ras, other)]
    apart = np.linalg.norm(places[0] - places[1], axis=1)
    assert found_at(path).apart_mm == pytest.approx(apart.max(), abs=1e-3)


def test_a_header_without_forms_tells_no_place_that_could_be_missed(tmp_path):
    path = volume(tmp_path / "case.nii.gz")

    assert not np.allclose(nibabel.load(path).affine, read_geometry(path).ijk_to_ras)
    assert found_at(path) is None


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_volumes_of_ours_tell_one_place(tmp_path, any_geometry, ending):
    write_image(tmp_path / f"case{ending}", noise(3, any_geometry.shape), any_geometry)

    assert found_at(tmp_path / f"case{ending}") is None


@pytest.mark.parametrize("unit", ["mm", "meter", "micron"])
def test_other_units_are_no_other_place(tmp_path, any_geometry, unit):
    scale = {"mm": 1, "meter": 1e-3, "micron": 1e3}[unit]
    image = nibabel.Nifti1Image(noise(3, any_geometry.shape).T, np.diag([scale] * 3 + [1]) @ any_geometry.ijk_to_ras)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "case.nii.gz")

    assert found_at(tmp_path / "case.nii.gz") is None


def test_planes_and_files_that_nibabel_cannot_read_are_left_to_simpleitk(tmp_path):
    plane = Geometry((1, 8, 9), (999.0, 1.0, 1.0), dimension=2)
    write_image(tmp_path / "plane.nii.gz", noise(1, plane.shape), plane)
    (tmp_path / "broken.nii.gz").write_bytes(b"no NIfTI")

    assert found_at(tmp_path / "plane.nii.gz") is None
    assert two_places(tmp_path / "broken.nii.gz", PLAIN) is None


def test_the_check_warns_of_images_and_labels_that_tell_two_places(tmp_path):
    raw = nnunet_v2(tmp_path / "nnUNet_raw" / "Dataset501_Blocks")
    volume(raw / "imagesTr" / "case1_0000.nii.gz", MOVED, PLAIN.ijk_to_ras, codes=(2, 1), voxels=noise(10))
    volume(raw / "labelsTr" / "case2.nii.gz", MOVED, PLAIN.ijk_to_ras, codes=(2, 1), voxels=blocks().astype(np.uint8))

    found = pipeline.check(501, tmp_path)

    assert [(f.severity, f.case, f.check) for f in found] == [("warning", f"case{n}", "one place") for n in (1, 2)]
    assert "case1_0000.nii.gz" in found[0].expected and "places 5 mm apart" in found[0].found


def test_a_prediction_names_each_file_once(tmp_path):
    paths = [volume(tmp_path / f"case{n}.nii.gz", MOVED, PLAIN.ijk_to_ras, codes=(2, 1)) for n in range(7)]
    write_image(tmp_path / "sound.nii.gz", noise(3), PLAIN)
    cases = [Case(path.name, (path,)) for path in (*paths, tmp_path / "sound.nii.gz")]
    said = []

    tell_doubts({case.id: doubts_of(case, "") for case in cases}, said.append)
    tell_doubts({"sound": doubts_of(cases[-1], "")}, said.append)
    tell_two_places({}, said.append)

    (sentence,) = said
    names = some([f"{path.name} (5 mm apart)" for path in paths])
    assert sentence.startswith(f"The headers of {names} tell two places") and "and 2 more" in names
