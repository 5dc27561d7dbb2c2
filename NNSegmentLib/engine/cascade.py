"""The cascade's additional input: the earlier stage's labels as one channel per foreground value."""

from __future__ import annotations

import numpy as np
import torch

from ..labels import LabelSet


def with_previous_labels(image: np.ndarray, labels: np.ndarray, label_set: LabelSet) -> torch.Tensor:
    """Network input (C + n_foreground, Z, Y, X) from a prepared image (C, Z, Y, X) and labels (Z, Y, X)."""
    values = label_set.foreground_values
    stacked = torch.empty((len(image) + len(values), *image.shape[1:]))
    stacked[: len(image)] = torch.from_numpy(np.asarray(image))
    for channel, value in enumerate(values, start=len(image)):
        stacked[channel] = torch.from_numpy(labels == value)
    return stacked
