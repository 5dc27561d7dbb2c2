"""Mending: labels end where they belong in the world, originals are kept, and a failure changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import map_coordinates
from task_on_disk import PLAIN, blocks, edit_json, nnunet_v2, noise, tree, write_plane

from NNSegmentLib.cases import load_origin
from NNSegmentLib.errors import StorageError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.formats import convert
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_geometry, read_labels, write_image, write_labels
from NNSegmentLib.integrity import check_task, fix_task
from NNSegmentLib.task import load_task

FINE = Geometry((17, 23, 30), (0.9, 0.45, 0.4), (5.2, -2.8, 10.1))
"""A finer grid inside the plain one."""


def task_with(folder, voxels, grid, **entries):
    nnunet_v2(folder, ending=".nrrd", **entries)
    write_labels(folder / "labelsTr" / "case1.nrrd", voxels, grid)
    return load_task(folder)


def by_nearest_voxel(labels: np.ndarray, grid: Geometry, onto: Geometry) -> np.ndarray:
    """The second opinion: look up every voxel's world position in the other array."""
    positions = grid.voxel(onto.world(np.indices(onto.shape).reshape(3, -1).T))
    return map_coordinates(labels, positions.T, order=0, mode="constant", cval=0).reshape(onto.shape)


def test_labels_on_another_grid_are_resampled_to_the_nearest_voxel_in_the_world(tmp_path):
    labels = blocks(FINE.shape)
    task = task_with(tmp_path / "Dataset003_B", labels, FINE)

    fixed = fix_task(task)

    mended = read_labels(task.folder / "labelsTr" / "case1.nrrd")
    assert [(f.case, f.check) for f in fixed] == [("case1", "label grid")]
    assert mended.geometry.same_grid(PLAIN)
    assert np.array_equal(mended.array, by_nearest_voxel(labels, FINE, PLAIN))
    assert mended.array.any()
    assert check_task(load_task(task.folder)) == []


def test_oblique_and_left_handed_labels_keep_their_place_in_the_world(tmp_path, any_geometry):
    folder = nnunet_v2(tmp_path / "Dataset003_B", geometry=any_geometry, ending=".nrrd")
    flipped = Geometry(
        any_geometry.shape,
        any_geometry.spacing_mm,
        tuple(any_geometry.world([(0, any_geometry.shape[1] - 1, 0)])[0]),
        tuple((row[0], -row[1], row[2]) for row in any_geometry.direction),
    )
    before = read_labels(folder / "labelsTr" / "case1.nrrd").array
    write_labels(folder / "labelsTr" / "case1.nrrd", before[:, ::-1].copy(), flipped)

    fixed = fix_task(load_task(folder))

    assert len(fixed) == 1
    assert np.array_equal(read_labels(folder / "labelsTr" / "case1.nrrd").array, before)


def test_direction_noise_is_snapped_without_touching_a_voxel(tmp_path):
    rows = ((1.0, -4e-4, 0.0), (4e-4, 1.0, 0.0), (0.0, 0.0, 1.0))
    noisy = Geometry(PLAIN.shape, PLAIN.spacing_mm, PLAIN.origin_mm, rows)
    task = task_with(tmp_path / "Dataset003_B", blocks(), noisy)

    assert [f.check for f in fix_task(task)] == ["label direction"]
    assert read_labels(task.folder / "labelsTr" / "case1.nrrd").geometry == read_geometry(task.cases[1].images[0])
    assert np.array_equal(read_labels(task.folder / "labelsTr" / "case1.nrrd").array, blocks())


