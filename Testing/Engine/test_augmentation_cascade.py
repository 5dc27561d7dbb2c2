"""The previous stage's labels: balls against scipy's structuring elements, components, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from NNSegmentLib.engine.cascade_augmentation import (
    OPERATIONS,
    CascadeRules,
    Disturbance,
    Operation,
    Removal,
    disturb,
    draw_disturbance,
    masks_of,
    morphed,
)

RULES = CascadeRules()


def blobs(shape=(14, 20, 18), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=shape), 2 if min(shape) > 1 else (0, 2, 2)) > 0.05


def ball(radius: float, slices: bool) -> np.ndarray:
    r = int(radius)
    z, y, x = np.ogrid[-r : r + 1, -r : r + 1, -r : r + 1]
    full = z**2 + y**2 + x**2 <= radius**2
    return full[r : r + 1] if slices else full


@pytest.mark.parametrize("shape", [(14, 20, 18), (1, 30, 26)])
@pytest.mark.parametrize("radius", [1.0, 2.5, 6.3])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_equal_scipys_with_a_ball(operation, radius, shape):
    mask, element = blobs(shape), ball(radius, shape[0] == 1)

    def dilated(m):
        return ndimage.binary_dilation(m, element)

    def eroded(m):
        return ndimage.binary_erosion(m, element, border_value=1)

    expected = {
        "dilation": lambda m: dilated(m),
        "erosion": lambda m: eroded(m),
        "closing": lambda m: eroded(dilated(m)),
        "opening": lambda m: dilated(eroded(m)),
    }[operation](mask)

    assert 0 < mask.sum() < mask.size
    assert np.array_equal(morphed(torch.from_numpy(mask), operation, radius).numpy(), expected)


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_empty_and_full_masks_stay_as_they_are(operation, fill):
    mask = torch.full((5, 6, 7), fill)
    assert torch.equal(morphed(mask, operation, 3.0), mask)


def test_voxels_added_to_one_label_are_taken_from_the_others():
    labels = torch.zeros(3, 9, 9, dtype=torch.int16)
    labels[:, :, :4], labels[:, :, 4:7] = 1, 2
    masks = masks_of(labels, (1, 2))
    found = disturb(masks, Disturbance((Operation(0, "dilation", 1.0),), ()), RULES)
    assert found[0, 0, 0].tolist() == [True] * 5 + [False] * 4
    assert found[1, 0, 0].tolist() == [False] * 5 + [True] * 2 + [False] * 2
    assert torch.equal(masks, masks_of(labels, (1, 2)))


def test_voxels_lost_by_one_label_are_given_to_nobody():
    labels = torch.zeros(1, 9, 9, dtype=torch.int16)
    labels[:, :, :4], labels[:, :, 4:7] = 1, 2
    found = disturb(masks_of(labels, (1, 2)), Disturbance((Operation(0, "erosion", 1.0),), ()), RULES)
    assert found[0, 0, 0].tolist() == [True] * 3 + [False] * 6
    assert found[1, 0, 0].tolist() == [False] * 4 + [True] * 3 + [False] * 2


@pytest.mark.parametrize(("place", "gone"), [(0.0, 0), (0.49, 0), (0.5, 1), (0.99, 1)])
def test_one_small_component_is_removed_and_large_ones_stay(place, gone):
    mask = torch.zeros(1, 10, 10, 10, dtype=torch.bool)
    mask[0, :2], mask[0, 4, 4, 4:6], mask[0, 8, 8, 8] = True, True, True
    small = [(0, 4, 4, slice(4, 6)), (0, 8, 8, 8)]
    expected = mask.clone()
    expected[small[gone]] = False
    found = disturb(mask, Disturbance((), (Removal(0, place),)), RULES)
    assert torch.equal(found, expected)


def test_diagonal_neighbours_are_one_component():
    mask = torch.zeros(1, 6, 6, 6, dtype=torch.bool)
    mask[0, 1, 1, 1] = mask[0, 2, 2, 2] = True
    assert not disturb(mask, Disturbance((), (Removal(0, 0.0),)), RULES).any()


def test_a_label_without_small_components_stays():
    mask = torch.ones(1, 4, 4, 4, dtype=torch.bool)
    assert disturb(mask, Disturbance((), (Removal(0, 0.3),)), RULES).all()


def test_disturbances_are_drawn_as_often_as_nnunet_does():
    rng = np.random.default_rng(0)
    drawn = [draw_disturbance(rng, 3, RULES) for _ in range(6000)]
    operations = [o for d in drawn for o in d.operations]
    assert abs(np.mean([bool(d.operations) for d in drawn]) - 0.4 * 7 / 8) < 0.02
    assert abs(np.mean([bool(d.removals) for d in drawn]) - 0.2 * 7 / 8) < 0.02
    assert abs(len(operations) / 6000 - 0.4 * 1.5) < 0.03
    assert {o.name for o in operations} == set(OPERATIONS)
    radii = [o.radius for o in operations]
    assert 1 <= min(radii) < 1.1
    assert 7.9 < max(radii) <= 8
    assert {d.operations[0].label for d in drawn if d.operations} == {0, 1, 2}
