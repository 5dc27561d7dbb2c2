"""The cascade's additional input: the earlier stage's labels as one channel per foreground value."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import ImageError, ModelError
from ..image import Image, LabelMap
from ..labels import LabelSet
from ..model import TrainedConfiguration


def with_previous_labels(image: np.ndarray, labels: np.ndarray, label_set: LabelSet) -> torch.Tensor:
    """Network input (C + n_foreground, Z, Y, X) from a prepared image (C, Z, Y, X) and labels (Z, Y, X)."""
    values = label_set.foreground_values
    stacked = torch.empty((len(image) + len(values), *image.shape[1:]))
    stacked[: len(image)] = torch.from_numpy(np.asarray(image))
    for channel, value in enumerate(values, start=len(image)):
        stacked[channel] = torch.from_numpy(labels == value)
    return stacked


def require_previous(part: TrainedConfiguration) -> TrainedConfiguration:
    """The earlier stage of a cascade; raises ModelError when its model folder is not beside this one."""
    if part.previous is None:
        raise ModelError(
            f"{part.folder.name} continues from {part.configuration.previous_stage}, whose model folder is not beside it; "
            "copy it there, or give the earlier stage's label maps."
        )
    return part.previous


def require_same_shape(image: Image, previous: LabelMap) -> None:
    """Raises ImageError when the earlier stage's label map does not lie on the image's grid."""
    if previous.array.shape != image.array.shape[1:]:
        raise ImageError(
            f"The earlier stage's label map has {previous.array.shape} voxels (z, y, x), the image {image.array.shape[1:]}; "
            "give the label map that was predicted for this image."
        )
