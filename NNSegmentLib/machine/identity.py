"""Which computer this is: its name, and on macOS, where that changes with the network, a mark that stays; and whose files."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

SYSTEM = sys.platform
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
    """Tells a Mac from all others, by its board; empty elsewhere, where the name stays and disks are cloned."""
    known = _mac_id() if SYSTEM == "darwin" else ""
    return hashlib.sha256(known.encode()).hexdigest()[:_MARK_LETTERS] if known else ""


def _mac_id(run=subprocess.run) -> str:
    words = ["/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"]
    try:
        told = run(words, capture_output=True, text=True, errors="replace", check=False).stdout
    except OSError:
        return ""
    found = _MAC_ID.search(told)
    return found[1] if found else ""


def is_own(path: Path) -> bool:
    """Whether a file, or a link itself, belongs to who asks; raises OSError. On Windows, which tells nobody, always."""
    return not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid()
