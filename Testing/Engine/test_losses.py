from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from NNSegmentLib.engine.losses import make_loss, nearest, sums_by_comparison, sums_by_index
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.planning.architecture import supervision_weights

PLAIN = LabelSet((Label("background", (0,)), Label("a", (1,)), Label("b", (2,))))
GAPS = LabelSet((Label("background", (0,)), Label("a", (3,)), Label("b", (7,))))
IGNORING = LabelSet((*PLAIN.labels, Label("ignore", (3,))))
REGIONS = LabelSet((Label("background", (0,)), Label("whole", (1, 2)), Label("core", (2,))), (1, 2))
REGIONS_IGNORING = LabelSet((*REGIONS.labels, Label("ignore", (3,))), (1, 2))
LABEL_SETS = {
    "plain": PLAIN,
    "gaps": GAPS,
    "ignoring": IGNORING,
    "regions": REGIONS,
    "regions_ignoring": REGIONS_IGNORING,
}


@pytest.fixture(params=list(LABEL_SETS))
def label_set(request) -> LabelSet:
    return LABEL_SETS[request.param]


def example(label_set: LabelSet, space=(6, 5, 4)):
    random = np.random.default_rng(3)
    logits = random.normal(size=(2, label_set.n_outputs, *space)) * 2
    ignored = () if label_set.ignore_value is None else (label_set.ignore_value,)
    return logits, random.choice((*label_set.values, *ignored), size=(2, 1, *space))


