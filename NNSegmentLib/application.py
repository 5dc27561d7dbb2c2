"""Applying a model to images that are open in a program: their files, and what is to become of the answer.

A folder per application, so that whoever finds the job later knows what to do with its result:
`images/CASE_0000.nii.gz`, `labels/CASE.nii.gz` and `application.json`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import ImageError, InputError
from .folders import new_dated_folder
from .geometry import Geometry
from .image import read_labels, write_image
from .labels import Label, LabelSet
from .prediction import Prediction
from .records import from_json, read_json, to_json, write_json

FILE = "application.json"
IMAGE_ENDING = ".nii.gz"


@dataclass(frozen=True)
class AppliedCase:
    """One case of an application: which volumes it was made of."""

    id: str
    volumes: tuple[str, ...]
    """Ids of the volume nodes, one per channel."""
    name: str
    """Name of the first volume, to find it again in another scene."""
    segmentation: str = ""
    """Id of the segmentation node to put the segments into; empty makes a new one."""


@dataclass(frozen=True)
class Application:
    """A model applied to cases; the labels with their colours as they should be shown."""

    cases: tuple[AppliedCase, ...]
    labels: tuple[Label, ...]
    regions_class_order: tuple[int, ...] = ()
    file_ending: str = IMAGE_ENDING
    probabilities: bool = False

    @property
    def label_set(self) -> LabelSet:
        return LabelSet(self.labels, self.regions_class_order)


@dataclass(frozen=True)
class ApplicationFolder:
    """Where the files of one application are."""

    folder: Path

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def labels(self) -> Path:
        return self.folder / "labels"

    def write_case(self, case_id: str, channels: Sequence[np.ndarray], grid: Geometry, file_ending: str) -> None:
        """Write one file per channel (Z, Y, X), as nnU-Net names them; raises StorageError."""
        for n, channel in enumerate(channels):
            write_image(self.images / f"{case_id}_{n:04d}{file_ending}", channel, grid)

    def save(self, application: Application) -> None:
        """Write what the application is; raises StorageError."""
        write_json(self.folder / FILE, to_json(application))

    def load(self) -> Application:
        """What the application is; raises InputError."""
        return from_json(Application, read_json(self.folder / FILE))

    def prediction(self, application: Application, case: AppliedCase) -> Prediction:
        """The answer for one case; raises ImageError when there is none."""
        found = read_labels(self.labels / (case.id + application.file_ending))
        return Prediction(found.array, found.geometry, application.label_set, self._probabilities(application, case))

    def forget_images(self) -> None:
        """Delete the copies of the images, which nobody needs after the answer."""
        shutil.rmtree(self.images, ignore_errors=True)

    def _probabilities(self, application: Application, case: AppliedCase) -> np.ndarray | None:
        path = self.labels / f"{case.id}.npz"
        if not (application.probabilities and path.is_file()):
            return None
        with np.load(path, allow_pickle=False) as file:
            return file["probabilities"]


def new_application_folder(workspace_root: Path) -> ApplicationFolder:
    """An empty folder below `predictions` of a workspace; raises StorageError."""
    return ApplicationFolder(new_dated_folder(Path(workspace_root) / "predictions"))


def application_of(arguments: Sequence[str]) -> ApplicationFolder | None:
    """The application that the words of a `predict` command belong to; None when a person wrote them."""
    words = list(arguments)
    if words[:1] != ["predict"] or "-o" not in words[:-1]:
        return None
    folder = ApplicationFolder(Path(words[words.index("-o") + 1]).parent)
    try:
        folder.load()
    except InputError:
        return None
    return folder


def cropped(
    channels: Sequence[np.ndarray], grid: Geometry, corners_ras: np.ndarray
) -> tuple[tuple[np.ndarray, ...], Geometry]:
    """The part (Z, Y, X) of an image around a box given by its corners (N, 3) in RAS mm, and its grid.

    Raises ImageError when the box lies outside of the image.
    """
    voxels = grid.voxel(corners_ras)
    low = np.maximum(np.ceil(voxels.min(axis=0) - 1e-6).astype(int), 0)
    high = np.minimum(np.floor(voxels.max(axis=0) + 1e-6).astype(int) + 1, grid.shape)
    if (low >= high).any():
        raise ImageError("The region lies outside of the volume; move it, or choose none.")
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return tuple(channel[part] for channel in channels), grid.cropped(tuple(low), tuple(high - low))
