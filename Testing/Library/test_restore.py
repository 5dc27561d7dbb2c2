"""The way back: predictions on the network's grid lie where the input's voxels are."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from NNSegmentLib.errors import ImageError, ModelError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import Image, LabelMap
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.planning.plan import PLAIN, Configuration, NetworkSpec, Plan, Resampling
from NNSegmentLib.preprocessing.prepare import prepare_image, prepare_previous
from NNSegmentLib.preprocessing.prepared import Placement
from NNSegmentLib.preprocessing.resample import prepared_shape, resample_to
from NNSegmentLib.preprocessing.restore import (
    labels_from_logits,
    probabilities_from_logits,
    restore_labels,
)

LABELS = LabelSet((Label("background", (0,)), Label("a", (1,)), Label("b", (2,))))
REGIONS = LabelSet((Label("background", (0,)), Label("whole", (1, 2)), Label("core", (2,))), (7, 300))


def configuration(spacing_mm=(1.0, 1.0, 1.0), resampling=None) -> Configuration:
    network = NetworkSpec(PLAIN, (4,), ((3, 3, 3),), ((1, 1, 1),), (1,), ())
    return Configuration(
        "3d_fullres", "id", 1, (8, 8, 8), (8, 8, 8), tuple(spacing_mm), ("NoNormalization",), (False,), network, False,
        resampling_probabilities=resampling or Resampling(order=1),
    )  # fmt: skip


def plan(spacing_mm, axes=(0, 1, 2)) -> Plan:
    return Plan("Dataset001_Test", "nnUNetPlans", axes, (configuration(spacing_mm),), ())


def placement(prepared, original, crop_shape, start=(0, 0, 0), before=None, axes=(0, 1, 2)) -> Placement:
    before = before or tuple(a + n for a, n in zip(start, crop_shape, strict=True))
    shape = tuple(before[axes.index(axis)] for axis in range(3))
    return Placement(Geometry(shape), axes, before, start, crop_shape, original, prepared)


def blob(geometry: Geometry) -> np.ndarray:
    """A ball around the middle, in mm, and a box around it that is not zero."""
    centre = geometry.world([[(n - 1) / 2 for n in geometry.shape]])
    voxels = np.array(list(itertools.product(*map(range, geometry.shape))))
    distance = np.linalg.norm(geometry.world(voxels) - centre, axis=1).reshape(geometry.shape)
    return distance < 0.42 * min(n * s for n, s in zip(geometry.shape, geometry.spacing_mm, strict=True))


def centroid_mm(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    return geometry.world(np.argwhere(mask)).mean(axis=0)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_restoring_undoes_preparing_exactly_when_nothing_is_resampled(any_geometry, axes):
    labels = blob(any_geometry).astype(np.uint8)
    labels[any_geometry.shape[0] // 2 :] *= 2
    image = np.pad(labels[None, 1:-1, 2:-1, 1:-3] + 1.0, ((0, 0), (1, 1), (2, 1), (1, 3))).astype(np.float32)
    labels[image[0] == 0] = 0
    spacing = tuple(any_geometry.spacing_mm[axis] for axis in axes)

    prepared = prepare_image(
        Image(image, any_geometry), LabelMap(labels, any_geometry), plan(spacing, axes), "3d_fullres", LABELS
    )
    restored = restore_labels(prepared.labels, prepared.placement)

    assert prepared.image.shape[1:] == tuple(np.subtract(any_geometry.shape, (2, 3, 4))[list(axes)])
    assert np.array_equal(restored, labels)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0 / 3.0])
def test_a_resampled_blob_comes_back_to_its_place_in_the_patient(any_geometry, factor):
    mask = blob(any_geometry)
    image = Image((mask + 1.0)[None].astype(np.float32), any_geometry)
    axes = (2, 0, 1)
    spacing = tuple(factor * any_geometry.spacing_mm[axis] for axis in axes)

    prepared = prepare_image(
        image, LabelMap(mask.astype(np.uint8), any_geometry), plan(spacing, axes), "3d_fullres", LABELS
    )
    restored = restore_labels(prepared.labels, prepared.placement) == 1

    assert dice(restored, mask) > 0.95
    distance = np.linalg.norm(centroid_mm(restored, any_geometry) - centroid_mm(mask, any_geometry))
    assert distance < 0.5 * min(any_geometry.spacing_mm)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    start=st.tuples(*[st.integers(0, 3)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 6.0)] * 3),
    axes=st.permutations(range(3)),
)
def test_one_label_everywhere_fills_the_crop_box_and_nothing_else(shape, start, spacing, axes):
    before = tuple(np.add(shape, start) + 1)
    where = placement((1.5, 1.0, 1.0), spacing, shape, start, before, tuple(axes))

    restored = restore_labels(np.ones(prepared_shape(where), np.int8), where)

    box = np.zeros(before, np.uint8)
    box[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))] = 1
    backward = [list(axes).index(axis) for axis in range(3)]
    assert np.array_equal(restored, box.transpose(backward))


CASES = [
    ("same grid", (9, 10, 11), (1, 1, 1), (1, 1, 1)),
    ("finer", (19, 21, 16), (2, 2, 2), (1, 1, 1)),
    ("coarser", (9, 10, 11), (1, 1, 1), (2.5, 1.5, 2)),
    ("slices apart", (7, 40, 30), (5, 2, 2), (6.5, 1, 1)),
    ("separate last axis", (30, 40, 8), (2, 2, 7), (1, 1, 5)),
    ("one plane", (1, 40, 30), (999, 2, 1), (999, 1, 1.7)),
]


def random_logits(n: int, where: Placement, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(n, *prepared_shape(where))).astype(dtype)


def resampled(logits, where, c) -> np.ndarray:
    """All classes at the target size at once, by the function that is compared with skimage elsewhere.

    As in nnU-Net the result has the number type of what was resampled.
    """
    spacings = where.spacing_mm, where.original_spacing_mm
    whole = resample_to(logits.astype(np.float32), where.crop_shape, *spacings, c.resampling_probabilities)
    return whole.astype(logits.dtype).astype(np.float32)


def pasted(values, where, outside=0) -> np.ndarray:
    whole = np.full(where.shape_before_crop, outside, values.dtype)
    whole[tuple(slice(a, a + n) for a, n in zip(where.crop_start, where.crop_shape, strict=True))] = values
    return whole.transpose([where.transpose_forward.index(axis) for axis in range(3)])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("crop_shape", "spacing", "original"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_labels_from_logits_are_the_argmax_of_the_resampled_logits(crop_shape, spacing, original, order, dtype):
    where = placement(spacing, original, crop_shape, (2, 0, 1), tuple(np.add(crop_shape, 4)), (1, 2, 0))
    c, logits = configuration(resampling=Resampling(order=order)), random_logits(3, where, dtype)

    found = labels_from_logits(logits, where, c, LABELS)

    expected = pasted(resampled(logits, where, c).argmax(axis=0), where)
    assert found.shape == where.geometry.shape
    assert found.dtype == np.uint8
    assert (found == expected).mean() > 0.9999


@pytest.mark.parametrize(("crop_shape", "spacing", "original"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_regions_above_one_half_are_painted_in_their_order(crop_shape, spacing, original):
    where = placement(spacing, original, crop_shape, (0, 1, 2), tuple(np.add(crop_shape, 3)), (2, 1, 0))
    c, logits = configuration(), random_logits(2, where)

    found = labels_from_logits(logits, where, c, REGIONS)

    whole, core = resampled(logits, where, c)
    expected = np.where(core > 0, 300, np.where(whole > 0, 7, 0))
    assert found.dtype == np.uint16
    assert (found == pasted(expected, where)).mean() > 0.9999


def test_a_region_of_exactly_one_half_is_not_painted():
    where = placement((1, 1, 1), (1, 1, 1), (2, 2, 2))
    logits = np.zeros((2, 2, 2, 2), np.float32)
    logits[0, 0, 0, 0] = 1e-6

    found = labels_from_logits(logits, where, configuration(), REGIONS)

    assert np.argwhere(found).tolist() == [[0, 0, 0]]


def test_results_do_not_depend_on_slabs_or_threads(monkeypatch):
    where = placement((1, 1, 1), (0.7, 0.8, 0.9), (40, 30, 20))
    logits = random_logits(3, where)
    expected = labels_from_logits(logits, where, configuration(), LABELS, workers=1)

    monkeypatch.setattr("NNSegmentLib.preprocessing.restore._SLAB_VOXELS", 3 * 30 * 20)

    assert np.array_equal(labels_from_logits(logits, where, configuration(), LABELS, workers=2), expected)


def test_label_values_with_gaps_are_painted_and_the_first_of_equal_outputs_wins():
    labels = LabelSet((Label("background", (0,)), Label("a", (4,)), Label("b", (260,))))
    where = placement((1, 1, 1), (1, 1, 1), (1, 1, 4))
    logits = np.array([[0, 1, 1, 0], [0, 1, 2, 0], [0, 0, 2, 1]], np.float32)[:, None, None]

    found = labels_from_logits(logits, where, configuration(), labels)

    assert found.tolist() == [[[0, 0, 4, 260]]]


@pytest.mark.parametrize(("highest", "kind"), [(254, np.uint8), (255, np.uint16)])
def test_labels_have_nnunets_number_type(highest, kind):
    labels = LabelSet((Label("background", (0,)), Label("a", (highest,))))
    where = placement((1, 1, 1), (1, 1, 1), (1, 1, 2))

    found = labels_from_logits(np.array([[0, 1], [1, 0]], np.float32)[:, None, None], where, configuration(), labels)

    assert found.dtype == kind and found.tolist() == [[[highest, 0]]]


def test_more_than_255_classes_keep_their_numbers():
    labels = LabelSet(tuple(Label("background" if i == 0 else f"l{i}", (i,)) for i in range(300)))
    where = placement((1, 1, 1), (1, 1, 1), (3, 10, 10))
    logits = random_logits(300, where)

    found = labels_from_logits(logits, where, configuration(), labels)

    assert found.dtype == np.uint16
    assert np.array_equal(found, logits.argmax(axis=0))


@pytest.mark.parametrize(("crop_shape", "spacing", "original"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_probabilities_are_the_softmax_of_the_resampled_logits(crop_shape, spacing, original):
    where = placement(spacing, original, crop_shape, (2, 0, 1), tuple(np.add(crop_shape, 4)), (1, 2, 0))
    logits = random_logits(3, where)

    found = probabilities_from_logits(logits, where, configuration(), LABELS)

    exponentials = np.exp(resampled(logits, where, configuration()).astype(float))
    expected = exponentials / exponentials.sum(axis=0)
    for k in range(3):
        assert np.abs(found[k] - pasted(expected[k], where, outside=float(k == 0))).max() < 1e-5
    assert np.allclose(found.sum(axis=0), 1, atol=1e-5)


def test_probabilities_of_regions_are_sigmoids_and_zero_outside_the_box():
    where = placement((1, 1, 1), (0.8, 0.8, 0.8), (10, 12, 14), (1, 1, 1), (12, 14, 16))
    logits = 40 * random_logits(2, where)

    found = probabilities_from_logits(logits, where, configuration(), REGIONS)

    expected = 1 / (1 + np.exp(-resampled(logits, where, configuration()).astype(float)))
    for k in range(2):
        assert np.abs(found[k] - pasted(expected[k], where)).max() < 1e-5


def test_outputs_that_fit_neither_labels_nor_grid_are_refused():
    where = placement((1, 1, 1), (1, 1, 1), (4, 5, 6))

    with pytest.raises(ModelError, match="need 3 network outputs, found 2"):
        labels_from_logits(np.zeros((2, 4, 5, 6)), where, configuration(), LABELS)
    with pytest.raises(ModelError, match=r"Expected \(4, 5, 6\)"):
        labels_from_logits(np.zeros((3, 4, 5, 7)), where, configuration(), LABELS)
    with pytest.raises(ModelError, match=r"Expected \(4, 5, 6\)"):
        restore_labels(np.zeros((4, 5, 7), np.int8), where)


def test_the_previous_stage_lands_on_the_prepared_grid(any_geometry):
    mask = blob(any_geometry)
    image = Image((mask + 0.0)[None].astype(np.float32), any_geometry)
    axes = (1, 2, 0)
    spacing = tuple(0.6 * any_geometry.spacing_mm[axis] for axis in axes)
    prepared = prepare_image(
        image, LabelMap(mask.astype(np.uint8), any_geometry), plan(spacing, axes), "3d_fullres", LABELS
    )

    previous = prepare_previous(mask.astype(np.uint8), prepared.placement, configuration(spacing), image)

    assert previous.shape == prepared.image.shape[1:]
    assert dice(previous == 1, prepared.labels == 1) > 0.99


def test_a_previous_stage_of_another_size_is_refused():
    where = replace(placement((1, 1, 1), (1, 1, 1), (4, 5, 6)), geometry=Geometry((4, 5, 6)))
    with pytest.raises(ImageError, match="previous stage"):
        prepare_previous(
            np.zeros((4, 5, 5), np.uint8), where, configuration(), Image(np.ones((1, 4, 5, 6)), where.geometry)
        )


def test_a_previous_stage_is_resampled_as_labels_are():
    random, spacing = np.random.default_rng(3), (1.3, 1.4, 1.2)
    geometry = Geometry((15, 16, 17))
    image = Image((random.random((1, 15, 16, 17)) > 0.5).astype(np.float32), geometry)
    labels = random.integers(0, 3, geometry.shape).astype(np.uint8)
    prepared = prepare_image(image, LabelMap(labels, geometry), plan(spacing), "3d_fullres", LABELS)

    previous = prepare_previous(labels, prepared.placement, configuration(spacing), image)

    np.testing.assert_array_equal(previous, prepared.labels)


@pytest.mark.parametrize("resampling", [Resampling(order=1), Resampling(order=3)], ids=["linear", "cubic"])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_outputs_that_differ_by_less_than_their_precision_are_ties_and_the_first_wins(resampling, kind):
    where = placement((1.3, 1.1, 0.9), (1.0, 1.0, 1.0), (13, 11, 9))
    common = np.random.default_rng(5).normal(size=prepared_shape(where))
    nearly = common + np.random.default_rng(6).normal(scale=1e-3, size=common.shape)
    logits = np.stack([common - 9, common, nearly]).astype(kind)

    labels = labels_from_logits(logits, where, configuration((1.3, 1.1, 0.9), resampling), LABELS)

    grids = (1.3, 1.1, 0.9), (1.0, 1.0, 1.0)
    stored = resample_to(logits.astype(np.float32), labels.shape, *grids, resampling).astype(kind)  # as in nnU-Net
    assert ((stored[1] == stored[2]).any()) == (kind is np.float16)
    assert (labels == stored.argmax(axis=0)).mean() > 0.999


def test_outputs_resampled_by_nnunets_torch_function_keep_all_their_digits():
    where = placement((1.3, 1.1, 0.9), (1.0, 1.0, 1.0), (13, 11, 9))
    common = np.random.default_rng(5).normal(size=prepared_shape(where))
    nearly = common + np.random.default_rng(6).normal(scale=1e-3, size=common.shape)
    logits = np.stack([common - 9, common, nearly]).astype(np.float16)
    linear = Resampling(order=1, function="resample_torch_fornnunet")

    labels = labels_from_logits(logits, where, configuration((1.3, 1.1, 0.9), linear), LABELS)

    exact = resample_to(logits.astype(np.float32), labels.shape, (1.3, 1.1, 0.9), (1.0, 1.0, 1.0), linear)
    assert np.array_equal(labels, exact.argmax(axis=0))
    assert (labels != exact.astype(np.float16).argmax(axis=0)).any()
