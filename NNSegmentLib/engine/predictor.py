"""A model that is ready to predict: networks built, weights at hand, one image in, labels on its grid out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from ..errors import ModelError, SettingsError
from ..image import Image, LabelMap, read_image
from ..labels import LabelSet
from ..model import Model, TrainedConfiguration, require_supported_trainer
from ..planning.plan import Configuration
from ..planning.topology import output_size
from ..predicting.inputs import Ready, prepare_input, require_previous
from ..prediction import Prediction
from ..preprocessing.normalize import require_known_schemes
from ..preprocessing.prepare import prepare_image, prepare_previous
from ..preprocessing.prepared import Placement, PreparedCase
from ..preprocessing.restore import labels_from_logits, probabilities_from_logits
from ..progress import Progress, silent
from ..task import Case
from .cascade import with_previous_labels
from .checkpoints import load_checkpoint, load_weights, require_fitting
from .devices import choose_device, has_amx, in_words, keep_freed_memory
from .network import UNet
from .normalization import placed
from .sliding_window import predict_logits
from .v1_weights import load_v1_weights

Message = Callable[[str], None]
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class PredictionSettings:
    """How to predict; the defaults are nnU-Net's."""

    device: str = "cpu"
    mirroring: bool = True
    """Average over mirrored views along the axes the model was trained with."""
    step: float = 0.5
    """Distance of tiles as a part of the patch; larger is faster and coarser."""
    half: bool = False
    """bfloat16 on a processor with AMX, which takes less than half the time; without AMX it would take longer than
    float32. Of the foreground voxels one or two in a thousand get another label. CUDA GPUs always use float16."""


@dataclass(frozen=True)
class Outputs:
    """What the networks said: logits (of version-1 models probabilities) (n_outputs, Z, Y, X) on each part's own grid."""

    logits: tuple[np.ndarray, ...]
    placements: tuple[Placement, ...]


