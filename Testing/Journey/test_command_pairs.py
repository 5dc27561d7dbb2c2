"""README's table of nnU-Net's commands with ours beside them: every row is run as it stands, and what it did is looked at.

A row without a check in `pair_checks` fails.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from pair_checks import CHECKS, Session
from tiny_task import run

pytestmark = pytest.mark.slow
README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
CLASSES = re.compile(r"nnUNet(Trainer|Planner)(?!_\w*__)\w*|Task004_Hippocampus|Dataset005_Old|\w+\.(json|model)|out")
"""Values that have another form here, or none: class names, names of tasks, descriptions, folders of pictures."""


@dataclass(frozen=True)
class Pair:
    """One row of the table."""

    v1: str
    v2: str
    ours: str


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return cells[1:]


PAIRS = [Pair(*(cell.strip("`") for cell in row)) for row in rows("If you know nnU-Net")]


def linked(source: str, target: str) -> None:
    """Large files are never changed in place, so that they need no copy."""
    os.link(source, target) if source.endswith((".pth", ".npz", ".npy")) else shutil.copy2(source, target)


@pytest.fixture
def session(tiny, tmp_path, monkeypatch) -> Session:
    shutil.copytree(tiny.folder, tmp_path / "home", copy_function=linked)
    monkeypatch.chdir(tmp_path / "home")
    for root in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{root}", str(tmp_path / "home" / f"nnUNet_{root}"))
    return Session()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.ours.removeprefix("nnsegment "))
def test_our_command_does_what_nnunets_does(pair, session, capsys):
    assert pair.ours in CHECKS, f"write a check for the row '{pair.ours}'"
    session.command = pair.ours
    looking = CHECKS[pair.ours](session)
    next(looking)
    capsys.readouterr()
    training = pair.ours.startswith("nnsegment train") and "--resume" not in pair.ours

    run(pair.ours, *(["--settings", "settings.json"] if training else []))

    session.said = capsys.readouterr().out
    assert next(looking, "looked") == "looked"


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.ours.removeprefix("nnsegment "))
def test_values_given_to_nnunet_are_given_to_ours(pair):
    ours = set(shlex.split(pair.ours))

    for theirs in (pair.v1, pair.v2):
        values = [word for word in shlex.split(theirs)[1:] if not word.startswith("-")]
        assert {value for value in values if not CLASSES.fullmatch(value)} <= ours


def test_every_command_of_the_first_table_has_a_row_in_the_second():
    named = {name for row in rows("Commands") for name in re.findall(r"`(nnUNet\w+)", row[1])}
    known = {side.split()[0] for pair in PAIRS for side in (pair.v1, pair.v2) if side}

    assert len(PAIRS) > 20
    assert named - known == set()


def test_every_check_has_its_row():
    assert set(CHECKS) == {pair.ours for pair in PAIRS}
