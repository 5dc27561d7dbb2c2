"""What a model needs of an image before its networks are there: the right channels, on the networks' grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ImageError, ModelError, counted
from ..image import Image, LabelMap
from ..machine.memory import affordable_workers, available_gb, release_freed
from ..model import Model, TrainedConfiguration
from ..planning.plan import Configuration
from ..preflight import voxels_on_grid
from ..preprocessing.prepare import prepare_image
from ..preprocessing.prepared import PreparedCase


@dataclass(frozen=True)
class Ready:
    """An image on the networks' grids."""

    image: Image
    prepared: tuple[PreparedCase, ...]
    """One per part of the model."""
    previous: LabelMap | None = None
    """Cascade: the earlier stage's labels on the image's grid; None when they are still to be predicted."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, about."""
        arrays = [self.image.array, *(case.image for case in self.prepared)]
        return sum(array.nbytes for array in arrays) + (self.previous.array.nbytes if self.previous else 0)


def prepare_input(model: Model, image: Image, previous: LabelMap | None = None, case_id: str = "") -> Ready:
    """Check the image and bring it to the grids of the model's networks.

    `previous` is the earlier stage's label map for a cascade. Raises ImageError, ModelError, PlanError for a
    normalisation that is unknown here, or OutOfMemoryError.
    """
    require_channels(image, model.channels)
    if previous is not None:
        require_same_shape(image, previous)
    for part in model.parts:
        require_volume(image, part.configuration)
        require_memory(image, part.configuration, model)
    if previous is None:
        require_earlier_stages(model)
    prepared = [
        prepare_image(image, None, part.plan, part.configuration.name, model.label_set, case_id) for part in model.parts
    ]
    return Ready(image, tuple(prepared), previous)


def require_channels(image: Image, channels: Sequence[str]) -> None:
    """Raises ImageError when the number of channels differs from the model's."""
    if len(image.array) != len(channels):
        colours = image.geometry.dimension == 2 and len(image.array) == 3 and len(channels) == 1
        advice = "save the picture in shades of grey" if colours else "give one file per channel"
        raise ImageError(
            f"The model expects {counted(len(channels), 'channel')} ({', '.join(channels)}, "
            f"in this order), found {len(image.array)}; {advice}."
        )


def require_volume(image: Image, configuration: Configuration) -> None:
    """Raises ImageError for a picture that a 3-D network should see, whose made-up thickness would become many slices."""
    grid = image.geometry
    if not configuration.is_2d and grid.dimension == 2:
        raise ImageError(
            f"The configuration {configuration.name} expects volumes, found a single plane of {grid.shape[1]} × "
            f"{grid.shape[2]} pixels; predict it with a model of the configuration 2d, or give the whole stack."
        )


def require_memory(image: Image, configuration: Configuration, model: Model) -> None:
    """Raises OutOfMemoryError when the image at the configuration's voxel size would not fit into memory."""
    arrays = len(model.channels) + model.label_set.n_outputs + 1
    needed_gb = voxels_on_grid(image.geometry, configuration, model.plan.transpose_forward) * arrays * 4 / 1e9
    if needed_gb > available_gb():
        release_freed()
    affordable_workers(1, needed_gb, f"Predicting an image of {image.geometry.shape} voxels")


def require_earlier_stages(model: Model) -> None:
    """Raises ModelError for a cascade whose earlier stage cannot be predicted."""
    for part in model.parts:
        if part.configuration.previous_stage:
            require_previous(part)


def require_previous(part: TrainedConfiguration) -> TrainedConfiguration:
    """The earlier stage of a cascade; raises ModelError when its folder is not beside this one, or lacks a fold."""
    stage = part.configuration.previous_stage
    if part.previous is None:
        raise ModelError(
            f"{part.folder.name} continues from {stage}, whose model folder is not beside it; "
            "copy it there, or give the earlier stage's label maps."
        )
    if part.lacking:
        raise ModelError(
            f"{part.folder.name} continues from {stage}, which should have the same folds, since all others have seen "
            f"the cases that these leave out, but lacks fold {', '.join(part.lacking)}; train it there, name "
            "other folds or none (then new cases are predicted with all), or give the earlier stage's label maps."
        )
    return part.previous


def require_same_shape(image: Image, previous: LabelMap) -> None:
    """Raises ImageError when the earlier stage's label map does not lie on the image's grid."""
    if previous.array.shape != image.array.shape[1:]:
        raise ImageError(
            f"The earlier stage's label map has {previous.array.shape} voxels (z, y, x), the image {image.array.shape[1:]}; "
            "give the label map that was predicted for this image."
        )
