"""Rotated and scaled patches against scipy's interpolation of the whole extraction window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from NNSegmentLib.engine import spatial
from NNSegmentLib.engine.cases import LoadedCase
from NNSegmentLib.engine.sampling import PatchSampling
from NNSegmentLib.engine.spatial import SpatialRules, draw_matrix, extraction_size, spatial_rules, warped_patches

SHAPE = (18, 20, 22)


def case(resident: bool = True, channels: int = 2) -> LoadedCase:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(channels, *SHAPE)).astype(np.float32)
    labels = rng.integers(-1, 4, SHAPE).astype(np.int16)
    labels[5:12, 5:12, 5:12] = 2
    previous = (labels == 2).astype(np.int16)
    if resident:
        image, labels, previous = map(torch.from_numpy, (image, labels, previous))
    return LoadedCase("a", image, (labels, previous), {})


def window(array: np.ndarray, corner, size, outside) -> np.ndarray:
    padded = np.pad(array, 40, constant_values=outside)
    return padded[tuple(slice(c + 40, c + 40 + n) for c, n in zip(corner, size, strict=True))]


def places(matrix, extraction, patch) -> np.ndarray:
    offsets = [np.arange(n) - (n - 1) / 2 for n in patch]
    grid = np.stack(np.meshgrid(*offsets, indexing="ij"), axis=-1) @ matrix
    return np.moveaxis(grid + (np.array(extraction) - 1) / 2, -1, 0)


def expected_image(image, corner, extraction, matrix, patch) -> np.ndarray:
    at = places(matrix, extraction, patch)
    return np.stack(
        # grid-constant interpolates towards the padding at the border, as the network's sampling does
        [map_coordinates(window(c, corner, extraction, 0), at, order=1, mode="grid-constant") for c in image]
    )


def expected_labels(labels, corner, extraction, matrix, patch) -> np.ndarray:
    at = places(matrix, extraction, patch)
    values = np.unique([-1, *labels.ravel()])
    cut = window(labels, corner, extraction, -1)
    shares = [
        map_coordinates((cut == v).astype(float), at, order=1, mode="grid-constant", cval=float(v == -1))
        for v in values
    ]
    return values[np.argmax(shares, axis=0)]


def warped_patch(case, sampling, corner, matrix, in_plane):
    """One patch: image (C, Z, Y, X) and label maps (L, Z, Y, X)."""
    image, labels = warped_patches([case], sampling, [corner], [matrix], in_plane)
    return image[0], labels[0]


MATRICES = [draw_matrix(np.random.default_rng(seed), SpatialRules(30.0, False, 1, 1)) for seed in range(3)]
FLAT_MATRICES = [draw_matrix(np.random.default_rng(seed), SpatialRules(180.0, True, 1, 1)) for seed in range(3)]
CORNERS = [(1, 2, 3), (-4, -3, -5), (6, 7, 8), (12, -6, 4)]


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize(
    ("matrix", "in_plane", "patch", "extraction"),
    [(m, False, (8, 9, 10), (12, 14, 13)) for m in MATRICES]
    + [(m, True, (4, 9, 10), (4, 14, 13)) for m in FLAT_MATRICES]
    + [(m, True, (1, 9, 10), (1, 14, 13)) for m in FLAT_MATRICES],
)
@pytest.mark.parametrize("resident", [True, False])
def test_a_warped_patch_equals_the_interpolation_of_the_whole_window(
    corner, matrix, in_plane, patch, extraction, resident
):
    one = case(resident)
    image, labels = warped_patch(one, PatchSampling(patch, extraction, 1, 0.0), corner, matrix, in_plane)

    where = (corner, extraction, matrix, patch)
    assert np.allclose(image.numpy(), expected_image(np.asarray(one.image), *where), atol=1e-4)
    for found, given in zip(labels.numpy(), one.labels, strict=True):
        assert (found == expected_labels(np.asarray(given), *where)).mean() > 0.9985  # equal shares within rounding


@pytest.mark.parametrize(
    ("matrices", "in_plane", "patch", "extraction"),
    [(MATRICES, False, (8, 9, 10), (12, 14, 13)), (FLAT_MATRICES, True, (4, 9, 10), (4, 14, 13))],
)
def test_patches_warped_together_are_those_warped_one_by_one(matrices, in_plane, patch, extraction):
    sampling, corners = PatchSampling(patch, extraction, 3, 0.0), [(1, 2, 3), (40, 0, 0), (-4, -3, -5)]
    cases = [case(), case(), case()]
    together = warped_patches(cases, sampling, corners, matrices, in_plane)
    alone = [warped_patch(*one, in_plane) for one in zip(cases, [sampling] * 3, corners, matrices, strict=True)]

    assert torch.allclose(together[0], torch.stack([image for image, _ in alone]), atol=1e-5)
    assert torch.equal(together[1], torch.stack([labels for _, labels in alone]))


def test_a_window_beside_the_case_gives_zeros_and_outside_labels():
    sampling = PatchSampling((8, 8, 8), (12, 12, 12), 1, 0.0)
    image, labels = warped_patch(case(), sampling, (40, 0, 0), MATRICES[0], False)
    assert image.shape == (2, 8, 8, 8)
    assert image.abs().max() == 0
    assert labels.unique().tolist() == [-1]


def test_without_turning_the_warp_copies_the_middle_of_the_window():
    sampling = PatchSampling((8, 8, 8), (12, 12, 12), 1, 0.0)
    image, labels = warped_patch(case(), sampling, (1, 2, 3), np.eye(3), False)
    assert torch.allclose(image, case().image[:, 3:11, 4:12, 5:13], atol=1e-5)
    assert torch.equal(labels[0], case().labels[0][3:11, 4:12, 5:13])


@pytest.mark.parametrize(
    ("patch", "degrees", "in_plane"),
    [
        ((128, 128, 128), 30, False),
        ((20, 256, 224), 180, True),
        ((20, 60, 60), 30, False),
        ((256, 224), 180, True),
        ((256, 160), 15, True),
    ],
)
def test_the_range_of_rotation_follows_the_shape_of_the_patch(patch, degrees, in_plane):
    rules = spatial_rules(patch)
    assert (rules.rotation_degrees, rules.in_plane) == (degrees, in_plane)


def test_a_long_slice_is_enlarged_for_fifteen_degrees():
    turned = 160 * np.cos(np.deg2rad(15)) + 100 * np.sin(np.deg2rad(15))
    assert extraction_size((160, 100)) == (int(turned / 0.85), int(100 / 0.85))


def test_rotation_and_scaling_happen_as_often_and_as_far_as_nnunet_does():
    rng, rules = np.random.default_rng(0), SpatialRules(30.0, False)
    drawn = [draw_matrix(rng, rules) for _ in range(20000)]
    matrices = np.array([m for m in drawn if m is not None])
    factors = np.cbrt(np.linalg.det(matrices))
    scaled = np.abs(factors - 1) > 1e-6
    rotated = np.abs(matrices / factors[:, None, None] - np.eye(3)).max((1, 2)) > 1e-6
    assert abs(len(matrices) / 20000 - 0.36) < 0.015
    assert abs(scaled.sum() / 20000 - 0.2) < 0.012
    assert abs(rotated.sum() / 20000 - 0.2) < 0.012
    assert 0.7 <= factors.min() < 0.71
    assert 1.39 < factors.max() <= 1.4
    assert abs(factors[scaled].mean() - 1.05) < 0.02


def test_angles_are_uniform_about_each_axis():
    rng, rules = np.random.default_rng(0), SpatialRules(30.0, False, 1, 0)
    matrices = np.array([draw_matrix(rng, rules) for _ in range(4000)])
    # in a product of rotations about axes 2, 1 and 0 this entry is the (negative) sine of the middle one
    middle = np.rad2deg(np.arcsin(matrices[:, 2, 0]))
    assert abs(middle.mean()) < 1
    assert abs(middle.std() - 60 / np.sqrt(12)) < 0.5
    assert np.abs(middle).max() <= 30.001


def test_flat_patches_keep_their_slices():
    matrix = draw_matrix(np.random.default_rng(0), SpatialRules(180.0, True, 1, 1))
    assert matrix[0].tolist() == [1, 0, 0]
    assert matrix[:, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize(("matrices", "in_plane"), [(MATRICES, False), (FLAT_MATRICES, True)])
def test_labels_weighed_everywhere_are_those_weighed_between_labels(monkeypatch, matrices, in_plane):
    """The graphics card's way, here on the processor."""
    patch = (4 if in_plane else 8, 9, 10)
    sampling = PatchSampling(patch, (patch[0] if in_plane else 12, 14, 13), 3, 0.0)
    given = [case()] * 3, sampling, CORNERS[:3], matrices, in_plane
    expected = warped_patches(*given)[1]
    monkeypatch.setattr(
        spatial,
        "_heaviest_between",
        lambda padded, first, fractions, steps: spatial._heaviest(padded.view(-1), first, fractions[:, None], steps),
    )
    monkeypatch.setattr(spatial, "_winner_by_turns", spatial._winner_at_once)

    assert (warped_patches(*given)[1] == expected).float().mean() > 0.9995  # equal shares within rounding
