"""What the processor can do, as far as it is known without torch."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def tells_amx() -> bool:
    """Whether Linux tells of Intel's matrix unit for bfloat16; no other system tells without a program of its own."""
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return False
    return "amx_bf16" in flags.split()
