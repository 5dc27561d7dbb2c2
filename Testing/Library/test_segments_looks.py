"""A segment is known by its voxels: not by its label value, its neighbours, or the size of the label map around it."""

from __future__ import annotations

import numpy as np
import pytest

from NNSegmentLib.segments.looks import looks_in

IJK_TO_MM = np.array([[0.0, -2.0, 0.0, 5.0], [1.5, 0.0, 0.0, -3.0], [0.0, 0.0, 4.0, 10.0], [0, 0, 0, 1]])
BALL = np.zeros((6, 7, 8), np.uint8)
BALL[2:4, 3:6, 1:5] = 1
BALL[2, 3, 1] = 0


def look(array: np.ndarray, value: int = 1, first=(0, 0, 0), ijk_to_mm: np.ndarray = IJK_TO_MM):
    return looks_in(array, first, ijk_to_mm, {"ball": value})["ball"]


def test_a_segment_looks_the_same_in_another_label_map():
    smaller = BALL[1:5, 2:7, 1:6] * np.uint8(3)
    smaller[0, 0, 0] = 1

    assert look(smaller, 3, first=(1, 2, 1)).is_same(look(BALL))


@pytest.mark.parametrize("change", ["a voxel less", "moved", "other spacing"])
def test_a_segment_that_was_changed_looks_different(change):
    changed, matrix = BALL.copy(), IJK_TO_MM.copy()
    if change == "a voxel less":
        changed[3, 4, 2] = 0
    elif change == "moved":
        changed = np.roll(BALL, 1, axis=2)
    else:
        matrix[2, 2] = 4.5

    assert not look(changed, ijk_to_mm=matrix).is_same(look(BALL))


def test_empty_segments_look_alike_and_like_nothing_else():
    empty = look(np.zeros((0, 0, 0), np.uint8))

    assert empty.is_same(look(BALL, value=2))
    assert not empty.is_same(look(BALL))
