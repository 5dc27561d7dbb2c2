"""Resampling equals skimage's and batchgenerators' resizing, slice by slice or in 3-D as nnU-Net decides."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from NNSegmentLib.errors import PlanError
from NNSegmentLib.planning.plan import Resampling
from NNSegmentLib.preprocessing import operators
from NNSegmentLib.preprocessing.resample import new_shape, resample_labels, resample_to, separate_axis

resize = pytest.importorskip("skimage.transform").resize
resize_segmentation = pytest.importorskip("batchgenerators.augmentations.utils").resize_segmentation

ISOTROPIC, APART = ((1.0, 1.0, 1.0), (0.8, 0.8, 0.8)), ((5.0, 1.0, 1.0), (4.0, 0.8, 0.8))
SHAPES = [
    ((11, 14, 9), (17, 10, 9)),
    ((20, 21, 22), (10, 40, 33)),
    ((1, 30, 25), (1, 44, 20)),
    ((9, 8, 7), (3, 24, 21)),
]


def smooth(shape, seed=0):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1).astype(np.float32)


def blobs(shape, n_labels, seed=0):
    fields = [smooth(shape, seed + i) for i in range(n_labels)]
    return np.argmax(fields, axis=0).astype(np.int8)


def by_skimage(array, shape, order):
    return resize(array.astype(float), shape, order, mode="edge", anti_aliasing=False)


def along(axis, array, work):
    """`work` on every slice across `axis`."""
    return np.stack([work(s) for s in np.moveaxis(array, axis, 0)], axis=axis)


def nearest_along(axis, array, m):
    n = array.shape[axis]
    at = [n / m * (i + 0.5) - 0.5 for i in range(m)]
    index = ndimage.map_coordinates(np.arange(n, dtype=float), [at], order=0, mode="nearest").astype(int)
    return array.take(index, axis=axis)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("shape", "target"), SHAPES)
def test_an_image_resampled_in_3d_equals_skimage(shape, target, order):
    image = smooth((2, *shape))

    found = resample_to(image, target, *ISOTROPIC, Resampling(order=order))

    expected = np.stack([by_skimage(channel, target, order) for channel in image])
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 2e-6


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("shape", "target"), SHAPES)
def test_far_apart_slices_are_resampled_one_by_one_and_the_nearest_slice_is_taken(shape, target, axis):
    image = smooth(shape)
    spacing, new_spacing = np.roll(APART, axis, axis=1)
    plane = tuple(np.delete(target, axis))

    found = resample_to(image[None], target, spacing, new_spacing, Resampling(order=3))[0]

    expected = nearest_along(axis, along(axis, image, lambda s: by_skimage(s, plane, 3)), target[axis])
    assert np.abs(found - expected).max() < 2e-6


@pytest.mark.parametrize("n", [14, 5])
def test_a_separate_axis_can_be_interpolated_too(n):
    image = smooth((9, 12, 10))

    found = resample_to(image[None], (n, 12, 15), *APART, Resampling(order=3, order_z=1))[0]

    in_plane = along(0, image, lambda s: by_skimage(s, (12, 15), 3))
    at = np.meshgrid(9 / n * (np.arange(n) + 0.5) - 0.5, np.arange(12), np.arange(15), indexing="ij")
    expected = ndimage.map_coordinates(in_plane, at, order=1, mode="nearest")
    assert np.abs(found - expected).max() < 2e-6


def test_long_axes_are_multiplied_piece_by_piece_with_the_same_result():
    image = smooth((1, 3, 900, 40))
    image_across = image.transpose(0, 2, 1, 3)

    found = resample_to(image, (3, 300, 70), *ISOTROPIC, Resampling(order=3))
    across = resample_to(image_across, (300, 3, 70), *ISOTROPIC, Resampling(order=3))

    assert np.abs(found[0] - by_skimage(image[0], (3, 300, 70), 3)).max() < 2e-6
    assert np.abs(across.transpose(0, 2, 1, 3) - found).max() < 1e-6


@pytest.mark.parametrize("order", [2, 3])
def test_splines_do_not_leave_the_range_of_the_input(order):
    image = np.zeros((1, 12, 12, 12), np.float32)
    image[:, 4:8, 4:8, 4:8] = 1

    found = resample_to(image, (25, 25, 25), *ISOTROPIC, Resampling(order=order))

    assert found.min() == 0
    assert found.max() == 1


def test_an_unchanged_shape_returns_the_array_itself():
    image, labels = smooth((1, 5, 6, 7)), blobs((5, 6, 7), 3)

    assert resample_to(image, (5, 6, 7), *ISOTROPIC, Resampling(3)) is image
    assert resample_labels(labels, (5, 6, 7), *ISOTROPIC, Resampling(1)) is labels


@pytest.mark.parametrize("n_labels", [2, 3, 8, 60])
@pytest.mark.parametrize(("shape", "target"), SHAPES)
def test_labels_resampled_in_3d_equal_batchgenerators(shape, target, n_labels):
    labels = blobs(shape, n_labels) - 1

    found = resample_labels(labels, target, *ISOTROPIC, Resampling(order=1))

    assert found.dtype == labels.dtype
    assert (found == resize_segmentation(labels, target, order=1)).mean() > 0.9999


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_labels_of_far_apart_slices_equal_batchgenerators_slice_by_slice(axis):
    labels, target = blobs((20, 21, 22), 5) - 1, (26, 15, 33)
    spacing, new_spacing = np.roll(APART, axis, axis=1)
    plane = tuple(np.delete(target, axis))

    found = resample_labels(labels, target, spacing, new_spacing, Resampling(order=1))

    expected = nearest_along(axis, along(axis, labels, lambda s: resize_segmentation(s, plane, order=1)), target[axis])
    assert np.array_equal(found, expected)


def test_tied_labels_go_to_the_nearest_voxel_if_it_is_among_them_else_to_the_smallest():
    for corners in itertools.islice(itertools.product((0, 1, 2, 3), repeat=8), 0, None, 37):
        labels = np.array(corners, np.int8).reshape(2, 2, 2)

        found = resample_labels(labels, (1, 1, 1), *ISOTROPIC, Resampling(order=1))

        assert found == resize_segmentation(labels, (1, 1, 1), order=1), corners


def test_labels_of_order_0_take_the_nearest_voxel():
    labels = blobs((10, 11, 12), 4)

    found = resample_labels(labels, (15, 9, 12), *ISOTROPIC, Resampling(order=0))

    assert np.array_equal(found, resize(labels, (15, 9, 12), 0, mode="edge", anti_aliasing=False, preserve_range=True))


def test_the_operator_reproduces_a_constant_and_its_blocks_make_up_the_matrix():
    for n, m, order in [(7, 19, 3), (100, 37, 3), (128, 200, 1), (5, 5, 0)]:
        parts = operators.blocks(n, m, order)

        whole = operators.apply(np.eye(n, dtype=np.float32)[:, :, None], 0, parts)[:, :, 0]

        assert np.allclose(whole.sum(axis=1), 1, atol=1e-6)
        expected = np.eye(n)[operators.nearest(n, m)] if order == 0 else operators.spline_matrix(n, m, order)
        assert np.abs(whole - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("spacing", "new_spacing", "force", "axis"),
    [
        ((1, 1, 1), (1, 1, 1), None, None),
        ((3, 1, 1), (1, 1, 1), None, None),
        ((3.1, 1, 1), (1, 1, 1), None, 0),
        ((1, 1, 1), (1, 1, 5), None, 2),
        ((1, 4, 1), (5, 1, 1), None, 1),
        ((1, 4, 4), (1, 1, 1), None, None),
        ((1, 4, 4), (5, 1, 1), None, None),
        ((5, 1, 1), (1, 1, 1), False, None),
        ((1.2, 1, 1), (1, 1, 1), True, 0),
        ((1, 1, 1), (5, 1, 1), True, None),
        ((4, 2, 2), (2, 2, 2), None, None),
        ((0.4, 0.1, 0.1), (0.1, 0.1, 0.1), None, 0),
    ],
)
def test_an_axis_is_separate_by_the_current_spacing_then_by_the_new(spacing, new_spacing, force, axis):
    assert separate_axis(spacing, new_spacing, force) == axis


def test_the_new_shape_rounds_halves_to_even():
    assert new_shape((5, 7, 10), (0.5, 0.5, 1.0), (1.0, 1.0, 0.9)) == (2, 4, 11)


def test_a_thin_image_keeps_a_voxel_along_every_axis():
    assert new_shape((1, 7, 10), (0.3, 1.0, 1.0), (1.0, 1.0, 1.0)) == (1, 7, 10)


def test_nnunets_torch_function_is_linear_and_others_are_refused():
    image = smooth((1, 8, 9, 10))
    torch_like = Resampling(order=3, function="resample_torch_fornnunet")

    found = resample_to(image, (12, 12, 12), *ISOTROPIC, torch_like)

    assert np.abs(found[0] - by_skimage(image[0], (12, 12, 12), 1)).max() < 2e-6
    with pytest.raises(PlanError, match="supported are"):
        resample_to(image, (12, 12, 12), *ISOTROPIC, Resampling(order=3, function="my_own"))
    with pytest.raises(PlanError, match="order 0 or 1"):
        resample_labels(blobs((8, 9, 10), 3), (12, 12, 12), *ISOTROPIC, Resampling(order=3))
