"""Sliding window against a plain second implementation on small volumes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from NNSegmentLib.engine import sliding_window
from NNSegmentLib.engine.sliding_window import importance_map, predict_logits, tile_positions, tile_starts
from NNSegmentLib.errors import OutOfMemoryError, RunError


@pytest.mark.parametrize(
    ("size", "patch", "starts"),
    [
        (100, 40, [0, 20, 40, 60]),
        (90, 40, [0, 17, 33, 50]),
        (41, 40, [0, 1]),
        (40, 40, [0]),
        (110, 64, [0, 23, 46]),
        (45, 40, [0, 5]),
    ],
)
def test_tiles_start_where_nnunet_starts_them(size, patch, starts):
    assert tile_starts(size, patch, 0.5) == starts


def test_positions_halfway_between_voxels_round_to_even():
    assert tile_starts(15, 10, 0.25) == [0, 2, 5]


@pytest.mark.parametrize("patch", [(40, 56, 40), (5, 16, 12), (256, 224), (7, 7, 7)])
def test_the_importance_map_is_a_filtered_point_in_half_precision(patch):
    point = np.zeros(patch)
    point[tuple(n // 2 for n in patch)] = 1
    blurred = gaussian_filter(point, [n / 8 for n in patch], mode="constant")
    expected = (blurred / blurred.max() * 10).astype(np.float16)
    expected[expected == 0] = expected[expected > 0].min()

    np.testing.assert_allclose(importance_map(patch).numpy(), expected.astype(np.float32), rtol=1e-3, atol=6e-8)


class Asymmetric(torch.nn.Module):
    """Two outputs that depend on the neighbours and on the place in the tile."""

    def __init__(self, dimensions: int, inputs: int = 1, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        kind = torch.nn.Conv3d if dimensions == 3 else torch.nn.Conv2d
        self.conv = kind(inputs, 2, 3, padding=1)

    def forward(self, x):
        ramp = torch.arange(x.shape[-1], dtype=x.dtype) * torch.arange(x.shape[-2], dtype=x.dtype)[:, None]
        return self.conv(x) + 0.01 * ramp


def plain_prediction(network, image, patch, mirror_axes, step):
    """Nested loops in numpy, one tile and one flip at a time, sums rounded to half precision as nnU-Net keeps them."""
    pads = [max(0, p - s) for p, s in zip(patch, image.shape[1:], strict=True)]
    padded = np.pad(image, [(0, 0), *[(p // 2, p - p // 2) for p in pads]])
    sums, weights = np.zeros((2, *padded.shape[1:]), np.float16), np.zeros(padded.shape[1:], np.float16)
    gauss = importance_map(tuple(patch)).numpy()
    starts = []
    for size, p in zip(padded.shape[1:], patch, strict=True):
        n = math.ceil((size - p) / (p * step)) + 1
        starts.append([int(np.round((size - p) / max(n - 1, 1) * i)) for i in range(n)])
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                where = (slice(z, z + patch[0]), slice(y, y + patch[1]), slice(x, x + patch[2]))
                tile = padded[(slice(None), *where)]
                views = []
                for bits in range(2 ** len(mirror_axes)):
                    axes = [mirror_axes[k] + 1 for k in range(len(mirror_axes)) if bits >> k & 1]
                    flipped = torch.from_numpy(np.flip(tile, axes).copy())[None]
                    with torch.no_grad():
                        views.append(np.flip(network(flipped)[0].numpy(), axes))
                everywhere = (slice(None), *where)
                sums[everywhere] = sums[everywhere] + np.mean(views, axis=0) * gauss
                weights[where] = weights[where] + gauss
    inside = tuple(slice(p // 2, p // 2 + s) for p, s in zip(pads, image.shape[1:], strict=True))
    return (sums / weights)[(slice(None), *inside)]


@pytest.mark.parametrize("mirror_axes", [(), (0, 1, 2), (0, 2)])
@pytest.mark.parametrize("shape", [(11, 17, 9), (5, 8, 21), (8, 8, 8)])
def test_volumes_equal_the_plain_implementation(shape, mirror_axes):
    image = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
    network = Asymmetric(3)

    for tiles_at_once in (1, 3):
        logits = predict_logits(
            network, torch.from_numpy(image), (8, 8, 8), mirror_axes=mirror_axes, tiles_at_once=tiles_at_once
        )
        expected = plain_prediction(network, image, (8, 8, 8), mirror_axes, 0.5)
        np.testing.assert_allclose(logits.numpy(), expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("mirror_axes", [(), (0, 1)])
def test_planes_are_predicted_one_by_one(mirror_axes):
    image = np.random.default_rng(2).normal(size=(3, 4, 13, 7)).astype(np.float32)
    network = Asymmetric(2, inputs=3)

    logits = predict_logits(network, torch.from_numpy(image), (8, 8), mirror_axes=mirror_axes, step=0.3)

    class OnVolumes:
        def __call__(self, tile):
            return network(tile[:, :, 0])[:, :, None]

    for z in range(4):
        plane = image[:, z : z + 1]
        expected = plain_prediction(OnVolumes(), plane, (1, 8, 8), tuple(a + 1 for a in mirror_axes), 0.3)
        np.testing.assert_allclose(logits[:, z : z + 1].numpy(), expected, rtol=2e-3, atol=1e-4)


def test_networks_are_averaged_before_anything_else():
    image = torch.randn(1, 9, 12, 8)
    networks = [Asymmetric(3, seed=1), Asymmetric(3, seed=2)]

    both = predict_logits(networks, image, (8, 8, 8))

    each = [predict_logits(network, image, (8, 8, 8)) for network in networks]
    torch.testing.assert_close(both, (each[0] + each[1]) / 2, rtol=1e-3, atol=1e-4)


def test_large_logits_survive_where_half_precision_sums_would_overflow():
    class Constant(torch.nn.Module):
        def forward(self, x):
            return torch.full((len(x), 1, *x.shape[2:]), 30000.0)

    logits = predict_logits(Constant(), torch.zeros(1, 12, 12, 12), (8, 8, 8))

    torch.testing.assert_close(logits, torch.full((1, 12, 12, 12), 30000.0))


def test_values_that_are_no_numbers_are_an_error():
    class Broken(torch.nn.Module):
        def forward(self, x):
            return torch.full((len(x), 1, *x.shape[2:]), float("nan"))

    with pytest.raises(RunError, match="no numbers"):
        predict_logits(Broken(), torch.zeros(1, 8, 8, 8), (8, 8, 8))


def test_exhausted_memory_is_explained():
    class Greedy(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(OutOfMemoryError, match="memory does not suffice"):
        predict_logits(Greedy(), torch.zeros(1, 8, 8, 8), (8, 8, 8))


def test_a_result_too_large_for_the_graphics_memory_is_collected_in_main_memory(monkeypatch):
    real, heard = sliding_window._average, []

    def only_on_cpu(work, collect_on, kind):
        if collect_on.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(work, collect_on, kind)

    monkeypatch.setattr(sliding_window, "_average", only_on_cpu)
    window = sliding_window._Window((8, 8, 8), (), torch.device("meta"), half=False)
    tiles = tile_positions((8, 8, 8), (8, 8, 8), 0.5)
    at_once = sliding_window._AtOnce(1)
    image = torch.zeros(1, 8, 8, 8)
    work = sliding_window._Work([Zeros()], image, tiles, at_once, window, lambda *step: None, heard.append)

    assert not sliding_window._without_exhausting_memory(work).any()
    assert "main memory" in heard[0]


class Cramped(Asymmetric):
    """Fails for more tiles at once than there is room for."""

    def __init__(self, room: int) -> None:
        super().__init__(3)
        self.room, self.seen = room, []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(x)


@pytest.mark.parametrize(("room", "sizes"), [(8, [8, 1]), (3, [8, 4, 2, 2, 2, 2, 1]), (1, [8, 4, 2, *[1] * 9])])
def test_without_memory_for_all_tiles_fewer_are_looked_at_together(room, sizes):
    image = torch.randn(1, 40, 8, 8, generator=torch.Generator().manual_seed(3))
    network, heard, steps = Cramped(room), [], []
    logits = predict_logits(
        network, image, (8, 8, 8), tiles_at_once=8, message=heard.append, progress=lambda *step: steps.append(step[:2])
    )

    assert network.seen == sizes
    assert torch.equal(logits, predict_logits(Cramped(1), image, (8, 8, 8), tiles_at_once=1))
    assert len(heard) == sizes.index(next(n for n in sizes if n <= room))
    assert all("tiles at once; going on with" in text for text in heard)
    assert steps[-1] == (9, 9)


def test_volumes_of_any_size_are_looked_at_in_few_numbers_of_tiles():
    seen = set()
    for n in range(1, 24):
        network = Cramped(100)
        predict_logits(network, torch.zeros(1, 8 * n, 8, 8), (8, 8, 8), step=1.0, tiles_at_once=12)
        assert sum(network.seen) == n
        seen.update(network.seen)

    assert seen == {1, 2, 4, 8}


def test_one_tile_that_does_not_fit_is_an_error_that_says_what_to_do():
    with pytest.raises(OutOfMemoryError, match="graphics memory does not suffice; close other programs"):
        predict_logits(Cramped(0), torch.zeros(1, 40, 8, 8), (8, 8, 8), tiles_at_once=8)


class Zeros(torch.nn.Module):
    """One output, computed on the CPU wherever the image is."""

    def forward(self, x):
        return torch.zeros(len(x), 1, *x.shape[2:])


def test_progress_counts_every_pass():
    heard = []

    predict_logits(
        [Asymmetric(3), Asymmetric(3)],
        torch.zeros(1, 12, 8, 8),
        (8, 8, 8),
        tiles_at_once=1,
        progress=lambda *step: heard.append(step),
    )

    assert heard == [(n, 4, "tiles") for n in range(5)]


def test_every_plane_of_a_volume_is_tiled():
    assert len(tile_positions((5, 16, 8), (8, 8), 0.5)) == 5 * 3
    assert tile_positions((5, 8, 8), (8, 8), 0.5)[-1] == (4, slice(0, 8), slice(0, 8))