def banal_loss(label_set: LabelSet, kind: str, batch_dice: bool, logits: np.ndarray, target: np.ndarray) -> float:
    """Voxel by voxel and class by class, from the definitions."""
    counted = target[:, 0] != label_set.ignore_value
    if label_set.has_regions:
        p = 1 / (1 + np.exp(-logits))
        truth = np.stack([np.isin(target[:, 0], label.values) for label in label_set.foreground], 1)
        voxelwise = -np.where(truth, np.log(p), np.log(1 - p)) * counted[:, None]
        ce = voxelwise.mean() if label_set.ignore_value is None else voxelwise.sum() / counted.sum()
    else:
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        truth = np.stack([target[:, 0] == value for value in label_set.values], 1)
        voxelwise = -(np.log(p) * truth).sum(1) * counted
        ce = voxelwise.sum() / counted.sum()
        p, truth = p[:, 1:], truth[:, 1:]
    worst = np.sort(voxelwise.ravel())[::-1][: voxelwise.size // 10].mean()
    groups = [slice(None)] if batch_dice else [slice(b, b + 1) for b in range(len(p))]
    dices = []
    for group in groups:
        for c in range(p.shape[1]):
            mine, true = p[group, c][counted[group]], truth[group, c][counted[group]]
            dices.append((2 * mine[true].sum() + 1e-5) / (mine.sum() + true.sum() + 1e-5))
    dice = -np.mean(dices)
    return {"dice_ce": ce + dice, "ce": ce, "dice": dice, "dice_topk": dice + worst, "topk": worst}[kind]


@pytest.mark.parametrize("kind", ["dice_ce", "ce", "dice", "dice_topk", "topk"])
@pytest.mark.parametrize("batch_dice", [True, False])
def test_the_loss_equals_its_definition(label_set, kind, batch_dice):
    logits, target = example(label_set)

    loss = make_loss(label_set, kind=kind, batch_dice=batch_dice)(torch.tensor(logits), torch.tensor(target))

    assert loss.item() == pytest.approx(banal_loss(label_set, kind, batch_dice, logits, target), rel=1e-5)


def test_gradients_equal_finite_differences(label_set):
    logits, target = example(label_set, (3, 2, 2))
    loss = make_loss(label_set, kind="dice_ce", batch_dice=False)
    at = torch.tensor(logits, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(at, torch.tensor(target)), at)

    for index in [(0, 0, 1, 1, 0), (1, 1, 2, 0, 1), (1, 0, 0, 0, 0)]:
        nudge = np.zeros_like(logits)
        nudge[index] = 1e-4
        up, down = (banal_loss(label_set, "dice_ce", False, logits + s * nudge, target) for s in (1, -1))
        assert gradient[index].item() == pytest.approx((up - down) / 2e-4, abs=1e-5)


def test_ignored_voxels_have_no_gradient():
    for label_set in (IGNORING, REGIONS_IGNORING):
        logits, target = example(label_set)
        at = torch.tensor(logits, requires_grad=True)
        make_loss(label_set)(at, torch.tensor(target)).backward()

        assert at.grad[torch.tensor(target == 3).expand_as(at)].abs().max() == 0
        assert at.grad[torch.tensor(target != 3).expand_as(at)].abs().min() > 0


def test_a_batch_without_any_annotation_gives_a_finite_loss_and_no_gradient():
    for label_set in (IGNORING, REGIONS_IGNORING):
        logits = torch.randn(2, label_set.n_outputs, 4, 4, 4, requires_grad=True)
        loss = make_loss(label_set)(logits, torch.full((2, 1, 4, 4, 4), 3))
        loss.backward()

        assert torch.isfinite(loss)
        assert logits.grad.abs().max() == 0


def test_perfect_outputs_reach_minus_one():
    target = torch.tensor(example(PLAIN)[1])
    logits = 50.0 * torch.movedim(functional.one_hot(target[:, 0], 3), -1, 1).float()

    assert make_loss(PLAIN)(logits, target).item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_a_class_that_is_neither_there_nor_predicted_counts_as_found(batch_dice):
    logits = torch.full((2, 3, 4, 4, 4), -50.0)
    logits[:, 0] = 50.0

    loss = make_loss(PLAIN, kind="dice", batch_dice=batch_dice)(logits, torch.zeros(2, 1, 4, 4, 4, dtype=torch.int64))

    assert loss.item() == pytest.approx(-1, abs=1e-6)


def test_one_annotated_voxel_alone_makes_the_cross_entropy():
    logits, target = torch.randn(1, 3, 4, 4, 4), torch.full((1, 1, 4, 4, 4), 3)
    target[0, 0, 1, 2, 3] = 2

    loss = make_loss(IGNORING, kind="ce")(logits, target)

    assert loss.item() == pytest.approx(-functional.log_softmax(logits, 1)[0, 2, 1, 2, 3].item(), rel=1e-5)


def test_deep_supervision_halves_the_weight_per_stage_and_drops_the_last():
    assert supervision_weights(3) == (2 / 3, 1 / 3, 0.0)
    assert supervision_weights(5) == pytest.approx((8 / 15, 4 / 15, 2 / 15, 1 / 15, 0))
    assert supervision_weights(2) == (1.0, 0.0)
    assert supervision_weights(1) == (1.0,)


def test_deep_supervision_sums_the_losses_of_the_resized_targets():
    logits, target = (torch.tensor(a) for a in example(PLAIN, (8, 8, 8)))
    coarse, coarsest = torch.randn(2, 3, 8, 4, 4), torch.randn(2, 3, 4, 2, 2)
    loss = make_loss(PLAIN)
    resized = functional.interpolate(target.double(), (8, 4, 4), mode="nearest-exact").long()

    total = loss([logits, coarse, coarsest], target)

    assert total.item() == pytest.approx((2 * loss(logits, target) + loss(coarse, resized)).item() / 3, rel=1e-6)


@pytest.mark.parametrize("new", [(4, 5, 6), (2, 3, 3), (8, 10, 12), (3, 7, 5)])
def test_the_target_is_resized_nearest_exact(new):
    target = torch.arange(8 * 10 * 12).reshape(1, 1, 8, 10, 12).to(torch.int16)

    expected = functional.interpolate(target.double(), new, mode="nearest-exact").to(torch.int16)

    assert torch.equal(nearest(target, new), expected)


@pytest.mark.parametrize("summed", [sums_by_index, sums_by_comparison])
def test_sums_by_index_equal_a_loop_over_voxels(summed):
    values, indices = torch.rand(2, 50), torch.randint(0, 4, (2, 50))
    expected = torch.zeros(2, 4)
    for b in range(2):
        for value, index in zip(values[b], indices[b], strict=True):
            expected[b, index] += value

    assert torch.allclose(summed(values, indices, 4), expected)
