"""Checkpoints: nnU-Net v2's `checkpoint_*.pth`, written with plain Python values and read without running anything."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError
from ..folders import TRAINER
from ..records import written_whole
from .unpickling import load_without_running

LOGGED = (
    *("mean_fg_dice", "ema_fg_dice", "dice_per_class_or_region", "train_losses", "val_losses", "lrs"),
    *("epoch_start_timestamps", "epoch_end_timestamps"),
)
"""nnU-Net's eight lists, one entry per epoch each."""
_OURS = "nnsegment"
_ADVICE = "copy the checkpoint again from where it was trained"
_TOGETHER = "take the checkpoint and plans.json of one and the same model"
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training run, enough to predict with it and to go on training."""

    network_weights: Mapping[str, torch.Tensor]
    """Parameter name → tensor, nnU-Net's names with all duplicates."""
    configuration: str
    fold: int | str
    plans: Mapping[str, Any]
    """The parsed plans file."""
    dataset_json: Mapping[str, Any]
    trainer_name: str = TRAINER
    mirroring_axes: tuple[int, ...] | None = None
    """Patch axes that prediction may mirror; None or empty for none."""
    optimizer_state: Mapping[str, Any] | None = None
    grad_scaler_state: Mapping[str, Any] | None = None
    logging: Mapping[str, list] = field(default_factory=dict)
    """Name in `LOGGED` → one value per epoch."""
    best_ema: float | None = None
    current_epoch: int = 0
    """The next epoch to run, counted from 0."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Ours, ignored by nnU-Net: elapsed seconds, steps, ..."""


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write nnU-Net v2's checkpoint file, whole or not at all; raises StorageError."""
    copies: dict[tuple, torch.Tensor] = {}
    values = {
        "network_weights": {name: _on_cpu(t, copies) for name, t in checkpoint.network_weights.items()},
        "optimizer_state": _plain(checkpoint.optimizer_state, copies),
        "grad_scaler_state": _plain(checkpoint.grad_scaler_state, copies),
        "logging": {name: _plain(checkpoint.logging.get(name, []), copies) for name in LOGGED},
        "_best_ema": _plain(checkpoint.best_ema, copies),
        "current_epoch": int(checkpoint.current_epoch),
        "init_args": {
            "plans": _plain(checkpoint.plans, copies),
            "configuration": checkpoint.configuration,
            "fold": checkpoint.fold,
            "dataset_json": _plain(checkpoint.dataset_json, copies),
            "device": "cpu",
        },
        "trainer_name": checkpoint.trainer_name,
        "inference_allowed_mirroring_axes": _plain(checkpoint.mirroring_axes, copies),
        _OURS: _plain(checkpoint.extra, copies),
    }
    with written_whole(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(values, file)
            file.flush()
            # else the file may be empty after a power failure, and what it replaced is lost
            os.fsync(file.fileno())
        except RuntimeError as error:  # torch reports a full disk this way, with the system's error behind it
            system = error.__context__
            raise system if isinstance(system, OSError) else OSError(str(error).splitlines()[0]) from error


def load_checkpoint(path: Path, mapped: bool = False) -> Checkpoint:
    """Read a checkpoint of nnU-Net v2 or ours without running anything in it; tensors on the CPU.

    `mapped` reads weights from the file as they are used: right for prediction, wrong for resuming.
    Raises ModelError when the file is missing, damaged, hostile, incomplete, or holds weights that are no numbers.
    """
    values = load_without_running(path, mapped)
    if not isinstance(values, Mapping) or not isinstance(values.get("network_weights"), Mapping):
        raise ModelError(f"{path} is no nnU-Net v2 checkpoint: expected network_weights in it, found none; {_ADVICE}.")
    arguments = values.get("init_args", {})
    parts = {"init_args": arguments, "logging": values.get("logging", {}), _OURS: values.get(_OURS, {})}
    for name, part in parts.items():
        _require(isinstance(part, Mapping), path, name, "a dictionary", part)
    checkpoint = Checkpoint(
        network_weights=checked_weights(values["network_weights"], path),
        configuration=arguments.get("configuration"),
        fold=arguments.get("fold", 0),
        plans=arguments.get("plans", {}),
        dataset_json=arguments.get("dataset_json", {}),
        trainer_name=values.get("trainer_name"),
        mirroring_axes=_axes(values.get("inference_allowed_mirroring_axes"), path),
        optimizer_state=values.get("optimizer_state"),
        grad_scaler_state=values.get("grad_scaler_state"),
        logging=parts["logging"],
        best_ema=values.get("_best_ema"),
        current_epoch=values.get("current_epoch", 0),
        extra=parts[_OURS],
    )
    _require_types(checkpoint, path)
    return checkpoint


def steps_done(checkpoint: Checkpoint, iterations_per_epoch: int) -> int:
    """Optimiser steps behind a checkpoint; nnU-Net's count whole epochs."""
    return int(checkpoint.extra.get("steps", checkpoint.current_epoch * iterations_per_epoch))


def load_weights(network: torch.nn.Module, weights: Mapping[str, torch.Tensor], where: str = "the checkpoint") -> None:
    """Copy weights into a network whose parameters have several names; one name of each is enough.

    Raises ModelError naming the first layer that is missing, unknown, or of another shape.
    """
    given = require_fitting(network, weights, where)
    with torch.no_grad():
        for name, weight in given.items():
            network.get_parameter(name).copy_(weight)


def require_fitting(
    network: torch.nn.Module, weights: Mapping[str, torch.Tensor], where: str = "the checkpoint"
) -> dict[str, torch.Tensor]:
    """One name of each parameter → its weight; raises ModelError as `load_weights` does. Allocates nothing."""
    names = network.state_dict(keep_vars=True)
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise ModelError(
            f"{where} holds the layer {unknown[0][:80]}, which the plan's network does not have; {_TOGETHER}."
        )
    given: dict[int, tuple[str, torch.Tensor]] = {}
    for name, weight in weights.items():
        if weight.shape != names[name].shape:
            raise ModelError(
                f"{where}: layer {name} should have the shape {tuple(names[name].shape)} by the plan, "
                f"found {tuple(weight.shape)}; {_TOGETHER}."
            )
        given[id(names[name])] = name, weight
    missing = next((name for name, parameter in names.items() if id(parameter) not in given), None)
    if missing:
        raise ModelError(f"{where} lacks the layer {missing} of the plan's network; {_TOGETHER}.")
    return dict(given.values())


def _on_cpu(tensor: torch.Tensor, copies: dict[tuple, torch.Tensor]) -> torch.Tensor:
    """A CPU tensor; names that share a tensor go on sharing it, so that it is written once."""
    key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)
    if tensor.numel() == 0:
        return tensor.detach().cpu()
    if key not in copies:
        own = tensor.detach().cpu().contiguous()
        is_whole = own.untyped_storage().nbytes() == own.numel() * own.element_size()
        copies[key] = own if is_whole else own.clone()
    return copies[key]


