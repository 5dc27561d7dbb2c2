"""Importing the module and opening its panel on the bench, once the application and its scene are there."""

from __future__ import annotations

import statistics

from .data import ROOT, Bench
from .measure import function
from .results import Row, at_most

MODULE = ROOT / "NNSegment" / "NNSegment.py"


def rows(bench: Bench) -> list[Row]:
    found = [function("panel:child_open", bench.folder) for _ in range(bench.runs)]
    if any("seconds" not in measured.answer for measured in found):
        return [Row("opening the panel", "s", float("nan"), found[0].answer["reason"], None, at_most(0.5))]
    opened = statistics.median(measured.seconds for measured in found)
    started, imported = (
        statistics.median(measured.answer[name] for measured in found) for name in ("application_s", "import_s")
    )
    return [
        Row("import of the module's file", "s", imported, "start of the bench", started, at_most(0.05)),
        Row("opening the panel", "s", opened, "start of the bench", started, at_most(0.5)),
    ]


def child_open(folder: str) -> dict[str, object]:
    """Seconds to import the module and to open its panel; a reason instead where the bench cannot start."""
    import importlib.util
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
    spec = importlib.util.spec_from_file_location("NNSegment", MODULE)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    imported = time.perf_counter()
    harness.open_module(MODULE)
    opened = time.perf_counter()
    return {"seconds": opened - imported, "application_s": started - began, "import_s": imported - started}
