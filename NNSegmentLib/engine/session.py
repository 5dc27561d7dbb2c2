"""A training in progress: network, optimiser, counters; how it is stored and taken up again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import RunError
from ..folders import FoldFolder, ModelFolders
from ..folds import Fold
from ..labels import LabelSet
from ..machine.memory import Say, unsaid
from ..planning.plan import Configuration, Plan, plan_to_json
from ..run import TrainingSettings
from .batches import Batch
from .checkpoints import LOGGED, Checkpoint, load_weights, save_checkpoint, steps_done
from .compilation import Compiled
from .devices import autocast, half_precision, has_amx
from .losses import make_loss, targets_of
from .network import UNet, build_network
from .normalization import placed
from .optimizer import AveragedWeights, make_optimizer, optimizer_state, restore_optimizer, set_learning_rate
from .pretrained import load_pretrained
from .ranks import ALONE, Ranks
from .recording import RecordedStep
from .schedule import Pace

_OLD, _NEW = 0.9, 0.1
"""Smoothing of the quick Dice over the epochs (nnU-Net's rule)."""


@dataclass(frozen=True)
class TrainingRequest:
    """Everything a training run needs to know."""

    folder: FoldFolder
    model_folder: ModelFolders
    plan: Plan
    configuration: str
    label_set: LabelSet
    n_channels: int
    """Image channels; the cascade's label channels are added to them."""
    dataset_json: Mapping[str, Any]
    """dataset.json as it is on disk, stored with the weights."""
    fold: Fold
    fold_name: int | str
    prepared: Path
    """Folder of the prepared cases of this configuration."""
    previous_stage: Path | None
    """Cascade: folder of the previous stage's label maps."""
    settings: TrainingSettings
    resume: bool = False
    pretrained: Path | None = None
    prepared_for: str = ""
    """What `preparation` says of the settings that the cases are prepared for."""

    @property
    def wanted(self) -> Configuration:
        """The configuration to train."""
        return self.plan.configuration(self.configuration)

    @property
    def in_channels(self) -> int:
        return self.wanted.n_inputs(self.n_channels, len(self.label_set.foreground_values))

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Patch axes that training and prediction mirror."""
        axes = self.settings.mirror_axes
        return tuple(range(len(self.wanted.patch_size))) if axes is None else tuple(axes)


def seed_of(request: TrainingRequest, purpose: str) -> int | None:
    """The start of the random numbers for one purpose, another one for every configuration and fold; None: any."""
    if request.settings.seed is None:
        return None
    text = f"{request.settings.seed} {request.configuration} {request.fold_name} {purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def make_network(request: TrainingRequest) -> UNet:
    """A network with fresh weights, the same ones for the same seed."""
    seed = seed_of(request, "weights")
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        return build_network(request.wanted.network, request.in_channels, request.label_set.n_outputs)


@dataclass
class Counters:
    """How far a training is."""

    epoch: int = 0
    """Whole epochs done."""
    iteration: int = 0
    """Steps done in the current epoch."""
    steps: int = 0
    elapsed_s: float = 0.0
    """Time spent training, over all sittings."""
    losses: list[float] = field(default_factory=list)
    """Of the current epoch's steps."""
    best: float | None = None
    log: dict[str, list] = field(default_factory=lambda: {name: [] for name in LOGGED})
    """nnU-Net's lists, one entry per epoch."""

    @property
    def mean_dice(self) -> float | None:
        """The last mean Dice that is a number."""
        return self._last("mean_fg_dice")

    @property
    def smoothed_dice(self) -> float | None:
        """The last smoothed Dice that is a number."""
        return self._last("ema_fg_dice")

    def _last(self, name: str) -> float | None:
        return next((v for v in reversed(self.log[name]) if v == v), None)

    def smooth(self, dice: float | None) -> float | None:
        """The smoothed Dice after an epoch with the mean `dice`."""
        before = self.smoothed_dice
        if dice is None or before is None:
            return before if dice is None else dice
        return _OLD * before + _NEW * dice


class Session:
    """One sitting of a training: what a step needs, and the counters; `say` hears what a person should know."""

    def __init__(self, request: TrainingRequest, ranks: Ranks = ALONE, say: Say = unsaid) -> None:
        settings = request.settings
        self.request, self.settings, self.pace, self.ranks = request, settings, Pace(settings), ranks
        self.device = ranks.device(settings.device)
        self.dtype = half_precision(self.device, settings.mixed_precision and not self._compiles_wrong_kernels())
        self.network = placed(make_network(request), self.device)
        self.network.deep_supervision = settings.deep_supervision and request.wanted.network.n_stages > 2
        self.parameters = list(self.network.parameters())
        unused = request.wanted.network.n_stages > 2 or self.device.type == "cuda"  # biases there
        joined = ranks.joined(self.network, self.device, unused)
        self.forward = Compiled(joined, say) if settings.compile else joined
        self.optimizer = make_optimizer(self.parameters, settings)
        self.scaler = torch.amp.GradScaler("cuda") if self.dtype is torch.float16 else None
        self.targets = targets_of(request.label_set, self.device)
        self.loss = make_loss(
            request.label_set, kind=settings.loss, batch_dice=request.wanted.batch_dice, device=self.device, ranks=ranks
        )
        self.counters = Counters()
        self.step_s = 0.0
        self.averaged = self._new_average()
        self.rate = settings.learning_rate
        """Learning rate of the last step, or of the first one to come."""
        self._recorded = self._new_recording(say) if self._can_be_recorded() else None
        self._since = time.monotonic()

    def _compiles_wrong_kernels(self) -> bool:
        """Compiled convolutions cannot spare oneDNN's wrong gradients in bfloat16, see `convolution`."""
        return self.settings.compile and self.device.type == "cpu" and has_amx()

    def _can_be_recorded(self) -> bool:
        """Whether a step asks for no answer from the GPU: the scaler looks for infinite gradients there."""
        return self.device.type == "cuda" and self.ranks.alone and self.scaler is not None and not self.settings.compile

    def _new_recording(self, say: Say) -> RecordedStep:
        return RecordedStep(self._learn, self.optimizer, self.device, say, self._renew_scaler)

    def _renew_scaler(self) -> None:
        """Forget that gradients of a step that did not come about are scaled."""
        stored = self.scaler.state_dict()
        self.scaler = torch.amp.GradScaler("cuda")
        self.scaler.load_state_dict(stored)

    def close(self) -> None:
        """Give the graphics memory of a recorded step back; the session could go on, but slower."""
        self._recorded = None

    def _new_average(self) -> AveragedWeights | None:
        decay = self.settings.weight_averaging
        return AveragedWeights(self.parameters, decay) if decay else None

    def start_from(self, pretrained: Path) -> None:
        """Take over the weights of another model but for its output layers; raises ModelError when they do not fit."""
        load_pretrained(self.network, pretrained)
        self.averaged = self._new_average()

    def start_clock(self) -> None:
        """Count the time from now on."""
        self._since = time.monotonic()

    def elapsed_s(self) -> float:
        """Seconds of training so far, over all sittings; among several ranks, when they last agreed about it."""
        if self.ranks.alone:
            self._count_time()
        return self.counters.elapsed_s

    def agreed_s(self) -> float:
        """`elapsed_s` now, by the first rank's clock; all ranks must ask together."""
        self._count_time()
        (self.counters.elapsed_s,) = self.ranks.told(self.counters.elapsed_s)
        return self.counters.elapsed_s

    def _count_time(self) -> None:
        now = time.monotonic()
        self.counters.elapsed_s += now - self._since
        self._since = now

    def learning_rate(self) -> float:
        """Rate of the step that comes next."""
        return self.pace.learning_rate(self.counters.epoch, self.counters.steps, self.elapsed_s())

    def step(self, batch: Batch) -> torch.Tensor:
        """One optimiser step; the loss as a tensor on the device."""
        self.rate = self.learning_rate()
        set_learning_rate(self.optimizer, self.rate)
        loss = (self._recorded or self._learn)(batch)
        if self.averaged:
            self.averaged.update(self.counters.steps)
        self.counters.steps += 1
        self.counters.iteration += 1
        return loss

    def _learn(self, batch: Batch) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss, _ = self._answer(batch)
        self._descend(loss)
        return loss.detach()

    @torch.no_grad()
    def examine(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and full-resolution logits of a batch, without learning from it."""
        loss, outputs = self._answer(batch)
        return loss, outputs if isinstance(outputs, torch.Tensor) else outputs[0]

    def _answer(self, batch: Batch):
        with autocast(self.device, self.dtype):
            outputs = self.forward(batch.image)
        return self.loss(outputs, batch.target), outputs

    def _descend(self, loss: torch.Tensor) -> None:
        clip = self.settings.gradient_clip
        if self.scaler is None:
            loss.backward()
            if torch.isfinite(nn.utils.clip_grad_norm_(self.parameters, clip)):  # as the scaler does: skip, stay valid
                self.optimizer.step()
            return
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters, clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def save(self, path: Path, resumable: bool = True) -> None:
        """Write a checkpoint whose weights are those to predict with; raises StorageError.

        With averaged weights the raw ones are stored besides when `resumable`.
        """
        self.elapsed_s()
        if self.averaged is None:
            return save_checkpoint(self._checkpoint({}), path)
        with self.averaged.in_network():
            raw = {"raw_weights": list(self.averaged.values)} if resumable else {}
            return save_checkpoint(self._checkpoint(raw), path)

    def _checkpoint(self, extra: Mapping[str, Any]) -> Checkpoint:
        c, request = self.counters, self.request
        progress = {"steps": c.steps, "elapsed_s": c.elapsed_s, "iteration": c.iteration, "losses": list(c.losses)}
        return Checkpoint(
            network_weights=self.network.state_dict(),
            configuration=request.configuration,
            fold=request.fold_name,
            plans=plan_to_json(request.plan),
            dataset_json=request.dataset_json,
            mirroring_axes=request.mirror_axes or None,
            optimizer_state=optimizer_state(self.optimizer, self.rate),
            grad_scaler_state=self.scaler.state_dict() if self.scaler else None,
            logging=c.log,
            best_ema=c.best,
            current_epoch=c.epoch,
            extra=progress | dict(extra),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where a checkpoint ended, of ours or of nnU-Net; raises ModelError or RunError when it does not fit."""
        load_weights(self.network, checkpoint.network_weights)
        self.averaged = self._new_average()
        if self.averaged and "raw_weights" in checkpoint.extra:
            self._restore_raw(checkpoint.extra["raw_weights"])
        if checkpoint.optimizer_state is None:
            raise RunError("The checkpoint holds no optimiser to go on with; use it as --pretrained instead.")
        restore_optimizer(self.optimizer, dict(checkpoint.optimizer_state))
        if self.scaler and checkpoint.grad_scaler_state:
            self.scaler.load_state_dict(dict(checkpoint.grad_scaler_state))
        self.counters = self._stored_counters(checkpoint)
        self.start_clock()  # reading the checkpoint is no training
        self.rate = self.learning_rate()

    def _restore_raw(self, raw: list[torch.Tensor]) -> None:
        if [w.shape for w in raw] != [p.shape for p in self.parameters]:
            raise RunError("The checkpoint's raw weights do not fit its network; the file is damaged, train again.")
        for value, stored in zip(self.averaged.values, raw, strict=True):
            value.copy_(stored)
        self.averaged.exchange()

    def _stored_counters(self, checkpoint: Checkpoint) -> Counters:
        extra, epoch = checkpoint.extra, checkpoint.current_epoch
        return Counters(
            epoch=epoch,
            iteration=int(extra.get("iteration", 0)),
            steps=steps_done(checkpoint, self.settings.iterations_per_epoch),
            elapsed_s=float(extra.get("elapsed_s", 0.0)),
            losses=[float(v) for v in extra.get("losses", [])],
            best=checkpoint.best_ema,
            log={name: list(checkpoint.logging.get(name, [])) for name in LOGGED},
        )
