"""A scripted module of the usual shape is loaded from its files and clicked through, with real nodes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from bench.harness import BenchError, run_fresh

SAMPLE = Path(__file__).resolve().parents[1] / "sample" / "BenchSample.py"


@pytest.fixture
def panel(bench):
    panel = bench.open_module(SAMPLE)
    yield panel
    panel.close()


def test_the_readmes_example_runs(started, tmp_path):
    readme = (SAMPLE.parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.S)

    run_fresh(example.replace("Testing/bench/sample/BenchSample.py", SAMPLE.as_posix()), cwd=tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"panel.png", "axial.png"}


def add_box(name: str):
    """A volume of 20 × 30 × 40 voxels with a bright box of 2800 in it."""
    import slicer

    array = np.zeros((20, 30, 40), np.int16)
    array[5:15, 8:22, 10:30] = 100
    return slicer.util.addVolumeFromArray(array, name=name)


def test_a_disabled_button_cannot_be_clicked_and_says_why(panel):
    with pytest.raises(BenchError, match=r"'applyButton' is disabled: Choose a volume first\."):
        panel.click("applyButton")


def test_clicking_apply_makes_a_real_segment(panel):
    import slicer

    volume = add_box("case 1")
    panel.choose("inputVolume", volume)
    panel.choose("threshold", 60.0)
    panel.set_text("name", "bone")

    panel.click("applyButton")

    segmentation = slicer.util.getNode("result")
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "bone", volume)
    assert panel["statusLabel"].text == "2800 voxels"
    assert np.array_equal(mask > 0, slicer.util.arrayFromVolume(volume) > 60)
    assert panel["segmentsTable"].segmentCount == 1


def test_typing_nothing_leaves_an_empty_line(panel):
    panel.set_text("name", "bone")

    panel.set_text("name", "")

    assert panel["name"].text == ""


def test_widgets_and_the_parameter_node_follow_each_other(panel):
    parameters = panel.widget.parameters

    panel.choose("epochs", 7)
    panel.choose("invert", True)
    parameters.threshold = 12.5

    assert (parameters.epochs, parameters.invert, panel["threshold"].value) == (7, True, 12.5)
    with pytest.raises(ValueError, match="not within"):
        parameters.threshold = 500.0
    with pytest.raises(AttributeError, match="has no parameter 'treshold'"):
        parameters.treshold = 1.0


def test_a_child_process_reports_while_the_event_loop_turns(panel):
    panel.click("runButton")

    panel.wait_until(lambda: panel["statusLabel"].text == "ended with 0", timeout_s=60)

    assert panel["progressBar"].value == 100


def test_a_checked_node_comes_into_the_table_and_leaves_with_the_scene(panel, bench):
    add_box("case 1")
    second = add_box("case 2")

    panel["casesSelector"].check(second)

    assert panel["casesTable"].item(0, 0).text() == "case 2"
    bench.close_scene()
    assert panel["casesSelector"].checkedNodes() == []
    assert not panel["applyButton"].enabled


def test_a_section_opens_by_a_click_on_its_head(panel):
    with pytest.raises(BenchError, match="'cpuBox' is hidden"):
        panel.click("cpuBox")

    panel.click("advancedSection")
    panel.click("cpuBox")

    assert panel["cpuBox"].checked


def test_a_path_that_is_emptied_is_told_by_the_other_signal(bench):
    import ctk

    edit, told = ctk.ctkPathLineEdit(), []
    edit.nameFilters = ["Settings (*.json)"]
    edit.connect("currentPathChanged(QString)", told.append)
    edit.connect("validInputChanged(bool)", told.append)

    for path in ("settings", "settings.json", "other.json", ""):
        edit.currentPath = path

    assert told == ["settings.json", True, "other.json", False]


def test_a_path_line_offers_what_was_added_to_its_history(bench):
    import ctk

    def line():
        edit = ctk.ctkPathLineEdit()
        edit.settingKey = "Bench/Paths"
        return edit

    edit, told = line(), []
    for path in ("/one", "/two", "/one"):
        edit.currentPath = path
        edit.addCurrentPathToHistory()
    combo = edit.comboBox()
    edit.connect("currentPathChanged(QString)", told.append)
    edit.addCurrentPathToHistory()

    assert [combo.itemText(row) for row in range(combo.count)] == ["/one", "/two"]
    assert told == ["/two", "/one"]
    assert line().currentPath == "/one"
