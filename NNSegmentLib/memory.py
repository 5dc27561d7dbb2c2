"""How much memory there is, and how many cases may be worked on at once."""

from __future__ import annotations

import os

from .errors import OutOfMemoryError

SHARE = 0.8
"""The part of the free memory that we allow ourselves."""


def available_gb() -> float:
    """Memory that can be had without swapping, in GB; 8 when the system does not tell."""
    try:
        import psutil
    except ImportError:
        return _free_pages_gb()
    return psutil.virtual_memory().available / 1e9


def affordable_workers(wanted: int, gb_each: float, what: str) -> int:
    """How many of the wanted workers fit into memory when each needs `gb_each`.

    Raises OutOfMemoryError when not even one fits.
    """
    free = available_gb()
    if gb_each > free:
        raise OutOfMemoryError(
            f"{what} needs about {gb_each:.1f} GB of memory, {free:.1f} GB are free; "
            "close other programs or use a machine with more memory."
        )
    return max(1, min(wanted, int(free * SHARE / max(gb_each, 1e-3))))


def _free_pages_gb() -> float:
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" in names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return 8.0
