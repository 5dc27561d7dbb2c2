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


def make_optimizer(parameters: Sequence[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum as in nnU-Net, or AdamW; weight decay on all parameters."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    nesterov = settings.momentum > 0
    return torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, nesterov=nesterov)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Continue with a stored state; raises RunError when it belongs to another optimiser or network."""
    wrong = "The stored optimiser does not fit the settings; resume with the settings the run was started with."
    kinds = {name for entry in state.get("state", {}).values() for name in entry}
    if kinds and ("exp_avg" in kinds) != isinstance(optimizer, torch.optim.AdamW):
        raise RunError(wrong)
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError) as error:
        raise RunError(wrong) from error


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


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
