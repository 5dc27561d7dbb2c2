"""Intensity transforms against scipy and against the transforms of batchgenerators, and how often they happen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from NNSegmentLib.engine import intensity
from NNSegmentLib.engine.reference_augmentation import intensity_transforms

GENERATOR = torch.Generator().manual_seed(0)
NOISE = intensity.Noise(GENERATOR)


def planes(n: int = 2, shape=(9, 10, 11), seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(n, *shape)), (0, 1, 1, 1)) * 4 + 0.5
    return torch.from_numpy(smooth.astype(np.float32))


def values(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_noise_has_the_drawn_standard_deviation():
    noisy = intensity.add_noise(torch.zeros(2, 40, 40, 40), values([0.02], [0.1]), NOISE)
    assert torch.allclose(noisy.std((1, 2, 3)), torch.tensor([0.02, 0.1]), rtol=0.02)
    assert noisy.mean().abs() < 1e-3


def test_blur_equals_scipys_gaussian_along_each_axis():
    sigmas = [[0.5, 0.7, 0.9], [1.0, 0.6, 0.55]]
    blurred = intensity.blur(planes(), values(*sigmas), NOISE)
    for found, plane, sigma in zip(blurred, planes(), sigmas, strict=True):
        # scipy calls a border that does not repeat the edge voxel "mirror"
        assert np.allclose(found, ndimage.gaussian_filter(plane.numpy(), sigma, mode="mirror"), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 12, 11), (2, 3, 2)])
def test_blur_serves_slices_and_patches_smaller_than_its_kernel(shape):
    blurred = intensity.blur(planes(1, shape), values([1.0, 1.0, 1.0]), NOISE)
    expected = ndimage.gaussian_filter(planes(1, shape)[0].numpy(), 1.0, mode="mirror")
    assert np.allclose(blurred[0], expected, atol=1e-5)


def test_brightness_multiplies():
    assert torch.equal(
        intensity.scale_brightness(planes(), values([0.8], [1.2]), NOISE),
        planes() * values([0.8], [1.2])[..., None, None],
    )


def test_contrast_stretches_about_the_mean_within_the_former_range():
    for factor in (0.8, 1.2):
        before = planes(1).numpy().astype(float)
        expected = np.clip((before - before.mean()) * factor + before.mean(), before.min(), before.max())
        assert np.allclose(intensity.change_contrast(planes(1), values([factor]), NOISE), expected, atol=1e-5)


@pytest.mark.parametrize("keep_first", [True, False])
def test_lower_resolution_repeats_coarse_voxels_and_blends_them(keep_first):
    zoom = [1.0 if keep_first else 0.5, 0.5, 0.5]
    found = intensity.lower_resolution(planes(1, (8, 8, 8)), values(zoom), NOISE)[0].numpy()
    expected = planes(1, (8, 8, 8))[0].numpy()
    for axis in range(int(keep_first), 3):
        coarse = np.take(expected, [1, 3, 5, 7], axis)
        # voxel i of 8 lies at (i + 0.5) / 2 - 0.5 of 4
        expected = ndimage.map_coordinates(
            np.moveaxis(coarse, axis, 0),
            np.stack(
                np.meshgrid(
                    (np.arange(8) + 0.5) / 2 - 0.5,
                    *map(np.arange, np.moveaxis(coarse, axis, 0).shape[1:]),
                    indexing="ij",
                )
            ),
            order=1,
            mode="nearest",
        )
        expected = np.moveaxis(expected, 0, axis)
    assert np.allclose(found, expected, atol=1e-5)


def test_lower_resolution_rounds_to_a_whole_number_of_coarse_voxels():
    found, six, five = (
        intensity.lower_resolution(planes(1, (10, 10, 10)), values([zoom] * 3), NOISE) for zoom in (0.57, 0.6, 0.5)
    )

    assert torch.equal(found, six)
    assert not torch.equal(found, five)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("gamma", [0.7, 1.4])
def test_gamma_bends_within_the_range_and_keeps_mean_and_deviation(gamma, inverted):
    before = planes(1).numpy().astype(float) * (-1 if inverted else 1)
    width = before.max() - before.min()
    bent = ((before - before.min()) / width) ** gamma * width + before.min()
    expected = (bent - bent.mean()) / bent.std() * before.std() + before.mean()
    change = intensity.change_inverted_gamma if inverted else intensity.change_gamma
    found = change(planes(1), values([gamma]), NOISE)
    assert np.allclose(found, expected * (-1 if inverted else 1), atol=1e-4)


def test_a_constant_patch_stays_finite_and_the_same():
    flat = torch.full((1, 4, 4, 4), 3.0)
    for transform, row in (
        (intensity.change_gamma, [1.3]),
        (intensity.change_contrast, [1.2]),
        (intensity.blur, [1, 1, 1]),
    ):
        assert torch.allclose(transform(flat.clone(), values(row), NOISE), flat, atol=1e-5)


def test_only_the_drawn_rows_change():
    image = planes(6).view(3, 2, 9, 10, 11).clone()
    drawn = [intensity.DrawnTransform(intensity.scale_brightness, (1, 4), np.array([[2.0], [3.0]]))]
    intensity.change_intensities(image, drawn, GENERATOR)
    factors = image / planes(6).view(3, 2, 9, 10, 11)
    assert torch.allclose(factors.mean((2, 3, 4)), values([1, 2], [1, 1], [3, 1]), atol=1e-4)


EXPECTED_SHARE = {
    # share of channels that change: probability per sample times probability per channel
    intensity.add_noise: 0.1,
    intensity.blur: 0.1,
    intensity.scale_brightness: 0.15,
    intensity.change_contrast: 0.15,
    intensity.lower_resolution: 0.125,
    intensity.change_inverted_gamma: 0.1,
    intensity.change_gamma: 0.3,
}


def test_each_transform_is_drawn_as_often_as_nnunet_does_and_in_its_order():
    drawn = intensity.draw_intensities(np.random.default_rng(0), intensity.default_rules(False), 20000, 2)
    assert [one.transform for one in drawn] == list(EXPECTED_SHARE)
    for one in drawn:
        assert abs(len(one.rows) / 40000 - EXPECTED_SHARE[one.transform]) < 0.01


def test_noise_is_drawn_once_for_all_channels_and_brightness_for_each():
    drawn = intensity.draw_intensities(np.random.default_rng(0), intensity.default_rules(False), 400, 2)
    by_transform = {one.transform: one for one in drawn}
    noise, brightness = (by_transform[t] for t in (intensity.add_noise, intensity.scale_brightness))
    assert np.ptp(noise.values.reshape(-1, 2), axis=1).max() == 0
    assert np.ptp(brightness.values.reshape(-1, 2), axis=1).min() > 0


def test_flat_patches_keep_their_slices_when_the_resolution_falls():
    for flat in (True, False):
        rule = intensity.default_rules(flat)[4]
        zooms = rule.draw(np.random.default_rng(0), 10, 1).reshape(-1, 3)
        assert (zooms[:, 0] == (1 if flat else zooms[:, 1])).all()
        assert (zooms[:, 1] == zooms[:, 2]).all()


N = 1500
NAMES = ("noise", "blur", "brightness", "contrast", "low resolution", "inverted gamma", "gamma")


def changes(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of the changed ones among N patches: share, and mean and spread of four properties of the change."""
    axes = (1, 2, 3, 4)
    # the blurs differ in whether the edge voxel is repeated
    before, after = (array[..., 4:-4, 4:-4, 4:-4] for array in (before, after))
    changed = np.abs(after - before).max(axes) > 1e-4
    difference = (after - before)[changed]
    properties = np.stack(
        [
            difference.mean(axes),
            difference.std(axes),
            after[changed].std(axes) / before[changed].std(axes),
            np.diff(after[changed], axis=4).std(axes) / np.diff(before[changed], axis=4).std(axes),
        ]
    )
    return np.array([changed.mean(), *properties.mean(1), *properties.std(1)])


@pytest.mark.parametrize("index", range(7), ids=NAMES)
def test_the_changes_have_the_moments_of_batchgenerators(index):
    before = np.broadcast_to(planes(1, (18, 18, 18)).numpy(), (N, 1, 18, 18, 18))
    image = torch.from_numpy(before.copy())
    drawn = intensity.draw_intensities(
        np.random.default_rng(1), intensity.default_rules(False)[index : index + 1], N, 1
    )
    intensity.change_intensities(image, drawn, GENERATOR)
    np.random.seed(1)
    theirs = intensity_transforms(False)[index](data=before.copy(), seg=np.zeros((N, 1, 1, 1, 1)))["data"]

    ours, theirs = changes(before, image.numpy()), changes(before, theirs)

    assert abs(ours[0] - theirs[0]) < 4 * np.sqrt(theirs[0] / N)
    assert np.allclose(ours[1:], theirs[1:], atol=0.012, rtol=0.12), (ours, theirs)
