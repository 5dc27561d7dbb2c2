"""Starting from the weights of another model: everything but the output layers (nnU-Net's rule)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..errors import ModelError
from ..given import expanded
from ..model import CHECKPOINTS
from .checkpoints import load_checkpoint

_OUTPUT_LAYERS = ".seg_layers."


def load_pretrained(network: nn.Module, source: Path) -> None:
    """Copy a checkpoint's weights into a network of the same plan; output layers stay as they are.

    `source` is a checkpoint, a fold's folder or a model folder. Raises ModelError when a layer is missing or differs.
    """
    path = find_checkpoint(source)
    stored = load_checkpoint(path, mapped=True).network_weights
    wanted = {name: p for name, p in network.state_dict(keep_vars=True).items() if _OUTPUT_LAYERS not in name}
    for name, parameter in wanted.items():
        _require_same_shape(name, parameter, stored.get(name), path)
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(stored[name])


def find_checkpoint(source: Path) -> Path:
    """The checkpoint that a file, a fold's folder or a model folder stands for; raises ModelError."""
    source = expanded(source)
    if source.is_file():
        return source
    for name in CHECKPOINTS:
        for path in (source / name, *sorted(source.glob(f"fold_*/{name}"))):
            if path.is_file():
                return path
    raise ModelError(f"Expected a checkpoint or a model folder with one at {source}, found none; correct the path.")


def _require_same_shape(name: str, parameter: torch.Tensor, stored: torch.Tensor | None, path: Path) -> None:
    if stored is None or stored.shape != parameter.shape:
        found = "no such layer" if stored is None else f"{tuple(stored.shape)}"
        raise ModelError(
            f"{path} does not fit this plan: layer {name} should have the shape {tuple(parameter.shape)}, found {found}; "
            "use the same plan for both trainings."
        )
