"""Native programs from an Intel one on a Mac of Apple's own make, as Slicer is: what it starts runs as Intel's too."""

from __future__ import annotations

import functools
import struct
import sys
from pathlib import Path

SYSTEM = sys.platform
_UNIVERSAL = 0xCAFEBABE
_ARM64 = 0x0100000C
_MOST_KINDS = 16
"""Processors that a program is made for; a Java class begins as a universal program does, with a larger number."""


def natively(program: Path) -> tuple[str, ...]:
    """The words before `program` that make it run as Apple's, when it can and we do not; packages are made for one."""
    return ("/usr/bin/arch", "-arm64") if is_translated() and is_also_for_apple(program) else ()


@functools.cache
def is_translated() -> bool:
    """Whether this process is an Intel program on one of Apple's processors."""
    if SYSTEM != "darwin":
        return False
    import subprocess  # not when only --help is wanted

    words = ["/usr/sbin/sysctl", "-n", "sysctl.proc_translated"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() == "1"
    except OSError:
        return False


def is_also_for_apple(program: Path) -> bool:
    """Whether a universal program has a part for Apple's processors; one for a single processor has no choice."""
    try:
        with program.open("rb") as file:
            magic, kinds = struct.unpack(">II", file.read(8))
            if magic != _UNIVERSAL or kinds > _MOST_KINDS:
                return False
            return any(struct.unpack(">I16x", file.read(20))[0] == _ARM64 for _ in range(kinds))
    except (OSError, struct.error):
        return False
