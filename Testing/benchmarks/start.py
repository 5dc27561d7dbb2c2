"""How long `nnsegment --help` takes, beside Python's own start."""

from __future__ import annotations

import sys

from .data import Bench
from .measure import command, median, nnsegment
from .results import Row, at_most


def rows(bench: Bench) -> list[Row]:
    runs = 5 if bench.quick else 25
    ours = median(runs, lambda: nnsegment("--help"))
    limit = median(runs, lambda: command([sys.executable, "-c", "pass"]))
    return [
        Row("start of nnsegment --help", "s", ours.seconds, "python -c pass", limit.seconds, at_most(0.25)),
        Row("start of nnsegment --help: peak", "GiB", ours.peak_gib, "python -c pass", limit.peak_gib),
    ]
