"""How good a model is after how many minutes: trains one fold with several time budgets and validates each.

    .venv/bin/python Testing/benchmarks/dice_against_minutes.py FOLDER --minutes 2 5 15 --fold 0

FOLDER is anything `nnsegment convert` reads. Every budget is a run of its own with the schedule ending at that time,
as a user gets it from `nnsegment train TASK 3d_fullres 0 --time 15m`. Appends a table to RESULTS.md with `--record`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
import time
from pathlib import Path

from NNSegmentLib import pipeline
from NNSegmentLib.machine.memory import available_gb
from NNSegmentLib.run import EpochFinished, Finished
from NNSegmentLib.terminal import Terminal, table
from NNSegmentLib.training.budget import default_settings

RESULTS = Path(__file__).with_name("RESULTS.md")
HEADER = ["minutes", "steps", "s/step", "validation Dice", "validation s", "load before"]


def measure(task, workspace: Path, minutes: float, fold: int, preset: str, configuration: str) -> list[str]:
    """One row: train with a budget, validate on the full cases."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    plan = pipeline.plan_of(pipeline.folders_of(task, workspace), preset=preset)
    settings = default_settings(plan, time_s=60 * minutes)
    started = time.monotonic()
    run = pipeline.train(task, configuration, fold, workspace, settings=settings, preset=preset, progress=Terminal())
    events = run.events()
    steps = [e for e in events if isinstance(e, EpochFinished)][-1].steps
    dice = [e for e in events if isinstance(e, Finished)][-1].mean_dice
    rest = time.monotonic() - started - 60 * minutes
    return [f"{minutes:g}", str(steps), f"{60 * minutes / steps:.2f}", f"{dice:.4f}", f"{rest:.0f}", f"{load:.2f}"]


def machine() -> str:
    """One line that says what this was measured on."""
    model = next(
        (line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.processor(),
    )
    import torch

    from NNSegmentLib.engine.devices import choose_device, describe

    device, used = choose_device(), ""
    if device.type != "cpu":
        used = f", trained on {describe(device)}"
    free, versions = available_gb(), f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores of {model}, {free:.0f} GB free, {versions}{used}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 15])
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--record", action="store_true", help="append the table to RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        task = pipeline.convert(args.source, folder)
        pipeline.plan(task, folder, preset=args.preset)
        rows = [measure(task, folder, m, args.fold, args.preset, args.configuration) for m in args.minutes]
    title = f"{task.name} {args.configuration}, preset {args.preset}, fold {args.fold}"
    text = f"\n## Dice against minutes: {title}\n\n{datetime.date.today()}, {machine()}\n\n```\n{table(rows, HEADER)}\n```\n"
    print(text)
    if args.record:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
