from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from NNSegmentLib.engine import convolution
from NNSegmentLib.engine.convolution import Convolution3d
from NNSegmentLib.engine.network import InstanceNorm, build_network
from NNSegmentLib.errors import PlanError
from NNSegmentLib.planning.plan import PLAIN, RESIDUAL, NetworkSpec
from NNSegmentLib.planning.topology import output_size


def spec(kind=PLAIN, dimensions=3, stages=3) -> NetworkSpec:
    first = (1,) * dimensions
    return NetworkSpec(
        kind=kind,
        features=(4, 6, 8, 8)[:stages],
        kernel_sizes=((1, *(3,) * (dimensions - 1)),) + ((3,) * dimensions,) * (stages - 1),
        strides=(first, (1, *(2,) * (dimensions - 1))) + ((2,) * dimensions,) * (stages - 2),
        blocks=(2,) * stages,
        decoder_convs=(2 if kind == PLAIN else 1,) * (stages - 1),
    )


@pytest.mark.parametrize("kind", [PLAIN, RESIDUAL])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_outputs_have_the_size_of_each_stage_full_resolution_first(kind, dimensions):
    network = build_network(spec(kind, dimensions, 4), 2, 3, deep_supervision=True)
    image = torch.randn(2, 2, *(16,) * dimensions)

    outputs = network(image)

    assert [tuple(o.shape[2:]) for o in outputs] == [
        (16,) * dimensions,
        (16, *(8,) * (dimensions - 1)),
        (8, *(4,) * (dimensions - 1)),
    ]
    assert all(o.shape[:2] == (2, 3) for o in outputs)
    network.deep_supervision = False
    assert torch.equal(network(image), outputs[0])


def test_a_plain_network_of_three_stages_has_136_names_for_48_tensors():
    network = build_network(spec(), 1, 2)

    assert len(network.state_dict()) == 136
    assert len(list(network.parameters())) == 48


def test_the_names_of_one_convolution_share_its_memory():
    weights = build_network(spec(), 1, 2).state_dict()
    names = [
        f"{owner}encoder.stages.1.0.convs.0.{part}.weight"
        for owner in ("", "decoder.")
        for part in ("conv", "all_modules.0")
    ]

    assert len({weights[name].data_ptr() for name in names}) == 1


def test_weights_move_between_networks_under_every_name():
    one, other = build_network(spec(RESIDUAL), 1, 2), build_network(spec(RESIDUAL), 1, 2)
    image = torch.randn(1, 1, 16, 16, 16)

    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()}, strict=True)

    assert torch.equal(one(image), other(image))


def test_a_residual_block_starts_as_its_shortcut():
    block = build_network(spec(RESIDUAL), 1, 2).encoder.stages[1].blocks[0]
    x = torch.randn(2, 4, 8, 8, 8)

    assert torch.allclose(block(x), functional.leaky_relu(block.skip(x), 0.01))
    assert block(x).shape == (2, 6, 8, 4, 4)


def test_convolutions_start_he_normal_with_zero_biases():
    torch.manual_seed(0)
    network = build_network(replace(spec(), features=(64, 64, 64)), 1, 2)
    convolution = network.encoder.stages[1][0].convs[0].conv

    expected = (2 / (1 + 0.01**2) / (64 * 27)) ** 0.5
    assert convolution.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert convolution.bias.abs().max() == 0


@pytest.mark.filterwarnings("ignore")  # torch calls tracing old
def test_a_norm_starts_as_mean_0_and_deviation_1_and_is_exported_with_its_epsilon():
    norm, x = InstanceNorm(3, eps=0.5), 2 + torch.randn(2, 3, 5, 6, 7)
    mean = x.mean((2, 3, 4), keepdim=True)
    expected = (x - mean) / (x.var((2, 3, 4), keepdim=True, correction=0) + 0.5).sqrt()

    exported = torch.jit.trace(norm, x, check_trace=False)

    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(exported(x), expected)


