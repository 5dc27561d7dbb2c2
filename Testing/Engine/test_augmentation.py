"""The chain as a whole: what may happen to which configuration, and that image and labels stay together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from NNSegmentLib.engine.augmentation import Augmentation, mirror, training_augmentation, validation_augmentation
from NNSegmentLib.engine.reference_augmentation import ReferenceAugmentation
from NNSegmentLib.engine.spatial import draw_matrix
from NNSegmentLib.planning.plan import Configuration, NetworkSpec
from NNSegmentLib.run import TrainingSettings

CUBE = Augmentation((12, 12, 12), mirror_axes=(0, 1, 2))


def configuration(patch=(16, 16, 16), mask=(False, True)) -> Configuration:
    d = len(patch)
    network = NetworkSpec("PlainConvUNet", (4, 8), ((3,) * d,) * 2, ((1,) * d, (2,) * d), (2, 2), (2,))
    return Configuration("c", "c", 2, patch, patch, (1.0,) * d, ("ZScoreNormalization",) * 2, mask, network, False)


def batch(samples=3, channels=2, maps=1, shape=(12, 12, 12), seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.normal(size=(samples, channels, *shape)).astype(np.float32))
    return image, torch.from_numpy(rng.integers(-1, 3, (samples, maps, *shape)).astype(np.int16))


@pytest.mark.parametrize(
    ("patch", "chosen", "axes"),
    [((16, 16, 16), None, (0, 1, 2)), ((16, 16, 16), (0, 2), (0, 2)), ((16, 16, 16), (), ()), ((16, 16), None, (1, 2))],
)
def test_mirror_axes_are_those_of_the_patch_or_of_the_settings(patch, chosen, axes):
    assert training_augmentation(configuration(patch), TrainingSettings(mirror_axes=chosen)).mirror_axes == axes


def test_kinds_have_their_transforms():
    made = {
        kind: training_augmentation(configuration(), TrainingSettings(augmentation=kind))
        for kind in ("default", "strong", "light", "none")
    }
    assert [len(made[kind].intensities) for kind in made] == [7, 7, 2, 0]
    assert [made[kind].spatial is not None for kind in made] == [True, True, True, False]
    assert made["none"] == validation_augmentation(configuration())
    assert made["none"].mirror_axes == made["none"].masked_channels == ()


@pytest.mark.parametrize(("kind", "share"), [("default", 0.36), ("strong", 0.75)])
def test_strong_augmentation_turns_and_scales_half_of_the_patches(kind, share):
    rng = np.random.default_rng(0)
    rules = training_augmentation(configuration(), TrainingSettings(augmentation=kind)).spatial

    drawn = [draw_matrix(rng, rules) for _ in range(4000)]

    assert sum(matrix is not None for matrix in drawn) / 4000 == pytest.approx(share, abs=0.03)


def test_each_axis_is_mirrored_half_of_the_time_on_its_own():
    drawn = CUBE.draw(np.random.default_rng(0), 8000, 1).mirrored
    counts = {axes: drawn.count(axes) for axes in set(drawn)}
    assert len(counts) == 8
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_mirroring_turns_image_and_labels_together():
    image, labels = batch()
    expected_image, expected_labels = image.numpy().copy(), labels.numpy().copy()
    mirror(image, labels, ((), (0,), (1, 2)))
    expected_image[1], expected_labels[1] = expected_image[1, :, ::-1], expected_labels[1, :, ::-1]
    expected_image[2], expected_labels[2] = expected_image[2, :, :, ::-1, ::-1], expected_labels[2, :, :, ::-1, ::-1]
    assert np.array_equal(image.numpy(), expected_image)
    assert np.array_equal(labels.numpy(), expected_labels)


def test_masked_channels_are_zero_outside_and_outside_becomes_background():
    image, labels = batch()
    outside = labels[:, 0] < 0
    augmentation = replace(CUBE, mirror_axes=(), kind="light", masked_channels=(1,))
    found, target = augmentation.apply(image, labels, augmentation.draw(np.random.default_rng(0), 3, 2))
    assert outside.any()
    assert found[:, 1][outside].abs().max() == 0
    assert found[:, 0][outside].abs().min() > 0
    assert (target[:, 0][outside] == 0).all()


def test_the_same_draw_gives_the_same_batch():
    drawn = CUBE.draw(np.random.default_rng(3), 30, 2)
    first, second = (CUBE.apply(*batch(30), drawn) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[0], batch(30)[0])


def test_labels_of_the_previous_stage_become_one_channel_each():
    image, labels = batch(maps=2)
    plain = validation_augmentation(configuration(), (1, 2))
    found, target = plain.apply(image.clone(), labels.clone(), plain.draw(np.random.default_rng(0), 3, 2))
    assert torch.equal(found[:, :2], image)
    assert torch.equal(found[:, 2], (labels[:, 1] == 1).float())
    assert torch.equal(found[:, 3], (labels[:, 1] == 2).float())
    assert torch.equal(target, labels[:, :1].clamp(min=0))


def test_training_disturbs_the_labels_of_the_previous_stage_but_never_the_target():
    augmentation = replace(CUBE, mirror_axes=(), previous_values=(1, 2))
    image, labels = batch(40, maps=2)
    found, target = augmentation.apply(image, labels.clone(), augmentation.draw(np.random.default_rng(0), 40, 2))
    same = (found[:, 2] == (labels[:, 1] == 1)).flatten(1).all(1)
    assert 5 < (~same).sum() < 35
    assert torch.equal(target, labels[:, :1].clamp(min=0))


@pytest.mark.parametrize("patch", [(12, 12, 12), (4, 14, 14), (14, 14)])
def test_the_reference_chain_gives_patches_of_the_same_size_and_kind(patch):
    rules = Augmentation(patch, "batchgenerators", (1, 2), (1,), (1, 2))
    window = (patch if len(patch) == 3 else (1, *patch))[:1] + (20, 20) if patch != (12, 12, 12) else (20, 20, 20)
    image, labels = batch(4, 2, 2, window)
    found, target = ReferenceAugmentation(rules).apply(image, labels, 5)
    shape = patch if len(patch) == 3 else (1, *patch)
    assert found.shape == (4, 4, *shape)
    assert target.shape == (4, 1, *shape)
    assert found.dtype == torch.float32
    assert target.dtype == torch.int16
    assert set(target.unique().tolist()) == {0, 1, 2}
    assert set(found[:, 2:].unique().tolist()) == {0, 1}
