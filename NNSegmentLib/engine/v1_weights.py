"""Weights of nnU-Net v1's Generic_UNet under the names of our U-Net, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import ModelError
from ..planning.plan import NetworkSpec
from .checkpoints import checked_weights
from .network import UNet
from .unpickling import load_without_running

_CONVOLUTION = re.compile(
    r"^(?P<side>encoder\.stages\.(?P<stage>\d+)\.0|decoder\.stages\.(?P<step>\d+))"
    r"\.convs\.(?P<conv>\d+)\.(?P<layer>conv|norm)\.(?P<what>weight|bias)$"
)
_HEADS = {"decoder.transpconvs.": "tu.", "decoder.seg_layers.": "seg_outputs."}
_LAYERS = {"conv": "conv", "norm": "instnorm"}
_KNOWN = ("conv_blocks_context.", "conv_blocks_localization.", "tu.", "seg_outputs.")


def load_v1_weights(path: Path, network: UNet, spec: NetworkSpec) -> dict[str, torch.Tensor]:
    """The weights of a `model_*.model` file under the names of `network`, which need not have memory yet.

    Generic_UNet has no bias where it up-samples and (mostly) in its output layers; zeros take their place. Raises
    ModelError naming the layer, in version 1's words, that is missing, unknown or of another shape.
    """
    values = load_without_running(path, mapped=True)
    if not isinstance(values, Mapping) or not isinstance(values.get("state_dict"), Mapping):
        raise ModelError(f"{path} is no nnU-Net v1 checkpoint: expected state_dict in it, found none.")
    given = checked_weights(values["state_dict"], path)
    names = v1_names(network, spec)
    _require_known(given, set(names.values()), path)
    parameters = network.state_dict(keep_vars=True)
    return {ours: _weight(given, theirs, parameters[ours].shape, path) for ours, theirs in names.items()}


def v1_names(network: UNet, spec: NetworkSpec) -> dict[str, str]:
    """One of our names of each parameter → the name that Generic_UNet gives it."""
    return {name: _v1_name(name, spec) for name, _parameter in network.named_parameters()}


def _v1_name(name: str, spec: NetworkSpec) -> str:
    """Version 1 keeps the last convolution of the deepest stage and of each decoder stage in a block of its own."""
    for ours, theirs in _HEADS.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    found = _CONVOLUTION.match(name)
    conv, tail = int(found["conv"]), f"{_LAYERS[found['layer']]}.{found['what']}"
    if found["step"] is not None:
        side, last = f"conv_blocks_localization.{found['step']}", spec.decoder_convs[int(found["step"])] - 1
    elif int(found["stage"]) < spec.n_stages - 1:
        return f"conv_blocks_context.{found['stage']}.blocks.{conv}.{tail}"
    else:
        side, last = f"conv_blocks_context.{found['stage']}", spec.blocks[-1] - 1
    return f"{side}.1.blocks.0.{tail}" if conv == last else f"{side}.0.blocks.{conv}.{tail}"


def _require_known(given: Mapping[str, torch.Tensor], wanted: set[str], path: Path) -> None:
    unknown = [name for name in given if name not in wanted]
    if not unknown:
        return
    layer, of_batches = unknown[0], next((name for name in unknown if name.endswith("running_mean")), None)
    if of_batches:
        why = "normalises over the batch, while the networks supported here normalise each image"
        layer = of_batches.removesuffix(".running_mean")
    elif not layer.startswith(_KNOWN):
        why = "does not belong to Generic_UNet, the only version-1 network supported here"
    else:
        why = "has no place in the network that its plans.pkl describes; the folder is mixed up, or its trainer changed it"
    raise ModelError(f"{path} cannot be used: the layer {layer} {why}.")


def _weight(given: Mapping[str, torch.Tensor], name: str, shape: torch.Size, path: Path) -> torch.Tensor:
    if name not in given and name.endswith(".bias") and name.startswith(tuple(_HEADS.values())):
        return torch.zeros(shape)
    if name not in given:
        raise ModelError(
            f"{path} cannot be used: the layer {name.rsplit('.', 1)[0]} of the Generic_UNet that its plans.pkl describes "
            "is not there; the folder is mixed up, or its trainer changed the network."
        )
    if given[name].shape != shape:
        raise ModelError(
            f"{path} cannot be used: the layer {name} has the shape {tuple(given[name].shape)}, by its plans.pkl it should "
            f"have {tuple(shape)}; the folder is mixed up, or its trainer changed the network."
        )
    return given[name]
