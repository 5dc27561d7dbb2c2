"""A Python outside of Slicer is chosen on the panel, looked at, remembered and used; also by console and effect."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from finished_runs import NAME, make_task, train

from NNSegmentLib.errors import SettingsError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the other Python is a shell script")

MODULE = Path(__file__).resolve().parents[2] / "NNSegment" / "NNSegment.py"
KEY = "NNSegment/Python"
REAL = f'exec {sys.executable} "$@"'
BARE = f'exec {sys.executable} -S "$@"'
"""A Python without packages."""
FIT = """echo '{"checks": [{"name": "device", "ok": true, "found": "cpu with 8 cores", "advice": ""}]}'"""
"""What answers as a Python that has everything, without loading torch for it."""


@pytest.fixture
def open_panel(bench, root, monkeypatch):
    """Opens panels in a Slicer whose own Python has no torch, and where no other was chosen before."""
    import slicer

    opened = []

    def open_one():
        panel = bench.open_module(MODULE)
        opened.append(panel)
        from NNSegmentUI import dependencies

        monkeypatch.setattr(dependencies, "torch_is_missing", lambda: True)
        panel.widget.head._setup.refresh()
        return panel

    slicer.app.userSettings().setValue("NNSegment/Workspace", str(root))
    slicer.app.userSettings().setValue(KEY, "")
    yield open_one
    for panel in opened:
        panel.close()
    slicer.app.userSettings().setValue(KEY, "")


@pytest.fixture
def program(tmp_path):
    """Makes a program of a line of a shell script."""

    def make(name: str, line: str = FIT) -> Path:
        path = tmp_path / "other pythons" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
        return path

    return make


def saved() -> str:
    import slicer

    return slicer.app.userSettings().value(KEY)


def choose(panel, python: Path, told: str) -> None:
    panel.choose("pythonPath", python)
    panel.wait_until(lambda: told in panel["statusLabel"].text, 60)


def test_a_text_that_is_too_long_for_a_path_is_no_python(open_panel):
    choose(open_panel(), "/" + "a" * 300, "Expected a Python program such as bin/python, found none at /aaa")


@pytest.mark.slow
def test_a_chosen_python_is_looked_at_and_does_the_work(open_panel, program):
    panel, python = open_panel(), program("python", REAL)
    assert panel["installButton"].visible
    assert "pip install torch numpy" in panel["pythonPath"].toolTip

    panel.choose("pythonPath", python)
    panel.wait_until(lambda: panel["setupLabel"].text.startswith("Looking"), 10)
    assert panel.widget.context.python is None
    panel.wait_until(lambda: "computes on: " in panel["statusLabel"].text, 60)

    job = panel.widget.context.start_job(["doctor"], "Look around")
    job.wait(60)
    assert panel["setupLabel"].text == f"Training and prediction run in {python}."
    assert not panel["installButton"].visible
    assert panel.overflow_px(400) == 0
    assert json.loads(job.folder.request.read_text())["python"] == str(python)
    assert job.command[0] == str(python)
    assert job.result()["checks"]


def test_the_shown_command_runs_in_a_terminal_that_was_told_where_the_library_is(open_panel, program, tmp_path):
    panel = open_panel()
    panel.widget.context.python = program("bare", BARE)
    shown = panel.widget.context.command_line(["doctor", "--json"])
    setting = panel["trainCommandEdit"].toolTip.splitlines()[-1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    terminal = {"shell": True, "cwd": tmp_path, "env": environment, "capture_output": True, "text": True}

    unprepared = subprocess.run(shown, check=False, **terminal)
    prepared = subprocess.run(f"{setting}\n{shown}", check=False, **terminal)

    assert "No module named NNSegmentLib" in unprepared.stderr
    assert json.loads(prepared.stdout)["checks"]
    assert {panel[name].toolTip.splitlines()[-1] for name in ("workCommand", "applyCommandEdit")} == {setting}


def test_a_fresh_panel_remembers_the_python_until_the_line_is_emptied(open_panel, program):
    python = program("python")
    choose(open_panel(), python, "computes on: ")

    panel = open_panel()
    assert panel["pythonPath"].currentPath == str(panel.widget.context.python) == str(python)
    panel.wait_until(lambda: panel["setupLabel"].text.startswith("Training and prediction run in"), 60)
    panel.choose("pythonPath", "")

    assert panel.widget.context.python is None
    assert saved() == ""
    assert panel["installButton"].visible
    assert panel["setupLabel"].text.startswith("Training and prediction need")


def test_a_python_that_lacks_something_is_refused_and_the_former_one_stays(open_panel, program):
    panel, python = open_panel(), program("python")
    choose(panel, python, "computes on: ")

    choose(panel, program("bare", BARE), "is not ready (numpy: not installed")
    assert panel["setupLabel"].text == f"Training and prediction run in {python}."
    choose(panel, python.with_name("none"), "found none at")

    assert panel.widget.context.python == python
    assert saved() == str(python)
    panel.choose("pythonPath", "")
    assert not panel["statusFrame"].visible


def test_the_enter_key_looks_again_at_a_python_that_was_completed(open_panel, program):
    from bench import hands

    panel = open_panel()
    choose(panel, program("python", BARE), "is not ready")
    program("python")

    hands.set_text(panel["pythonPath"].comboBox().lineEdit(), panel["pythonPath"].currentPath)

    panel.wait_until(lambda: "computes on: " in panel["statusLabel"].text, 60)


def test_a_remembered_python_that_is_gone_is_told_and_forgotten(open_panel, program, tmp_path):
    import slicer

    slicer.app.userSettings().setValue(KEY, str(program("python")))
    shutil.rmtree(tmp_path / "other pythons")

    panel = open_panel()
    panel.wait_until(lambda: "found none at" in panel["statusLabel"].text, 10)

    assert panel.widget.context.python is None
    assert saved() == ""


def test_where_no_torch_exists_for_slicer_nothing_is_installed_and_the_way_out_is_told(
    bench, open_panel, program, monkeypatch
):
    panel = open_panel()
    from NNSegmentUI import dependencies

    monkeypatch.setattr(dependencies, "torch_is_missing", lambda: False)  # an older one may be there
    monkeypatch.setattr(dependencies, "sys", types.SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(dependencies, "platform", types.SimpleNamespace(machine=lambda: "x86_64"))
    panel.widget.head._setup.refresh()
    bench.process_events()

    assert not panel["installButton"].enabled
    assert "choose another Python" in panel["installButton"].toolTip
    assert "need PyTorch 2.6 or newer" in panel["setupLabel"].text
    assert "PyTorch ends at 2.2.2" in panel["setupLabel"].text
    assert "-m venv ~/nnsegment\n~/nnsegment/bin/pip install torch numpy" in panel["setupLabel"].text
    assert panel.overflow_px(400) == 0
    choose(panel, program("python"), "computes on: ")
    assert panel["setupLabel"].text.startswith("Training and prediction run in")


def test_without_torch_training_and_applying_say_where_to_install_it(open_panel, program, root):
    train(make_task(root), "3d_fullres", 0)
    panel = open_panel()
    panel.choose("taskCombo", NAME)
    panel["trainButton"].collapsed = panel["applyButton"].collapsed = False
    reason = "PyTorch is not installed: press Install at the top of the module NNSegment."

    for button, hint in (("trainStartButton", "trainHintLabel"), ("applyRunButton", "applyHintLabel")):
        assert not panel[button].enabled
        assert panel[button].toolTip == panel[hint].text == reason
        assert panel[hint].visible
    assert " train " in panel["trainCommandEdit"].text  # to run it where there is PyTorch
    choose(panel, program("python"), "computes on: ")

    assert panel["trainStartButton"].enabled
    assert not panel["trainHintLabel"].visible
    assert panel["applyRunButton"].toolTip == "Choose a volume for MRI."


def test_the_console_takes_the_panels_python_or_one_of_its_own(open_panel, program, root):
    import slicer

    open_panel()
    logic, chosen, own = slicer.util.getModuleLogic("NNSegment"), program("python"), program("own")
    logic.set_workspace(root)
    slicer.app.userSettings().setValue(KEY, str(chosen))
    words = ["jobs", "list", "--workspace", root]

    assert logic.console._start(words).request.python == chosen
    assert " cores" in logic.set_python(str(own))
    assert logic.console._start(words).request.python == own
    with pytest.raises(SettingsError, match="is not ready"):
        logic.set_python(program("bare", BARE))
    logic.set_python(None)

    assert logic.console._start(words).request.python == chosen
