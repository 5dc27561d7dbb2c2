"""Networks as files that other programs run: ONNX and TorchScript, one file per fold, each with its card."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from ..errors import SettingsError
from ..model import Member, Model, TrainedConfiguration
from ..model.network_card import INPUT, OUTPUT, NetworkCard, SlidingWindow, network_card
from ..predicting.inputs import require_previous
from ..progress import Progress, silent
from ..records import to_json, write_text, written_whole
from .devices import memory_errors
from .network import UNet
from .predictor import LoadedPart, PredictionSettings
from .sliding_window import GAUSSIAN_SIGMA

CARD = "nnsegment.json"
"""The card's name inside a file: a metadata property in ONNX, an extra file in TorchScript."""
ENDINGS = {"onnx": ".onnx", "torchscript": ".pt"}
OPSET = 17
"""Known to every ONNX runtime since 2022, and more than the networks need."""
_ADVICE = "close other programs, or export on a machine with more memory"


def export_networks(model: Model, folder: Path, kind: str, progress: Progress = silent) -> list[Path]:
    """Write MODEL/fold_X.onnx (or .pt) and MODEL/fold_X.json for every fold below `folder`; returns the networks.

    `kind` is 'onnx' or 'torchscript'. A cascade comes with its earlier stage. Raises ModelError when a checkpoint
    cannot be used, SettingsError when a package is missing, StorageError.
    """
    ending, write = require_format(kind), _WRITERS[kind]
    parts = [LoadedPart.load(part, model, "cpu") for part in _with_earlier_stages(model)]
    total, written = sum(len(part.networks) for part in parts), []
    progress(0, total, "Exporting")
    for part in parts:
        for k, member in enumerate(part.source.members):
            path = folder / part.source.folder.name / f"fold_{member.fold}{ending}"
            card = _card(model, part, member)
            with memory_errors(_ADVICE), written_whole(path) as temporary:
                write(part.networks[k], card, temporary)
            write_text(path.with_suffix(".json"), _text(card))
            written.append(path)
            progress(len(written), total, "Exporting")
    return written


def require_format(kind: str) -> str:
    """The file ending of a format; raises SettingsError when it is unknown or its package is missing."""
    if kind not in ENDINGS:
        raise SettingsError(f"A model is exported as zip, {' or '.join(ENDINGS)}, not as {kind!r}; choose one of them.")
    if kind == "onnx" and find_spec("onnx") is None:
        raise SettingsError("Exporting to ONNX needs the package onnx, which is missing; run 'pip install onnx'.")
    return ENDINGS[kind]


def _with_earlier_stages(model: Model) -> list[TrainedConfiguration]:
    """The model's parts after the earlier stages of cascades, each once; raises ModelError when such a stage is missing."""
    earlier = [require_previous(part) for part in model.parts if part.configuration.previous_stage]
    return list({part.folder: part for part in (*earlier, *model.parts)}.values())


def _card(model: Model, part: LoadedPart, member: Member) -> NetworkCard:
    window = SlidingWindow(
        part.configuration.patch_size, PredictionSettings.step, GAUSSIAN_SIGMA, mirror_axes=part.mirror_axes
    )
    return network_card(model, part.source, member, window)


def _text(card: NetworkCard) -> str:
    return json.dumps(to_json(card), indent=4)


def _patch(card: NetworkCard) -> torch.Tensor:
    return torch.zeros(1, *card.input.shape[1:])


def _write_onnx(network: UNet, card: NetworkCard, path: Path) -> None:
    """Input and output of fixed patch size and any batch size; the card is in the metadata."""
    import onnx

    with warnings.catch_warnings():
        # torch's other exporter needs two more packages; of an instance norm's statistics torch warns without need
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (_patch(card),), str(path), dynamo=False, opset_version=OPSET, input_names=[INPUT],
            output_names=[OUTPUT], dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        )  # fmt: skip
    stored = onnx.load(path)
    stored.producer_name, stored.producer_version = "NNSegment", card.software.split()[-1]
    onnx.helper.set_model_props(stored, {CARD: _text(card)})
    onnx.checker.check_model(stored)
    onnx.save(stored, path)


def _write_torchscript(network: UNet, card: NetworkCard, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript old; its shape checks are constants on purpose
        traced = torch.jit.trace(network, _patch(card), check_trace=False)
        with path.open("wb") as file:  # given the path, torch may not open it on Windows for its letters
            torch.jit.save(traced, file, _extra_files={CARD: _text(card)})


_WRITERS: dict[str, Callable[[UNet, NetworkCard, Path], None]] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
}