def test_gaps_between_values_are_closed_in_files_dataset_json_and_colours(tmp_path):
    names = {"background": 0, "left": 3, "right": 7, "ignore": 8}
    task = convert(nnunet_v2(tmp_path / "Dataset003_B", labels=names), Workspace.at(tmp_path / "w"))
    colours = [label.color for label in task.labels.foreground]

    fixed = fix_task(task)

    again = load_task(task.folder)
    assert [f.check for f in fixed] == ["label numbers"]
    assert again.dataset_json["labels"] == {"background": 0, "left": 1, "right": 2, "ignore": 3}
    assert [label.color for label in again.labels.foreground] == colours
    original = read_labels(task.folder / "originals" / "labelsTr" / "case0.nii.gz").array
    mended = read_labels(again.cases[0].labels).array
    assert np.array_equal(mended, np.select([original == 3, original == 7, original == 8], [1, 2, 3]))
    assert check_task(again) == []


def test_regions_are_renumbered_with_their_painting_order(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B", labels={"background": 0, "a": 1, "b": 4})
    edit_json(folder / "dataset.json", labels={"background": 0, "whole": [1, 4], "core": 4}, regions_class_order=[1, 4])

    fix_task(load_task(folder))

    entries = load_task(folder).dataset_json
    assert (entries["labels"]["whole"], entries["labels"]["core"]) == ([1, 2], 2)
    assert entries["regions_class_order"] == [1, 2]
    assert check_task(load_task(folder)) == []


def test_undeclared_values_are_matched_in_ascending_order_when_their_number_fits(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B")
    for n in range(3):
        write_labels(folder / "labelsTr" / f"case{n}.nii.gz", blocks(values=(100, 255)), PLAIN)

    fixed = fix_task(load_task(folder))

    assert [f.check for f in fixed] == ["label values"] * 3
    assert np.array_equal(read_labels(folder / "labelsTr" / "case2.nii.gz").array, blocks())
    assert load_origin(folder).cases[0].fixes == ("values renumbered 100 to 1, 255 to 2",)


def test_resampling_and_renumbering_may_meet_in_one_file(tmp_path):
    names = {"background": 0, "left": 2, "right": 5}
    task = task_with(tmp_path / "Dataset003_B", blocks(FINE.shape, (2, 5)), FINE, labels=names)

    fix_task(task)

    mended = read_labels(task.folder / "labelsTr" / "case1.nrrd").array
    assert np.array_equal(mended, by_nearest_voxel(blocks(FINE.shape), FINE, PLAIN))
    assert len(load_origin(task.folder).cases[-1].fixes) >= 1
    assert check_task(load_task(task.folder)) == []


def test_originals_stay_byte_for_byte_and_a_second_mending_keeps_the_first(tmp_path):
    task = task_with(tmp_path / "Dataset003_B", blocks(FINE.shape), FINE)
    before = tree(task.folder / "labelsTr")

    fix_task(task)
    write_labels(task.folder / "labelsTr" / "case0.nrrd", blocks(FINE.shape), FINE)
    fix_task(load_task(task.folder))

    assert tree(task.folder / "originals" / "labelsTr") == before
    assert (task.folder / "originals_2" / "labelsTr" / "case0.nrrd").is_file()
    assert not [path for path in task.folder.iterdir() if path.name.startswith(".")]


def test_a_faultless_task_is_not_touched(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B")
    before = tree(folder)

    assert fix_task(load_task(folder)) == []
    assert tree(folder) == before


def test_a_wrong_case_count_is_corrected(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B")
    edit_json(folder / "dataset.json", numTraining=9)

    assert [f.check for f in fix_task(load_task(folder))] == ["number of cases"]
    assert load_task(folder).declared_training_cases == 3


def test_labels_of_a_task_used_in_place_are_mended_beside_it(tmp_path):
    source = nnunet_v2(tmp_path / "source" / "Dataset003_B", ending=".nrrd")
    write_labels(source / "labelsTr" / "case1.nrrd", blocks(FINE.shape), FINE)
    before = tree(source)
    task = convert(source, Workspace.at(tmp_path / "w"), in_place=True)

    fix_task(task)

    again = load_task(task.folder)
    assert tree(source) == before
    assert again.case("case1").labels == task.folder / "labels_mended" / "case1.nrrd"
    assert again.case("case0").labels == source / "labelsTr" / "case0.nrrd"
    assert check_task(again) == []


def test_labels_that_would_lose_foreground_are_left_alone(tmp_path):
    half_outside = PLAIN.cropped((0, 0, 7), PLAIN.shape)
    labels = np.zeros(PLAIN.shape, np.uint8)
    labels[2:6, 2:6, 2:11] = 1
    task = task_with(tmp_path / "Dataset003_B", labels, half_outside)
    before = tree(task.folder / "labelsTr")

    assert fix_task(task) == []
    assert tree(task.folder / "labelsTr") == before
    assert [f.check for f in check_task(task)] == ["label grid"]


@pytest.mark.parametrize("value", [-1, 70000])
def test_a_label_that_no_file_can_hold_keeps_no_other_case_from_being_mended(tmp_path, value):
    task = task_with(tmp_path / "Dataset003_B", blocks(FINE.shape), FINE)
    wrong = blocks(FINE.shape)
    wrong[8, 11, 15] = value
    write_image(task.folder / "labelsTr" / "case0.nrrd", wrong, FINE)
    assert [f.case for f in check_task(task) if f.fixable] == ["case1"]

    assert [(f.case, f.check) for f in fix_task(task)] == [("case1", "label grid")]

    assert [f.case for f in check_task(load_task(task.folder))] == ["case0", "case0"]
    assert "correct the values of this label file first, then check again" in [f.advice for f in check_task(task)]


def test_a_mended_file_whose_ending_was_in_capitals_is_there_once(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B", labels={"background": 0, "left": 1, "right": 3})
    (folder / "labelsTr" / "case1.nii.gz").rename(folder / "labelsTr" / "case1.NII.GZ")

    fix_task(load_task(folder))

    assert sorted(path.name for path in (folder / "labelsTr").iterdir()) == [f"case{n}.nii.gz" for n in range(3)]
    assert check_task(load_task(folder)) == []


def test_no_voxels_of_a_mended_header_are_left_beside_it(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B", labels={"background": 0, "left": 1, "right": 3}, ending=".mhd")
    for path in (folder / "labelsTr").glob("*.mhd"):
        sitk.WriteImage(sitk.ReadImage(path), path, useCompression=True)  # to .zraw
        path.with_suffix(".raw").unlink()

    fix_task(load_task(folder))

    assert not [*(folder / "labelsTr").glob("*.zraw")]
    assert len([*(folder / "originals" / "labelsTr").glob("*.zraw")]) == 3
    assert check_task(load_task(folder)) == []


def test_pictures_of_another_size_are_not_resampled_because_they_have_no_position(tmp_path):
    for name, shape in (("a", (20, 30)), ("b", (10, 15))):
        write_plane(tmp_path / "cells" / "images" / f"{name}.png", noise(len(name), (20, 30)).astype(np.uint8))
        write_plane(tmp_path / "cells" / "labels" / f"{name}.png", np.eye(*shape, dtype=np.uint8))
    task = convert(tmp_path / "cells", Workspace.at(tmp_path / "w"))

    assert not [f for f in check_task(task) if f.fixable]
    assert "label grid" in [f.check for f in check_task(task)]


def test_a_failure_in_the_middle_leaves_the_task_as_it_was(tmp_path, monkeypatch):
    task = task_with(tmp_path / "Dataset003_B", blocks(FINE.shape), FINE)
    before = tree(task.folder)

    def full_disk(*_):
        raise StorageError("Cannot write case1.nrrd (No space left on device); choose another folder.")

    monkeypatch.setattr("NNSegmentLib.integrity.fix.write_labels", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        fix_task(task)

    assert tree(task.folder) == before
    assert sorted(p.name for p in task.folder.iterdir()) == ["dataset.json", "imagesTr", "labelsTr"]