class Predictor:
    """Predicts images with a model that is loaded once.

    `predict` does everything; `prepare`, `run` and `finish` are its three steps, for callers that overlap them.
    Raises ModelError when the model cannot be loaded, SettingsError for an unknown device or step,
    RunError or OutOfMemoryError when predicting fails.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        mirroring: bool = True,
        step: float = 0.5,
        half: bool = False,
        message: Message = lambda text: None,
    ) -> None:
        if not 0 < step <= 1:
            raise SettingsError(f"The step of the sliding window must lie above 0 and at most at 1, found {step}.")
        self.model = model
        self.message = message
        device = str(choose_device(device))
        keep_freed_memory()
        torch.backends.cudnn.benchmark = True  # all tiles have one shape
        self.settings = PredictionSettings(device, mirroring, step, _is_followed(half, torch.device(device), message))
        precision = torch.bfloat16 if self.settings.half else torch.float32
        self._parts = tuple(LoadedPart.load(part, model, device, precision) for part in model.parts)
        self._previous: dict[str, Predictor] = {}

    def predict(
        self,
        image: Image | Case,
        *,
        want_probabilities: bool = False,
        previous: LabelMap | None = None,
        progress: Progress = silent,
    ) -> Prediction:
        """Labels (and probabilities) on the image's own grid.

        `previous` is the earlier stage's label map for a cascade; without it that stage is predicted first.
        Raises ImageError when the image does not fit the model.
        """
        case_id = image.id if isinstance(image, Case) else ""
        image = self.read(image) if isinstance(image, Case) else image
        ready = self.prepare(image, previous, case_id)
        return self.finish(ready, self.run(ready, progress), want_probabilities)

    def read(self, case: Case) -> Image:
        """The case's channels as the model's reader gives them; raises ImageError."""
        return read_image(case.images, self.model.plan.reader)

    def prepare(self, image: Image, previous: LabelMap | None = None, case_id: str = "") -> Ready:
        """Check the image and bring it to the networks' grids; raises as `prepare_input` does."""
        return prepare_input(self.model, image, previous, case_id)

    def run(self, ready: Ready, progress: Progress = silent) -> Outputs:
        """The networks' part, on the chosen device."""
        logits = tuple(
            self._logits(part, self._input(part, case, ready, progress), progress)
            for part, case in zip(self._parts, ready.prepared, strict=True)
        )
        return Outputs(logits, tuple(case.placement for case in ready.prepared))

    def rounds(self, has_previous: bool = False) -> int:
        """How often the tiles of an image are gone through: once per part, and for a cascade's earlier stage."""
        earlier = [part for part in self.model.parts if part.configuration.previous_stage]
        return len(self.model.parts) + (0 if has_previous else len(earlier))

    def finish(self, ready: Ready, outputs: Outputs, want_probabilities: bool = False) -> Prediction:
        """Labels on the image's grid; an ensemble averages probabilities there (nnU-Net's rule)."""
        labels_of, geometry = self.model.label_set, ready.image.geometry
        if len(self._parts) == 1 and not want_probabilities:
            return Prediction(self._restored(0, outputs, labels_from_logits), geometry, labels_of)
        mean = self._restored(0, outputs, probabilities_from_logits)
        for k in range(1, len(self._parts)):
            mean += self._restored(k, outputs, probabilities_from_logits)
        mean /= len(self._parts)
        labels = labels_of.decide(mean, probabilities=True)
        return Prediction(labels, geometry, labels_of, mean if want_probabilities else None)

    def _restored(self, k: int, outputs: Outputs, restore: Callable[..., np.ndarray]) -> np.ndarray:
        return restore(outputs.logits[k], outputs.placements[k], self._parts[k].configuration, self.model.label_set)

    def _input(self, part: LoadedPart, case: PreparedCase, ready: Ready, progress: Progress) -> torch.Tensor:
        """(C, Z, Y, X), in a cascade with the earlier stage's labels, predicted now if they are not there yet."""
        if not part.configuration.previous_stage:
            return torch.from_numpy(np.ascontiguousarray(case.image))
        labels = ready.previous or self._earlier(part).predict(ready.image, progress=progress)
        array = labels.array if isinstance(labels, LabelMap) else labels.labels
        on_grid = prepare_previous(array, case.placement, part.configuration, ready.image)
        if any(part.configuration.use_mask_for_norm) and not part.configuration.is_version_1:
            case = prepare_image(
                *(ready.image, None, part.source.plan, part.configuration.name, self.model.label_set),
                previous=array,
            )
        return with_previous_labels(case.image, on_grid, self.model.label_set)

    def _earlier(self, part: LoadedPart) -> Predictor:
        name = part.configuration.name
        if name not in self._previous:
            source = require_previous(part.source)
            model = Model(source.folder, (source,), self.model.label_set, self.model.channels, self.model.file_ending)
            s = self.settings
            self._previous[name] = Predictor(
                model, device=s.device, mirroring=s.mirroring, step=s.step, half=s.half, message=self.message
            )
        return self._previous[name]

    def _logits(self, part: LoadedPart, image: torch.Tensor, progress: Progress) -> np.ndarray:
        return predict_logits(
            part.networks,
            image.to(part.networks.precision),
            part.configuration.patch_size,
            mirror_axes=part.mirror_axes if self.settings.mirroring else (),
            step=self.settings.step,
            device=self.settings.device,
            activation=self._activation if part.configuration.is_version_1 else None,
            progress=progress,
            message=self.message,
        ).numpy()

    @property
    def _activation(self) -> Callable[[torch.Tensor], torch.Tensor]:
        return torch.sigmoid if self.model.label_set.has_regions else partial(torch.softmax, dim=1)


def _is_followed(half: bool, device: torch.device, message: Message) -> bool:
    """Whether weights are brought to half precision, as is asked for; on a CUDA GPU the work is done in it anyway."""
    if not half or device.type == "cuda":
        return False
    if device.type == "cpu" and has_amx():
        return True
    message(f"Half precision needs a processor with AMX; predicting in full precision on {in_words(device)}.")
    return False


