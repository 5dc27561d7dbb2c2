"""Applying a model to images that are open in a program: their files, and what is to become of the answer.

A folder per application, so that whoever finds the job later knows what to do with its result:
`images/CASE_0000.nii`, `labels/CASE.nii.gz` and `application.json`.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import ImageError, InputError, StorageError
from .folders import new_dated_folder, visible
from .geometry import Geometry
from .image import read_labels, write_image
from .labels import Label, LabelSet
from .prediction import Prediction
from .records import from_json, read_json, remove, to_json, write_json, written_whole

FILE = "application.json"
IMAGE_ENDING = ".nii"
"""Of the copies of the images, for which compressing would take many times as long as writing: nobody keeps them."""
LABEL_ENDING = ".nii.gz"
"""Of the label maps that stay."""
CONSOLE, EFFECT = "console", "effect"
"""Show the answers they have asked for by themselves."""
_SAMPLED = 128
"""Voxels along each axis that stand for the whole image."""
_SAME_PLACE = 0.01
"""Voxels by which formats of files may round a position."""


@dataclass(frozen=True)
class VolumeIdentity:
    """What tells a volume from all others: ids and names come back in the scene of the next patient."""

    shape: tuple[int, int, int]
    """Voxels along (z, y, x)."""
    ijk_to_ras: tuple[tuple[float, ...], ...]
    """Rows of the 4×4 matrix from the (x, y, z) index to the position in the world, in RAS mm."""
    content: str
    """A hash of voxels from everywhere in the image."""

    @classmethod
    def of(cls, array: np.ndarray, ijk_to_ras: np.ndarray) -> VolumeIdentity:
        """Of the voxels (Z, Y, X), or (Z, Y, X, C), and their place in the world."""
        shape = tuple(int(n) for n in array.shape[:3])
        sample = array[tuple(slice(None, None, -(-n // _SAMPLED)) for n in shape)]
        values = np.ascontiguousarray(sample, "<f8")  # the number type may change where a volume is saved
        rows = tuple(tuple(float(v) for v in row) for row in ijk_to_ras)
        return cls(shape, rows, hashlib.blake2b(values, digest_size=16).hexdigest())

    def is_same(self, other: VolumeIdentity) -> bool:
        """Whether both are the same image in the same place."""
        if (self.shape, self.content) != (other.shape, other.content):
            return False
        mine, moved = np.array(self.ijk_to_ras), np.subtract(self.ijk_to_ras, other.ijk_to_ras)
        corners = np.indices((2, 2, 2)).reshape(3, -1) * (np.array(self.shape[::-1]) - 1)[:, None]
        distances = np.linalg.norm(moved[:3, :3] @ corners + moved[:3, 3:], axis=0)
        return bool(distances.max() < _SAME_PLACE * np.linalg.norm(mine[:3, :3], axis=0).min())


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
    identity: VolumeIdentity | None = None
    """Of the first volume; None in records of earlier versions."""


@dataclass(frozen=True)
class Application:
    """A model applied to cases; the labels with their colours as they should be shown."""

    cases: tuple[AppliedCase, ...]
    labels: tuple[Label, ...]
    regions_class_order: tuple[int, ...] = ()
    file_ending: str = IMAGE_ENDING
    """Of the copies of the images, and so of the label maps that the model writes."""
    probabilities: bool = False
    shown_by: str = ""
    """Who shows the answers; nobody in particular leaves them to the panel that finds the job."""

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

    def label_map(self, application: Application, case: AppliedCase) -> Path:
        """The file with the answer for one case, compressed or as the model wrote it."""
        compressed = self.labels / (case.id + LABEL_ENDING)
        return compressed if compressed.is_file() else self.labels / (case.id + application.file_ending)

    def prediction(self, application: Application, case: AppliedCase) -> Prediction:
        """The answer for one case; raises ImageError when there is none."""
        found = read_labels(self.label_map(application, case))
        return Prediction(found.array, found.geometry, application.label_set, self._probabilities(application, case))

    def discard(self) -> None:
        """Delete everything of an application that nothing will answer."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def put_away(self) -> None:
        """Delete the copies of the images, which nobody needs after the answer; compress the label maps, which stay."""
        shutil.rmtree(self.images, ignore_errors=True)
        for path in visible(self.labels, f"*{IMAGE_ENDING}"):
            with contextlib.suppress(StorageError, OSError):  # what cannot be compressed can still be read
                _compress(path, path.with_name(path.name.removesuffix(IMAGE_ENDING) + LABEL_ENDING))

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


def _compress(source: Path, target: Path) -> None:
    """A file as gzip, whole or not at all; raises StorageError, OSError."""
    with (
        written_whole(target) as temporary,
        source.open("rb") as plain,
        gzip.open(temporary, "wb", compresslevel=1) as packed,  # label maps are mostly the same: more takes only longer
    ):
        shutil.copyfileobj(plain, packed)
    remove(source)


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