@pytest.mark.parametrize("space", [(10, 12), (5, 6, 7)])
def test_instance_norm_and_its_gradients_equal_the_definition(space):
    torch.manual_seed(0)
    x = (torch.randn(3, 4, *space, dtype=torch.float64) * 3 + 5).requires_grad_()
    norm = InstanceNorm(4).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    axes, shape = tuple(range(2, x.ndim)), (1, 4, *(1,) * len(space))
    centred = x - x.mean(axes, keepdim=True)
    banal = centred / (centred.pow(2).mean(axes, keepdim=True) + 1e-5).sqrt()
    banal = banal * norm.weight.view(shape) + norm.bias.view(shape)
    pull = torch.randn_like(x)
    parts = (x, norm.weight, norm.bias)

    answer = norm(x)

    assert torch.allclose(answer, banal)
    expected = torch.autograd.grad(banal, parts, pull, retain_graph=True)
    for ours, theirs in zip(torch.autograd.grad(answer, parts, pull), expected, strict=True):
        assert torch.allclose(ours, theirs)


def test_one_stage_is_refused():
    with pytest.raises(PlanError, match="at least two stages"):
        build_network(replace(spec(), features=(4,)), 1, 2)


@pytest.mark.parametrize("kind", [PLAIN, RESIDUAL])
def test_a_single_patch_is_predicted_as_it_is_among_several(kind):
    network = build_network(spec(kind, 3, 4), 2, 3).eval()
    patches = torch.randn(3, 2, 16, 24, 16, generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        together, alone = network(patches), torch.cat([network(patch[None]) for patch in patches])

    assert (together - alone).abs().max() < 1e-5
    assert network(patches[:1]).requires_grad


def test_predictions_follow_weights_that_change():
    """In place as optimisers and averages do it, or replaced as when a checkpoint is loaded."""
    layer = Convolution3d(2, 3, 3, stride=(1, 2, 2), padding=1)
    x = torch.randn(1, 2, 6, 8, 10)

    def check(patches):
        expected = torch.nn.functional.conv3d(patches, layer.weight, layer.bias, layer.stride, layer.padding)
        with torch.inference_mode():
            assert torch.allclose(layer(patches), expected, atol=1e-5)

    check(x)
    with torch.no_grad():
        layer.weight.mul_(-2)
    check(x)
    layer.weight.data = torch.randn_like(layer.weight)
    check(x)
    layer.load_state_dict({"weight": torch.zeros(3, 2, 3, 3, 3), "bias": torch.ones(3)}, assign=True)
    check(torch.randn(4, 2, 5, 7, 9))


@pytest.mark.parametrize("missing", ["backend", "interface"])
def test_without_onednn_the_plain_convolution_serves(monkeypatch, missing):
    if missing == "backend":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        monkeypatch.delattr(torch._C._nn, "mkldnn_reorder_conv3d_weight")
    convolution._packing_works.cache_clear()
    made, x = Convolution3d(1, 2, 3), torch.randn(1, 1, 5, 5, 5)
    expected = torch.nn.functional.conv3d(x, made.weight, made.bias)
    with torch.inference_mode():
        assert not convolution._packing_works()
        assert torch.allclose(made(x), expected)
    convolution._packing_works.cache_clear()


def test_a_single_patch_in_bfloat16_stays_in_bfloat16():
    network = build_network(spec(), 1, 2).eval()

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(1, 1, 16, 16, 16)).dtype is torch.bfloat16


SPECS = [
    spec(),
    spec(RESIDUAL, stages=4),
    spec(dimensions=2, stages=4),
    replace(spec(), strides=((1, 1, 1), (3, 2, 1), (2, 2, 2))),
    replace(spec(RESIDUAL), strides=((2, 1, 1), (2, 2, 2), (2, 2, 2))),
    replace(spec(), kernel_sizes=((3, 3, 3), (2, 3, 3), (3, 3, 3))),
    replace(spec(), decoder_kernel_sizes=((4, 3, 3), (3, 3, 3))),
    replace(spec(), blocks=(2, 0, 2)),
]


@pytest.mark.parametrize("patch", [(8, 16, 16), (12, 12, 12), (10, 15, 16), (1, 1, 1), (2, 4, 4)])
@pytest.mark.parametrize("wanted", SPECS)
def test_the_size_of_the_answer_is_computed_as_the_network_has_it(wanted, patch):
    patch = patch[-wanted.dimensions :]
    try:
        tried = tuple(build_network(wanted, 1, 2).eval()(torch.zeros(1, 1, *patch)).shape[2:])
    except (RuntimeError, ValueError):
        tried = None

    try:
        computed = output_size(wanted, patch)
    except ValueError:
        computed = None

    assert computed == tried
