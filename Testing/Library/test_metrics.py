"""Overlap counts and surface distances against point-by-point counting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from NNSegmentLib.metrics import region_surface_distances, surface, surface_distances, tabulate


def voxel_by_voxel(prediction, reference, region, ignore=None):
    """(TP, FP, FN, TN) with a loop."""
    found = [0, 0, 0, 0]
    for p, r in zip(prediction.ravel().tolist(), reference.ravel().tolist(), strict=True):
        if r != ignore:
            found[{(1, 1): 0, (1, 0): 1, (0, 1): 2, (0, 0): 3}[(int(p in region), int(r in region))]] += 1
    return tuple(found)


def is_surface_voxel(mask, voxel, axes):
    for axis, step in itertools.product(axes, (-1, 1)):
        neighbour = list(voxel)
        neighbour[axis] += step
        if not 0 <= neighbour[axis] < mask.shape[axis] or not mask[tuple(neighbour)]:
            return True
    return False


def every_distance(mask, other, spacing, axes=(0, 1, 2)):
    """Distances in mm from each surface voxel of `mask` to the nearest of `other`, by comparing all pairs."""
    start = [v for v in np.argwhere(mask) if is_surface_voxel(mask, v, axes)]
    end = [v for v in np.argwhere(other) if is_surface_voxel(other, v, axes)]
    start, end = np.multiply(start, spacing).tolist(), np.multiply(end, spacing).tolist()
    return [min((math.dist(a, b) for b in end), default=math.inf) for a in start]


def blobs(seed, shape=(7, 12, 10), values=4):
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, values, [math.ceil(n / 2) for n in shape]), np.ones((2, 2, 2), int))[
        tuple(slice(n) for n in shape)
    ].astype(np.uint8)


@given(seed=st.integers(0, 10**6), ignore=st.sampled_from([None, 3]))
@settings(max_examples=20, deadline=None)
def test_counts_are_those_of_a_loop_over_the_voxels(seed, ignore):
    prediction, reference = blobs(seed), blobs(seed + 1)

    table = tabulate(prediction, reference, ignore)

    for region in ((1,), (2,), (1, 2), (0,), (7,)):
        counts = table.counts(region)
        assert (counts.tp, counts.fp, counts.fn, counts.tn) == voxel_by_voxel(prediction, reference, region, ignore)


@pytest.mark.parametrize("values", [(0, 5, 60000), (-3, 0, 2)])
def test_counts_do_not_need_small_or_positive_values(values):
    prediction, reference = (np.array(values)[blobs(seed, values=3)] for seed in (1, 2))

    counts = tabulate(prediction, reference).counts(values[2:])

    assert (counts.tp, counts.fp, counts.fn, counts.tn) == voxel_by_voxel(prediction, reference, values[2:])


def test_counts_of_large_maps_add_up_over_the_slabs():
    rng = np.random.default_rng(3)
    prediction, reference = (rng.integers(0, 2, (80, 256, 256), dtype=np.uint8) for _ in range(2))

    counts = tabulate(prediction, reference).counts((1,))

    tp, n_pred, n_ref = (int(a.sum()) for a in (prediction & reference, prediction, reference))
    assert (counts.tp, counts.n_pred, counts.n_ref) == (tp, n_pred, n_ref)
    assert counts.tn == prediction.size - n_pred - n_ref + tp


def test_overlap_scores_follow_their_formulas_and_are_undefined_for_two_empty_masks():
    prediction, reference = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 1, 1, 0])

    counts = tabulate(prediction, reference).counts((1,))
    absent = tabulate(prediction, reference).counts((2,))

    assert (counts.dice, counts.iou, counts.n_pred, counts.n_ref) == (2 * 2 / 7, 2 / 5, 3, 4)
    assert math.isnan(absent.dice) and math.isnan(absent.iou) and absent.tn == 6


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_surface_distances_are_the_smallest_of_all_pairs(seed):
    spacing = np.array([2.5, 0.7, 0.9])
    prediction, reference = blobs(seed, values=2) == 1, blobs(seed + 1, values=2) == 1

    found = surface_distances(prediction, reference, spacing)

    assert np.allclose(sorted(found.to_reference), sorted(every_distance(prediction, reference, spacing)))
    assert np.allclose(sorted(found.to_prediction), sorted(every_distance(reference, prediction, spacing)))


@pytest.mark.parametrize("swapped", [False, True])
def test_hausdorff_is_the_95th_percentile_of_the_worse_direction(swapped):
    spacing = np.array([2.0, 1.0, 1.5])
    masks = [np.zeros((6, 30, 12), bool) for _ in range(2)]
    masks[0][2:5, 2:10, 3:9] = masks[1][2:5, 3:12, 3:9] = True
    masks[1][3, 12:24, 5:7] = True
    prediction, reference = reversed(masks) if swapped else masks

    there, back = every_distance(prediction, reference, spacing), every_distance(reference, prediction, spacing)

    expected = [np.percentile(side, 95) for side in (there, back)]
    assert abs(expected[0] - expected[1]) > 1
    assert surface_distances(prediction, reference, spacing).hd95_mm == pytest.approx(max(expected))


def test_sparse_surfaces_are_searched_and_dense_ones_mapped_with_one_result():
    one, noise = np.zeros((20, 20, 20), bool), np.random.default_rng(1).random((20, 20, 20)) > 0.7
    one[4, 5, 6] = one[15, 3, 9] = True

    found = surface_distances(noise, one, (3.0, 1.0, 1.5))

    assert np.allclose(sorted(found.to_reference), sorted(every_distance(noise, one, np.array([3.0, 1.0, 1.5]))))


def test_hausdorff_and_surface_dice_take_both_directions():
    spacing = np.array([2.0, 1.0, 1.0])
    prediction, reference = np.zeros((8, 20, 20), bool), np.zeros((8, 20, 20), bool)
    reference[2:6, 4:16, 4:16] = True
    prediction[2:6, 4:16, 4:16] = prediction[3, 10, 16:20] = True

    found = surface_distances(prediction, reference, spacing)

    there, back = every_distance(prediction, reference, spacing), every_distance(reference, prediction, spacing)
    assert found.hd95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    near = [d <= 1.5 for d in there + back]
    assert found.nsd(1.5) == pytest.approx(sum(near) / len(near)) and found.nsd(1.5) < 1


def test_a_shift_by_one_slice_is_as_far_as_the_slice_distance():
    mask = np.zeros((12, 10, 10), bool)
    mask[2:5, 3:7, 3:7] = True

    found = surface_distances(np.roll(mask, 3, axis=0), mask, (5.0, 1.0, 1.0))

    assert found.to_reference.max() == 15.0 and found.nsd(4.9) < found.nsd(15.0) == 1.0


@pytest.mark.parametrize("voxel", [0.1, 0.3, 0.7, np.float32(0.8), np.float32(0.6)])
@pytest.mark.parametrize("slices", [1, 3, 10])
@pytest.mark.parametrize("edge", [4, 40])
def test_a_distance_of_whole_slices_is_within_as_many_millimetres(voxel, slices, edge):
    mask = np.zeros((edge + 20, edge + 4, edge + 4), bool)
    mask[2 : edge + 2, 2:-2, 2:-2] = True
    tolerance = round(float(voxel), 6) * slices

    found = surface_distances(np.roll(mask, slices, axis=0), mask, [float(voxel)] * 3)

    assert found.nsd(tolerance) == 1.0
    assert found.nsd(0.999 * tolerance) < 1.0


def test_empty_masks_follow_the_convention_of_surface_distance_libraries():
    empty, cube = np.zeros((5, 5, 5), bool), np.ones((5, 5, 5), bool)

    nothing, missed, invented = (
        surface_distances(p, r, (1, 1, 1)) for p, r in ((empty, empty), (empty, cube), (cube, empty))
    )

    assert math.isnan(nothing.hd95_mm) and math.isnan(nothing.nsd(1))
    assert missed.hd95_mm == invented.hd95_mm == math.inf and missed.nsd(1) == invented.nsd(1) == 0


def test_targets_are_measured_in_their_own_boxes_as_in_the_whole_volume():
    prediction, reference = blobs(11), blobs(12)
    regions = ((1,), (2, 3), (9,), (0,))

    found = region_surface_distances(prediction, reference, regions, (2.0, 1.0, 1.0))

    for region, distances in zip(regions, found, strict=True):
        whole = surface_distances(np.isin(prediction, region), np.isin(reference, region), (2.0, 1.0, 1.0))
        assert np.allclose(sorted(distances.to_reference), sorted(whole.to_reference))
        assert np.allclose(sorted(distances.to_prediction), sorted(whole.to_prediction))


@pytest.mark.parametrize("region", [(1,), (0,), (0, 2)])
def test_ignored_voxels_count_as_outside_in_both_maps(region):
    reference, prediction = blobs(21), blobs(22)
    masks = [np.isin(array, region) & (reference != 3) for array in (prediction, reference)]

    (found,) = region_surface_distances(prediction, reference, (region,), (2, 1, 1), ignore=3)

    expected = surface_distances(*masks, (2, 1, 1))
    assert np.allclose(sorted(found.to_reference), sorted(expected.to_reference))
    assert np.allclose(sorted(found.to_prediction), sorted(expected.to_prediction))


def test_a_single_plane_has_its_outline_as_surface():
    plane = np.zeros((1, 12, 12), np.uint8)
    plane[0, 2:10, 2:10] = 1

    (found,) = region_surface_distances(plane, plane, ((1,),), (999.0, 1.0, 1.0))

    assert len(found.to_reference) == 8 * 8 - 6 * 6


def test_the_border_of_the_image_is_a_surface():
    assert surface(np.ones((3, 3, 3), bool)).sum() == 26
