"""The processes that train one network together, each on its share of every batch (nnU-Net's rule for several GPUs).

Every rank has the whole network and the same weights. Sums over the batch are made over all ranks before the loss is
formed, and gradients are averaged, so that a step is the one that a single process takes with the whole batch.
What depends on the clock or on the user is decided by the first rank and told to the others.
"""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import SettingsError
from .devices import choose_device, cores
from .sampling import Share

_PATIENCE = timedelta(minutes=30)
"""How long a rank waits for the others: the first one stores large checkpoints, any may read slowly."""
_LOOPBACK = ("lo", "lo0")


@dataclass(frozen=True)
class Ranks:
    """One process's place among those that train together; alone by default."""

    rank: int = 0
    size: int = 1
    control: dist.ProcessGroup | None = None
    """Carries messages between the processors, so that a GPU is not waited for; None for the group of everything."""

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and watches clock and user."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """Our part of every batch."""
        return Share(self.rank, self.size)

    def device(self, name: str) -> torch.device:
        """The device of this rank; raises SettingsError when it is not there."""
        return choose_device(name) if self.alone or name == "cpu" else choose_device(f"cuda:{self.rank}")

    def threads(self, wanted: int) -> int:
        """Threads of arithmetic: `wanted`, else our part of the cores."""
        return wanted or max(1, cores() // self.size)

    def total(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums over all ranks. Gradients count `size` times, since they are averaged over the ranks afterwards."""
        if self.alone:
            return sums
        whole = self.counted(sums.detach())
        return whole + self.size * (sums - sums.detach())

    def counted(self, counts: torch.Tensor) -> torch.Tensor:
        """Sums over all ranks, without gradients."""
        if self.alone:
            return counts
        whole = counts.clone()
        dist.all_reduce(whole)
        return whole

    def told(self, *values: float) -> tuple[float, ...]:
        """The first rank's values, on all ranks; whole numbers are exact up to 2**53."""
        if self.alone:
            return values
        message = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(message, src=0, group=self.control)
        return tuple(message.tolist())

    def wait(self) -> None:
        """Go on when all ranks are here."""
        if not self.alone:
            dist.barrier(group=self.control)

    def joined(self, network: nn.Module, device: torch.device, unused: bool) -> nn.Module:
        """The network with the first rank's weights, and with gradients averaged over the ranks after each step.

        `unused` tells that some of its layers do not enter the loss.
        """
        if self.alone:
            return network
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(_Supervised(network), device_ids=devices, find_unused_parameters=unused)


class _Supervised(nn.Module):
    """A network whose coarsest output, which the loss leaves out, asks for no gradients: its layer stays as it is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        outputs = self.network(image)
        if isinstance(outputs, torch.Tensor) or len(outputs) == 1:
            return outputs
        return [*outputs[:-1], outputs[-1].detach()]


ALONE = Ranks()


def require_ranks(device: str, gpus: int, batch_size: int) -> None:
    """Raises SettingsError when `gpus` processes cannot train with these settings."""
    if not dist.is_available():
        raise SettingsError("This PyTorch cannot train with several processes; leave out --gpus, or install another.")
    if batch_size < gpus:
        raise SettingsError(
            f"A batch of {batch_size} cannot be divided among {gpus} GPUs, each needs a sample; use at most "
            f"{batch_size} GPUs, or a larger batch_size in the settings."
        )
    if device == "cpu":
        return
    if device not in ("auto", "cuda"):
        raise SettingsError(
            f"Training on {gpus} GPUs takes the first ones there are, found device {device!r}; leave it out, and "
            "choose GPUs by the variable CUDA_VISIBLE_DEVICES."
        )
    if torch.cuda.device_count() < gpus:
        raise SettingsError(
            f"Expected {gpus} CUDA GPUs, found {torch.cuda.device_count()}; ask for fewer with --gpus, or leave it out."
        )


@contextlib.contextmanager
def joined_ranks(rank: int, size: int, meeting: Path, device: str) -> Iterator[Ranks]:
    """Meet the other ranks through the file `meeting`, and part again when the work of all is done."""
    _speak_within_the_machine()
    cuda = device != "cpu"
    if cuda:
        torch.cuda.set_device(rank)
    fast = cuda and dist.is_nccl_available()
    store = dist.FileStore(str(meeting), size)
    dist.init_process_group("nccl" if fast else "gloo", store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    control = dist.new_group(backend="gloo", timeout=_PATIENCE) if fast else None
    yield Ranks(rank, size, control)
    dist.barrier(group=control)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dist.destroy_process_group()


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error tells that another rank is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "nccl" in str(error).lower()


def _speak_within_the_machine() -> None:
    """gloo otherwise looks the machine's name up, which fails on machines that are not in any network."""
    if hasattr(socket, "if_nameindex"):
        found = [name for _, name in socket.if_nameindex() if name in _LOOPBACK]
        if found:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", found[0])
