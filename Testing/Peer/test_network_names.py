from __future__ import annotations

import pytest

from NNSegmentLib.engine.checkpoints import load_checkpoint
from NNSegmentLib.engine.network import build_network
from NNSegmentLib.planning.plan import load_plan

MODELS = (
    *("plain_two_folds", "plain_2d", "anisotropic", "three_channels", "regions"),
    *("residual_encoder", "cascade", "trained"),
)


@pytest.mark.parametrize("name", MODELS)
def test_the_network_has_nnunets_names_in_nnunets_order(peer, name):
    files = sorted((peer / "models" / name).glob("*/fold_*/checkpoint_final.pth"))
    assert files

    for file in files:
        checkpoint = load_checkpoint(file)
        weights = checkpoint.network_weights
        configuration = load_plan(file.parents[1] / "plans.json").configuration(checkpoint.configuration)
        inputs = next(iter(weights.values())).shape[1]
        outputs = weights["decoder.seg_layers.0.weight"].shape[0]

        network = build_network(configuration.network, inputs, outputs)

        assert list(network.state_dict()) == list(weights)
        network.load_state_dict(weights, strict=True)


def test_the_order_of_parameters_is_that_of_nnunets_optimiser(peer):
    file = next((peer / "models" / "trained").glob("*/fold_0/checkpoint_final.pth"))
    checkpoint = load_checkpoint(file)
    configuration = load_plan(file.parents[1] / "plans.json").configuration(checkpoint.configuration)
    network = build_network(configuration.network, 1, 3)

    parameters = list(network.parameters())
    momenta = {i: s["momentum_buffer"].shape for i, s in checkpoint.optimizer_state["state"].items()}

    assert len(checkpoint.optimizer_state["param_groups"][0]["params"]) == len(parameters)
    assert len(momenta) == len(parameters) - 2  # the coarsest output layer has no weight in the loss
    assert all(parameters[i].shape == shape for i, shape in momenta.items())
