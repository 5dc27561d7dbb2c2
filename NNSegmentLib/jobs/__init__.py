"""A verb as a process of its own that outlives whoever started it, with files as the only connection.

    job = jobs.start(["train", "7", "3d_fullres", "0", "--workspace", folder], Workspace.at(folder).jobs)
    for event in job.follow():
        ...
    job.result()

A job's folder holds job.json (what was asked), process.json (who does it), events.jsonl (what happened), log.txt (for
people), heartbeat, result.json, and STOP when somebody asks for an end. Nothing here needs the process that started
the job: another one finds it with `find_jobs`, follows and stops it.
"""

from .job import SILENT_S, EventReader, Job, JobRequest, JobState, find_jobs, open_job, resume, start, with_units

__all__ = [
    "SILENT_S", "EventReader", "Job", "JobRequest", "JobState", "find_jobs", "open_job", "resume", "start", "with_units",
]  # fmt: skip
