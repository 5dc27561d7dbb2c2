"""Jobs through a stand-in for PythonSlicer: a launcher that waits for the process that does the work."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from NNSegmentLib import jobs
from NNSegmentLib.cli import main
from NNSegmentLib.errors import RunError, SettingsError, TaskError
from NNSegmentLib.folders import JobFolder, Workspace
from NNSegmentLib.jobs import JobState
from NNSegmentLib.jobs.progress import JobProgress
from NNSegmentLib.machine import identity
from NNSegmentLib.machine.launch import as_line
from NNSegmentLib.machine.processes import ProcessIdentity
from NNSegmentLib.records import to_json, write_json
from NNSegmentLib.run import Failed, Finished, Message, Progressed, Stopped, append_event, parse_event, read_events

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in launcher is a shell script")
WORKER = """
import os, subprocess, sys, time
from pathlib import Path
from NNSegmentLib.jobs.reporting import run_as_job
from NNSegmentLib.terminal import Outcome

def work(reporter):
    how = sys.argv[-1]
    print("working as", how, flush=True)
    if how == "failing":
        return Outcome(2, sentence="Expected a picture, found a poem.")
    if how == "raising":
        raise ZeroDivisionError("nobody expected this")
    if how == "crashing":
        os.abort()
    if how == "quick":
        reporter.say("a word")
        reporter(3, 3, "steps")
        return Outcome(0, {"answer": 42})
    if how == "stubborn":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
        Path("grandchild").write_text(str(child.pid))
    for step in range(10**6):
        reporter(step, 10**6, "steps")
        try:
            time.sleep(0.02)
        except KeyboardInterrupt:
            if how == "steady":
                return Outcome(130)

