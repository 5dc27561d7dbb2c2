"""Developer mode's Reload replaces the panel; the old one follows neither the scene nor the user any more."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import harness

MODULE = Path(__file__).resolve().parents[2] / "NNSegment" / "NNSegment.py"
START = f"""
from bench import harness
panel = harness.open_module({str(MODULE)!r})
import numpy as np
import slicer

def parts(name):
    return [part for part in slicer.util.findChildren(panel.representation, name=name) if part.name == name]
"""
OLD_PANEL = """
import shiboken6
old, selectors, told = panel.widget, parts("volumeSelector0") + parts("segmentationSelector"), []
for selector in selectors:
    selector.connect("currentNodeChanged(vtkMRMLNode*)", told.append)
assert len(selectors) == 2
old.onReload()
assert not any(shiboken6.isValid(selector) and selector.mrmlScene() for selector in selectors)
slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16), name="next")
slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
assert not told
harness.process_events()
harness.check_slots()
assert not any(shiboken6.isValid(selector) for selector in selectors)
assert panel.widget is not old
assert [len(parts(name)) for name in ("taskCombo", "volumeSelector0")] == [1, 1]
panel.choose("taskCombo", "New task …")
panel.close()
"""
UNDO = """
import weakref
from NNSegmentLib import scene
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.prediction import Prediction

volume = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16), name="shown")
labels = LabelSet((Label("background", (0,)), Label("organ", (1,))))
node = scene.show_prediction(Prediction(np.ones((4, 5, 6), np.uint8), Geometry((4, 5, 6)), labels), volume)
step = weakref.ref(scene.last_prediction(node))
panel.widget.onReload()
harness.check_slots()
assert step() is None
slicer.mrmlScene.RemoveNode(node)
harness.check_slots()
panel.close()
"""


@pytest.mark.parametrize("rest", [OLD_PANEL, UNDO], ids=["the old panel goes", "nothing is kept for an undo"])
def test_a_reload_leaves_nothing_of_what_was_there(rest):
    reason = harness.why_not()
    if reason:
        pytest.skip(reason)

    harness.run_fresh(START + rest, timeout_s=240)
