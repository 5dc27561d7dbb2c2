"""The optimisers, and weights averaged over the steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from ..errors import RunError
from ..run import TrainingSettings

_WARM_UP = 10
"""The average starts short-sighted, (1 + steps) / (10 + steps), so that the first weights do not linger."""
_OF_THE_DEVICE = ("lr", "fused", "foreach", "capturable")
"""What an optimiser's parameter groups say about how it computes, which a stored state must not change."""


def make_optimizer(parameters: Sequence[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum as in nnU-Net, or AdamW; weight decay on all parameters.

    On a CUDA GPU one kernel changes all weights, which the scaler of mixed precision tells on the GPU to skip a step,
    and the rate is a number there: neither needs an answer from the GPU, so that a whole step can be recorded.
    """
    device, decay = parameters[0].device, settings.weight_decay
    cuda = device.type == "cuda"
    rate = torch.tensor(settings.learning_rate, device=device) if cuda else settings.learning_rate
    fused = True if cuda else None
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=fused)
    momentum = settings.momentum
    made = torch.optim.SGD(
        parameters, lr=rate, momentum=momentum, weight_decay=decay, nesterov=momentum > 0, fused=fused
    )
    _fill_momentum(made)
    return made


def _fill_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Zeros for momentum that one kernel needs and does not have.

    torch takes any memory for it when the first step is skipped, and refuses some of the weights having none, as those
    that ask for no gradient on this device.
    """
    for group in optimizer.param_groups:
        if group["fused"] and group.get("momentum"):
            for parameter in group["params"]:
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def optimizer_state(optimizer: torch.optim.Optimizer, rate: float) -> dict:
    """The state to store: with the rate as a plain number, and free to be computed in the way of another device."""
    state, way = optimizer.state_dict(), {"lr": rate, "fused": None, "foreach": None}
    return state | {"param_groups": [group | way for group in state["param_groups"]]}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Continue with a stored state, in the way of this device; raises RunError when it belongs to another optimiser
    or network.
    """
    wrong = "The stored optimiser does not fit the settings; resume with the settings the run was started with."
    kinds = {name for entry in state.get("state", {}).values() for name in entry}
    if kinds and ("exp_avg" in kinds) != isinstance(optimizer, torch.optim.AdamW):
        raise RunError(wrong)
    own = [{name: group[name] for name in _OF_THE_DEVICE if name in group} for group in optimizer.param_groups]
    try:
        groups = [stored | ours for stored, ours in zip(state["param_groups"], own, strict=True)]
        optimizer.load_state_dict(state | {"param_groups": groups})
    except (ValueError, KeyError) as error:
        raise RunError(wrong) from error
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)  # one kernel wants all in the same order
    _fill_momentum(optimizer)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step for all parameters."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


@contextlib.contextmanager
def may_be_recorded(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, an optimiser agrees to be recorded; outside it would warn that it could be."""
    groups = [group for group in optimizer.param_groups if "capturable" in group]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in groups:
            group["capturable"] = False


class AveragedWeights:
    """The exponential moving average of a network's parameters."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after optimiser step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (_WARM_UP + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def exchange(self) -> None:
        """Swap the network's weights with the averaged ones; a second call swaps back."""
        for value, parameter in zip(self.values, self.parameters, strict=True):
            raw = parameter.clone()
            parameter.copy_(value)
            value.copy_(raw)

    @contextlib.contextmanager
    def in_network(self) -> Iterator[None]:
        """Inside, the network has the averaged weights."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()
