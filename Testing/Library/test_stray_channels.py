"""Channels that lie apart by their headers are named wherever a task's or a prediction's cases are read."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from task_on_disk import PLAIN, nnunet_v2, noise

from NNSegmentLib import pipeline
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.grids.stray_channels import channels_apart_mm, tell_apart
from NNSegmentLib.image import write_image


def moved(grid: Geometry, mm: float) -> Geometry:
    return replace(grid, origin_mm=tuple(np.add(grid.origin_mm, (mm, 0, 0))))


def turned(grid: Geometry) -> Geometry:
    return replace(grid, direction=tuple((-a, b, c) for a, b, c in grid.direction))


def rounded(grid: Geometry) -> Geometry:
    return replace(grid, origin_mm=tuple(np.add(grid.origin_mm, 0.005 * min(grid.spacing_mm))))


def case(folder, *grids: Geometry, ending=".nii.gz") -> list:
    paths = [folder / f"case_{n:04d}{ending}" for n in range(len(grids))]
    for n, (path, grid) in enumerate(zip(paths, grids, strict=True)):
        write_image(path, noise(n, grid.shape), grid)
    return paths


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_the_distance_of_the_furthest_channel_is_found(tmp_path, any_geometry, ending):
    paths = case(tmp_path, any_geometry, moved(any_geometry, 20), any_geometry, ending=ending)

    assert channels_apart_mm(paths) == pytest.approx(20, abs=1e-3)


def test_a_mirrored_channel_is_as_far_off_as_its_last_voxel(tmp_path, any_geometry):
    far = (any_geometry.shape[2] - 1) * any_geometry.spacing_mm[2]

    assert channels_apart_mm(case(tmp_path, any_geometry, turned(any_geometry))) == pytest.approx(2 * far, abs=1e-3)


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_readers_that_turn_images_bring_channels_upon_each_other_that_are_stored_in_other_orders(
    tmp_path, any_geometry, reader
):
    far = (any_geometry.shape[2] - 1, any_geometry.spacing_mm[2])
    other = replace(turned(any_geometry), origin_mm=tuple(any_geometry.world([(0, 0, far[0])])[0]))
    paths = case(tmp_path, any_geometry, other)

    assert channels_apart_mm(paths, reader) == 0
    assert channels_apart_mm(paths) == pytest.approx(far[0] * far[1], abs=1e-3)
    assert channels_apart_mm(case(tmp_path, any_geometry, moved(any_geometry, 20)), reader) > 1


def test_channels_that_lie_upon_each_other_but_for_rounding_are_not_apart(tmp_path, any_geometry):
    assert channels_apart_mm(case(tmp_path, any_geometry, rounded(any_geometry))) == 0
    assert channels_apart_mm(case(tmp_path, any_geometry)) == 0


def test_pictures_lie_nowhere(tmp_path):
    paths = [tmp_path / f"case_{n:04d}.png" for n in range(2)]
    for path in paths:
        write_image(path, noise(1, (1, 8, 9)).astype(np.uint8), Geometry((1, 8, 9), dimension=2))

    assert channels_apart_mm(paths) == 0


def test_of_many_cases_a_few_are_named():
    said = []

    tell_apart({f"case{n}": float(n) for n in range(10)}, said.append)
    tell_apart({"case0": 0.0}, said.append)

    (sentence,) = said
    assert "case1 (1 mm), case2 (2 mm)" in sentence and "case5 (5 mm) and 4 more lie that far apart" in sentence


def test_planning_and_preparing_name_the_case_once(tmp_path):
    raw, said = nnunet_v2(tmp_path / "nnUNet_raw" / "Dataset501_Blocks", n_channels=2), []
    write_image(raw / "imagesTr" / "case1_0001.nii.gz", noise(11), moved(PLAIN, 20))
    write_image(raw / "imagesTr" / "case2_0001.nii.gz", noise(21), rounded(PLAIN))

    pipeline.plan(501, tmp_path, say=said.append)
    (planned,) = [sentence for sentence in said if "apart" in sentence]
    said.clear()
    pipeline.preprocess(501, tmp_path, configurations=["2d", "3d_fullres"], say=said.append)
    (prepared,) = [sentence for sentence in said if "apart" in sentence]
    said.clear()
    pipeline.preprocess(501, tmp_path, configurations=["2d", "3d_fullres"], say=said.append)

    assert planned == prepared and planned.startswith("The channels of case1 (20 mm) lie that far apart")
    assert not said


def test_planning_and_preparing_see_channels_as_their_reader_turns_them(tmp_path):
    far = PLAIN.shape[2] - 1
    other = replace(turned(PLAIN), origin_mm=tuple(PLAIN.world([(0, 0, far)])[0]))
    raw, said = nnunet_v2(tmp_path / "nnUNet_raw" / "Dataset501_Blocks", n_channels=2), []
    write_image(raw / "imagesTr" / "case1_0001.nii.gz", noise(11), other)
    pipeline.plan(501, tmp_path, say=said.append)
    pipeline.preprocess(501, tmp_path, configurations=["2d"], say=said.append)
    assert len([sentence for sentence in said if "apart" in sentence]) == 2

    said.clear()
    description = json.loads((raw / "dataset.json").read_text())
    reader = {"overwrite_image_reader_writer": "NibabelIOWithReorient"}
    (raw / "dataset.json").write_text(json.dumps(description | reader))
    pipeline.plan(501, tmp_path, clean=True, say=said.append)
    pipeline.preprocess(501, tmp_path, configurations=["2d"], say=said.append)

    assert not [sentence for sentence in said if "apart" in sentence]
