"""What the panel's sections share: the open workspace and task, the jobs that run, and how they hear of changes.

    context = PanelContext()
    context.task_changed.connect(section.refresh)
    context.open_workspace("~/NNSegment")
    context.open_task("Dataset501_Liver")
    job = context.start_job(["plan", context.task.name], "Plan")

Nothing here knows a widget. One timer of the panel calls `poll()`; sections hear of events through the signals.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import slicer
from slicer.i18n import tr as _

INFO, SUCCESS, WARNING, ERROR = "info", "success", "warning", "error"
"""Severities of a message."""


SETTLED_S = 5.0
"""A job's folder appears a moment before the job in it can be read."""
WORKSPACE_KEY, TASK_KEY, PYTHON_KEY = "NNSegment/Workspace", "NNSegment/Task", "NNSegment/Python"
"""Where the application's settings keep what was open last, and which Python was chosen."""


def saved_workspace() -> str:
    """The workspace of last time, else ~/NNSegment."""
    from NNSegmentLib.folders import DEFAULT_WORKSPACE

    return slicer.app.userSettings().value(WORKSPACE_KEY) or str(DEFAULT_WORKSPACE.expanduser())


def saved_python() -> Path | None:
    """The Python that was chosen on the panel; None means Slicer's own."""
    saved = slicer.app.userSettings().value(PYTHON_KEY)
    return Path(saved) if saved else None


class Signal:
    """A list of functions that are called, in the order they were connected."""

    def __init__(self) -> None:
        self._receivers: list[Callable[..., object]] = []

    def connect(self, receiver: Callable[..., object]) -> None:
        self._receivers.append(receiver)

    def disconnect(self, receiver: Callable[..., object]) -> None:
        """Forget a receiver; nothing happens when it is not connected."""
        self._receivers = [known for known in self._receivers if known != receiver]

    def emit(self, *values: object) -> None:
        for receiver in tuple(self._receivers):
            receiver(*values)


