"""What is said where a package that the work is done with is not installed."""

from __future__ import annotations

import importlib
import io
import sys

import pytest

import NNSegmentLib as nns
from NNSegmentLib import cli, doctor
from NNSegmentLib.folders import FoldFolder
from NNSegmentLib.packages import INSTALL, PACKAGES
from NNSegmentLib.run import EpochFinished, Run
from NNSegmentLib.terminal import Terminal

OURS = ("NNSegmentLib.engine", "NNSegmentLib.report")
"""The rooms that need more than what Slicer brings."""


@pytest.fixture
def without(monkeypatch):
    """A Python without a package, in which nothing that needs it was imported yet."""

    def hide(package: str) -> None:
        for name in [name for name in sys.modules if name.startswith(OURS) or name.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return hide


@pytest.mark.parametrize(
    ("package", "verb"),
    [
        ("torch", lambda place: nns.train(501, "2d", 0, place)),
        ("torch", lambda place: nns.quick_settings()),
        ("matplotlib", lambda place: nns.write_report(501, workspace=place)),
        ("matplotlib", lambda place: nns.diagram(501, "2d", place / "net.svg", place)),
    ],
    ids=["train", "settings", "report", "diagram"],
)
def test_a_verb_tells_the_package_that_it_lacks(without, tmp_path, package, verb):
    without(package)

    with pytest.raises(nns.MissingPackageError, match=f"'{INSTALL}'.* button Install") as told:
        verb(tmp_path)

    assert str(told.value).startswith(f"Expected the package {package} for {PACKAGES[package]}, found none in ")
    assert told.value.exit_code == 1


@pytest.mark.parametrize("package", ["numpy", "torch", "psutil"])
def test_a_command_tells_the_package_that_it_lacks(monkeypatch, without, capsys, package):
    without(package)
    monkeypatch.setitem(cli.COMMANDS, "doctor", lambda args, terminal: importlib.import_module(package))

    assert cli.main(["doctor"]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"nnsegment: Expected the package {package} for ")


def test_a_module_of_the_users_own_that_is_missing_stays_what_it_is(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "doctor", lambda args, terminal: importlib.import_module("my_losses"))

    with pytest.raises(ModuleNotFoundError, match="^No module named 'my_losses'$"):
        cli.main(["doctor"])


def test_curves_are_optional_for_a_training(without, tmp_path):
    """The trainer goes on without pictures."""
    from NNSegmentLib.engine.trainer import ProgressPicture

    run = Run(FoldFolder(tmp_path), "2d", 0)
    run.record(EpochFinished(1, 2, 0.5, 0.4, (0.7,), 0.7, 0.7, 0.01, 3.0, 3.0, 10.0))
    without("matplotlib")

    ProgressPicture(run).refresh(now=True)

    assert not run.folder.progress_picture.exists()


def test_the_doctor_has_nothing_to_say_of_devices_without_torch(without, tmp_path):
    without("torch")

    assert doctor.DEVICE not in {check.name for check in doctor.examine(tmp_path)}


def test_a_terminal_without_tqdm_shows_lines(monkeypatch):
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr("NNSegmentLib.terminal.time.monotonic", lambda: now[0])
    shown = Terminal(stream)

    shown(0, 2, "Reading")
    now[0] = 20.0
    shown(1, 2, "Reading")

    assert stream.getvalue() == "Reading: 1 of 2, about 20 s left\n"