class FoldNetworks(Sequence):
    """The networks of a configuration's folds; one is in memory at a time and takes each fold's weights in turn."""

    def __init__(
        self, network: UNet, weights: Sequence[Weights], device: str, precision: torch.dtype = torch.float32
    ) -> None:
        self.precision = precision
        self._network = _with_memory(network).eval().requires_grad_(False)
        self._weights = weights
        self._loaded = 0
        load_weights(self._network, weights[0])
        placed(self._network.to(precision), torch.device(device))

    def __len__(self) -> int:
        return len(self._weights)

    def __getitem__(self, k: int) -> UNet:
        if not 0 <= k < len(self):
            raise IndexError(k)
        if k != self._loaded:
            load_weights(self._network, self._weights[k])
            self._loaded = k
        return self._network


def _with_memory(network: UNet) -> UNet:
    """The network with room for its weights; torch's own `to_empty` first loads a package of algebra, for 0.3 s."""
    rooms = {id(weight): torch.empty(weight.shape) for weight in network.parameters()}
    named = network.named_parameters(remove_duplicate=False)
    network.load_state_dict({name: rooms[id(weight)] for name, weight in named}, assign=True)
    return network


@dataclass(frozen=True)
class LoadedPart:
    """A configuration whose checkpoints were read and found to fit its plan."""

    source: TrainedConfiguration
    networks: FoldNetworks = field(repr=False)
    mirror_axes: tuple[int, ...] = ()

    @property
    def configuration(self) -> Configuration:
        return self.source.configuration

    @classmethod
    def load(
        cls, part: TrainedConfiguration, model: Model, device: str, precision: torch.dtype = torch.float32
    ) -> LoadedPart:
        """Read and check all folds; raises ModelError."""
        _require_channels_of_plan(part, len(model.channels))
        require_known_schemes(part.configuration.normalization)
        network = _bare_network(part.configuration, len(model.channels), part, model.label_set)
        read = _read_version_1 if part.configuration.is_version_1 else _read_version_2
        weights, axes = read(part, network)
        dimensions = len(part.configuration.patch_size)
        networks = FoldNetworks(network, weights, device, precision)
        return cls(part, networks, tuple(a for a in axes if a < dimensions))


def _read_version_2(part: TrainedConfiguration, network: UNet) -> tuple[list[Weights], tuple[int, ...]]:
    """The weights of all folds and the axes to mirror; raises ModelError when one does not fit."""
    checkpoints = [load_checkpoint(member.checkpoint, mapped=True) for member in part.members]
    for member, checkpoint in zip(part.members, checkpoints, strict=True):
        require_supported_trainer(checkpoint.trainer_name, member.checkpoint)
        require_fitting(network, checkpoint.network_weights, str(member.checkpoint))
    return [checkpoint.network_weights for checkpoint in checkpoints], checkpoints[0].mirroring_axes or ()


def _read_version_1(part: TrainedConfiguration, network: UNet) -> tuple[list[Weights], tuple[int, ...]]:
    spec = part.configuration.network
    return [load_v1_weights(member.checkpoint, network, spec) for member in part.members], part.mirroring_axes


def _require_channels_of_plan(part: TrainedConfiguration, n_channels: int) -> None:
    found = {len(part.configuration.normalization), len(part.configuration.use_mask_for_norm)} - {n_channels}
    if found:
        raise ModelError(
            f"The plan in {part.folder} normalises {found.pop()} channels, its dataset.json names {n_channels}; "
            "the model folder is incomplete or mixed up, copy it again."
        )


def _bare_network(
    configuration: Configuration, n_channels: int, part: TrainedConfiguration, label_set: LabelSet
) -> UNet:
    """The network without memory for its weights, so that a wrong plan is found before anything is allocated.

    Its answer's size is computed, not tried: on arrays without memory torch would load its compiler, for a second.
    """
    spec, patch = configuration.network, configuration.patch_size
    where = f"The network described in {part.plan_file}"
    inputs = configuration.n_inputs(n_channels, len(label_set.foreground_values))
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about empty layers, which do not fit the weights anyway
            network = UNet(spec, inputs, label_set.n_outputs, deep_supervision=False)
        found = output_size(spec, patch)
    except (RuntimeError, ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError) as error:
        raise ModelError(f"{where} cannot be built for a patch of {patch} ({str(error).splitlines()[0]}).") from error
    if found != tuple(patch):
        raise ModelError(f"{where} answers a patch of {patch} voxels with {found}; it is damaged or unsupported.")
    return network