class PanelContext:
    """The open workspace and task, and the jobs of the workspace that run.

    Signals: `workspace_changed()`; `task_changed()`, another task or its cases, labels or findings changed;
    `plan_changed()`; `results_changed()`, a run, a selection or a report is new; `jobs_changed()`, a job began or
    ended; `job_events(job, events)`; `job_ended(job, state)`; `message(text, severity)` for the status line.
    """

    def __init__(self, python: Path | None = None) -> None:
        self.workspace_path: Path | None = None
        self.workspace = None
        """`Workspace`, or None while none is open."""
        self.task = None
        """`Task`, or None while none is open."""
        self.python = python
        """The Python that children run with, when the user chose one."""
        self.workspace_changed, self.task_changed, self.plan_changed = Signal(), Signal(), Signal()
        self.results_changed, self.jobs_changed = Signal(), Signal()
        self.job_events, self.job_ended, self.message = Signal(), Signal(), Signal()
        self._followed: dict[Path, tuple] = {}
        """The folder of a job → the job and what reads its events."""
        self._jobs_seen: float | None = None

    @property
    def python_executable(self) -> Path:
        """The Python that runs the jobs: the chosen one, else PythonSlicer in Slicer, else the one we run in."""
        from NNSegmentLib.machine.launch import default_python

        return self.python or default_python(sys.executable)

    @property
    def folders(self):
        """`TaskFolders` of the open task, or None."""
        from NNSegmentLib.folders import TaskFolders

        return TaskFolders(self.workspace, self.task.name, self.task.folder) if self.task else None

    def say(self, text: str, severity: str = INFO) -> None:
        """Show a sentence in the panel's status line."""
        self.message.emit(text, severity)

    def open_workspace(self, path: Path | str) -> bool:
        """Use this folder, which need not exist yet, and follow what runs in it.

        What was open stays so, and False is returned, when the folder cannot be read: the status line says why.
        """
        from NNSegmentLib.folders import Workspace
        from NNSegmentLib.given import expanded

        place = expanded(path).absolute()
        if problem := _unreadable(place):
            self.say(problem, ERROR)
            return False
        self.workspace_path = place
        self.workspace, self.task = Workspace.at(self.workspace_path), None
        self._followed = {k: v for k, v in self._followed.items() if self._stays_followed(v[0])}
        self._follow_running()
        for signal in (self.workspace_changed, self.task_changed, self.plan_changed, self.jobs_changed):
            signal.emit()
        return True

    def task_names(self) -> tuple[str, ...]:
        """The tasks of the workspace; none, and a sentence in the status line, when it cannot be read."""
        if self.workspace is None:
            return ()
        try:
            return self.workspace.task_names()
        except OSError as error:
            self.say(cannot_read(self.workspace_path, error), ERROR)
            return ()

    def open_task(self, reference: str | int | Path | None) -> None:
        """Open a task of the workspace by number, name or folder; None closes it. Errors go to the status line."""
        self.task = self._loaded(reference)
        self.task_changed.emit()
        self.plan_changed.emit()
        self.results_changed.emit()

    def reload_task(self) -> None:
        """Read the open task again after its files changed."""
        if self.task is not None:
            self.task = self._loaded(self.task.folder)
            self.task_changed.emit()

    def plan(self):
        """The open task's newest `Plan`, or None."""
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.lookup import plan_of

        if self.task is None:
            return None
        try:
            return plan_of(self.folders)
        except NNSegmentError:
            return None
        except OSError as error:
            self.say(cannot_read(self.workspace_path, error), ERROR)
            return None

    def unlearned_cases(self):
        """The `Unlearned` cases of the open task: those that came or were corrected since its models were trained."""
        from NNSegmentLib.errors import NNSegmentError

        from .unlearned import Unlearned, unlearned_cases

        if not self.is_begun():
            return Unlearned()
        try:
            return unlearned_cases(self.folders, self.task)
        except NNSegmentError as error:
            self.say(str(error), ERROR)
        except OSError as error:
            self.say(cannot_read(self.workspace_path, error), ERROR)
        return Unlearned()

    def is_begun(self) -> bool:
        """Whether a fold of the open task was trained or is being trained."""
        from NNSegmentLib.lookup import is_begun

        try:
            return self.task is not None and is_begun(self.folders)
        except OSError as error:
            self.say(cannot_read(self.workspace_path, error), ERROR)
            return False

    def start_job(self, arguments: Sequence[str], title: str):
        """Start `nnsegment ARGUMENTS` in the workspace; returns the `Job`, or None when it was refused.

        A refusal is shown in the status line.
        """
        from NNSegmentLib import jobs
        from NNSegmentLib.errors import NNSegmentError

        try:
            words = self.words(arguments)
            job = jobs.start(words, self.workspace.jobs, python=self.python_executable, title=title)
        except NNSegmentError as error:
            self.say(str(error), ERROR)
            return None
        self._follow(job)
        self.say(_("Started: {title}").format(title=title), INFO)
        self.jobs_changed.emit()
        return job

    def command_line(self, arguments: Sequence[str]) -> str:
        """The command that `start_job` would run, to show and to copy."""
        from NNSegmentLib.machine.launch import as_line, command

        return as_line(command(self.python_executable, self.words(arguments)))

    def words(self, arguments: Sequence[str]) -> tuple[str, ...]:
        """The arguments with the workspace added."""
        words = tuple(str(word) for word in arguments)
        if "--workspace" in words or self.workspace_path is None:
            return words
        return (words[0], "--workspace", str(self.workspace_path), *words[1:])

    def running_jobs(self) -> list:
        """The jobs of the workspace that run, newest first, whoever started them."""
        jobs = [job for job, _reader in self._followed.values() if self.is_here(job) and job.is_running()]
        return sorted(jobs, key=lambda job: job.request.asked, reverse=True)

    def is_here(self, job) -> bool:
        """Whether a job is one of the open workspace."""
        return self.workspace is not None and job.folder.folder.parent == self.workspace.jobs

    def unfollowed_jobs(self, verb: str) -> list:
        """The jobs of this command in the workspace whose end nobody has told or will tell, oldest first."""
        return [job for job in reversed(self._unfollowed()) if job.request.arguments[0] == verb]

    def running_verb(self, *verbs: str):
        """The newest running job of one of these commands, or None."""
        return next((job for job in self.running_jobs() if job.request.arguments[0] in verbs), None)

    def poll(self) -> None:
        """Tell what happened since the last call; jobs that another program started are found, too."""
        self._follow_running(announce=True)
        for job, reader in list(self._followed.values()):
            running = job.is_running()  # before the events, so that the last ones are not missed
            events = reader.news()
            if events:
                self.job_events.emit(job, events)
            if not running:
                self._followed.pop(job.folder.folder, None)
                self._tell_end(job)

    def _loaded(self, reference):
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.task import load_task

        if reference is None:
            return None
        try:
            return load_task(self.workspace.task(reference).raw)
        except NNSegmentError as error:
            self.say(str(error), ERROR)
            return None

    def _tell_end(self, job) -> None:
        from NNSegmentLib.jobs import JobState

        state = job.status()
        if state in (JobState.FAILED, JobState.LOST):
            self.say(job.failure(), ERROR)
        elif state is JobState.STOPPED:
            self.say(_("Stopped: {title}").format(title=job.request.title), INFO)
        else:
            self.say(_("Done: {title}").format(title=job.request.title), SUCCESS)
        try:
            self.job_ended.emit(job, state)
        finally:
            self.jobs_changed.emit()  # else the buttons that waited for the job would wait for ever

    def _follow(self, job) -> None:
        self._followed[job.folder.folder] = (job, job.reader())

    def _follow_running(self, announce: bool = False) -> None:
        """Only job folders that were not looked at yet are read: a workspace may hold hundreds."""
        if self.workspace is None:
            return
        stamp = self._jobs_stamp()
        is_settled = stamp is None or time.time() - stamp > SETTLED_S
        if announce and is_settled and self._jobs_seen == stamp:
            return
        self._jobs_seen = stamp
        new = [job for job in self._unfollowed() if job.is_running()]
        for job in new:
            self._follow(job)
        if new and announce:
            self.jobs_changed.emit()

    def _stays_followed(self, job) -> bool:
        """The answer of a prediction belongs into the scene, whatever workspace it is computed in."""
        return job.request.arguments[0] == "predict" and (not self.is_here(job) or job.is_running())

    def _unfollowed(self) -> list:
        """Newest first; none where the folder of the jobs cannot be read."""
        from NNSegmentLib.jobs import find_jobs

        try:
            found = find_jobs(self.workspace.jobs) if self.workspace is not None else []
        except OSError:
            return []
        return [job for job in found if job.folder.folder not in self._followed]

    def _jobs_stamp(self) -> float | None:
        """Changes when a job folder is added."""
        try:
            return self.workspace.jobs.stat().st_mtime
        except OSError:  # it is not there yet, or cannot be read any longer
            return None


def _unreadable(folder: Path) -> str:
    """Why a folder cannot be a workspace, as a sentence; empty when it can, also when it is not there yet."""
    try:
        any(folder.iterdir())
    except FileNotFoundError:
        return ""
    except OSError as error:
        return cannot_read(folder, error)
    return ""


def cannot_read(folder: Path, error: OSError) -> str:
    """The sentence about a workspace that is there and does not open."""
    text = _("The workspace {folder} cannot be read ({reason}); choose another folder.")
    return text.format(folder=folder, reason=error.strerror)
