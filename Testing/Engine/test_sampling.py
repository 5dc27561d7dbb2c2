"""Where patches come from: bounds, forced foreground, padding and extraction sizes against a banal opinion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from NNSegmentLib.engine.cases import cut
from NNSegmentLib.engine.sampling import PatchSampling, draw_corner
from NNSegmentLib.engine.spatial import extraction_size
from NNSegmentLib.preprocessing.prepared import ANNOTATED


def sampling(patch=(4, 4, 4), extraction=(6, 7, 4), batch=2, fraction=0.33, annotated=False) -> PatchSampling:
    return PatchSampling(patch, extraction, batch, fraction, annotated)


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ((128, 128, 128), (205, 205, 205)),
        ((40, 56, 40), (73, 80, 64)),
        ((96, 160, 160), (191, 257, 219)),
        ((20, 256, 224), (20, 301, 301)),
        ((256, 224), (301, 301)),
    ],
)
def test_the_extraction_window_has_nnunets_size(patch, expected):
    assert extraction_size(patch) == expected


@pytest.mark.parametrize(("batch", "first_forced"), [(2, 1), (3, 2), (4, 3), (7, 5), (9, 6), (12, 8)])
def test_the_last_third_of_a_batch_is_forced_to_hold_foreground(batch, first_forced):
    forced = [sampling(batch=batch).forced(i) for i in range(batch)]
    assert forced == [i >= first_forced for i in range(batch)]


@pytest.mark.parametrize("shape", [3, 4, 5, 6, 7, 12, 30])
@pytest.mark.parametrize(("patch", "extraction"), [(4, 4), (4, 7), (5, 10), (8, 13)])
def test_corner_bounds_follow_the_written_rule_on_each_axis(shape, patch, extraction):
    pad = extraction - patch
    if pad + shape < extraction:
        pad = extraction - shape
    lowest, highest = math.floor(-pad / 2), shape + pad // 2 + pad % 2 - extraction

    low, high = sampling((patch,) * 3, (extraction,) * 3).corner_bounds((shape,) * 3)

    assert low.tolist() == [lowest] * 3
    assert high.tolist() == [highest] * 3
    assert lowest <= highest


def test_unforced_corners_reach_every_allowed_place_equally_often():
    rng, shape = np.random.default_rng(0), (9, 9, 9)
    low, high = sampling().corner_bounds(shape)
    corners = np.array([draw_corner(rng, sampling(), 0, shape, {(1,): np.array([[0, 0, 0]])}) for _ in range(4000)])
    for axis in range(3):
        values, counts = np.unique(corners[:, axis], return_counts=True)
        assert values.tolist() == list(range(low[axis], high[axis] + 1))
        assert counts.min() > 0.8 * 4000 / len(values)


def test_forced_patches_choose_the_target_first_and_put_its_voxel_in_the_middle():
    rng, shape = np.random.default_rng(0), (30, 30, 30)
    small, large = np.array([[15, 16, 17]]), np.array([[20, 20, 20]] * 999)
    foreground = {(1,): small, (1, 2): large, (3,): np.empty((0, 3), int), ANNOTATED: np.array([[9, 9, 9]] * 50)}
    corners = [draw_corner(rng, sampling(), 1, shape, foreground) for _ in range(600)]
    centres = [tuple(np.add(c, (6 // 2, 7 // 2, 4 // 2)).tolist()) for c in corners]
    assert set(centres) == {(15, 16, 17), (20, 20, 20)}
    assert 240 < centres.count((15, 16, 17)) < 360


def test_a_forced_voxel_at_the_border_is_limited_below_but_not_above():
    rng, shape, spec = np.random.default_rng(0), (20, 20, 20), sampling((4,) * 3, (6,) * 3)
    assert draw_corner(rng, spec, 1, shape, {(1,): np.array([[0, 0, 0]])}) == (-1, -1, -1)
    assert draw_corner(rng, spec, 1, shape, {(1,): np.array([[19, 19, 19]])}) == (16, 16, 16)


def test_a_case_without_foreground_gives_a_random_place():
    rng = np.random.default_rng(0)
    corners = {draw_corner(rng, sampling(), 1, (20, 20, 20), {}) for _ in range(20)}
    assert len(corners) > 10


def test_with_an_ignore_label_unforced_patches_lie_on_annotated_voxels():
    rng, spec = np.random.default_rng(0), sampling((4,) * 3, (4,) * 3, annotated=True)
    foreground = {(1,): np.array([[3, 3, 3]]), ANNOTATED: np.array([[11, 12, 13]])}
    assert draw_corner(rng, spec, 0, (20, 20, 20), foreground) == (9, 10, 11)
    assert draw_corner(rng, spec, 1, (20, 20, 20), foreground) == (1, 1, 1)


def test_the_plain_patch_holds_the_forced_voxel_in_its_middle():
    for extraction in [(4, 4, 4), (7, 8, 9)]:
        spec = sampling((4, 4, 4), extraction)
        corner = np.array([15, 15, 15]) - np.array(extraction) // 2
        assert np.add(spec.patch_corner(corner), 2).tolist() == [15, 15, 15]


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("corner", [(0, 0, 0), (-3, 2, 1), (3, 5, 6), (-9, 0, 0), (20, 0, 0), (-2, -2, -2)])
def test_a_window_over_the_border_equals_that_of_the_padded_array(corner, resident):
    array = np.random.default_rng(0).normal(size=(2, 6, 7, 8)).astype(np.float32)
    padded = np.pad(array, [(0, 0)] + [(30, 30)] * 3, constant_values=-1)
    expected = padded[(slice(None), *[slice(c + 30, c + 34) for c in corner])]

    found = cut(torch.from_numpy(array) if resident else array, corner, (4, 4, 4), -1)

    assert np.array_equal(found.numpy(), expected)
