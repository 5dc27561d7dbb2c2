"""What is known of volumes that a model is applied to, and how their files are kept."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from NNSegmentLib.application import (
    IMAGE_ENDING,
    Application,
    ApplicationFolder,
    AppliedCase,
    VolumeIdentity,
    new_application_folder,
)
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_image, write_labels
from NNSegmentLib.labels import Label
from NNSegmentLib.records import read_json, write_json

SHEARED = np.array([[0.7, 0.0, 0.0, -180.25], [0.0, 0.7, 0.3, 95.5], [0.0, 0.0, 2.5, -1012.4], [0, 0, 0, 1]])
"""A gantry tilt, which no `Geometry` can hold."""
LABELS = (Label("background", (0,)), Label("organ", (1,)))


def an_image(seed: int = 1, shape=(30, 200, 150)) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 2000, shape).astype(np.int16)


def moved(matrix: np.ndarray, **by: float) -> np.ndarray:
    """The matrix shifted by mm along an axis."""
    shifted = matrix.copy()
    shifted["xyz".index(next(iter(by))), 3] += next(iter(by.values()))
    return shifted


def test_a_volume_is_the_same_when_its_files_have_rounded_its_place_and_changed_its_type():
    image = an_image()
    known = VolumeIdentity.of(image, SHEARED)

    assert known.is_same(VolumeIdentity.of(image.astype(np.float32), SHEARED.astype(np.float32)))


@pytest.mark.parametrize(
    ("image", "matrix"),
    [
        (an_image(seed=2), SHEARED),
        (an_image(shape=(31, 200, 150)), SHEARED),
        (an_image(), moved(SHEARED, x=0.1)),
        (an_image(), SHEARED @ np.diag([1.001, 1, 1, 1])),
        (an_image(), np.diag([0.7, 0.7, 2.5, 1.0])),
    ],
    ids=["voxels", "size", "moved", "stretched", "straightened"],
)
def test_a_volume_of_other_voxels_or_in_another_place_is_not_the_same(image, matrix):
    assert not VolumeIdentity.of(an_image(), SHEARED).is_same(VolumeIdentity.of(image, matrix))


def test_images_that_differ_only_inside_are_told_apart_whatever_their_size():
    """A sample of every so-manieth voxel would hit only one column where rows are as long: the air beside a patient."""
    one = np.full((20, 512, 512), -1024, np.int16)
    one[4:16, 100:400, 100:400] = 40
    other = one.copy()
    other[8:12, 200:300, 200:300] = 60

    assert not VolumeIdentity.of(one, SHEARED).is_same(VolumeIdentity.of(other, SHEARED))


def test_an_application_on_disk_knows_its_volume_and_who_shows_it(tmp_path):
    case = AppliedCase("a", ("vtkMRMLScalarVolumeNode1",), "A", identity=VolumeIdentity.of(an_image(), SHEARED))
    asked = Application((case,), LABELS, shown_by="console")
    folder = new_application_folder(tmp_path)
    folder.save(asked)

    assert folder.load() == asked


def test_the_record_and_the_answer_of_an_earlier_version_are_read(tmp_path):
    folder, case = ApplicationFolder(tmp_path), AppliedCase("a", ("vtkMRMLScalarVolumeNode1",), "A")
    folder.save(Application((case,), LABELS, file_ending=".nrrd"))
    values = read_json(tmp_path / "application.json")
    values.pop("shown_by"), values["cases"][0].pop("identity")
    write_json(tmp_path / "application.json", values)
    grid = Geometry((4, 5, 6))
    write_labels(folder.labels / "a.nrrd", np.ones(grid.shape, np.uint8), grid)

    found = folder.load()
    folder.put_away()

    assert (found.cases, found.shown_by) == ((case,), "")
    assert folder.prediction(found, case).labels.all()


def test_images_are_written_plain_and_the_label_maps_that_stay_are_compressed(tmp_path):
    folder, case = ApplicationFolder(tmp_path), AppliedCase("a.b", ("vtkMRMLScalarVolumeNode1",), "A")
    application, grid = Application((case,), LABELS), Geometry((4, 50, 60), (2.0, 0.7, 0.7), (5.0, -3.0, 10.0))
    folder.write_case(case.id, [an_image(shape=grid.shape)], grid, IMAGE_ENDING)
    assert (folder.images / "a.b_0000.nii").stat().st_size > 2 * np.prod(grid.shape)
    written = folder.labels / "a.b.nii"
    write_labels(written, (an_image(3, grid.shape) > 0).astype(np.uint8), grid)
    content, before = written.read_bytes(), folder.prediction(application, case)

    folder.put_away()
    folder.put_away()

    kept = folder.label_map(application, case)
    after = folder.prediction(application, case)
    assert [path.name for path in folder.labels.iterdir()] == ["a.b.nii.gz"]
    assert gzip.decompress(kept.read_bytes()) == content
    assert np.array_equal(after.labels, before.labels) and after.geometry.same_grid(before.geometry)
    assert not folder.images.exists()
    assert np.array_equal(read_image(kept).array[0], before.labels)


def test_a_label_map_that_cannot_be_compressed_can_still_be_read(tmp_path, monkeypatch):
    folder, case = ApplicationFolder(tmp_path), AppliedCase("a", ("vtkMRMLScalarVolumeNode1",), "A")
    grid = Geometry((4, 5, 6))
    write_labels(folder.labels / "a.nii", np.ones(grid.shape, np.uint8), grid)

    def full(*_given, **_named):
        raise OSError("No space left on device")

    monkeypatch.setattr("NNSegmentLib.application.gzip.open", full)
    folder.put_away()

    assert [path.name for path in folder.labels.iterdir()] == ["a.nii"]
    assert folder.prediction(Application((case,), LABELS), case).labels.all()
