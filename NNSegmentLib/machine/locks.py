"""One process at a time in a folder: a file that names the process, and is worth nothing once that has ended."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ..errors import RunError, StorageError
from ..records import from_json, open_at_end, parse_json, remove, to_json
from .identity import is_own
from .processes import ProcessIdentity

LOCK = "running.json"
_AGAIN_S = 0.05
_LOOK_S = 0.5
"""How often to see whether another process has ended."""
_WRITING_S = 5.0
"""An empty lock younger than this is being written; one that cannot be read may be open elsewhere for so long."""
_LONGEST = 64 * 1024
"""Bytes of a lock that are read; ours have some hundred, and others may have put a file of any length there."""
_QUIET_S = 3.0
"""Waiting at the door is said from here on."""
_DOORS = "nnsegment-doors"
_log = logging.getLogger(__name__)
UNKNOWN = ProcessIdentity(0, "", "")
"""Whoever holds a lock that cannot be read."""


@contextlib.contextmanager
def only_one_in(folder: Path) -> Iterator[None]:
    """Keep every other process out of `folder` meanwhile; a lock left by a process that has ended is taken over.

    Raises RunError when another process works there, StorageError when the folder cannot be written.
    """
    created = not folder.exists()
    lock = folder / LOCK
    _take(lock)
    try:
        yield
    finally:
        remove(lock)
        if created:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only succeeds when the work left nothing


@contextlib.contextmanager
def one_after_another_in(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Like `only_one_in`, but waits for another process, which `say` hears."""
    waiting = False
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(only_one_in(folder))
            except RunError as occupied:
                if not waiting:
                    say(f"{occupied} Waiting for it.")
                waiting = True
                time.sleep(_LOOK_S)
                continue
            yield
            return


def holder(folder: Path, patience_s: float = 0.0) -> ProcessIdentity | None:
    """The process that works in `folder` now; None when the folder is free.

    UNKNOWN when the lock stays unreadable for `patience_s`; those who only look do not wait.
    """
    found = _read(folder / LOCK, patience_s)
    if found is None or found is UNKNOWN or found.is_running() or not found.is_here:
        return found
    return None


def require_free(folder: Path) -> None:
    """Raises RunError when a process works in `folder`."""
    found = holder(folder, _WRITING_S)
    if found is not None:
        raise RunError(_occupied(folder, found))


def _take(lock: Path) -> None:
    with _one_taker(lock):
        for _ in range(3):
            if _created(lock):
                return
            require_free(lock.parent)
            remove(lock)
    raise RunError(f"Expected {lock.parent} to be free, but other processes keep starting there; try again.")


def _created(lock: Path) -> bool:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("x", encoding="utf-8")
        with _removed_if_unfinished(lock), file:  # closed first: Windows removes no open file
            file.write(json.dumps(to_json(ProcessIdentity.own())))
            file.flush()
    except FileExistsError:
        return False
    except OSError as error:
        raise StorageError(f"Cannot write {lock} ({error.strerror}); choose a folder that you may write to.") from error
    return True


@contextlib.contextmanager
def _removed_if_unfinished(lock: Path) -> Iterator[None]:
    """On a full disk no empty lock stays for the next run to wonder about."""
    try:
        yield
    except OSError:
        remove(lock)
        raise


def _read(lock: Path, patience_s: float) -> ProcessIdentity | None:
    """Who holds a lock; one that stays empty or damaged was left by a crash and counts as none.

    One that cannot be read tells nothing: a virus scanner or the network has it, however old it is.
    """
    began = time.monotonic()
    while True:
        passed = time.monotonic() - began
        try:
            return from_json(ProcessIdentity, parse_json(_beginning(lock), lock, StorageError), StorageError)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            if passed >= patience_s:
                return UNKNOWN
        except (UnicodeDecodeError, StorageError):
            if passed > _WRITING_S or _age_s(lock) > _WRITING_S:
                return None
            if patience_s == 0:
                return UNKNOWN
        time.sleep(_AGAIN_S)


def _beginning(lock: Path) -> str:
    with lock.open("rb") as file:
        return file.read(_LONGEST).decode("utf-8")


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


@contextlib.contextmanager
def _one_taker(lock: Path) -> Iterator[None]:
    """Between looking at a dead lock and replacing it no other process of this machine does so.

    The system itself guards the door, and opens it when a process dies inside; the door is a file elsewhere, since
    removing it would let two processes hold two files of one name. It is one of 256, so that they do not gather;
    those who meet at one by chance wait for each other a moment.
    """
    name = hashlib.sha256(str(lock.absolute()).encode()).hexdigest()[:2]
    try:
        door = open_at_end(_folder_of_doors() / f"{name}.lock", 0o600)
    except OSError:  # a full disk, or another user is in our place: exclusive creation alone has to do
        yield
        return
    with door:
        _wait_at(door, lock)
        try:
            yield
        finally:
            _unlock_file(door)


def _folder_of_doors() -> Path:
    """A folder among the temporary files that nobody else can put anything into; raises OSError."""
    folder = Path(tempfile.gettempdir()) / (f"{_DOORS}-{os.getuid()}" if hasattr(os, "getuid") else _DOORS)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    is_closed = sys.platform == "win32" or stat.S_IMODE(found.st_mode) & 0o077 == 0
    if not (stat.S_ISDIR(found.st_mode) and is_own(folder) and is_closed):
        raise PermissionError(f"{folder} is open to others")
    return folder


def _wait_at(door: IO[bytes], lock: Path) -> None:
    began, said = time.monotonic(), False
    while not _lock_file(door):
        if not said and time.monotonic() - began > _QUIET_S:
            _log.warning("Another process looks at %s; waiting for it.", lock)
            said = True
        time.sleep(_AGAIN_S)


if sys.platform == "win32":
    import msvcrt

    def _lock_file(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EDEADLK):  # a disk that cannot lock will never
                raise
            return False
        return True

    def _unlock_file(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock_file(file: IO[bytes]) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def _unlock_file(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


def _occupied(folder: Path, found: ProcessIdentity) -> str:
    lock = folder / LOCK
    if found is UNKNOWN:
        return (
            f"Another run may work in {folder}: {lock} cannot be read; try again, or delete it if no run works there."
        )
    if not found.is_here:
        return (
            f"A run on the machine {found.host} works in {folder}; wait for it, or delete {lock} if that run has ended."
        )
    if not found.is_known_to_run():
        return (
            f"A run of another user (process {found.pid}) may work in {folder}; wait for it, or delete {lock} if it has "
            "ended."
        )
    return f"Another run works in {folder} (process {found.pid}); wait for it, or stop it first."
