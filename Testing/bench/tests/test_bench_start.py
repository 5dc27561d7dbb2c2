"""How the bench starts, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import sys

import pytest
from bench import harness


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert harness.why_not() == "the bench needs slicer-core and PySide6-Essentials: pip install -e '.[bench]'"


def test_a_fresh_process_has_a_fresh_scene_and_starts_without_a_complaint(started):
    script = """
from bench import harness
harness.start()
import slicer, sys
assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == 0
assert slicer.app.layoutManager().sliceViewNames() == ["Red", "Yellow", "Green"]
assert harness.take_vtk_errors() == []
assert "torch" not in sys.modules
print("started")
"""

    done = harness.run_fresh(script)

    assert done.stdout.strip() == "started"
    assert "ERR" not in done.stderr


def test_a_process_that_fails_tells_its_last_words(started):
    with pytest.raises(harness.BenchError, match="ended with 1:(.|\n)*no such panel"):
        harness.run_fresh("raise SystemExit('no such panel')")


def test_complaints_of_vtk_can_be_asked_for(started):
    import slicer

    harness.take_vtk_errors()
    slicer.mrmlScene.AddNode(None)

    assert any("vtkMRMLScene" in text for text in harness.take_vtk_errors())


def test_waiting_ends_with_what_did_not_come_true(started):
    with pytest.raises(harness.BenchError, match=r"the training did not come true within 0\.05 s"):
        harness.wait_until(lambda: False, timeout_s=0.05, what="the training")


def test_both_themes_are_legible(started, tmp_path):
    import qt

    label = qt.QLabel("Dice")
    for dark in (True, False):
        harness.set_theme(dark)
        colors = [label.palette.color(role) for role in (qt.QPalette.Window, qt.QPalette.WindowText)]
        assert abs(colors[0].lightness() - colors[1].lightness()) > 120
        assert (colors[0].lightness() < 128) == dark


def test_python_on_the_bench_is_the_one_that_runs_the_tests(started):
    import slicer

    assert slicer.app.applicationName == "Slicer"
    assert slicer.app.startupEnvironment().contains("PATH")
    assert harness.run_fresh("import sys; print(sys.executable)").stdout.strip() == sys.executable
