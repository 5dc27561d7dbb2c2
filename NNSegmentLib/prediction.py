"""What a model says about an image, and the files it becomes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .errors import ImageError
from .geometry import Geometry
from .image import file_ending, write_labels
from .labels import LabelSet
from .probability_files import write_probabilities


@dataclass(frozen=True)
class Prediction:
    """Labels on the grid of the image they were predicted for."""

    labels: np.ndarray
    """(Z, Y, X), uint8 or uint16."""
    geometry: Geometry
    label_set: LabelSet
    probabilities: np.ndarray | None = None
    """(n_outputs, Z, Y, X) float32 when asked for: one per label value, or one per region."""

    def on_grid(self, target: Geometry) -> Prediction:
        """The same voxels in the axis order and direction of `target`, a re-oriented copy of this grid.

        Raises ImageError when the grids differ by more than swapped and flipped axes.
        """
        if self.geometry.same_grid(target):
            return replace(self, geometry=target)
        axes, flips = _turns(self.geometry, target)
        probabilities = self.probabilities
        if probabilities is not None:
            probabilities = np.flip(probabilities.transpose(0, *(a + 1 for a in axes)), [f + 1 for f in flips])
        return replace(
            self,
            labels=np.flip(self.labels.transpose(axes), flips),
            geometry=target,
            probabilities=probabilities,
        )


def save_prediction(prediction: Prediction, path: Path, geometry: Geometry | None = None) -> None:
    """Write the label map to `path`, and probabilities beside it as `CASE.npz` with `CASE.pkl`.

    `geometry` is the image file's own grid, to which labels that were predicted on a re-oriented copy are turned
    back; probabilities keep the reader's axis order, as in nnU-Net. Each file is whole or absent; the label map comes
    last, so that its presence means the case is done. Raises StorageError.
    """
    geometry = geometry or prediction.geometry
    if prediction.probabilities is not None:
        stem = path.name[: -len(file_ending(path))]
        archive = path.with_name(stem + ".npz")
        write_probabilities(archive, prediction.probabilities, prediction.geometry, geometry)
    turned = replace(prediction, probabilities=None).on_grid(geometry)
    write_labels(path, turned.labels, turned.geometry)


def _turns(source: Geometry, target: Geometry) -> tuple[list[int], list[int]]:
    """Source axis of each target axis (z, y, x), and the target axes to flip."""
    alignment = np.linalg.solve(target.direction, source.direction)  # (x, y, z) target against source
    turned = np.rint(alignment)[::-1, ::-1]
    axes = [int(np.abs(row).argmax()) for row in turned]
    exact = np.abs(alignment[::-1, ::-1] - turned).max() < 1e-3 and sorted(axes) == [0, 1, 2]
    flips = [k for k, axis in enumerate(axes) if turned[k, axis] < 0]
    if not exact or tuple(source.shape[a] for a in axes) != target.shape:
        raise ImageError(
            f"A prediction on {source.shape} voxels cannot be put back on {target.shape} voxels of another direction; "
            "the image file has changed since it was read."
        )
    return axes, flips
