"""Batches as the trainer gets them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from NNSegmentLib.engine.batches import BatchSource
from NNSegmentLib.errors import RunError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.planning.plan import Configuration, NetworkSpec
from NNSegmentLib.preprocessing.prepared import Placement, PreparedCase
from NNSegmentLib.run import TrainingSettings

SETTINGS = TrainingSettings(augmentation="none", loader_workers=0)
LABELS = LabelSet((Label("background", (0,)), Label("a", (1,)), Label("b", (2,))))


@dataclass
class MemoryStore:
    """Cases with a cube of label 1 holding a cube of label 2, image = label + noise."""

    ids: tuple[str, ...] = ("one", "two", "three")
    shape: tuple[int, int, int] = (20, 24, 22)
    channels: int = 1
    broken: tuple[str, ...] = field(default=())

    def open(self, case_id: str) -> PreparedCase:
        if case_id in self.broken:
            raise OSError(f"{case_id} is damaged")
        rng = np.random.default_rng(self.ids.index(case_id))
        labels = np.zeros(self.shape, np.int8)
        labels[4:14, 5:15, 6:16] = 1
        labels[8:11, 8:11, 8:11] = 2
        image = (labels + rng.normal(0, 0.1, (self.channels, *self.shape))).astype(np.float32)
        grid = Geometry(self.shape)
        place = Placement(grid, (0, 1, 2), self.shape, (0, 0, 0), self.shape, grid.spacing_mm, grid.spacing_mm)
        foreground = {(v,): np.argwhere(labels == v) for v in (1, 2)}
        return PreparedCase(case_id, image, labels, place, foreground)


def configuration(patch=(16, 16, 16), name="3d_fullres", mask=(False,)) -> Configuration:
    d = len(patch)
    network = NetworkSpec("PlainConvUNet", (4, 8), ((3,) * d,) * 2, ((1,) * d, (2,) * d), (2, 2), (2,))
    return Configuration(
        name, name, 2, patch, patch, (1.0,) * d, ("ZScoreNormalization",), mask, network, batch_dice=False
    )


def source(store=None, conf=None, *, training=True, settings=SETTINGS, batch_size=3, **more) -> BatchSource:
    store = store or MemoryStore()
    return BatchSource(
        store,
        store.ids,
        conf or configuration(),
        LABELS,
        settings=settings,
        training=training,
        batch_size=batch_size,
        device=torch.device("cpu"),
        **more,
    )


@pytest.fixture
def closing():
    opened = []

    def make(*args, **kwargs) -> BatchSource:
        opened.append(source(*args, **kwargs))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_a_batch_has_image_and_target_of_the_planned_size(closing):
    batch = next(closing())
    assert batch.image.shape == (3, 1, 16, 16, 16)
    assert batch.image.dtype == torch.float32
    assert batch.target.shape == (3, 1, 16, 16, 16)
    assert set(batch.target.unique().tolist()) <= {0, 1, 2}


def test_image_and_target_of_a_patch_lie_on_each_other(closing):
    batch = next(closing())
    assert (batch.image - batch.target).abs().max() < 0.6


def test_a_2d_batch_holds_slices(closing):
    batch = next(closing(conf=configuration((16, 12), "2d")))
    assert batch.image.shape == (3, 1, 16, 12)
    assert batch.target.shape == (3, 1, 16, 12)


def test_patches_larger_than_the_case_are_padded_with_zero_and_background(closing):
    batch = next(closing(MemoryStore(shape=(16, 16, 16)), configuration((32, 32, 32))))
    assert batch.image[:, :, 0].abs().max() == 0
    assert batch.target.min() == 0


def test_the_last_patch_of_every_batch_shows_foreground(closing):
    batches = closing(conf=configuration((4, 4, 4)))
    assert all((next(batches).target[-1] > 0).any() for _ in range(20))


def test_the_same_seed_gives_the_same_batches(closing):
    first, second, other = closing(seed=7), closing(seed=7), closing(seed=8)
    for _ in range(4):
        a, b, c = next(first), next(second), next(other)
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target, b.target)
        assert not torch.equal(a.image, c.image)


def test_a_damaged_case_ends_in_one_sentence_and_no_waiting(closing):
    store = MemoryStore()
    batches = closing(store)
    store.broken = ("two",)
    with pytest.raises(RunError, match="two is damaged"):
        for _ in range(50):
            next(batches)


def test_a_case_damaged_from_the_start_is_told_at_once():
    with pytest.raises(RunError, match="one is damaged"):
        source(MemoryStore(broken=("one",)))


def test_no_cases_are_refused_at_once():
    with pytest.raises(RunError, match="at least one case"):
        source(MemoryStore(ids=()))


def test_labels_of_the_previous_stage_must_be_there(closing, tmp_path):
    with pytest.raises(RunError, match="previous stage"):
        next(closing(previous_stage=tmp_path))
