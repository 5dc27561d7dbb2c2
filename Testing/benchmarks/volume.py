"""Preparing one volume of 200×256×256 voxels with eight labels, from its files to prepared files, in one process."""

from __future__ import annotations

from pathlib import Path

from . import peer as stored
from .data import LARGE, LARGE_GRIDS, Bench, plans_name
from .measure import Measured, function, median_seconds
from .peer import Peer
from .results import Row, faster, share

CASE = "large_0"


def rows(bench: Bench) -> list[Row]:
    workspace = bench.make_large()
    return [row for grid in LARGE_GRIDS for row in _rows(bench, workspace, grid)]


def _rows(bench: Bench, workspace: Path, grid: str) -> list[Row]:
    stage = f"prepare 200×256×256 with 8 labels to {grid}"
    ours = function("volume:child_ours", workspace, grid, bench.runs)
    found = stored.beside(
        stage, ours, bench.peer, lambda peer: _peers(bench, peer, workspace, grid), stored.VOLUME[grid], faster(8),
        share(1 / 2),
    )  # fmt: skip
    if bench.peer:
        return found
    reference = function("volume:child_reference", workspace, grid, 1)
    return [*found, Row(stage, "s", ours.seconds, "skimage and batchgenerators, resampling only", reference.seconds)]


def _peers(bench: Bench, peer: Peer, workspace: Path, grid: str) -> Measured:
    raw, target = workspace / "nnUNet_raw" / LARGE, bench.folder / "peer" / plans_name(grid)
    target.mkdir(parents=True, exist_ok=True)
    plans = workspace / "nnUNet_preprocessed" / LARGE / f"{plans_name(grid)}.json"
    image, labels = raw / "imagesTr" / f"{CASE}_0000.nii.gz", raw / "labelsTr" / f"{CASE}.nii.gz"
    return peer.step("volume", plans, raw / "dataset.json", image, labels, target / CASE, bench.runs)


def child_ours(workspace: str, grid: str, runs: int) -> dict[str, float]:
    from NNSegmentLib import pipeline
    from NNSegmentLib.preprocessing.prepare import prepare_case
    from NNSegmentLib.preprocessing.storage import save_prepared

    task, plan = _task_and_plan(workspace, grid)
    case = next(case for case in task.cases if case.id == CASE)
    folder = pipeline.folders_of("5", workspace).prepared(f"benchmark_{plan.name}")

    def prepare() -> None:
        save_prepared(prepare_case(case, plan, "3d_fullres", task.labels), folder)

    return {"seconds": median_seconds(runs, prepare)}


def child_reference(workspace: str, grid: str, runs: int) -> dict[str, float]:
    """The two resamplings alone: order 3 for the image, every label linearly."""
    from NNSegmentLib.image import read_image, read_labels
    from NNSegmentLib.preprocessing.resample import new_shape

    task, plan = _task_and_plan(workspace, grid)
    case = next(case for case in task.cases if case.id == CASE)
    image, labels = read_image(case.images, plan.reader).array[0].astype(float), read_labels(case.labels).array
    spacing_mm = read_image(case.images, plan.reader).geometry.spacing_mm
    shape = new_shape(image.shape, spacing_mm, LARGE_GRIDS[grid])
    resize = _resize_slices if grid == "separate z" else _resize
    return {"seconds": median_seconds(runs, lambda: resize(image, labels, shape))}


def _resize(image, labels, shape) -> None:
    from batchgenerators.augmentations.utils import resize_segmentation
    from skimage.transform import resize

    resize(image, shape, order=3, mode="edge", anti_aliasing=False)
    resize_segmentation(labels, shape, order=1)


def _resize_slices(image, labels, shape) -> None:
    import numpy as np

    rows = np.minimum((np.arange(shape[0]) + 0.5) * len(image) / shape[0], len(image) - 1).astype(int)
    for plane, drawn in zip(image, labels, strict=True):
        _resize(plane, drawn, shape[1:])
    image[rows], labels[rows]


def _task_and_plan(workspace: str, grid: str):
    from NNSegmentLib import pipeline

    folders = pipeline.folders_of("5", workspace)
    return pipeline.open_task("5", workspace), pipeline.plan_of(folders, plans_name(grid))
