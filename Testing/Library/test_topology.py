"""The shape of the network against nnU-Net's worked examples, a count by hand, and what must always hold."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from NNSegmentLib.planning.plan import PLAIN, RESIDUAL, NetworkSpec
from NNSegmentLib.planning.topology import feature_map_values, find_topology


def test_equal_voxels_are_halved_along_all_axes_together():
    topology = find_topology((1, 1, 1), (36, 50, 35))

    assert topology.patch_size == (40, 56, 40)
    assert topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.kernel_sizes == ((3, 3, 3),) * 4
    assert topology.divisor == (8, 8, 8)


def test_thick_slices_are_halved_late_and_start_with_flat_kernels():
    topology = find_topology((5, 1.5625, 1.5625), (18, 237, 208))

    assert topology.patch_size == (20, 256, 224)
    assert topology.strides[1:] == ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert topology.kernel_sizes == ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))


def test_slices_twice_as_thick_as_voxels_are_wide_count_as_thick():
    topology = find_topology((2, 1, 1), (64, 128, 128))

    assert topology.strides[1:3] == ((1, 2, 2), (2, 2, 2))
    assert topology.kernel_sizes[:2] == ((1, 3, 3), (3, 3, 3))


def test_very_thick_slices_keep_flat_kernels_longer():
    assert find_topology((10, 1.5, 1.5), (10, 256, 216)).kernel_sizes[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))


def test_a_single_axis_is_halved_only_from_twelve_voxels():
    assert find_topology((1, 1, 1), (7, 7, 11)).n_stages == 1
    assert find_topology((1, 1, 1), (7, 7, 12)).strides == ((1, 1, 1), (1, 1, 2))
    assert find_topology((1, 1), (8, 8)).n_stages == 2


def test_half_voxels_of_a_median_are_rounded_up():
    assert find_topology((3.27, 0.98, 0.98), (59.5, 137, 132.5)).patch_size == (64, 160, 160)


edges = st.lists(st.integers(1, 300), min_size=3, max_size=3)
spacings = st.lists(st.floats(0.3, 10), min_size=3, max_size=3)


@given(spacings, edges)
@settings(max_examples=200, deadline=None)
def test_any_patch_is_enlarged_by_less_than_one_stride_and_keeps_four_voxels(spacing, patch):
    topology = find_topology(spacing, patch)

    assert all(math.prod(s[a] for s in topology.strides) == topology.divisor[a] for a in range(3))
    for found, asked, divisor in zip(topology.patch_size, patch, topology.divisor, strict=True):
        assert found % divisor == 0 and 0 <= found - asked < divisor
        assert divisor == 1 or found // divisor >= 4
    assert all(
        a <= b
        for early, late in zip(topology.kernel_sizes, topology.kernel_sizes[1:], strict=False)
        for a, b in zip(early, late, strict=True)
    )


def network(kind, n, features, blocks, convs, dimensions=3):
    strides = ((1,) * dimensions, *((2,) * dimensions for _ in range(n - 1)))
    return NetworkSpec(kind, features[:n], ((3,) * dimensions,) * n, strides, blocks[:n], (convs,) * (n - 1))


FEATURES = (32, 64, 128, 256, 320, 320, 320)


@pytest.mark.parametrize(
    ("kind", "n", "patch", "expected"),
    [
        (PLAIN, 4, (40, 56, 40), 19_174_400),
        (PLAIN, 6, (128, 128, 128), 452_796_416),
        (RESIDUAL, 6, (128, 128, 128), 557_420_544),
        (RESIDUAL, 6, (192, 192, 192), 1_881_294_336),
    ],
)
def test_feature_values_equal_nnunets_estimate(kind, n, patch, expected):
    blocks, convs = ((2,) * n, 2) if kind == PLAIN else ((1, 3, 4, 6, 6, 6, 6), 1)

    assert feature_map_values(network(kind, n, FEATURES, blocks, convs), patch, n_labels=3) == expected


def test_feature_values_of_two_stages_counted_one_by_one():
    full, half = 16 * 16, 8 * 8
    plain = 10 * full + 10 * full + 20 * half + 20 * half  # encoder
    plain += 10 * full + 10 * full + 10 * full + 4 * full  # transposed convolution, two convolutions, outputs
    residual = 10 * full + 2 * 10 * full + 2 * (2 * 20 * half) + 20 * half  # stem, one block, two blocks, projection
    residual += 10 * full + 10 * full + 4 * full

    assert feature_map_values(network(PLAIN, 2, (10, 20), (2, 2), 2, 2), (16, 16), 4) == plain
    assert feature_map_values(network(RESIDUAL, 2, (10, 20), (1, 2), 1, 2), (16, 16), 4) == residual
