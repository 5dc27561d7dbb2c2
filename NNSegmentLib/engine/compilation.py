"""A network that torch compiles when it is first used."""

from __future__ import annotations

import torch
from torch import nn

from ..machine.memory import Say


class Compiled:
    """Calls a network in compiled form, and as it is once compiling has failed, which `say` then tells.

    torch needs a C++ compiler on processors and triton on graphics cards, and finds out when the first batch comes.
    """

    def __init__(self, network: nn.Module, say: Say) -> None:
        self._network, self._say = network, say
        self._call = torch.compile(network)

    def __call__(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        from torch._dynamo.exc import TorchDynamoException  # takes half a second to load

        try:
            return self._call(image)
        except TorchDynamoException as error:
            reason = str(getattr(error, "inner_exception", error)).partition("\n")[0]
        self._say(f"The network could not be compiled ({reason}); going on without, which is slower.")
        self._call = self._network
        return self._network(image)
