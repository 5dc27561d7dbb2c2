"""Opening the module's panel on the bench, once the application and its scene are there."""

from __future__ import annotations

import statistics

from .data import ROOT, Bench
from .measure import function
from .results import Row, at_most


def rows(bench: Bench) -> list[Row]:
    found = [function("panel:child_open", bench.folder) for _ in range(bench.runs)]
    if any("seconds" not in measured.answer for measured in found):
        return [Row("opening the panel", "s", float("nan"), found[0].answer["reason"], None, at_most(0.5))]
    seconds = statistics.median(measured.seconds for measured in found)
    started = statistics.median(measured.answer["application_s"] for measured in found)
    return [Row("opening the panel", "s", seconds, "start of the bench", started, at_most(0.5))]


def child_open(folder: str) -> dict[str, object]:
    """Seconds to open the panel; a reason instead where the bench cannot start."""
    import os
    import time

    from bench import harness

    os.environ["HOME"] = folder
    reason = harness.why_not()
    if reason:
        return {"reason": reason}
    began = time.perf_counter()
    harness.start()
    started = time.perf_counter()
    harness.open_module(ROOT / "NNSegment" / "NNSegment.py")
    return {"seconds": time.perf_counter() - started, "application_s": started - began}
