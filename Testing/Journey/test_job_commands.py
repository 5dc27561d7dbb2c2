"""A real training as a job: its parent dies, another process finds it, follows it, stops it, resumes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from NNSegmentLib import jobs
from NNSegmentLib.cli import main
from NNSegmentLib.errors import RunError
from NNSegmentLib.folders import FoldFolder, Workspace
from NNSegmentLib.jobs import JobState
from NNSegmentLib.run import EpochFinished, Finished, Message, Progressed, Stopped
from NNSegmentLib.sample import make_sample_task

pytestmark = pytest.mark.slow
SETTINGS = {
    "iterations_per_epoch": 2, "validation_iterations": 1, "optimizer": "adamw", "augmentation": "none",
    "mirror_axes": [], "validation_mirroring": False, "loader_workers": 1, "batch_size": 1, "threads": 1,
}  # fmt: skip
START = """
import os, sys
from pathlib import Path
from NNSegmentLib import jobs
jobs.start(sys.argv[2:], Path(sys.argv[1]))
os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A workspace whose task is planned on a coarse grid, by a job."""
    folder = tmp_path_factory.mktemp("jobs")
    source = make_sample_task(folder / "source", n_cases=3, n_test=0)
    assert main(["convert", str(source), "--id", "7", "--name", "S", "--workspace", str(folder)]) == 0
    words = ["plan", "7", "--preset", "small", "-c", "3d_fullres", "--spacing", "5", "5", "5"]
    job = jobs.start([*words, "--workspace", str(folder)], Workspace.at(folder).jobs)
    events = list(job.follow())
    assert job.status() is JobState.FINISHED, job.log()
    assert "Preparing 3d_fullres" in {event.what for event in events if isinstance(event, Progressed)}
    assert any("needs about" in event.text for event in events if isinstance(event, Message))
    assert job.result()["name"] == "nnUNetSmallPlans"
    return folder


def words_to_train(workspace: Path, epochs: int) -> list[str]:
    settings = workspace / f"settings_{epochs}.json"
    settings.write_text(json.dumps(SETTINGS | {"epochs": epochs}))
    return ["train", "7", "3d_fullres", "0", "--settings", str(settings), "--workspace", str(workspace)]


def epochs_until(job: jobs.Job, n: int) -> list[int]:
    """Follow a job until it recorded `n` epochs; their numbers."""
    seen = []
    for event in job.follow():
        if isinstance(event, EpochFinished):
            seen.append(event.epoch)
            if len(seen) == n:
                break
    return seen


def test_a_training_outlives_its_parent_and_is_found_followed_stopped_and_resumed(workspace, capsys):
    place, words = Workspace.at(workspace).jobs, words_to_train(workspace, epochs=500)
    parent = subprocess.run([sys.executable, "-c", START, str(place), *words], check=False)
    assert parent.returncode not in (0, 1)

    job = jobs.find_jobs(place)[0]
    first = epochs_until(job, 2)
    with pytest.raises(RunError, match="stop it"):
        jobs.start(words, place)
    with pytest.raises(RunError, match="still running"):
        jobs.resume(job)
    assert main(["jobs", "stop", "--json", "--workspace", str(workspace)]) == 0
    told = json.loads(capsys.readouterr().out)

    [fold] = [FoldFolder(path) for path in job.request.run_folders]
    stopped = job.events()[-1]
    assert (told["job"], told["state"]) == (job.id, "stopped")
    assert first == [1, 2]
    assert isinstance(stopped, Stopped)
    assert stopped.epoch >= 2
    assert fold.checkpoint_latest.is_file()
    assert sorted(path.name for path in fold.folder.iterdir() if path.name in ("STOP", "running.json")) == []

    again = jobs.resume(job)
    later = epochs_until(again, 1)
    again.kill()
    assert again.request.arguments == (*words, "--resume")
    assert later == [stopped.epoch + 1]
    assert again.wait(10) is JobState.LOST


def test_a_job_killed_in_a_fold_does_not_keep_the_next_one_out(workspace):
    job = jobs.start(words_to_train(workspace, epochs=1), Workspace.at(workspace).jobs)

    events = list(job.follow())

    assert job.status() is JobState.FINISHED, job.log()
    assert [event.epoch for event in events if isinstance(event, EpochFinished)] == [1]
    assert isinstance(events[-1], Finished)
    [result] = job.result()
    assert result["mean_dice"] == events[-1].mean_dice


def test_a_failing_verb_says_its_sentence_through_the_job(workspace):
    job = jobs.start(["check", "99", "--workspace", str(workspace)], Workspace.at(workspace).jobs)

    assert job.wait(60) is JobState.FAILED
    assert job.failure().startswith("There is no task 99")


def test_a_training_in_two_processes_stops_as_one_job(workspace):
    settings = workspace / "two.json"
    settings.write_text(json.dumps(SETTINGS | {"epochs": 400, "batch_size": 3}))
    words = ["train", "7", "3d_fullres", "1", "--settings", str(settings), "--gpus", "2", "--device", "cpu"]
    job = jobs.start([*words, "--workspace", str(workspace)], Workspace.at(workspace).jobs)
    assert epochs_until(job, 1) == [1], job.log()
    family = psutil.Process(job._processes()[0].pid).children(recursive=True)
    assert len(family) >= 2

    assert job.stop(grace_s=60) is JobState.STOPPED
    assert not psutil.wait_procs(family, timeout=10)[1]
    [fold] = [FoldFolder(path) for path in job.request.run_folders]
    assert fold.checkpoint_latest.is_file()
