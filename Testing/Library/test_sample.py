"""The sample task is a valid task, repeatable, varied, and cannot be solved by a threshold."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from NNSegmentLib.errors import SettingsError, TaskError
from NNSegmentLib.image import read_image, read_labels
from NNSegmentLib.sample import make_phantom, make_sample_task
from NNSegmentLib.task import load_task


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_sample_task(tmp_path_factory.mktemp("raw") / "Dataset900_Sample", n_cases=5, n_test=1)


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(i) for i in range(8)]


def overlap(a, b) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_sample_is_a_task_whose_images_and_labels_share_their_grids(sample):
    task = load_task(sample)

    assert len(task.cases) == task.declared_training_cases == 5
    for case in task.cases:
        image, labels = read_image(case.images), read_labels(case.labels)
        assert image.geometry.same_grid(labels.geometry)
        assert set(np.unique(labels.array)) == {0, 1, 2} == set(task.labels.values)


def test_test_cases_keep_their_labels_beside_the_images(sample):
    images = sorted(p.name.replace("_0000", "") for p in (sample / "imagesTs").iterdir())
    labels = sorted(p.name for p in (sample / "labelsTs").iterdir())

    assert images == labels == ["head_006.nii.gz"]


def test_a_coarser_phantom_has_the_same_mass_in_fewer_voxels(phantoms):
    for index in (0, 1, 3):
        coarse, fine = make_phantom(index, coarseness=2.0), phantoms[index]

        assert np.allclose(coarse.geometry.spacing_mm, 2 * np.array(fine.geometry.spacing_mm), atol=2e-4)
        assert coarse.image.size == pytest.approx(fine.image.size / 8, rel=0.1)
        volumes = [(p.labels > 0).sum() * np.prod(p.geometry.spacing_mm) for p in (coarse, fine)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.15)


def test_the_same_seed_gives_the_same_phantom_and_another_seed_another():
    first, again, other = make_phantom(1, seed=3), make_phantom(1, seed=3), make_phantom(1, seed=4)

    assert np.array_equal(first.image, again.image) and first.geometry == again.geometry
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


def test_grids_vary_in_size_and_spacing_and_one_is_oblique_one_left_handed(sample):
    affines = [nibabel.load(p).affine for p in sorted((sample / "imagesTr").iterdir())]
    spacings = [np.linalg.norm(a[:3, :3], axis=0) for a in affines]

    assert len({tuple(s.round(3)) for s in spacings}) == 5
    assert all(s.min() >= 0.8 and s.max() <= 1.4 for s in spacings)
    assert max(s.max() / s.min() for s in spacings) > 1.3
    assert sum(np.linalg.det(a[:3, :3]) < 0 for a in affines) == 1
    assert sum(np.abs(a[:3, :3]).min(axis=0).max() > 0.05 for a in affines) == 1


def test_voxel_counts_along_an_edge_stay_small(phantoms):
    assert all(40 <= n <= 56 for p in phantoms for n in p.image.shape)


def test_the_rim_encloses_the_core(phantoms):
    for phantom in phantoms:
        around = ndimage.binary_dilation(phantom.labels == 1) & (phantom.labels != 1)
        assert set(np.unique(phantom.labels[around])) == {2}


def test_the_mass_lies_inside_the_picture_and_is_large_enough_to_learn(phantoms):
    for phantom in phantoms:
        inner = phantom.labels[1:-1, 1:-1, 1:-1]
        assert (inner > 0).sum() == (phantom.labels > 0).sum()
        assert (phantom.labels == 1).sum() >= 120 and (phantom.labels == 2).sum() >= 400


def test_no_intensity_window_finds_the_core_or_the_rim(phantoms):
    for phantom in phantoms:
        cuts = np.percentile(phantom.image, np.linspace(0, 100, 26))
        windows = [(phantom.image >= a) & (phantom.image <= b) for i, a in enumerate(cuts) for b in cuts[i + 1 :]]
        for value in (1, 2):
            assert max(overlap(window, phantom.labels == value) for window in windows) < 0.6


def test_noise_in_air_follows_rayleighs_law(phantoms):
    corners = [phantom.image[-6:, :6, x] for phantom in phantoms for x in (slice(0, 6), slice(-6, None))]

    ratios = [corner.mean() / corner.std() for corner in corners]

    assert np.median(ratios) == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), abs=0.1)


def test_a_folder_that_holds_a_task_is_left_alone(sample):
    before = json.loads((sample / "dataset.json").read_text())

    with pytest.raises(TaskError, match="choose another"):
        make_sample_task(sample)
    assert json.loads((sample / "dataset.json").read_text()) == before


def test_one_case_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="at least 2"):
        make_sample_task(tmp_path / "Dataset900_Sample", n_cases=1)