sys.exit(run_as_job(Path(os.environ["NNSEGMENT_JOB"]), work))
"""


@pytest.fixture
def launcher(tmp_path) -> Path:
    (tmp_path / "worker.py").write_text(WORKER)
    path = tmp_path / "PythonSlicer"
    path.write_text(f'#!/bin/sh\n"{sys.executable}" "{tmp_path}/worker.py" "$@"\nexit $?\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    return Workspace.at(tmp_path).jobs


@pytest.fixture
def start(launcher, folder, tmp_path):
    """Starts a job that behaves as the given word says, and ends it with the test."""
    started = []

    def start(how: str) -> jobs.Job:
        started.append(jobs.start(["check", how], folder, python=launcher, cwd=tmp_path))
        return started[-1]

    yield start
    for job in started:
        job.kill()


def wait_for(condition, timeout_s: float = 20.0):
    ends = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.02)
    return value


def test_a_job_tells_what_it_does_and_gives_its_result(start):
    job = start("quick")

    events = list(job.follow())

    assert [type(event) for event in events] == [Message, Progressed, Finished]
    assert events[:2] == [Message("a word", events[0].time), Progressed(3, 3, "steps", events[1].time)]
    assert job.status() is JobState.FINISHED
    assert job.result() == {"answer": 42}
    assert "working as quick" in job.log()
    assert job.events() == events


def test_a_value_that_the_result_does_not_tell_is_asked_for_in_vain(start):
    job = start("quick")
    job.wait(20)

    assert job.result_of("answer") == 42
    with pytest.raises(RunError, match=r"result\.json should tell the task, found \{'answer': 42\}; run the job again"):
        job.result_of("task")
    job.folder.result.write_text("[]")
    with pytest.raises(RunError, match="should tell the answer, found \\[\\]"):
        job.result_of("answer")


def test_a_failing_job_says_its_sentence(start):
    job = start("failing")

    assert job.wait(20) is JobState.FAILED
    assert job.failure() == "Expected a picture, found a poem."
    with pytest.raises(RunError, match="found a poem"):
        job.result()


def test_an_error_that_nobody_foresaw_is_a_failure_with_its_trace_in_the_log(start):
    job = start("raising")

    assert job.wait(20) is JobState.FAILED
    assert "nobody expected this" in job.failure()
    assert "Traceback" in job.log()


def test_a_crash_is_a_lost_job(start):
    job = start("crashing")

    assert job.wait(20) is JobState.LOST
    assert "ended without a result" in job.failure()


def test_a_stop_is_clean_when_the_work_listens(start):
    job = start("steady")
    wait_for(job.events)

    assert job.status() is JobState.RUNNING
    assert job.stop(grace_s=15) is JobState.STOPPED

    assert isinstance(job.events()[-1], Stopped)
    assert not job.request.launcher.is_running()


def test_a_job_whose_folder_is_gone_says_which_process_to_end(start):
    job = start("steady")
    wait_for(job.events)
    away = job.folder.folder.rename(job.folder.folder.with_name("elsewhere"))

    with pytest.raises(RunError, match=rf"was deleted; end process {job.request.launcher.pid}"):
        job.request_stop()

    away.rename(job.folder.folder)
    job.kill()


def test_work_that_does_not_listen_is_killed_with_all_its_processes(start, tmp_path):
    pytest.importorskip("psutil")
    job = start("stubborn")
    number = int(wait_for(lambda: (tmp_path / "grandchild").exists() and (tmp_path / "grandchild").read_text()))
    wait_for(job.folder.process.exists)
    worker = ProcessIdentity(**json.loads(job.folder.process.read_text()))
    family = [ProcessIdentity.of(number), job.request.launcher, worker]
    assert all(process.is_running() for process in family)

    assert job.stop(grace_s=0.5) is JobState.STOPPED

    wait_for(lambda: not any(process.is_running() for process in family))


def test_the_heartbeat_goes_on_while_the_work_does(start):
    job = start("steady")
    wait_for(job.folder.heartbeat.exists)
    first = job.folder.heartbeat.stat().st_mtime_ns

    wait_for(lambda: job.folder.heartbeat.stat().st_mtime_ns > first)

    assert job.silent_s() < 5


def test_a_job_outlives_its_parent_and_is_found_followed_and_stopped(launcher, folder, tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from NNSegmentLib import jobs;"
        "jobs.start(['check', 'steady'], Path(sys.argv[1]), python=Path(sys.argv[2]), title='my check');"
        "os.kill(os.getpid(), 9)"
    )
    parent = subprocess.run([sys.executable, "-c", code, str(folder), str(launcher)], cwd=tmp_path, check=False)
    assert parent.returncode == -signal.SIGKILL

    [job] = jobs.find_jobs(folder)
    steps = [event.done for event, _ in zip(job.follow(), range(2), strict=False)]

    assert job.request.title == "my check"
    assert steps[1] > steps[0]
    assert job.stop(grace_s=15) is JobState.STOPPED


def test_another_process_with_the_same_number_is_not_the_job(start):
    job = start("quick")
    job.wait(20)
    mine = ProcessIdentity.own()
    later = replace(mine, started=mine.started + "0")
    job.folder.events.unlink()
    write_json(job.folder.process, to_json(later))
    write_json(job.folder.request, to_json(replace(job.request, launcher=later)))

    found = jobs.open_job(job.folder.folder)

    assert found.status() is JobState.LOST
    found.kill()  # would end this test run if it took us for the job
    write_json(job.folder.process, to_json(mine))
    running = found.status()
    job.folder.process.unlink()
    assert running is JobState.RUNNING


def test_a_job_of_another_machine_is_known_by_its_heartbeat(start):
    job = start("quick")
    job.wait(20)
    job.folder.events.unlink()
    elsewhere = jobs.Job(job.folder, replace(job.request, host="elsewhere", launcher=None))

    assert elsewhere.status() is JobState.RUNNING
    os.utime(job.folder.heartbeat, (time.time() - 600,) * 2)
    assert elsewhere.status() is JobState.LOST
    with pytest.raises(RunError, match="elsewhere"):
        elsewhere.kill()


def test_jobs_are_listed_newest_first_and_rubbish_is_left_out(start, folder):
    first, second = start("quick"), start("quick")
    (folder / "zzz").mkdir()
    (folder / "zzy").mkdir()
    (folder / "zzy" / "job.json").write_text("{")

    assert [job.id for job in jobs.find_jobs(folder)] == [second.id, first.id]
    assert jobs.find_jobs(folder / "nowhere") == []


def test_resuming_asks_for_the_same_again_as_a_new_job(start, folder):
    job = start("steady")
    with pytest.raises(RunError, match="still running"):
        jobs.resume(job)
    job.stop(grace_s=15)

    again = jobs.resume(job)

    wait_for(again.events)
    assert again.request.arguments == job.request.arguments
    assert again.id != job.id
    assert again.stop(grace_s=15) is JobState.STOPPED


@pytest.mark.parametrize(
    ("asked", "checkpoint", "expected"),
    [
        (
            ("train", "1", "2d", "0", "--pretrained", "m.pth"),
            True,
            ("train", "1", "2d", "0", "--pretrained", "m.pth", "--resume"),
        ),
        (("train", "1", "2d", "0", "--pretrained", "m.pth"), False, ("train", "1", "2d", "0", "--pretrained", "m.pth")),
        (("train", "1", "2d", "0", "--resume"), True, ("train", "1", "2d", "0", "--resume")),
        (("predict", "-i", "a", "-o", "b", "-t", "1"), False, ("predict", "-i", "a", "-o", "b", "-t", "1",
                                                               "--keep-existing")),
        (("plan", "1"), False, ("plan", "1")),
    ],
)  # fmt: skip
def test_resuming_keeps_what_was_done(asked, checkpoint, expected, tmp_path):
    if checkpoint:
        (tmp_path / "checkpoint_latest.pth").touch()
    request = jobs.JobRequest(asked, "", 0.0, Path(sys.executable), tmp_path, "here", (tmp_path,))

    assert jobs.job._resumed(request) == expected


def test_a_job_asked_for_in_bare_seconds_is_resumed_with_their_unit(tmp_path, monkeypatch):
    words = ("train", "1", "2d", "0", "--time", "900")
    job = jobs.Job(JobFolder(tmp_path / "job"), jobs.JobRequest(words, "", 0.0, Path(sys.executable), tmp_path, "here"))
    monkeypatch.setattr(jobs.job, "start", lambda arguments, *_, **__: arguments)

    assert jobs.resume(job) == ("train", "1", "2d", "0", "--time", "900s")


@pytest.mark.parametrize("words", [["fly"], [], ["check"], ["train", "1", "2d", "0", "--epochs", "none"]])
def test_words_that_are_no_command_are_refused_before_anything_starts(words, folder, capsys):
    with pytest.raises(SettingsError):
        jobs.start(words, folder)

    assert not folder.exists()
    assert capsys.readouterr().err == ""


def test_a_python_that_is_not_there_is_a_sentence(folder, tmp_path):
    with pytest.raises(RunError, match="cannot be started"):
        jobs.start(["check", "quick"], folder, python=tmp_path / "nopython")


def test_a_half_written_event_waits_for_its_end(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = jobs.EventReader(path)
    assert reader.news() == []
    append_event(path, Message("one", 1.0))
    with path.open("a") as file:
        file.write('{"event": "Failed", "te')

    first = reader.news()
    with path.open("a") as file:
        file.write('xt": "two", "time": 2.0}\n')

    assert first == [Message("one", 1.0)]
    assert reader.news() == [Failed("two", 2.0)]
    assert reader.news() == []


@pytest.mark.parametrize(
    "values",
    [
        {"done": 1.0, "total": 10**30}, {"done": float("nan"), "total": 3}, {"done": 1e308, "total": 3},
        {"done": 1.0, "total": 3, "time": float("inf")}, {"time": None}, {"done": 1.0, "total": 10**400},
    ],
)  # fmt: skip
def test_an_event_with_numbers_that_nothing_can_show_is_left_out(values):
    usual = {"event": "Progressed", "what": "epoch", "time": 1.0, "done": 1.0, "total": 3}

    assert parse_event(json.dumps(usual | values)) is None
    assert JobProgress().with_events([parse_event(json.dumps(usual))]).text == "Epoch 1"


def test_a_job_that_gives_no_sign_of_life_is_listed_as_silent(start, tmp_path, capsys, monkeypatch):
    running, done = start("steady"), start("quick")
    done.wait(20)
    wait_for(running.events)
    monkeypatch.setattr(jobs.Job, "silent_s", lambda job: 300.0)

    assert main(["jobs", "--workspace", str(tmp_path)]) == 0

    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "running, silent for 5 min" in lines[running.id]
    assert "silent" not in lines[done.id]


def test_the_terminal_lists_follows_and_stops_jobs(start, tmp_path, capsys):
    done, running = start("quick"), start("steady")
    done.wait(20)
    wait_for(running.events)
    at = ["--workspace", str(tmp_path)]

    assert main(["jobs", *at]) == 0
    listed = capsys.readouterr().out
    assert main(["jobs", "stop", running.id, "--json", *at]) == 0
    stopped = json.loads(capsys.readouterr().out)
    assert main(["jobs", "follow", done.id, *at]) == 0
    followed = capsys.readouterr()

    assert [line.split()[:2] for line in listed.splitlines()[2:]] == [[running.id, "running"], [done.id, "finished"]]
    assert (stopped["job"], stopped["state"]) == (running.id, "stopped")
    assert "a word" in followed.err
    assert "finished" in followed.out


def test_the_terminal_says_which_job_it_does_not_know(tmp_path, capsys):
    assert main(["jobs", "stop", "none", "--workspace", str(tmp_path)]) == 2
    assert main(["jobs", "follow", "--workspace", str(tmp_path)]) == 2
    assert "'nnsegment jobs' lists them" in capsys.readouterr().err


def test_importing_jobs_loads_nothing_heavy():
    code = (
        "import sys; import NNSegmentLib.jobs;"
        "sys.exit(bool({'numpy', 'torch', 'scipy', 'SimpleITK', 'psutil', 'argparse'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_event_after_half_a_line_of_a_killed_process_is_not_lost(tmp_path):
    path = tmp_path / "events.jsonl"
    append_event(path, Message("one", 1.0))
    with path.open("ab") as file:
        file.write(b'{"event": "Failed", "te\xff')

    append_event(path, Message("two", 2.0))

    assert list(read_events(path)) == [Message("one", 1.0), Message("two", 2.0)]


@pytest.mark.parametrize("last", [Finished(1.0), Failed("No memory.", 1.0), Stopped(3, 1.0)])
def test_no_process_is_looked_at_for_a_job_that_told_its_end(start, monkeypatch, last):
    """A look costs two processes more on macOS, and a workspace may hold hundreds of jobs."""
    job, looked = start("quick"), []
    job.wait(20)
    append_event(job.folder.events, last)
    monkeypatch.setattr(ProcessIdentity, "is_running", lambda identity: looked.append(identity))

    state = job.status()

    assert state.value == type(last).__name__.lower()
    assert not job.is_running()
    assert not looked


def test_a_job_that_ends_while_its_process_is_looked_for_is_not_lost(start, monkeypatch):
    job = start("steady")
    wait_for(job.events)

    def end_meanwhile(identity):
        append_event(job.folder.events, Finished(1.0))
        return False

    monkeypatch.setattr(ProcessIdentity, "is_running", end_meanwhile)

    assert job.status() is JobState.FINISHED


@pytest.fixture
def asked_elsewhere(start, tmp_path, launcher, monkeypatch):
    """A job as it comes with a workspace from somebody else: its program would tell that it ran."""
    job = start("quick")
    job.wait(20)
    (tmp_path / "theirs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "theirs").chmod(0o755)
    monkeypatch.setattr(jobs.job, "default_python", lambda: launcher)

    def change(**request) -> jobs.Job:
        request = {"python": tmp_path / "theirs", "host": "elsewhere", "launcher": None} | request
        write_json(job.folder.request, to_json(replace(job.request, **request)))
        return jobs.open_job(job.folder.folder)

    return change


def test_a_job_of_another_machine_is_resumed_with_our_own_python(asked_elsewhere, launcher, tmp_path):
    again = jobs.resume(asked_elsewhere())

    assert again.wait(20) is JobState.FINISHED
    assert again.request.python == launcher
    assert not (tmp_path / "ran").exists()


def test_a_job_of_another_user_is_resumed_with_our_own_python(asked_elsewhere, launcher, monkeypatch):
    job, used = asked_elsewhere(host=platform.node()), []
    monkeypatch.setattr(jobs.job, "start", lambda *_, python, **__: used.append(python))

    jobs.resume(job)
    monkeypatch.setattr(identity.os, "getuid", lambda: os.stat(job.folder.request).st_uid + 1)
    jobs.resume(job)

    assert used == [job.request.python, None]


def test_a_job_of_others_runs_no_function_of_its_own_and_no_unknown_words(asked_elsewhere):
    training = ("train", "1", "2d", "0", "--recipe", "evil:run")
    with pytest.raises(RunError, match="would run the function 'evil:run' and was not asked for by you"):
        jobs.resume(asked_elsewhere(arguments=training))
    with pytest.raises(SettingsError, match="invalid choice"):
        jobs.resume(asked_elsewhere(arguments=("-c", "print()")))


@pytest.mark.parametrize(
    "wrong", [{"arguments": []}, {"asked": float("nan")}, {"asked": float("inf")}, {"asked": -1.0}]
)
def test_a_job_without_words_or_a_time_is_none(start, folder, tmp_path, wrong):
    job = start("quick")
    job.wait(20)
    job.folder.request.write_text(json.dumps(json.loads(job.folder.request.read_text()) | wrong))

    assert jobs.find_jobs(folder) == []
    assert main(["jobs", "--workspace", str(tmp_path)]) == 0
    with pytest.raises(TaskError, match="should hold words and a time"):
        jobs.open_job(job.folder.folder)


def test_resuming_in_the_terminal_shows_the_command(start, tmp_path, capsys):
    job = start("quick")
    job.wait(20)

    assert main(["jobs", "resume", job.id, "--workspace", str(tmp_path)]) == 0

    assert capsys.readouterr().out.splitlines()[-1] == as_line(job.command)


@pytest.mark.parametrize("told_by", ["its variables", "its words"])
def test_a_program_that_is_not_the_jobs_is_not_killed_in_its_name(start, told_by, monkeypatch):
    pytest.importorskip("psutil")
    job = start("quick")
    job.wait(20)
    job.folder.events.unlink()
    if told_by == "its words":
        monkeypatch.setattr(jobs.job, "variable_of", lambda *_: None)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as theirs:
        named = ProcessIdentity.of(theirs.pid)
        write_json(job.folder.process, to_json(named))
        write_json(job.folder.request, to_json(replace(job.request, launcher=named)))

        with pytest.raises(RunError, match=f"The process {theirs.pid}, .* was left alone"):
            jobs.open_job(job.folder.folder).stop(grace_s=0.1)

        assert theirs.poll() is None
        theirs.kill()


def test_a_job_is_known_by_its_words_where_variables_are_not_told(start, monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setattr(jobs.job, "variable_of", lambda *_: None)
    job = start("stubborn")
    wait_for(job.events)

    job.kill()

    wait_for(lambda: not job.request.launcher.is_running())
