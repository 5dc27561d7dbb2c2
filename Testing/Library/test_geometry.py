"""Grids: voxel to world and back, against nibabel's affine arithmetic and SimpleITK's."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from NNSegmentLib.errors import ImageError
from NNSegmentLib.geometry import Geometry


@st.composite
def grids(draw) -> Geometry:
    """Any grid: oblique, anisotropic, left-handed, thin."""
    angles = [draw(st.floats(-3.1, 3.1)) for _ in range(3)]
    rows = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        first, second = [a for a in range(3) if a != axis]
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        rows = rows @ turn
    rows = rows @ np.diag([1.0, 1.0, draw(st.sampled_from([1.0, -1.0]))])
    return Geometry(
        shape=tuple(draw(st.integers(1, 40)) for _ in range(3)),
        spacing_mm=tuple(draw(st.floats(0.2, 12)) for _ in range(3)),
        origin_mm=tuple(draw(st.floats(-400, 400)) for _ in range(3)),
        direction=tuple(map(tuple, rows.tolist())),
    )


def corners(grid: Geometry) -> np.ndarray:
    return np.array([(z, y, x) for z in (0, grid.shape[0] - 1) for y in (0, grid.shape[1] - 1) for x in (0, 5)])


@given(grids())
@settings(max_examples=25, deadline=None)
def test_world_positions_are_those_nibabel_computes(grid):
    expected = nibabel.affines.apply_affine(grid.ijk_to_ras, corners(grid)[:, ::-1])

    assert np.allclose(grid.world(corners(grid)), expected, atol=1e-9)


@given(grids())
@settings(max_examples=25, deadline=None)
def test_world_positions_are_those_simpleitk_computes_with_x_and_y_negated(grid):
    volume = sitk.Image([int(n) for n in reversed(grid.shape)], sitk.sitkUInt8)
    spacing, origin, direction = grid.to_lps()
    volume.SetSpacing(spacing), volume.SetOrigin(origin), volume.SetDirection(direction)

    lps = np.array([volume.TransformIndexToPhysicalPoint([int(i) for i in c[::-1]]) for c in corners(grid)])

    assert np.allclose(grid.world(corners(grid)), lps * [-1, -1, 1], atol=1e-6)


@given(grids())
@settings(max_examples=25, deadline=None)
def test_voxel_undoes_world(grid):
    assert np.allclose(grid.voxel(grid.world(corners(grid))), corners(grid), atol=1e-6)


@given(grids())
@settings(max_examples=25, deadline=None)
def test_both_header_conventions_lead_back_to_the_same_grid(grid):
    spacing, origin, direction = grid.to_lps()
    from_lps = Geometry.from_lps(tuple(reversed(grid.shape)), spacing, origin, direction)
    from_matrix = Geometry.from_ijk_to_ras(grid.shape, grid.ijk_to_ras)

    assert grid.same_grid(from_lps, 1e-9)
    assert grid.same_grid(from_matrix, 1e-6)
    assert np.sign(np.linalg.det(from_matrix.direction)) == np.sign(np.linalg.det(grid.direction))


@given(grids(), st.integers(0, 4))
@settings(max_examples=15, deadline=None)
def test_a_cropped_grid_has_its_voxels_where_they_were(grid, start):
    cropped = grid.cropped((start, 0, 2 * start), (2, 3, 4))

    assert np.allclose(cropped.world([(1, 2, 3)]), grid.world([(start + 1, 2, 2 * start + 3)]), atol=1e-6)


def test_a_grid_moved_by_more_than_the_tolerance_is_another_grid(any_geometry):
    moved = any_geometry.cropped((0, 0, 1), any_geometry.shape)

    assert any_geometry.same_grid(any_geometry)
    assert not any_geometry.same_grid(moved)
    assert any_geometry.corner_distance_mm(moved) == pytest.approx(any_geometry.spacing_mm[2])


def test_grids_of_other_voxels_are_furthest_apart_at_the_far_corner():
    grid, wider = Geometry((1, 1, 11)), Geometry((1, 1, 11), (1.0, 1.0, 1.25))

    assert grid.corner_distance_mm(wider) == pytest.approx(10 * 0.25)
    assert grid.same_grid(wider, tolerance_mm=2.51) and not grid.same_grid(wider, tolerance_mm=2.49)


def test_a_grid_of_which_only_the_shape_is_known_begins_at_the_origin():
    assert Geometry((3, 4, 5)).world([(0, 0, 0), (1, 2, 3)]).tolist() == [[0, 0, 0], [3, 2, 1]]


def test_a_voxel_of_two_by_three_by_four_mm_is_24_microlitres():
    assert Geometry((1, 1, 1), (2.0, 3.0, 4.0)).voxel_volume_ml == pytest.approx(0.024)


def test_impossible_grids_are_refused():
    with pytest.raises(ImageError, match="at least one voxel"):
        Geometry((0, 3, 3))
    for spacing in ((0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (float("nan"), 1.0, 1.0)):
        with pytest.raises(ImageError, match="positive"):
            Geometry((3, 3, 3), spacing)


def test_a_sheared_grid_has_the_distances_along_its_axes_and_the_volume_between_them():
    matrix = np.diag([2.0, 3.0, 4.0, 1.0])
    matrix[:3, 2] = 0, 3, 4  # the z axis leans to the front

    sheared = Geometry.from_ijk_to_ras((3, 3, 3), matrix)

    assert sheared.spacing_mm == (5.0, 3.0, 2.0)
    assert sheared.voxel_volume_ml == pytest.approx(0.024)
    np.testing.assert_allclose(sheared.ijk_to_ras, matrix)
    np.testing.assert_allclose(sheared.voxel(sheared.world([(1, 2, 0)])), [(1, 2, 0)], atol=1e-12)
    assert not sheared.is_perpendicular


def test_rounding_of_single_precision_is_no_shear(any_geometry):
    matrix = any_geometry.ijk_to_ras.astype(np.float32)

    assert Geometry.from_ijk_to_ras(any_geometry.shape, matrix).is_perpendicular


def test_a_matrix_without_a_voxel_size_is_refused():
    with pytest.raises(ImageError, match="0 mm"):
        Geometry.from_ijk_to_ras((3, 3, 3), np.diag([1.0, 0.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"shape": (4.5, 4, 4)}, "shape of a grid should be three whole numbers of voxels"),
        ({"shape": (4, 4)}, "shape of a grid should be three whole numbers of voxels"),
        ({"spacing_mm": (1, 1)}, r"spacing_mm of a grid should be three numbers in mm, found \(1, 1\)"),
        ({"spacing_mm": ("a", 1, 1)}, "spacing_mm of a grid should be three numbers in mm"),
        ({"origin_mm": (0, 0, np.nan)}, "origin of a grid must be finite"),
        ({"direction": np.zeros((3, 3))}, "columns are unit vectors"),
        ({"direction": np.eye(4)}, "direction of a grid should be three rows"),
        ({"direction": np.eye(3)[:, :2]}, "three rows of three numbers"),
        ({"direction": np.ones((3, 3)) / np.sqrt(3)}, "unit vectors that differ"),
        ({"dimension": 2}, r"found 2 and shape \(4, 4, 4\)"),
    ],
)
def test_a_grid_that_cannot_be_says_so(fields, sentence):
    with pytest.raises(ImageError, match=sentence):
        Geometry(**({"shape": (4, 4, 4)} | fields))


def test_grids_of_arrays_and_of_tuples_are_equal():
    given = Geometry(np.array([4, 5, 6]), np.array([1, 2, 3]), np.zeros(3), np.eye(3))

    assert given == Geometry((4, 5, 6), (1.0, 2.0, 3.0))
    assert {type(n) for n in given.shape} == {int}
    assert hash(given) == hash(Geometry((4, 5, 6), (1.0, 2.0, 3.0)))
