"""Process identities on the three systems, locks, reporters' parts, and the environments children get."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from NNSegmentLib.errors import RunError, StorageError
from NNSegmentLib.machine import locks, processes
from NNSegmentLib.machine.launch import LIBRARY_PARENT, as_line, default_python, environment_for, terminal_setting
from NNSegmentLib.machine.locks import LOCK, holder, only_one_in, require_free
from NNSegmentLib.machine.processes import ProcessIdentity
from NNSegmentLib.machine.stopping import interrupt_main_thread, stopping_cleanly
from NNSegmentLib.records import to_json
from NNSegmentLib.run import EpochFinished, Finished, Message, Progressed, append_event
from NNSegmentLib.watched_run import WatchedRun

if sys.platform != "win32":
    import fcntl

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", SLEEP])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_known_while_it_runs_and_not_as_a_zombie(sleeper):
    identity = ProcessIdentity.of(sleeper.pid)

    assert identity == ProcessIdentity.of(sleeper.pid)
    assert identity.is_running()
    assert not replace(identity, started="earlier").is_running()
    assert not replace(identity, host="elsewhere", computer="").is_running()
    sleeper.kill()
    deadline = time.monotonic() + 10
    while identity.is_running() and time.monotonic() < deadline:
        time.sleep(0.01)  # killed, and not waited for: a zombie
    assert not identity.is_running()
    assert sleeper.returncode is None


@pytest.mark.skipif(sys.platform == "win32", reason="there is no ps")
def test_ps_tells_the_start_where_there_is_no_proc(sleeper):
    told = processes._started_ps(sleeper.pid)

    assert told == processes._started_ps(sleeper.pid)
    assert time.strftime("%Y", time.gmtime()) in told
    sleeper.kill()
    time.sleep(0.2)
    assert processes._started_ps(sleeper.pid) is None
    assert processes._started_ps(2**22 + 1) is None


def test_linux_identity_depends_on_the_boot_and_ignores_the_name(tmp_path):
    stat = "42 (a) b (c) S 1 " + " ".join(str(n) for n in range(5, 53))
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "stat").write_text(stat)
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("first\n")

    before = processes._started_linux(42, tmp_path)
    (tmp_path / "sys/kernel/random/boot_id").write_text("second\n")

    assert before == "first:22"
    assert processes._started_linux(42, tmp_path) == "second:22"


class FakeKernel:
    """kernel32 with one process, number 42, created at 133500000000000000."""

    def __init__(self, exit_code: int = 259) -> None:
        self.exit_code, self.closed = exit_code, 0
        self.OpenProcess = lambda access, inherit, pid: 7 if pid == 42 else None

    def GetProcessTimes(self, handle, created, *_):
        ctypes.cast(created, ctypes.POINTER(ctypes.c_uint64))[0] = 133500000000000000
        return 1

    def GetExitCodeProcess(self, handle, code):
        ctypes.cast(code, ctypes.POINTER(ctypes.c_uint32))[0] = self.exit_code
        return 1

    def CloseHandle(self, handle):
        self.closed += 1


def test_windows_tells_the_creation_time_of_a_living_process():
    kernel, ended = FakeKernel(), FakeKernel(exit_code=1)

    assert processes._started_windows(42, kernel, lambda: 0) == "133500000000000000"
    assert processes._started_windows(43, kernel, lambda: 87) is None
    assert processes._started_windows(42, ended, lambda: 0) is None
    assert (kernel.closed, ended.closed) == (1, 1)


def filetime(seconds: float) -> str:
    """A moment, in seconds since 1970, as Windows counts."""
    return str(int((seconds + 11644473600) * 1e7))


def test_a_process_that_another_user_of_windows_runs_may_run_and_is_not_ended(tmp_path, monkeypatch):
    assert processes._started_windows(43, FakeKernel(), lambda: 5) == processes.UNTOLD
    monkeypatch.setattr(processes, "started_at", lambda pid: processes.UNTOLD)
    monkeypatch.setattr(processes.os, "kill", lambda *_: pytest.fail("someone else's process"))
    booted = time.time() - time.monotonic()
    since, before = (replace(ProcessIdentity.own(), started=filetime(booted + s)) for s in (60, -60))
    (tmp_path / LOCK).write_text(json.dumps(to_json(since)))

    with pytest.raises(RunError, match=r"another user \(process \d+\) .* or delete .* if it has ended"):
        require_free(tmp_path)
    processes.end_tree(since)
    (tmp_path / LOCK).write_text(json.dumps(to_json(before)))
    require_free(tmp_path)


def test_windows_ends_a_whole_tree_with_taskkill():
    calls = []

    processes._end_windows(42, run=lambda words, **options: calls.append((words, options)))

    [(words, options)] = calls
    assert words == ["taskkill", "/F", "/T", "/PID", "42"]
    assert options["creationflags"] == 0x08000000


def test_a_detached_process_leads_its_own_group_on_every_system():
    assert processes.detached(windows=False) == {"start_new_session": True}
    flags = processes.detached(windows=True)["creationflags"]
    assert flags & 0x200
    assert flags & 0x08000000


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are of POSIX")
def test_without_psutil_the_group_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_offspring", lambda pid: [])
    code = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid, flush=True); {SLEEP}"
    )
    log = tmp_path / "log.txt"
    parent = processes.start_detached([sys.executable, "-c", code], os.environ, tmp_path, log)
    deadline = time.monotonic() + 15
    while not log.read_text().endswith("\n") and time.monotonic() < deadline:
        time.sleep(0.02)
    child = ProcessIdentity.of(int(log.read_text()))
    assert child.is_running()

    processes.end_tree(parent)

    while (child.is_running() or parent.is_running()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.is_running()
    assert not parent.is_running()


def test_ending_a_process_of_our_own_group_leaves_us_alive(sleeper):
    processes.end_tree(ProcessIdentity.of(sleeper.pid))

    assert sleeper.wait(10) != 0


def test_a_folder_takes_one_process_at_a_time(tmp_path):
    folder = tmp_path / "fold_0"

    with only_one_in(folder):
        with pytest.raises(RunError, match=str(os.getpid())), only_one_in(folder):
            pass
        with pytest.raises(RunError, match="stop it first"):
            require_free(folder)
        (folder / "checkpoint").touch()

    require_free(folder)
    assert [path.name for path in folder.iterdir()] == ["checkpoint"]


def test_a_lock_leaves_nothing_when_the_work_left_nothing(tmp_path):
    with only_one_in(tmp_path / "fold_0"):
        pass

    assert not (tmp_path / "fold_0").exists()


def test_the_lock_of_an_ended_process_is_taken_over(tmp_path, sleeper):
    identity = ProcessIdentity.of(sleeper.pid)
    (tmp_path / LOCK).write_text(json.dumps(to_json(identity)))
    assert holder(tmp_path) == identity
    sleeper.kill()
    sleeper.wait()

    with only_one_in(tmp_path):
        assert holder(tmp_path).pid == os.getpid()

    assert list(tmp_path.iterdir()) == []


def test_a_reused_number_does_not_hold_a_lock(tmp_path):
    (tmp_path / LOCK).write_text(json.dumps(to_json(replace(ProcessIdentity.own(), started="long ago"))))

    require_free(tmp_path)


def test_a_lock_of_another_machine_is_respected(tmp_path):
    (tmp_path / LOCK).write_text(
        json.dumps(to_json(replace(ProcessIdentity.own(), host="elsewhere", computer="another")))
    )

    with pytest.raises(RunError, match="machine elsewhere .* delete"), only_one_in(tmp_path):
        pass


@pytest.fixture
def scanned(monkeypatch):
    """Call it with a number of seconds: so long a scanner keeps the locks from being read. Returns the clock."""
    now, opened = [0.0], Path.open
    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    def until(seconds: float) -> list[float]:
        def when_free(path, mode="r", *given, **named):
            if path.name == LOCK and mode == "rb" and now[0] < seconds:
                raise PermissionError(13, "The process cannot access the file", str(path))
            return opened(path, mode, *given, **named)

        monkeypatch.setattr(Path, "open", when_free)
        return now

    return until


def test_an_old_lock_that_cannot_be_read_for_a_moment_is_respected(tmp_path, sleeper, scanned):
    (tmp_path / LOCK).write_text(json.dumps(to_json(ProcessIdentity.of(sleeper.pid))))
    os.utime(tmp_path / LOCK, (0, 0))
    clock = scanned(4.0)

    with pytest.raises(RunError, match=f"process {sleeper.pid}"), only_one_in(tmp_path):
        pass

    assert 4.0 <= clock[0] < 5.0


def test_a_lock_that_stays_unreadable_is_held_by_nobody_knows_whom(tmp_path, scanned):
    (tmp_path / LOCK).touch()
    os.utime(tmp_path / LOCK, (0, 0))
    clock = scanned(1000.0)

    assert holder(tmp_path) is locks.UNKNOWN
    assert clock[0] == 0.0  # the panel asks once a second
    with pytest.raises(RunError, match="cannot be read; try again, or delete it if no run works there"):
        require_free(tmp_path)
    assert clock[0] == pytest.approx(5.0, abs=0.1)


def test_those_who_only_look_do_not_wait_for_a_lock_that_is_being_written(tmp_path, scanned):
    (tmp_path / LOCK).touch()
    clock = scanned(0.0)

    assert holder(tmp_path) is locks.UNKNOWN
    assert clock[0] == 0.0


def test_an_empty_lock_of_a_crash_is_taken_over(tmp_path):
    (tmp_path / LOCK).touch()
    os.utime(tmp_path / LOCK, (0, 0))

    with only_one_in(tmp_path):
        assert holder(tmp_path).pid == os.getpid()


@pytest.mark.parametrize("content", [b"[]", b"null", b"{}", b"\xff\x00", b"[" * 200_000])
def test_a_damaged_lock_is_taken_over(tmp_path, content, monkeypatch):
    monkeypatch.setattr(locks, "_WRITING_S", 0.1)
    (tmp_path / LOCK).write_bytes(content)

    with only_one_in(tmp_path):
        assert holder(tmp_path).pid == os.getpid()


def test_a_lock_of_any_length_is_read_only_at_its_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_WRITING_S", 0.1)
    (tmp_path / LOCK).touch()
    os.truncate(tmp_path / LOCK, 1 << 28)
    tracemalloc.start()

    with only_one_in(tmp_path):
        assert tracemalloc.get_traced_memory()[1] < 1 << 22

    tracemalloc.stop()


@pytest.fixture
def doors(tmp_path, monkeypatch) -> Path:
    """Where the doors of locks are: among temporary files of our own."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with only_one_in(tmp_path / "fold_0"):
        [folder] = (tmp_path / "temporary").iterdir()
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="temporary files are nobody else's there")
def test_a_door_is_in_a_folder_of_our_own_and_no_link(tmp_path, doors):
    [door] = doors.iterdir()
    assert doors.stat().st_mode & 0o777 == 0o700
    door.unlink()
    door.symlink_to(tmp_path / "theirs")

    with only_one_in(tmp_path / "fold_0"):
        assert not (tmp_path / "theirs").exists()

    door.unlink()
    doors.chmod(0o777)
    with only_one_in(tmp_path / "fold_0"):
        assert list(doors.iterdir()) == []


