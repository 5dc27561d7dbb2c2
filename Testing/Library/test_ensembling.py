"""Averages of probabilities, decided and written on the first member's grid."""

from __future__ import annotations

import numpy as np
import pytest

from NNSegmentLib.errors import ImageError, InputError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_labels, write_labels
from NNSegmentLib.labels import LabelSet
from NNSegmentLib.probability_files import load_probabilities
from NNSegmentLib.records import read_json, write_json
from NNSegmentLib.results import ensemble
from NNSegmentLib.selection.ensembling import ensemble_cases, ensemble_folders, mean_probabilities

GAPPED = LabelSet.from_dataset_json({"labels": {"background": 0, "a": 2, "b": 5}})
NESTED = LabelSet.from_dataset_json(
    {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
)
SHAPE = (4, 5, 6)


def probabilities(seed, n=3, shape=SHAPE, dtype=np.float32):
    return np.random.default_rng(seed).random((n, *shape)).astype(dtype)


def write_case(folder, name, array, geometry=None, ending=".nii.gz"):
    write_labels(folder / (name + ending), np.zeros(array.shape[1:], np.uint8), geometry or Geometry(array.shape[1:]))
    np.savez_compressed(folder / f"{name}.npz", probabilities=array)


def test_the_mean_is_taken_in_float32_whatever_comes():
    arrays = [probabilities(i, dtype=np.float16) for i in range(3)]

    mean = mean_probabilities(iter(arrays))

    assert mean.dtype == np.float32
    assert np.allclose(mean, np.stack(arrays).astype(np.float64).mean(0), atol=1e-6)


def test_arrays_of_different_shape_are_refused_and_the_members_stay_as_they_are():
    first = probabilities(1)
    kept = first.copy()

    mean_probabilities([first, first])

    assert np.array_equal(first, kept)
    with pytest.raises(ImageError, match="one shape"):
        mean_probabilities([first, probabilities(1, n=2)])
    with pytest.raises(InputError):
        mean_probabilities([])


def test_each_voxel_gets_the_label_of_the_highest_mean(tmp_path, any_geometry):
    arrays = [probabilities(i, shape=any_geometry.shape) for i in range(2)]
    for n, array in enumerate(arrays):
        write_case(tmp_path / f"m{n}", "case", array, any_geometry)

    (written,) = ensemble_folders([tmp_path / "m0", tmp_path / "m1"], tmp_path / "out", GAPPED)

    found = read_labels(written)
    by_hand = np.array([0, 2, 5])[np.argmax((arrays[0].astype(float) + arrays[1]) / 2, axis=0)]
    assert np.array_equal(found.array, by_hand)
    assert found.geometry.same_grid(any_geometry)
    assert not list((tmp_path / "out").glob("*.npz"))


def test_an_ensemble_of_turned_images_lies_as_their_files_do(tmp_path, any_geometry):
    write_labels(tmp_path / "m0" / "case.nii.gz", np.zeros(any_geometry.shape, np.uint8), any_geometry)
    as_read = read_labels(tmp_path / "m0" / "case.nii.gz", "SimpleITKIOWithReorient").geometry
    array = probabilities(1, shape=as_read.shape)
    np.savez_compressed(tmp_path / "m0" / "case.npz", probabilities=array)

    (written,) = ensemble_folders([tmp_path / "m0"], tmp_path / "out", GAPPED, reader="SimpleITKIOWithReorient")

    by_hand = np.array([0, 2, 5])[array.argmax(0)]
    assert np.array_equal(read_labels(written, "SimpleITKIOWithReorient").array, by_hand)
    assert read_labels(written).geometry.same_grid(any_geometry)


def test_averaging_folders_knows_from_their_plans_that_the_images_were_turned(tmp_path):
    leftwards = Geometry(SHAPE, direction=((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)))
    write_case(tmp_path / "m0", "case", probabilities(1), leftwards)
    write_json(tmp_path / "m0" / "dataset.json", {"labels": {"background": 0, "a": 2, "b": 5}})
    write_json(tmp_path / "m0" / "plans.json", {"image_reader_writer": "SimpleITKIOWithReorient"})

    (written,) = ensemble([tmp_path / "m0"], tmp_path / "out")

    by_hand = np.array([0, 2, 5])[probabilities(1).argmax(0)]
    assert np.array_equal(read_labels(written).array, by_hand[:, ::-1, ::-1])


def test_regions_above_one_half_are_painted_in_order(tmp_path):
    arrays = [probabilities(i, n=2) for i in range(2)]
    for n, array in enumerate(arrays):
        write_case(tmp_path / f"m{n}", "case", array, ending=".nrrd")

    (written,) = ensemble_folders([tmp_path / "m0", tmp_path / "m1"], tmp_path / "out", NESTED, save_probabilities=True)

    mean = (arrays[0] + arrays[1]) / 2
    by_hand = np.where(mean[1] > 0.5, 2, np.where(mean[0] > 0.5, 1, 0))
    assert written.name == "case.nrrd" and np.array_equal(read_labels(written).array, by_hand)
    assert np.allclose(load_probabilities(tmp_path / "out" / "case.npz", 2), mean)


def test_all_cases_are_averaged_and_the_cards_go_along(tmp_path):
    for member in ("a", "b"):
        for case in ("x", "y", "z"):
            write_case(tmp_path / member, case, probabilities(3))
    (tmp_path / "a" / "dataset.json").write_text('{"labels": {}}')
    seen = []

    written = ensemble_folders(
        [tmp_path / "a", tmp_path / "b"], tmp_path / "out", GAPPED, progress=lambda *step: seen.append(step[:2])
    )

    assert [p.name for p in written] == ["x.nii.gz", "y.nii.gz", "z.nii.gz"]
    assert read_json(tmp_path / "out" / "dataset.json") == {"labels": {}}
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_missing_probabilities_are_named_with_the_way_to_get_them(tmp_path):
    for member in ("a", "b"):
        for case in ("x", "y"):
            write_case(tmp_path / member, case, probabilities(3))
    (tmp_path / "b" / "y.npz").unlink()

    with pytest.raises(InputError, match=r"1 of 2 cases \(y\).*--save-probabilities"):
        ensemble_folders([tmp_path / "a", tmp_path / "b"], tmp_path / "out", GAPPED)

    assert not (tmp_path / "out").exists()
    (tmp_path / "b" / "y.nii.gz").unlink()
    (tmp_path / "a" / "y.npz").unlink()
    (tmp_path / "a" / "y.nii.gz").unlink()
    assert [case.case_id for case in ensemble_cases([tmp_path / "a", tmp_path / "b"])] == ["x"]


def test_a_case_without_label_map_in_the_first_folder_is_named(tmp_path):
    for case in ("x", "y"):
        write_case(tmp_path / "a", case, probabilities(3))
    (tmp_path / "a" / "y.nii.gz").unlink()

    with pytest.raises(InputError, match="label map"):
        ensemble_cases([tmp_path / "a"])
    with pytest.raises(InputError, match="at least one"):
        ensemble_cases([])


@pytest.mark.parametrize("content", ["damaged", "other name", "other classes", "other grid", "objects"])
def test_probability_files_that_do_not_fit_are_refused_by_name(tmp_path, content):
    write_case(tmp_path / "a", "x", probabilities(3))
    file = tmp_path / "a" / "x.npz"
    if content == "damaged":
        file.write_bytes(file.read_bytes()[:200])
    elif content == "other name":
        np.savez(file, softmax=probabilities(3))
    elif content == "objects":
        np.savez(file, probabilities=np.array([{}], dtype=object))
    else:
        np.savez(file, probabilities=probabilities(3, n=4) if content == "other classes" else probabilities(3)[:, 1:])

    with pytest.raises(ImageError, match=r"x\.npz"):
        ensemble_folders([tmp_path / "a"], tmp_path / "out", GAPPED)
    assert not (tmp_path / "out" / "x.nii.gz").exists()


@pytest.mark.parametrize(
    "model", ["trained/nnUNetTrainer_1epoch__nnUNetPlans__3d_fullres", "regions/nnUNetTrainer__nnUNetPlans__3d_fullres"]
)
def test_nnunets_probabilities_give_nnunets_label_maps(peer, tmp_path, model):
    folder = peer / "models" / model
    label_set = LabelSet.from_dataset_json(read_json(folder / "dataset.json"))

    written = ensemble_folders([folder / "pred"], tmp_path, label_set)

    assert len(written) >= 2
    for path in written:
        assert np.array_equal(read_labels(path).array, read_labels(folder / "pred" / path.name).array)
