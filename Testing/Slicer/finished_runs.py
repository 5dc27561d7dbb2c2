"""A task with trained and validated folds on disk, made without training: what the panel reads, not what it means."""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path

import numpy as np

from NNSegmentLib import jobs, pipeline
from NNSegmentLib.evaluation import evaluate_folder
from NNSegmentLib.folders import FoldFolder, JobFolder, TaskFolders, Workspace
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_labels, write_image, write_labels
from NNSegmentLib.records import to_json, write_json
from NNSegmentLib.run import EpochFinished, Finished, append_event
from NNSegmentLib.scores import save_scores

NAME = "Dataset501_Balls"
GRID = Geometry((12, 20, 24), (2.0, 1.0, 1.0), (5.0, -3.0, 10.0))


def make_task(root: Path, n_cases: int = 4) -> TaskFolders:
    """A planned task of noisy boxes: `left` and `right`, the second one slice shorter from case to case."""
    folder = root / "nnUNet_raw" / NAME
    for n in range(n_cases):
        labels = np.zeros(GRID.shape, np.uint8)
        labels[3:9, 5:15, 4:12] = 1
        labels[3 : 9 - n, 5:15, 12:20] = 2
        image = np.random.default_rng(n).normal(100, 10, GRID.shape) + 100 * labels
        write_image(folder / "imagesTr" / f"case{n}_0000.nii.gz", image.astype(np.int16), GRID)
        write_labels(folder / "labelsTr" / f"case{n}.nii.gz", labels, GRID)
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "left": 1, "right": 2}}
    (folder / "dataset.json").write_text(json.dumps(description | {"numTraining": n_cases, "file_ending": ".nii.gz"}))
    pipeline.plan(NAME, root)
    return pipeline.folders_of(NAME, root)


def train(folders: TaskFolders, configuration: str, fold: int, shift: int = 1) -> FoldFolder:
    """The files of a finished run whose predictions are the references moved by `shift` voxels along y."""
    task, plan = pipeline.open_task(folders.raw), pipeline.plan_of(folders)
    model = folders.model(plan.name, configuration)
    run = begin(folders, configuration, fold, epochs=3)
    model.dataset_json.write_bytes((folders.raw / "dataset.json").read_bytes())
    model.plan.write_bytes(folders.plan(plan.name).read_bytes())
    for case_id in pipeline.folds_of(folders, task)[fold].validation:
        reference = read_labels(task.case(case_id).labels)
        write_labels(run.validation / f"{case_id}.nii.gz", np.roll(reference.array, shift, 1), reference.geometry)
    scores = evaluate_folder(run.validation, folders.raw / "labelsTr", task.labels, surface=False)
    save_scores(scores, run.summary)
    run.checkpoint_final.touch()
    append_event(run.events, Finished(time.time(), scores.dice))
    return run


def begin(folders: TaskFolders, configuration: str, fold: int, epochs: int) -> FoldFolder:
    """The files of a run that was stopped after `epochs` of 10 epochs."""
    run = folders.model(pipeline.plan_of(folders).name, configuration).fold(fold)
    for n in range(1, epochs + 1):
        append_event(run.events, epoch(n))
    run.checkpoint_latest.touch()
    return run


def epoch(number: int, epochs: int = 10) -> EpochFinished:
    dice = 0.1 * number
    left = 60.0 * (epochs - number)
    return EpochFinished(
        number, epochs, 1 - dice, 1 - dice, (dice, dice / 2), dice, dice, 0.01, 60.0, left, time.time()
    )


def make_job(root: Path, words: tuple[str, ...], title: str = "Work", events=()) -> jobs.Job:
    """A job on disk that no process does; it counts as running while its last event is none of the last ones."""
    folder = JobFolder(Workspace.at(root).jobs / f"job-{time.time_ns()}")
    request = jobs.JobRequest(words, title, time.time(), Path(sys.executable), root, platform.node())
    write_json(folder.request, to_json(request))
    for event in events:
        append_event(folder.events, event)
    return jobs.Job(folder, request)
