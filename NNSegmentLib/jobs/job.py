"""A job: its folder, what it was asked, how it is doing, and starting, finding, following, stopping and resuming it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from ..errors import InputError, NNSegmentError, RunError, SettingsError, StorageError, some
from ..folders import FoldFolder, JobFolder, new_dated_folder
from ..machine.identity import host_name, is_own
from ..machine.launch import JOB_VARIABLE, command, default_python, environment_for
from ..machine.locks import require_free
from ..machine.processes import ProcessIdentity, end_tree, start_detached, variable_of, words_of
from ..records import cannot_write, from_json, read_json, to_json, write_json
from ..run import Event, Failed, Finished, Stopped, last_event, parse_event

SILENT_S = 60.0
"""A job on another machine whose heartbeat is older than this is lost; one on this machine is said to be silent."""
_STARTING_S = 15.0
_POLL_S = 0.25
_LATEST = 1e11
"""No job was asked for so late, in the year 5138."""
_AGAIN = {"train": "--resume", "predict": "--keep-existing"}


class JobState(StrEnum):
    """Where a job is; LOST is a process that ended without a word: killed, crashed, switched off."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


_ENDS = {Finished: JobState.FINISHED, Failed: JobState.FAILED, Stopped: JobState.STOPPED}


@dataclass(frozen=True)
class JobRequest:
    """What was asked for."""

    arguments: tuple[str, ...]
    """The words after `nnsegment`."""
    title: str
    asked: float
    """Seconds since 1970."""
    python: Path
    cwd: Path
    host: str
    run_folders: tuple[Path, ...] = ()
    """The folds that it trains or validates; nobody else may work in them."""
    launcher: ProcessIdentity | None = None
    """The process that was started; with PythonSlicer that is not the one that works."""

    def __post_init__(self) -> None:
        if not self.arguments or not 0 <= self.asked < _LATEST:
            raise ValueError(f"it should hold words and a time, found {self.arguments} and {self.asked}")

    @property
    def is_here(self) -> bool:
        """Whether it was started on this machine, so that we can look."""
        return self.launcher.is_here if self.launcher else self.host == host_name()


