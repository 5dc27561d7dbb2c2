"""What the benchmarks work on: MSD Task04 where it is at hand, a task made to its measures elsewhere, large volumes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .measure import function
from .peer import Peer, find_peer

ROOT = Path(__file__).resolve().parents[2]
TASK, N_CASES = "Dataset004_Hippocampus", 200
LARGE = "Dataset005_Large"
LARGE_GRIDS = {"1 mm": (1.0, 1.0, 1.0), "separate z": (3.0, 0.6, 0.6)}
"""Voxel sizes (z, y, x) that the large volumes are resampled to."""
_LARGE_SHAPE, _LARGE_SPACING_MM, _LARGE_LABELS = (200, 256, 256), (1.5, 0.8, 0.8), 8


@dataclass(frozen=True)
class Bench:
    """One run of the benchmarks."""

    folder: Path
    """For everything they write."""
    quick: bool = False
    """Fewer repetitions and the smaller sizes."""

    @property
    def runs(self) -> int:
        """Repetitions of a measurement."""
        return 1 if self.quick else 3

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def raw(self) -> Path:
        """The task's folder."""
        return self.workspace / "nnUNet_raw" / TASK

    @property
    def preprocessed(self) -> Path:
        return self.workspace / "nnUNet_preprocessed" / TASK

    @property
    def plans(self) -> Path:
        return self.preprocessed / "nnUNetPlans.json"

    @property
    def peer(self) -> Peer | None:
        return find_peer(self.folder / "peer", self.workspace / "nnUNet_raw")

    def make_task(self) -> None:
        """Task 4 with its plan; made once."""
        if not self.plans.is_file():
            function("data:child_make_task", self.workspace, find_source())

    def make_large(self) -> Path:
        """Large volumes with a plan for each of `LARGE_GRIDS`, made once; returns their workspace."""
        workspace = self.folder / "large"
        if not workspace.exists():
            function("data:child_make_large", workspace)
        return workspace

    def make_peers_plan(self, peer: Peer) -> None:
        """nnU-Net's own fingerprint and plan of task 4; made once."""
        if not (peer.preprocessed / TASK / "nnUNetPlans.json").is_file():
            peer.command("extract_fingerprint", "-d", 4, "-np", 2)
            peer.command("plan_experiment", "-d", 4)


def find_source() -> Path | None:
    """Task04_Hippocampus in the folder NNSEGMENT_DATA, or in shared/data beside the project; None without it."""
    folder = Path(os.environ.get("NNSEGMENT_DATA", ROOT.parent / "shared" / "data")) / "Task04_Hippocampus"
    return folder if (folder / "dataset.json").is_file() else None


def child_make_task(workspace: str, source: str | None) -> None:
    """Convert the source, or make cases like its, and plan."""
    from NNSegmentLib import pipeline

    if source is not None:
        pipeline.convert(source, workspace, id=4, name="Hippocampus")
    else:
        _make_cases(Path(workspace) / "nnUNet_raw" / TASK)
    pipeline.plan("4", workspace)


def child_make_large(workspace: str) -> None:
    """Two volumes of 200×256×256 voxels with eight labels, and their plans."""
    from NNSegmentLib import pipeline

    folder = Path(workspace) / "nnUNet_raw" / LARGE
    _write_dataset(folder, 2, _LARGE_LABELS)
    for number in range(2):
        _write_large(folder, number)
    for name, spacing_mm in LARGE_GRIDS.items():
        pipeline.plan("5", workspace, spacing_mm=spacing_mm, name=plans_name(name))


def plans_name(grid: str) -> str:
    """Name of the plans file for one of `LARGE_GRIDS`."""
    return "plans_" + grid.replace(" ", "_")


def _write_dataset(folder: Path, n_cases: int, n_labels: int) -> None:
    from NNSegmentLib.labels import BACKGROUND, Label, LabelSet
    from NNSegmentLib.task import write_dataset_json

    labels = LabelSet((Label(BACKGROUND, (0,)), *(Label(f"part {n}", (n,)) for n in range(1, n_labels + 1))))
    write_dataset_json(folder, ("MRI",), labels, n_cases, ".nii.gz")


def _make_cases(folder: Path) -> None:
    """`N_CASES` cases of Task04's sizes, 31 to 43 × 40 to 59 × 24 to 47 voxels of 1 mm, with two labels."""
    import numpy as np
    from scipy import ndimage

    _write_dataset(folder, N_CASES, 2)
    for number in range(N_CASES):
        rng = np.random.default_rng(number)
        shape = [int(round(rng.triangular(*sides))) for sides in ((31, 36, 43), (40, 50, 59), (24, 35, 47))]
        image = ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
        along, *across = (np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) / 2)[[1, 0, 2]]
        inside = (along / 18) ** 2 + (across[0] / 7) ** 2 + (across[1] / 7) ** 2 < 1
        labels = inside * np.where(along < 0, 1, 2)
        _write_case(folder, f"case_{number:03d}", 400 + 200 * image + 150 * inside, labels, (1.0, 1.0, 1.0))


def _write_large(folder: Path, number: int) -> None:
    """Noise inside an ellipsoid, exactly 0 outside, and blobs."""
    import numpy as np
    from scipy import ndimage

    rng = np.random.default_rng(number)
    place = [np.linspace(-1, 1, n, dtype=np.float32) for n in _LARGE_SHAPE]
    z, y, x = np.meshgrid(*place, indexing="ij", sparse=True)
    body = z**2 / 0.9 + y**2 / 0.8 + x**2 / 0.85 < 1
    image = ndimage.gaussian_filter(rng.standard_normal(_LARGE_SHAPE, dtype=np.float32), 1.5)
    labels = np.zeros(_LARGE_SHAPE, np.uint8)
    for value in range(1, _LARGE_LABELS + 1):
        centre, radius = rng.uniform(-0.5, 0.5, 3), rng.uniform(0.1, 0.25)
        blob = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
        labels[blob & body] = value
    image = body * (600 + 800 * image + 30 * labels)
    _write_case(folder, f"large_{number}", image, labels, _LARGE_SPACING_MM)


def _write_case(folder: Path, name: str, image, labels, spacing_mm) -> None:
    import numpy as np

    from NNSegmentLib.geometry import Geometry
    from NNSegmentLib.image import write_image, write_labels

    geometry = Geometry(image.shape, spacing_mm, (0.0, 0.0, 0.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", np.rint(image).astype(np.int16), geometry)
    write_labels(folder / "labelsTr" / f"{name}.nii.gz", labels.astype(np.uint8), geometry)
