"""All benchmarks, or those named: make bench, make bench BENCH="export fingerprint", make bench BENCH=--quick.

Each stage prints our figure, nnU-Net's or a limit measured in the same run, their ratio and the target. A whole run
is appended to RESULTS.md. NNUNET_PYTHON names an interpreter with nnunetv2 to measure beside us; without it its stored
figures are shown. NNSEGMENT_DATA is a folder with MSD's Task04_Hippocampus; without it a task is made to its measures.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .data import Bench
from .machine import description
from .measure import BenchmarkError
from .results import Row, append, as_text

STAGES = ("start", "panel", "fingerprint", "preprocess", "volume", "export", "window", "training", "predict", "gpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 when a stage could not be measured; a missed target is a result, not a failure."""
    options = parser().parse_args(arguments)
    machine = description()
    print(machine, flush=True)
    with tempfile.TemporaryDirectory(prefix="nnsegment_bench_") as folder:
        rows, failed = measure(chosen(options.stages), Bench(Path(folder), options.quick))
    if rows and not (options.quick or options.no_record):
        append(rows, machine)
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    """The options of `make bench`."""
    made = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    made.add_argument("stages", nargs="*", choices=[[], *STAGES], metavar="STAGE", help=", ".join(STAGES))
    made.add_argument("--quick", action="store_true", help="fewer repetitions and small sizes; nothing is recorded")
    made.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    return made


def chosen(names: Sequence[str]) -> list[str]:
    """The stages named, in the order of `STAGES`; all of them when none is."""
    return [stage for stage in STAGES if stage in names or not names]


def measure(stages: Sequence[str], bench: Bench) -> tuple[list[Row], list[str]]:
    """The rows of all stages, printed as they come, and the stages that failed."""
    rows, failed = [], []
    for stage in stages:
        try:
            found = importlib.import_module(f".{stage}", __package__).rows(bench)
        except BenchmarkError as error:
            failed.append(stage)
            print(f"\n{stage}: {error}", file=sys.stderr, flush=True)
            continue
        print(f"\n{as_text(found)}" if found else f"\n{stage}: nothing to measure on this machine", flush=True)
        rows += found
    return rows, failed


if __name__ == "__main__":
    sys.exit(main())