def test_doors_do_not_gather_among_the_temporary_files(tmp_path, doors):
    for number in range(600):
        with only_one_in(tmp_path / f"fold_{number}"):
            pass

    assert len(list(doors.iterdir())) <= 256


@pytest.mark.skipif(sys.platform == "win32", reason="locks a file by fcntl")
def test_waiting_at_a_door_is_said(tmp_path, doors, scanned, caplog, monkeypatch):
    [door] = doors.iterdir()
    clock = scanned(0.0)
    with door.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        wait = locks.time.sleep
        monkeypatch.setattr(
            locks.time, "sleep", lambda s: fcntl.flock(held, fcntl.LOCK_UN) if clock[0] > 5.0 else wait(s)
        )

        with only_one_in(tmp_path / "fold_0"):
            assert [record.message.split(";")[1] for record in caplog.records] == [" waiting for it."]


def test_a_full_disk_leaves_no_empty_lock(tmp_path, monkeypatch):
    def full(_value, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(locks.json, "dumps", full)

    with pytest.raises(StorageError, match="No space left"), only_one_in(tmp_path):
        pass

    assert list(tmp_path.iterdir()) == []


def test_many_takers_of_a_stale_lock_are_never_in_together(tmp_path):
    (tmp_path / LOCK).write_text(json.dumps(to_json(replace(ProcessIdentity.own(), started="long ago"))))
    inside, most, gate = [], [], threading.Barrier(8)

    def take():
        gate.wait()
        try:
            with only_one_in(tmp_path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.3)
                inside.pop()
        except RunError:
            pass

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(most) == {1}


IN_SLICER = {
    "APPLAUNCHER_LEVEL": "1", "APPLAUNCHER_0_PATH": "/usr/bin", "APPLAUNCHER_0_HOME": "/home/a", "HOME": "/home/a",
    "PATH": "/opt/Slicer/bin:/usr/bin", "PYTHONHOME": "/opt/Slicer/lib/Python", "PYTHONPATH": "/opt/Slicer/modules",
    "LD_LIBRARY_PATH": "/opt/Slicer/lib", "SLICER_HOME": "/opt/Slicer", "QT_PLUGIN_PATH": "/opt/Slicer/qt",
}  # fmt: skip
OURS = {
    "PYTHONPATH": str(LIBRARY_PARENT), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "PYTHONSAFEPATH": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    "python", ["/opt/Slicer/bin/PythonSlicer", "/opt/Slicer/bin/PythonSlicer.exe", "/conda/python"]
)
def test_a_child_of_slicer_gets_the_variables_from_before_slicer(python):
    assert environment_for(Path(python), IN_SLICER) == {"PATH": "/usr/bin", "HOME": "/home/a"} | OURS


@pytest.mark.skipif(os.pathsep != ":", reason="paths of POSIX")
def test_a_foreign_python_gets_nothing_of_slicer_even_without_the_launchers_copy():
    without_copy = {name: value for name, value in IN_SLICER.items() if not name.startswith("APPLAUNCHER")}

    assert environment_for(Path("/conda/python"), without_copy) == {"PATH": "/usr/bin", "HOME": "/home/a"} | OURS


def test_outside_of_slicer_the_environment_stays_and_our_library_is_found_once():
    terminal = {
        "HOME": "/home/a",
        "LD_LIBRARY_PATH": "/cuda",
        "PYTHONPATH": os.pathsep.join(["/mine", str(LIBRARY_PARENT)]),
    }

    child = environment_for(Path("/usr/bin/python3"), terminal)

    assert child["LD_LIBRARY_PATH"] == "/cuda"
    assert child["PYTHONPATH"].split(os.pathsep) == [str(LIBRARY_PARENT), "/mine"]
    assert terminal["PYTHONPATH"].startswith("/mine")


@pytest.mark.parametrize("safe", [True, False])
def test_no_module_of_the_working_directory_runs(tmp_path, safe):
    (tmp_path / "argparse.py").write_text("open('ran', 'w'); raise ImportError")
    child = environment_for(Path(sys.executable))
    environment = child if safe else {name: value for name, value in child.items() if name != "PYTHONSAFEPATH"}

    ended = subprocess.run(
        [sys.executable, "-m", "NNSegmentLib", "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout[:5]) == (0, b"usage")
    assert not (tmp_path / "ran").exists()


def test_a_command_becomes_a_line_that_the_systems_terminal_takes():
    words = ("C:\\Program Files\\python.exe", "-m", "NNSegmentLib", "check", "Task '4'")

    assert as_line(words, windows=True) == '"C:\\Program Files\\python.exe" -m NNSegmentLib check "Task \'4\'"'
    assert terminal_setting(windows=True) == f'set "PYTHONPATH={LIBRARY_PARENT}"'
    assert shlex.split(as_line(words, windows=False)) == list(words)
    assert shlex.split(terminal_setting(windows=False)) == ["export", f"PYTHONPATH={LIBRARY_PARENT}"]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        (r"C:\R&D\python.exe", r'"C:\R&D\python.exe"'),
        ("D:\\R&D\\", '"D:\\R&D\\\\"'),  # else the last quotation mark would be a part of the word
        (r"C:\Program Files (x86)\python.exe", r'"C:\Program Files (x86)\python.exe"'),
        ("a(1)", '"a(1)"'),
        ("a^b", '"a^b"'),
        ("a<b>|c", '"a<b>|c"'),
        (r"C:\plain\\", r"C:\plain\\"),
        ("", '""'),
    ],
)
def test_signs_of_the_command_prompt_are_quoted(word, line):
    assert as_line((word,), windows=True) == line


def test_an_environment_of_conda_finds_its_libraries_on_windows(tmp_path):
    python, libraries = tmp_path / "python.exe", str(tmp_path / "Library" / "bin")
    assert environment_for(python, {"PATH": "windows"}, windows=True)["PATH"] == "windows"
    (tmp_path / "conda-meta").mkdir()

    child = environment_for(python, {"PATH": "windows"}, windows=True)

    assert child["PATH"].split(os.pathsep) == [libraries, "windows"]
    assert environment_for(python, child, windows=True)["PATH"] == child["PATH"]
    assert environment_for(python, {}, windows=True)["PATH"] == libraries
    assert environment_for(python, {"PATH": "/usr/bin"}, windows=False)["PATH"] == "/usr/bin"


def test_the_launcher_is_chosen_where_there_is_one(tmp_path):
    assert default_python(str(tmp_path / "python-real")) == tmp_path / "python-real"
    (tmp_path / "PythonSlicer").touch()
    assert default_python(str(tmp_path / "python-real")) == tmp_path / "PythonSlicer"
    assert default_python(str(tmp_path / "PythonSlicer")) == tmp_path / "PythonSlicer"


def epoch(number: int, at: float) -> EpochFinished:
    return EpochFinished(number, 9, 0.5, None, (), None, None, 0.01, 1.0, 1.0, at)


def test_a_watched_run_gives_what_is_new_also_when_its_file_is_replaced(tmp_path):
    path = tmp_path / "events.jsonl"
    append_event(path, epoch(7, 50.0))
    run = WatchedRun(path, since=100.0)
    assert run.news() == []
    path.unlink()
    append_event(path, Message("begun", 101.0))
    append_event(path, epoch(1, 102.0))

    first = run.news()
    append_event(path, Progressed(1, 2, "validating", 103.0))
    append_event(path, epoch(2, 104.0))
    append_event(path, Finished(105.0, 0.75))

    assert first == [Message("begun", 101.0), epoch(1, 102.0)]
    assert run.news() == [epoch(2, 104.0)]
    assert run.news() == []
    assert (run.epoch, run.mean_dice) == (2, 0.75)


def test_a_watched_run_that_cannot_be_read_for_a_moment_is_read_at_the_next_look(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    append_event(path, Message("begun", 101.0))
    run = WatchedRun(path, since=100.0)

    def locked(*_, **__):
        raise PermissionError(13, "The process cannot access the file", str(path))

    for method in ("read_text", "stat"):
        with monkeypatch.context() as busy:
            busy.setattr(Path, method, locked)
            assert run.new_messages() == []

    assert run.new_messages() == ["begun"]


def test_the_first_interruption_asks_and_the_second_insists(tmp_path):
    stop = tmp_path / "fold_0" / "STOP"

    with pytest.raises(KeyboardInterrupt), stopping_cleanly(stop):
        interrupt_main_thread()
        time.sleep(0.01)
        assert stop.exists()
        interrupt_main_thread()
        time.sleep(5)


def say(number: int) -> None:
    signal.raise_signal(number)
    time.sleep(0.01)


@pytest.fixture
def at_a_terminal():
    """Also where nohup started the tests, whose children ignore a hang-up from the beginning."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(sys.platform == "win32", reason="terminals hang up on POSIX")
def test_a_closed_terminal_is_a_request_to_stop_however_often_it_is_said(tmp_path, at_a_terminal):
    stop, before = tmp_path / "fold_0" / "STOP", signal.getsignal(signal.SIGHUP)

    with stopping_cleanly(stop):
        say(signal.SIGHUP)
        assert stop.exists()
        say(signal.SIGHUP)

    assert signal.getsignal(signal.SIGHUP) is before


@pytest.mark.skipif(sys.platform == "win32", reason="terminals hang up on POSIX")
def test_a_command_whose_terminal_is_closed_ends_as_on_request(at_a_terminal):
    code = (
        "import signal, time; from NNSegmentLib import cli\n"
        "cli.COMMANDS['doctor'] = lambda *_: (signal.raise_signal(signal.SIGHUP), time.sleep(20))\n"
        "raise SystemExit(cli.main(['doctor']))"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 130


@pytest.mark.skipif(sys.platform == "win32", reason="SIGHUP is of POSIX")
def test_the_shells_second_word_does_not_interrupt_what_the_first_one_began(capfd, at_a_terminal):
    code = (
        "import os, signal; from NNSegmentLib.machine.stopping import interrupted_by_terminations\n"
        "with interrupted_by_terminations():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "    except KeyboardInterrupt:\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "        print('tidied up')"
    )

    subprocess.run([sys.executable, "-c", code], check=True)

    assert capfd.readouterr().out == "tidied up\n"


@pytest.mark.skipif(sys.platform == "win32", reason="nohup is of POSIX")
def test_what_nohup_started_outlives_its_terminal(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_cleanly(tmp_path / "STOP"):
            say(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert not (tmp_path / "STOP").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="it is there already")
def test_ctrl_break_of_windows_is_a_request_to_stop(tmp_path):
    code = (
        "import signal, sys; from pathlib import Path; signal.SIGBREAK = signal.SIGUSR1; del signal.SIGHUP\n"
        "from NNSegmentLib.machine.stopping import stopping_cleanly\n"
        "with stopping_cleanly(Path(sys.argv[1])): signal.raise_signal(signal.SIGUSR1)"
    )

    subprocess.run([sys.executable, "-c", code, tmp_path / "STOP"], check=True)

    assert (tmp_path / "STOP").exists()