def _plain(value: Any, copies: dict[tuple, torch.Tensor]) -> Any:
    """The value with numpy numbers as Python's, paths as text, tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return _on_cpu(value, copies)
    if isinstance(value, Mapping):
        return {_plain(key, copies): _plain(item, copies) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_plain(item, copies) for item in value])
    if value is None or type(value) in (bool, int, float, str):
        return value
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), copies)
    return str(value)


def checked_weights(values: Mapping, path: Path) -> dict[str, torch.Tensor]:
    """A state dictionary without the prefixes of wrapped networks; raises ModelError for what is no finite number."""
    weights: dict[str, torch.Tensor] = {}
    checked: set[tuple] = set()
    for name, tensor in values.items():
        _require(isinstance(name, str), path, "a layer's name", "text", name)
        _require(isinstance(tensor, torch.Tensor), path, f"layer {name}", "a tensor", tensor)
        _require_plain(tensor, name, path)
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if key not in checked:
            _require_numbers(tensor, name, path)
            checked.add(key)
        for wrapper in _WRAPPERS:
            name = name.removeprefix(wrapper)
        weights[name] = tensor
    if not weights:
        raise ModelError(f"{path} holds no weights; the model is incomplete, copy or train it again.")
    return weights


def _require_plain(tensor: torch.Tensor, name: str, path: Path) -> None:
    strange = tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex()
    if strange or tensor.device.type != "cpu":
        raise ModelError(
            f"{path}: layer {name} should hold plain numbers, found {tensor.layout} {tensor.dtype}; {_ADVICE}."
        )


def _require_numbers(tensor: torch.Tensor, name: str, path: Path) -> None:
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ModelError(
            f"{path}: layer {name} claims the shape {tuple(tensor.shape)} but holds fewer numbers; {_ADVICE}."
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ModelError(
            f"{path}: layer {name} holds values that are no numbers (NaN or infinite); "
            "the training diverged, use an earlier checkpoint or train again."
        )


def _axes(value: Any, path: Path) -> tuple[int, ...] | None:
    if value is None:
        return None
    usable = isinstance(value, (list, tuple)) and all(type(axis) is int and 0 <= axis <= 2 for axis in value)
    _require(usable, path, "inference_allowed_mirroring_axes", "axes from 0 to 2", value)
    return tuple(sorted(set(value)))


def _require_types(checkpoint: Checkpoint, path: Path) -> None:
    expected = (
        *(("configuration", str, "text"), ("trainer_name", str, "text"), ("current_epoch", int, "a whole number")),
        *(("fold", (int, str), "a number or 'all'"), ("plans", Mapping, "a dictionary")),
        *(("dataset_json", Mapping, "a dictionary"), ("best_ema", (int, float, type(None)), "a number")),
        *(("optimizer_state", (Mapping, type(None)), "a dictionary"),),
        *(("grad_scaler_state", (Mapping, type(None)), "a dictionary"),),
    )
    for name, kinds, wanted in expected:
        _require(isinstance(getattr(checkpoint, name), kinds), path, name, wanted, getattr(checkpoint, name))
    _require(checkpoint.current_epoch >= 0, path, "current_epoch", "0 or more", checkpoint.current_epoch)
    finite = checkpoint.best_ema is None or not math.isinf(checkpoint.best_ema)
    _require(finite, path, "_best_ema", "a finite number", checkpoint.best_ema)


def _require(condition: bool, path: Path, what: str, expected: str, found: Any) -> None:
    if not condition:
        raise ModelError(f"{path}: {what} should be {expected}, found {str(found)[:60]!r}; {_ADVICE}.")
