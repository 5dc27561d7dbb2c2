"""Channels and predictions that lie on another grid, voxel by voxel as the world has them."""

from __future__ import annotations

import numpy as np
import pytest

from NNSegmentLib.errors import ImageError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.grids.regular import Voxels, labels_on_grid, labels_on_voxels, onto_first_grid
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.prediction import Prediction

LABELS = LabelSet((Label("background", (0,)), Label("organ", (1,)), Label("tumor", (2,))))
GRID = Geometry((6, 7, 8), (2.0, 1.0, 1.0))


def organ_with_tumor() -> np.ndarray:
    """Unlike its own mirror images."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[1:5, 2:6, 1:5] = 1
    labels[1, 3, 2] = 2
    return labels


def moved(grid: Geometry, x_mm: float) -> np.ndarray:
    matrix = grid.ijk_to_ras
    matrix[0, 3] += x_mm
    return matrix


def mirrored(grid: Geometry) -> Geometry:
    """The same voxels with x counted from the other side."""
    matrix = grid.ijk_to_ras
    matrix[:3, 3] = grid.world((0, 0, grid.shape[2] - 1))[0]
    matrix[:3, 0] *= -1
    return Geometry.from_ijk_to_ras(grid.shape, matrix)


def by_search(prediction: Prediction, matrix: np.ndarray, shape) -> np.ndarray:
    """For every voxel the label of the prediction's voxel that lies nearest to it in the world."""
    found = np.zeros(shape, np.uint8)
    for zyx in np.ndindex(*shape):
        ras = matrix[:3, :3] @ zyx[::-1] + matrix[:3, 3]
        at = np.rint(prediction.geometry.voxel(ras)[0]).astype(int)
        if (at >= 0).all() and (at < prediction.geometry.shape).all():
            found[zyx] = prediction.labels[tuple(at)]
    return found


def test_the_place_that_a_prediction_fits_is_the_volumes_whether_turned_or_not():
    labels = organ_with_tumor()
    places = [moved(GRID, 3.0), GRID.ijk_to_ras]

    same = labels_on_voxels(Prediction(labels, GRID, LABELS), places, GRID.shape, "CT")
    turned = labels_on_voxels(Prediction(labels[:, :, ::-1], mirrored(GRID), LABELS), places, GRID.shape, "CT")

    assert np.array_equal(same, labels)
    assert np.array_equal(turned, labels)


def test_on_a_grid_that_fits_nowhere_every_voxel_takes_the_nearest_label_of_the_likeliest_place():
    prediction = Prediction(organ_with_tumor(), GRID, LABELS)
    fine = Geometry((9, 10, 11), (1.3, 0.7, 0.7), (0.4, 0.3, 0.9))
    places = [moved(fine, 1.1), fine.ijk_to_ras]

    found = labels_on_voxels(prediction, places, fine.shape, "CT")

    assert np.array_equal(found, by_search(prediction, places[0], fine.shape))
    assert set(np.unique(found)) == {0, 1, 2}


def test_the_outermost_labels_reach_half_a_voxel_around_their_centres():
    prediction = Prediction(np.ones(GRID.shape, np.uint8), GRID, LABELS)
    fine = Geometry((14, 16, 18), (1.1, 0.6, 0.6), (-1.1, -1.2, -1.6))

    found = labels_on_grid(prediction.labels, GRID.ijk_to_ras, fine)

    assert np.array_equal(found, by_search(prediction, fine.ijk_to_ras, fine.shape))
    assert np.array_equal(found, labels_on_voxels(prediction, [fine.ijk_to_ras], fine.shape, "CT"))


@pytest.mark.parametrize("noise_mm", [-1e-6, 1e-6])
def test_rounding_in_the_header_of_a_turned_volume_takes_no_plane_away(noise_mm):
    turned = Geometry.from_ijk_to_ras(GRID.shape, moved(mirrored(GRID), noise_mm))
    values = np.random.default_rng(1).permutation(GRID.shape[0] * 7 * 8).reshape(GRID.shape).astype(np.uint16)

    labels = labels_on_grid(values, turned.ijk_to_ras, GRID)
    (_, image), _, _ = onto_first_grid(
        ["CT", "PET"], [Voxels(values[None], GRID.ijk_to_ras), Voxels(values[None], turned.ijk_to_ras)]
    )

    assert np.array_equal(labels, values[:, :, ::-1])
    np.testing.assert_allclose(image, values[:, :, ::-1], atol=0.01)


@pytest.mark.parametrize(("x_mm", "meets"), [(7.4, True), (7.6, False), (-7.9, True), (-8.1, False)])
def test_a_prediction_meets_a_volume_that_has_the_centre_of_a_voxel_inside_it(x_mm, meets):
    prediction = Prediction(organ_with_tumor(), GRID, LABELS)  # from -0.5 to 7.5 mm along x
    finer = Geometry((6, 7, 16), (2.0, 1.0, 0.5))
    places = [moved(finer, x_mm)]

    if meets:
        assert not labels_on_voxels(prediction, places, finer.shape, "CT").any()
    else:
        with pytest.raises(ImageError, match="lies elsewhere than CT"):
            labels_on_voxels(prediction, places, finer.shape, "CT")


def test_a_channel_on_another_grid_is_interpolated_and_has_its_lowest_value_where_it_is_not():
    first = Voxels(np.ones((1, *GRID.shape), np.int16), GRID.ijk_to_ras)
    x_mm = np.broadcast_to(np.arange(4) + 1.25, (6, 7, 4))  # from 1.25 to 4.25 mm, and no further
    second = Voxels(100 * x_mm[None], moved(Geometry(x_mm.shape, GRID.spacing_mm), 1.25))

    channels, grid, notes = onto_first_grid(["CT", "PET"], [first, second])

    assert grid == GRID and notes == ("PET was resampled onto the grid of CT.",)
    assert np.array_equal(channels[0], first.array[0])
    np.testing.assert_allclose(channels[1], np.broadcast_to([125, 125, 200, 300, 400, 125, 125, 125], GRID.shape))
