"""Overlapping segments become regions from which nnU-Net's painting gives every overlap back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from NNSegmentLib.errors import TaskError
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.segments.overlaps import (
    Layer,
    combined,
    layers_of,
    members,
    painted_value,
    require_no_overlap,
    value_of,
    with_overlaps,
)

SHAPE = (2, 3, 5)


def plain(*names: str) -> LabelSet:
    return LabelSet(
        (Label("background", (0,)), *(Label(name, (n,), (n, 0, 0), f"~{name}") for n, name in enumerate(names, 1)))
    )


def layer(array, **names: int) -> Layer:
    return Layer(np.asarray(array), tuple((value, name) for name, value in names.items()))


def stacked(masks: dict):
    return combined(SHAPE, [Layer(mask.astype(np.uint8), ((1, name),)) for name, mask in masks.items()])


def masks_of(draw_bits: list[int], names: str) -> dict[str, np.ndarray]:
    bits = np.array(draw_bits).reshape(SHAPE)
    return {name: (bits >> n) & 1 > 0 for n, name in enumerate(names)}


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.integers(0, 2**n - 1), min_size=30, max_size=30)))
def test_every_overlap_survives_the_label_map_and_the_painting(bits):
    masks = masks_of(bits, "abcd")
    found = stacked(masks)

    labels = with_overlaps(plain(*"abcd"), found.counts, tolerance=0)

    values = np.array([value_of(labels, names) or 0 for names in found.combinations])[found.codes]
    assert labels.foreground_values == tuple(range(1, max(labels.values) + 1))
    for label in labels.foreground:
        expected = np.logical_and.reduce([masks[name] for name in members(label, labels)])
        assert np.array_equal(np.isin(values, label.values), expected), label
    if labels.has_regions:
        active = np.stack([np.isin(values, label.values) for label in labels.foreground])
        assert np.array_equal(labels.decide(active.astype(float), probabilities=True), values)
    else:
        assert labels == plain(*"abcd") and sum(mask.astype(int) for mask in masks.values()).max() < 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=30, max_size=30))
def test_groups_of_segments_never_share_a_value_and_leave_none_out(bits):
    labels = with_overlaps(plain(*"abcd"), stacked(masks_of(bits, "abcd")).counts, tolerance=0)

    groups = layers_of(labels)

    assert sorted(label.name for group in groups for label in group) == list("abcd")
    for group in groups:
        values = [value for label in group for value in label.values]
        assert len(values) == len(set(values))


def test_layers_are_laid_over_each_other_voxel_by_voxel():
    first, second = np.zeros((2, *SHAPE), np.int16)
    first[0], first[1, 0] = 4, 9
    second[0, 0], second[1, 2] = 2, 7  # 7 is nobody

    found = combined(SHAPE, [layer(first, liver=4, spleen=9), layer(second, tumor=2)])

    assert found.counts == {frozenset(["liver"]): 10, frozenset(["liver", "tumor"]): 5, frozenset(["spleen"]): 5}
    assert found.has("tumor") and not found.has("nobody")
    assert found.combinations[found.codes[0, 0, 0]] == {"liver", "tumor"}
    assert found.combinations[found.codes[1, 2, 0]] == frozenset()


def test_where_a_voxel_is_to_be_ignored_nothing_else_counts():
    masks = {"a": np.ones(SHAPE, bool), "ignore": np.zeros(SHAPE, bool), "b": np.zeros(SHAPE, bool)}
    masks["ignore"][0], masks["b"][:, 0] = True, True
    labels = LabelSet((*plain("a", "b").labels, Label("ignore", (3,))))

    found = stacked(masks)
    labels = with_overlaps(labels, found.counts)

    assert found.counts == {frozenset(["a"]): 10, frozenset(["a", "b"]): 5, frozenset(["ignore"]): 15}
    assert labels.to_dataset_json() == {
        "labels": {"background": 0, "a": [1, 2], "b": 2, "ignore": 3},
        "regions_class_order": [1, 2],
    }
    assert labels.foreground[0].color == (1, 0, 0) and labels.foreground[0].terminology == "~a"
    assert value_of(labels, frozenset(["ignore"])) == 3


def test_the_value_to_ignore_makes_room_for_the_overlaps():
    labels = LabelSet((*plain("a", "b").labels, Label("ignore", (3,))))

    found = with_overlaps(labels, {frozenset("a"): 5, frozenset("b"): 5, frozenset("ab"): 5, frozenset(["ignore"]): 5})

    assert [value_of(found, frozenset(names)) for names in ("a", "b", "ab", ["ignore"])] == [1, 2, 3, 4]


def test_small_overlaps_are_painted_over_by_the_later_label():
    counts = {frozenset("a"): 1000, frozenset("b"): 500, frozenset("ab"): 5}

    assert with_overlaps(plain("a", "b"), counts) == plain("a", "b")
    assert value_of(plain("a", "b"), frozenset("ab")) is None
    assert painted_value(plain("a", "b"), frozenset("ab")) == 2
    assert with_overlaps(plain("a", "b"), counts, tolerance=0.005).has_regions


def test_a_tumor_that_sticks_out_a_little_needs_no_label_of_its_own_for_the_intersection():
    counts = {frozenset(["liver"]): 10000, frozenset(["liver", "tumor"]): 500, frozenset(["tumor"]): 3}

    labels = with_overlaps(plain("liver", "tumor"), counts)

    assert [label.name for label in labels.foreground] == ["liver", "tumor"]
    assert value_of(labels, frozenset(["tumor"])) not in (None, value_of(labels, frozenset(["liver", "tumor"])))
    assert painted_value(labels, frozenset(["liver", "tumor"])) == value_of(labels, frozenset(["liver", "tumor"]))


def test_overlaps_are_refused_by_name():
    with pytest.raises(TaskError, match="case 1: the segments a and b overlap in 7 voxels"):
        require_no_overlap("case 1", {frozenset("a"): 9, frozenset("ab"): 7})
    require_no_overlap("case 1", {frozenset("a"): 9})
