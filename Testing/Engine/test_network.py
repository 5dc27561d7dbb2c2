from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from NNSegmentLib.engine.network import InstanceNorm, build_network
from NNSegmentLib.errors import PlanError
from NNSegmentLib.planning.plan import PLAIN, RESIDUAL, NetworkSpec


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