@dataclass(frozen=True)
class Job:
    """A verb that runs, or ran, as a process of its own."""

    folder: JobFolder
    request: JobRequest

    @property
    def id(self) -> str:
        return self.folder.folder.name

    @property
    def command(self) -> tuple[str, ...]:
        """The command line that does it, to show and to copy."""
        return command(self.request.python, self.request.arguments)

    def status(self) -> JobState:
        """Where the job is now."""
        said = self._said_state()
        if said is not None:  # what has ended needs no look at processes, which costs two more of them on macOS
            return said
        if self._is_alive():
            return JobState.RUNNING
        said = self._said_state()  # once more: a process may have written its last event and ended meanwhile
        return said or (JobState.STOPPED if self.folder.stop.exists() else JobState.LOST)

    def is_running(self) -> bool:
        return self.status() is JobState.RUNNING

    def silent_s(self) -> float:
        """Seconds since the last sign of life."""
        try:
            return max(time.time() - self.folder.heartbeat.stat().st_mtime, 0.0)
        except (FileNotFoundError, NotADirectoryError):
            return time.time() - self.request.asked

    def events(self) -> list[Event]:
        """Everything that happened so far."""
        return self.reader().news()

    def reader(self) -> EventReader:
        """Reads the events bit by bit, for those who look again and again."""
        return EventReader(self.folder.events)

    def follow(self, poll_s: float = _POLL_S) -> Iterator[Event]:
        """Events from the first on, waiting for new ones until the job has ended."""
        reader = self.reader()
        running = True
        while running:
            running = self.is_running()
            yield from reader.news()
            if running:
                time.sleep(poll_s)

    def wait(self, timeout_s: float = float("inf"), poll_s: float = _POLL_S) -> JobState:
        """The state when the job has ended, or when the time is over."""
        ends = time.monotonic() + timeout_s
        while (state := self.status()) is JobState.RUNNING and time.monotonic() < ends:
            time.sleep(poll_s)
        return state

    def request_stop(self) -> None:
        """Ask for a clean stop and return at once; raises StorageError, RunError where its folder was deleted."""
        try:
            self.folder.stop.touch()
        except FileNotFoundError as error:
            pids = [process.pid for process in self._processes()]
            raise RunError(
                f"Expected the folder {self.folder.folder}, by which the job is asked to stop, but it was deleted; end "
                f"{f'process {some(pids)}' if pids else 'its process'} yourself."
            ) from error
        except OSError as error:
            raise StorageError(cannot_write(self.folder.stop, error)) from error

    def kill(self) -> None:
        """End the processes of the job at once; raises RunError when they are on another machine, or not the job's."""
        if not self.request.is_here:
            raise RunError(f"The job runs on {self.request.host}; stop it there, a clean stop has been asked for.")
        running = [process for process in self._processes() if process.is_known_to_run()]
        own = [process for process in running if self._is_ours(process)]
        for process in own:
            end_tree(process)
        if running and not own:
            raise RunError(
                f"The process {running[0].pid}, which {self.folder.folder} names, should be the job's but is another "
                "program, so it was left alone; delete that folder if the job came from elsewhere."
            )

    def stop(self, grace_s: float = 60.0) -> JobState:
        """Stop cleanly; what still runs after `grace_s` seconds is killed with all its processes."""
        if not self.is_running():
            return self.status()
        self.request_stop()
        if self.wait(grace_s) is JobState.RUNNING:
            self.kill()
        self._wait_for_processes()
        return self.wait(10.0)

    def failure(self) -> str:
        """Why there is no result, in one sentence."""
        last = last_event(self.folder.events)
        if isinstance(last, Failed):
            return last.text
        state = self.status()
        if state is JobState.LOST:
            said = self.log().strip().splitlines()[-1:] or ["nothing"]
            return (
                f"The job's process ended without a result, perhaps killed for lack of memory; it said last: {said[0]}"
            )
        return f"The job is {state.value}, so there is no result; expected a finished one."

    def log(self) -> str:
        """What the process printed."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self.folder.log.read_text(encoding="utf-8", errors="replace")
        return ""

    def result(self) -> object:
        """What the command gives with --json; raises RunError when the job did not finish."""
        if not isinstance(last_event(self.folder.events), Finished):
            raise RunError(self.failure())
        return read_json(self.folder.result)

    def result_of(self, key: str) -> object:
        """One value of the result; raises RunError when the job did not finish, or tells something else."""
        result = self.result()
        if not isinstance(result, Mapping) or key not in result:
            raise RunError(f"{self.folder.result} should tell the {key}, found {result!r:.60}; run the job again.")
        return result[key]

    def _said_state(self) -> JobState | None:
        """How the job ended, as its last event tells; None while it tells nothing of an end."""
        return _ENDS.get(type(last_event(self.folder.events)))

    def _processes(self) -> list[ProcessIdentity]:
        """The working process and the launcher, as far as they are known."""
        found = [self.request.launcher]
        with contextlib.suppress(InputError):
            found.insert(0, from_json(ProcessIdentity, read_json(self.folder.process)))
        return [process for process in found if process is not None]

    def _is_ours(self, process: ProcessIdentity) -> bool:
        """Whether a process works for this job as far as it tells; a folder from elsewhere may name any process."""
        named = variable_of(process.pid, JOB_VARIABLE)
        if named is not None:
            return named != "" and os.path.realpath(named) == os.path.realpath(self.folder.folder)
        words = words_of(process.pid)
        return words is None or "NNSegmentLib" in words

    def _is_alive(self) -> bool:
        if not self.request.is_here:
            return self.silent_s() < SILENT_S
        processes = self._processes()
        if not processes:
            return time.time() - self.request.asked < _STARTING_S
        return any(process.is_running() for process in processes)

    def _wait_for_processes(self, timeout_s: float = 10.0) -> None:
        """After the last event a process takes a moment to end; its locks are free only then."""
        ends = time.monotonic() + timeout_s
        while self._is_alive() and time.monotonic() < ends:
            time.sleep(0.05)


class EventReader:
    """New lines of an events file since the last look; a line that is still being written waits."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def news(self) -> list[Event]:
        """The events written since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return []
        self._offset += len(whole) + len(end)
        return [event for line in whole.splitlines() if (event := parse_event(line.decode("utf-8", "replace")))]


def start(
    arguments: Sequence[str],
    jobs_folder: Path,
    *,
    python: Path | None = None,
    environment: Mapping[str, str] | None = None,
    title: str = "",
    cwd: Path | None = None,
) -> Job:
    """Start `nnsegment ARGUMENTS` as a process that outlives this one.

    `environment` is that of this process when not given; see `launch.environment_for` for what the child gets.
    Raises SettingsError for words that are no command, RunError when the fold is being trained already or the
    process cannot be started, TaskError and PlanError when there is nothing to train, StorageError.
    """
    arguments = tuple(str(word) for word in arguments)
    run_folders = _run_folders(_parsed(arguments))
    _require_free(run_folders, jobs_folder)
    title = title or " ".join(arguments[: next((n for n, word in enumerate(arguments) if word[:1] == "-"), None)])
    python, cwd = Path(python or default_python()), Path(cwd or Path.cwd())
    request = JobRequest(arguments, title, time.time(), python, cwd, host_name(), run_folders)
    return _launch(Job(JobFolder(new_dated_folder(jobs_folder, f"-{arguments[0]}")), request), environment)


def find_jobs(jobs_folder: Path) -> list[Job]:
    """The jobs of a workspace that run or ran, newest first; folders that hold no readable job are left out."""
    found = []
    for path in sorted(jobs_folder.iterdir(), reverse=True) if jobs_folder.is_dir() else ():
        with contextlib.suppress(NNSegmentError):
            found.append(open_job(path))
    return sorted(found, key=lambda job: job.request.asked, reverse=True)


def open_job(folder: Path) -> Job:
    """The job in a folder; raises InputError when there is none."""
    folder = JobFolder(Path(folder))
    return Job(folder, from_json(JobRequest, read_json(folder.request)))


def resume(job: Job, *, environment: Mapping[str, str] | None = None) -> Job:
    """Ask for the same again as a new job, keeping what was done; raises RunError while it runs, else as `start` does.

    What this user did not ask for on this machine is done by the Python we run in, and runs no function of its own.
    """
    if job.is_running():
        raise RunError(f"The job {job.id} is still running; stop it before resuming it.")
    jobs_folder, asked = job.folder.folder.parent, job.request
    is_ours = asked.is_here and is_own(job.folder.request)
    asked = replace(asked, arguments=with_units(asked.arguments))
    recipe = getattr(_parsed(asked.arguments), "recipe", None)
    if recipe and not is_ours:
        raise RunError(
            f"The job {job.id} would run the function {recipe!r:.60} and was not asked for by you on this machine; if you "
            "trust it, start it again with the command itself."
        )
    python, cwd = asked.python if is_ours else None, asked.cwd if asked.cwd.is_dir() else None
    return start(_resumed(asked), jobs_folder, python=python, environment=environment, title=asked.title, cwd=cwd)


def with_units(words: Sequence[object]) -> tuple[object, ...]:
    """The words of a command with seconds after --time called so: a number of the console, '900' of an earlier job."""
    bare = re.compile(r"\d+(\.\d+)?")
    return tuple(
        f"{word}s" if before == "--time" and bare.fullmatch(str(word)) else word
        for before, word in pairwise(("", *words))
    )


def _resumed(request: JobRequest) -> tuple[str, ...]:
    """The words that go on where the job ended; a fold without a checkpoint starts as it did the first time."""
    words, again = list(request.arguments), _AGAIN.get(request.arguments[0])
    if again is None or again in words or (words[0] == "train" and not _has_checkpoint(request)):
        return request.arguments
    return (*words, again)


def _has_checkpoint(request: JobRequest) -> bool:
    folds = [FoldFolder(folder) for folder in request.run_folders]
    return any(f.checkpoint_latest.is_file() or f.checkpoint_best.is_file() for f in folds)


def _launch(job: Job, environment: Mapping[str, str] | None) -> Job:
    asked = job.request
    write_json(job.folder.request, to_json(asked))
    variables = environment_for(asked.python, *(() if environment is None else (environment,)))
    variables[JOB_VARIABLE] = str(job.folder.folder.absolute())
    try:
        launcher = start_detached(job.command, variables, asked.cwd, job.folder.log)
    except OSError as error:
        raise RunError(f"{asked.python} cannot be started ({error.strerror}); choose another Python.") from error
    job = replace(job, request=replace(asked, launcher=launcher))
    write_json(job.folder.request, to_json(job.request))
    return job


def _parsed(arguments: Sequence[str]):
    """The parsed words; raises SettingsError for what the command line would refuse."""
    from ..arguments import WrongUsage, build_parser

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            args = build_parser().parse_args(list(arguments))
    except WrongUsage as refused:
        raise SettingsError(str(refused)) from refused
    except SystemExit as helped:
        raise SettingsError("Expected a command, found a call for help.") from helped
    if not args.command:
        raise SettingsError("Expected a command such as 'train', found no words.")
    return args


def _run_folders(args) -> tuple[Path, ...]:
    """The fold folders that a command writes; none for commands that do not train."""
    if args.command not in ("train", "validate"):
        return ()
    from ..lookup import folders_of, open_task, plan_of
    from ..training.run_states import fold_count

    folders = folders_of(args.task, args.workspace)
    model = folders.model(plan_of(folders, args.plans, args.preset).name, args.configuration)
    folds = range(fold_count(folders, open_task(folders.raw))) if args.fold == "folds" else (args.fold,)
    return tuple(model.fold(fold).folder for fold in folds)


def _require_free(run_folders: Sequence[Path], jobs_folder: Path) -> None:
    """Raises RunError when a process or another job of the workspace works in one of the folders."""
    for folder in run_folders:
        require_free(folder)
    for job in find_jobs(jobs_folder) if run_folders else ():
        shared = set(job.request.run_folders) & set(run_folders)
        if shared and job.is_running():
            raise RunError(
                f"The job {job.id} works in {sorted(shared)[0]} already; wait for it, or stop it before starting another."
            )
