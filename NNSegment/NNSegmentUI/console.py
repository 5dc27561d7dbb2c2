"""What the module's logic does for the Python console: jobs for the long verbs, nodes in and nodes out."""

from __future__ import annotations

import time
from pathlib import Path

import slicer

from .context import saved_python, saved_workspace

_POLL_S = 0.05


class Console:
    """A workspace, and the verbs on it."""

    def __init__(self) -> None:
        self.set_workspace(saved_workspace())
        self.python: Path | None = None

    def set_workspace(self, folder: Path | str) -> None:
        """Use this folder, which need not exist yet."""
        from NNSegmentLib.folders import Workspace
        from NNSegmentLib.given import path_of

        self.folder = path_of(folder).absolute()
        self.workspace = Workspace.at(self.folder)

    def set_python(self, path: Path | str | None) -> str | None:
        """Use this Python when it lacks nothing, and tell its device; None takes the panel's. Raises SettingsError."""
        from NNSegmentLib.other_python import Look

        if path is None:
            self.python = None
            return None
        look = Look(path)
        while look.is_running():
            slicer.app.processEvents()
            time.sleep(_POLL_S)
        device = look.device()
        self.python = look.python
        return device

    def create_task(self, name: str, pairs, channels, segments):
        """A new task from pairs of nodes; raises TaskError, ImageError, StorageError."""
        from NNSegmentLib.scene_tasks import create_task_from_nodes, find_pairs

        pairs = find_pairs(slicer.mrmlScene) if pairs is None else pairs
        return create_task_from_nodes(self.workspace, name, channels, pairs, segments=segments)

    def add_cases(self, task, pairs):
        """The task with the pairs of nodes added; raises TaskError, ImageError, StorageError."""
        from NNSegmentLib.lookup import open_task
        from NNSegmentLib.scene_tasks import add_case, pairs_of

        task, pairs = open_task(self._reference(task), self.workspace), pairs_of(pairs)
        for pair in pairs:
            task = add_case(task, pair.volumes, pair.segmentation)
        return task

    def start(self, verb: str, task, *words):
        """Start a verb on a task as a job; a number as time is seconds. Raises TaskError, and what `jobs.start` raises."""
        from NNSegmentLib.jobs import with_units

        return self._start([verb, "--workspace", self.folder, self._reference(task), *with_units(words)])

    def wait(self, job, timeout_s: float):
        """The job's result, with events processed meanwhile; raises RunError."""
        from NNSegmentLib.errors import RunError

        end = time.monotonic() + timeout_s
        while job.is_running():
            if time.monotonic() > end:
                raise RunError(f"{job.request.title} still runs after {timeout_s:g} s; wait longer, or stop the job.")
            slicer.app.processEvents()
            time.sleep(_POLL_S)
        return job.result()

    def predict(self, volumes, task, model, configuration, segmentation, device, show_3d: bool):
        """A segmentation node of a volume; raises SettingsError, ModelError, ImageError, RunError, StorageError."""
        from NNSegmentLib.application import CONSOLE, new_application_folder
        from NNSegmentLib.errors import ImageError, NNSegmentError
        from NNSegmentLib.model.card import read_card
        from NNSegmentLib.nodes import require_segmentation, volumes_of

        from .scene_application import show_results, write_volumes

        volumes = volumes_of(volumes)
        if segmentation is not None:
            require_segmentation(segmentation)
        source = self._model_folder(task, model)
        card = read_card(source, configuration)
        folder = new_application_folder(self.folder)
        try:
            write_volumes(folder, [volumes], card, segmentation=segmentation, shown_by=CONSOLE)
        except NNSegmentError:
            folder.discard()
            raise
        which = ["-t", self._reference(task)] if model is None else ["-m", source]
        words = ["predict", "--workspace", self.folder, "-i", folder.images, "-o", folder.labels, *which]
        words += [] if configuration is None else ["-c", configuration]
        words += [] if device is None else ["--device", device]
        job = self._start(words)
        try:
            self.wait(job, float("inf"))
            shown = show_results(folder, show_3d)
        finally:
            if not job.is_running():  # after Ctrl+C it goes on
                folder.put_away()
        if not shown.nodes:
            raise ImageError(
                f"The volume {volumes[0].GetName()} left the scene, or was changed or moved, while it was segmented; "
                f"its label map is in {folder.labels}."
            )
        return shown.nodes[0]

    def _start(self, words):
        from NNSegmentLib import jobs

        python = self.python or saved_python()
        return jobs.start([str(word) for word in words], self.workspace.jobs, python=python)

    def _model_folder(self, task, model) -> Path:
        """Where the model is; raises SettingsError unless either a task or a model is named, TaskError."""
        from NNSegmentLib.errors import SettingsError
        from NNSegmentLib.given import path_of
        from NNSegmentLib.lookup import folders_of

        if (model is None) == (task is None):
            found = "neither" if model is None else "both"
            raise SettingsError(f"Predicting needs a task or a model, found {found}; name one of them.")
        if model is not None:
            return path_of(model)
        return folders_of(self._reference(task), self.workspace).results

    def _reference(self, task) -> str:
        """A task as the command line takes it; raises TaskError for that of another workspace, and for what is none."""
        from NNSegmentLib.errors import TaskError
        from NNSegmentLib.task import Task

        if not isinstance(task, Task):
            if not isinstance(task, (str, int, Path)):
                raise TaskError(f"Expected a task, its number or its name, found {task!r:.60}; give one of these.")
            return str(task)
        if task.folder.parent.resolve() != self.workspace.raw.resolve():
            raise TaskError(
                f"The task {task.name} lies in {task.folder.parent}, but the workspace is {self.folder}; choose the task's "
                "own with set_workspace."
            )
        return task.name
