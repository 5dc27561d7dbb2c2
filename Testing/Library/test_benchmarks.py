"""The benchmark suite: its rows, its table, its selection, and how it measures a process; no timing here."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from benchmarks import machine, measure, results, run
from benchmarks.data import Bench
from benchmarks.results import Row, at_least, at_most, faster, share

ROWS = [
    Row("fingerprint", "s", 2.0, "nnU-Net", 10.0, faster(5)),
    Row("fingerprint: peak", "GiB", 0.75, "nnU-Net", 1.5, share(1 / 3)),
    Row("help", "s", 0.2, "python", None, at_most(0.25)),
]


@pytest.mark.parametrize(
    ("ours", "other", "target", "ratio", "met"),
    [
        (2.0, 10.0, faster(5), "5.00×", True),
        (2.1, 10.0, faster(5), "4.76×", False),
        (0.5, 1.5, share(0.34), "33.3 %", True),
        (1.04, 1.0, share(1.03), "104.0 %", False),
        (0.2, 0.1, at_most(0.25), "0.50×", True),
        (0.3, None, at_most(0.25), "–", False),
        (2.0, None, faster(5), "–", None),
        (math.nan, None, at_most(0.5), "–", None),
        (0.91, None, at_least(0.9), "–", True),
        (0.87, None, at_least(0.88), "–", False),
        (math.nan, None, at_least(0.9), "–", None),
        (2.0, 1.0, None, "0.50×", None),
    ],
)
def test_a_row_tells_the_ratio_and_whether_the_target_is_met(ours, other, target, ratio, met):
    row = Row("stage", "s", ours, "peer", other, target)

    assert (row.ratio, row.is_met) == (ratio, met)


def test_appending_keeps_what_was_written_by_hand_and_writes_the_heading_once(tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_text("# What was measured\n\nBy hand.")

    results.append(ROWS, "first machine", path)
    results.append(ROWS[:1], "second machine", path)

    text = path.read_text()
    assert text.startswith("# What was measured\n\nBy hand.\n")
    assert text.count("## Runs of make bench") == 1
    first, second = text.split("### ")[1:]
    assert first.startswith("first machine\n\n| stage |") and second.startswith("second machine\n\n| stage |")
    assert "| fingerprint: peak | GiB | 0.750 | nnU-Net | 1.50 | 50.0 % | ≤ 33 % | **no** |" in first
    assert second.count("\n| ") == 3


def test_a_first_run_begins_the_file(tmp_path):
    results.append(ROWS, "machine", tmp_path / "RESULTS.md")

    assert (
        (tmp_path / "RESULTS.md").read_text().startswith("# What was measured\n\n## Runs of make bench\n\n### machine")
    )


def test_stages_are_chosen_by_name_and_all_without_one():
    assert run.chosen(["export", "fingerprint"]) == ["fingerprint", "export"]
    assert run.chosen([]) == list(run.STAGES)
    assert run.parser().parse_args(["--quick", "export"]).stages == ["export"]
    assert run.parser().parse_args([]).stages == []
    with pytest.raises(SystemExit):
        run.parser().parse_args(["exprot"])


def test_a_stage_that_fails_costs_only_its_own_rows(tmp_path, monkeypatch, capsys):
    from benchmarks import export, start

    def fails(bench):
        raise measure.BenchmarkError("no memory")

    monkeypatch.setattr(start, "rows", fails)
    monkeypatch.setattr(export, "rows", lambda bench: ROWS)

    found, failed = run.measure(["start", "export"], Bench(tmp_path))

    printed = capsys.readouterr()
    assert (found, failed) == (ROWS, ["start"])
    assert "start: no memory" in printed.err and "fingerprint: peak" in printed.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_graphics_card_there_is_nothing_to_measure_of_it(tmp_path, capsys):
    assert run.measure(["gpu"], Bench(tmp_path)) == ([], [])
    assert "gpu: nothing to measure on this machine" in capsys.readouterr().out


def test_a_card_that_does_not_tell_how_busy_it_is_gives_no_shares():
    assert machine.busy_shares("97\n[N/A]\n5\n") == [0.97, 0.05]
    assert machine.busy_shares("") == []


def test_every_stage_has_a_file_with_rows():
    import importlib

    for stage in run.STAGES:
        assert callable(importlib.import_module(f"benchmarks.{stage}").rows)


def test_a_measured_process_tells_its_own_peak():
    code = f"""
import sys
sys.path.insert(0, {str(measure.TESTING)!r})
from benchmarks.measure import command
peaks = [command([sys.executable, "-c", code]).peak_gib for code in ("pass", "len(bytearray(b'x') * 300_000_000)")]
sys.exit(0 if abs(peaks[1] - peaks[0] - 300_000_000 / 2**30) < 0.02 else f"peaks {{peaks}}")
"""

    # a new process inherits the peak of the one that starts it, and pytest is large
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr == ""


def test_a_function_runs_in_a_process_of_its_own(tmp_path):
    assert measure.function("fingerprint:child_read", tmp_path).answer == {}
    with pytest.raises(measure.BenchmarkError, match="need at least one array"):
        measure.function("fingerprint:child_reference", tmp_path)


def test_a_process_that_fails_tells_its_last_words():
    with pytest.raises(measure.BenchmarkError, match="(?s)code 3.*at its end"):
        measure.command([sys.executable, "-c", "import sys; print('at its end'); sys.exit(3)"])


def test_the_machine_is_described_with_commit_cores_memory_and_versions():
    told = machine.description()

    for part in ("commit ", " cores of ", " GiB", "Python 3.", "torch "):
        assert part in told
