"""`nnsegment jobs`: what runs in the background, seen from a terminal."""

from __future__ import annotations

import argparse
import time

from ..errors import InputError
from ..folders import Workspace
from ..machine.launch import as_line
from ..run import EpochFinished, Event, Message, Progressed
from ..terminal import Terminal, duration, table
from .job import SILENT_S, Job, JobState, find_jobs, resume


def list_command(args: argparse.Namespace, terminal: Terminal) -> tuple[object, str]:
    """All jobs of the workspace, newest first."""
    jobs = _jobs(args)
    rows = [[job.id, _state(job), duration(time.time() - job.request.asked), job.request.title] for job in jobs]
    text = table(rows, ["job", "state", "started ago", "what"]) if rows else "No job yet."
    return {"jobs": [_described(job) for job in jobs]}, text


def follow_command(args: argparse.Namespace, terminal: Terminal) -> tuple[object, str]:
    """Show what a job does until it ends; Ctrl-C ends the showing, not the job."""
    job = _chosen(args)
    try:
        for event in job.follow():
            _tell(terminal, event)
    except KeyboardInterrupt:
        return _described(job), f"\n{job.id} goes on; stop it with 'nnsegment jobs stop {job.id}'."
    return _ended(job)


def stop_command(args: argparse.Namespace, terminal: Terminal) -> tuple[object, str]:
    """Stop a job: cleanly, and by force after the time of grace."""
    job = _chosen(args)
    job.stop(args.grace)
    return _ended(job)


def resume_command(args: argparse.Namespace, terminal: Terminal) -> tuple[object, str]:
    """Go on with what a job left unfinished, as a new job."""
    job = resume(_chosen(args))
    return _described(job), f"{job.id} goes on with it; see it with 'nnsegment jobs follow'.\n{as_line(job.command)}"


def _jobs(args: argparse.Namespace) -> list[Job]:
    return find_jobs(Workspace.find(args.workspace).jobs)


def _chosen(args: argparse.Namespace) -> Job:
    """The job whose name begins as asked for, else the newest one that runs, else the newest."""
    jobs = _jobs(args)
    if args.job:
        found = [job for job in jobs if job.id == args.job] or [job for job in jobs if job.id.startswith(args.job)]
        if len(found) == 1:
            return found[0]
        raise InputError(f"Expected one job named {args.job}, found {len(found)}; 'nnsegment jobs' lists them.")
    if not jobs:
        raise InputError("Expected a job in this workspace, found none; give the --workspace that it was started with.")
    return next((job for job in jobs if job.is_running()), jobs[0])


def _state(job: Job) -> str:
    """The state in words; a job that hangs still runs, and is told by its silence."""
    state = job.status()
    silent_s = job.silent_s() if state is JobState.RUNNING else 0.0
    return state.value if silent_s < SILENT_S else f"{state.value}, silent for {duration(silent_s)}"


def _tell(terminal: Terminal, event: Event) -> None:
    if isinstance(event, Progressed):
        terminal(event.done, event.total, event.what)
    elif isinstance(event, Message):
        terminal.say(event.text)
    elif isinstance(event, EpochFinished):
        dice = "" if event.mean_dice is None else f", Dice {event.mean_dice:.3f}"
        terminal.say(f"epoch {event.epoch} of {event.epochs}: loss {event.train_loss:.4f}{dice}")


def _described(job: Job) -> dict[str, object]:
    return {
        "job": job.id, "state": job.status().value, "title": job.request.title, "asked": job.request.asked,
        "folder": job.folder.folder, "command": job.command,
    }  # fmt: skip


def _ended(job: Job) -> tuple[object, str]:
    state = job.status()
    if state in (JobState.FAILED, JobState.LOST):
        return _described(job), f"{job.id} {'failed' if state is JobState.FAILED else 'was lost'}: {job.failure()}"
    return _described(job), f"{job.id} is {state.value}."
