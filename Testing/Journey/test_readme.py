"""README's commands from a folder to a model, and its script, run as they stand, one after the other, in less time."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tiny_task import GRID, picture, write_decathlon

from NNSegmentLib.cli import main
from NNSegmentLib.image import write_image

pytestmark = pytest.mark.slow
README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def block(title: str) -> str:
    """The first block of code below a heading."""
    return re.search(rf"^## {title}\n.*?^```\w+\n(.*?)^```", README, re.M | re.S)[1]


def shorter(text: str, length: str, seconds: str) -> str:
    """The text with README's training time replaced by one that a test can wait for."""
    assert length in text, f"README says no {length!r} here"
    return text.replace(length, seconds)


def commands() -> list[list[str]]:
    lines = shorter(block("From a folder of images to a model"), "--time 15m", "--time 1s").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[0] == "nnsegment"]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder with what README's reader has."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for root in ("raw", "preprocessed", "results"):
        monkeypatch.delenv(f"nnUNet_{root}", raising=False)
    monkeypatch.chdir(tmp_path)
    write_decathlon(tmp_path / "data" / "Task04_Hippocampus")
    write_image(tmp_path / "new_images" / "new_0000.nii.gz", picture(9)[0], GRID)
    return tmp_path


def written(home: Path) -> set[str]:
    return {path.name for path in (home / "segmentations").glob("*.nii.gz")}


def test_the_commands_lead_to_segmentations_and_a_report(home):
    assert [words[0] for words in commands()] == ["convert", "check", "plan", "train", "best", "predict", "report"]

    for words in commands():
        assert main([home.as_posix() + word[1:] if word.startswith("~") else word for word in words]) == 0, words

    assert written(home) == {"new.nii.gz"}
    assert next((home / "NNSegment").rglob("report.html")).is_file()


@pytest.mark.parametrize("after_the_commands", [False, True])
def test_the_script_runs_also_after_the_commands_and_twice(home, after_the_commands):
    script = shorter(block("From Python"), "time_s=15 * 60", "time_s=1")
    if after_the_commands:
        assert main(["convert", str(home / "data" / "Task04_Hippocampus")]) == 0
        assert main(["plan", "4", "--preset", "small"]) == 0

    for _ in range(2 - after_the_commands):
        exec(compile(script, "README.md", "exec"), {"__name__": "__main__"})

    assert written(home) == {"new.nii.gz"}
