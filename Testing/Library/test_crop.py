"""The non-zero box and mask against scipy's fill-holes and a search over all voxels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from NNSegmentLib.preprocessing.crop import cropped, nonzero_box, nonzero_mask


def box_by_search(array):
    where = np.argwhere((array != 0).any(0))
    return tuple(where.min(0)), tuple(where.max(0) - where.min(0) + 1)


def blobs(seed, channels=1, shape=(14, 17, 11), share=0.5):
    rng = np.random.default_rng(seed)
    array = np.zeros((channels, *shape), np.float32)
    array[:, 3:12, 2:13, 1:9] = rng.random((channels, 9, 11, 8)) < share
    return array


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("channels", [1, 3])
def test_the_box_is_the_tightest_around_all_channels(seed, channels):
    array = blobs(seed, channels, share=0.01)

    assert nonzero_box(array) == box_by_search(array)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.85, 0.97])
def test_the_mask_has_holes_filled_as_scipy_fills_them(share):
    array = blobs(7, channels=1, share=share)

    np.testing.assert_array_equal(nonzero_mask(array), ndimage.binary_fill_holes(array[0] != 0))


def test_a_voxel_is_inside_the_mask_when_any_channel_differs_from_zero():
    array = np.zeros((3, 4, 5, 6))
    for channel in range(3):
        array[channel, channel, channel, channel] = channel + 1

    assert np.argwhere(nonzero_mask(array)).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


def test_a_hollow_sphere_is_filled_and_an_open_one_is_not():
    z, y, x = np.ogrid[:21, :21, :21]
    radius = np.sqrt((z - 10) ** 2 + (y - 10) ** 2 + (x - 10) ** 2)
    closed = ((radius > 6) & (radius < 9)).astype(np.float32)[None]
    opened = closed.copy()
    opened[0, :, 10, 10] = 0

    assert nonzero_mask(closed)[10, 10, 10]
    assert not nonzero_mask(opened)[10, 10, 10]


def test_masking_the_cropped_array_equals_cropping_the_mask():
    array = blobs(3, channels=2, share=0.9)
    array[:, 8, 8, 4] = 0
    box = nonzero_box(array)

    np.testing.assert_array_equal(nonzero_mask(cropped(array, box)), cropped(nonzero_mask(array), box))


def test_a_single_plane_has_no_holes():
    ring = np.zeros((1, 1, 9, 9), np.float32)
    ring[0, 0, 2:7, 2:7] = 1
    ring[0, 0, 4, 4] = 0

    assert not nonzero_mask(ring)[0, 4, 4]
    assert nonzero_box(ring) == ((0, 2, 2), (1, 5, 5))


def test_an_empty_image_keeps_its_extent_and_has_an_empty_mask():
    empty = np.zeros((2, 4, 5, 6), np.float32)

    assert nonzero_box(empty) == ((0, 0, 0), (4, 5, 6))
    assert not nonzero_mask(empty).any()


def test_negative_and_not_a_number_voxels_count_as_non_zero():
    array = np.zeros((1, 5, 5, 5), np.float32)
    array[0, 1, 1, 1], array[0, 3, 2, 4] = -1000, np.nan

    assert nonzero_box(array) == ((1, 1, 1), (3, 2, 4))
