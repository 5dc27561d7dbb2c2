"""Which computer this is: a name for people, and a mark that stays when the name changes with the network (macOS)."""

from __future__ import annotations

import functools
import hashlib
import platform
import re
import subprocess
import sys
from pathlib import Path

SYSTEM = sys.platform
_LINUX_ID = Path("/etc/machine-id")
_WINDOWS_KEY, _WINDOWS_VALUE = r"SOFTWARE\Microsoft\Cryptography", "MachineGuid"
_MAC_ID = re.compile(r'"IOPlatformUUID" = "([^"]+)"')
_MARK_LETTERS = 16


def host_name() -> str:
    """How this computer is called now."""
    return platform.node()


def is_this_computer(host: str, mark: str) -> bool:
    """Whether a file was written here; by the name alone when it, or this computer, has no mark."""
    own = computer_mark()
    return mark == own if mark and own else host == host_name()


@functools.cache
def computer_mark() -> str:
    """Tells this computer from all others; empty where the system keeps nothing of the kind.

    Disks of Linux and Windows are cloned, their identity with them (the nodes of a cluster, the computers of a ward),
    but their names stay: there the name counts too. A Mac's is its board's.
    """
    if SYSTEM == "darwin":
        known = _mac_id()
    else:
        known = _windows_id() if SYSTEM == "win32" else _linux_id()
        known = known and f"{known} {host_name()}"
    return hashlib.sha256(known.encode()).hexdigest()[:_MARK_LETTERS] if known else ""


def _linux_id() -> str:
    try:
        return _LINUX_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _windows_id() -> str:
    import winreg

    try:
        access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _WINDOWS_KEY, 0, access) as key:
            return str(winreg.QueryValueEx(key, _WINDOWS_VALUE)[0])
    except OSError:
        return ""


def _mac_id(run=subprocess.run) -> str:
    words = ["/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"]
    try:
        told = run(words, capture_output=True, text=True, errors="replace", check=False).stdout
    except OSError:
        return ""
    found = _MAC_ID.search(told)
    return found[1] if found else ""
