"""Make the pictures of README and tutorial: the tutorial's journey, clicked on the bench and photographed.

    python Testing/bench/screenshots.py Resources/Screenshots --heads 10 --time 10m

What is photographed is what ran: real nodes, real child processes, a model trained for the time that is given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SECTIONS = ("taskButton", "planButton", "trainButton", "resultsButton", "applyButton")
TASK = "Dataset501_Head"
VIEW = (420, 420)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--heads", type=int, default=10, help="how many heads to learn from")
    parser.add_argument("--time", default="10m", help="training time of all folds together")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.gettempdir()) / "home"  # a name that looks well in the pictures
    home.mkdir()
    os.environ["HOME"] = str(home)
    sys.executable = str(_slicers_python(home))
    sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "Testing")]
    try:
        Photographer(args.folder.absolute(), args.heads).work(home / "NNSegment", args.time)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _slicers_python(home: Path) -> Path:
    """This Python under the name that Slicer's has, which is what a user sees in the commands."""
    launcher = home / "Slicer" / "bin" / "PythonSlicer"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    launcher.chmod(0o755)
    return launcher


class Photographer:
    """Goes through the tutorial and takes a picture at the end of every step."""

    def __init__(self, folder: Path, heads: int) -> None:
        from bench import harness

        self._folder, self._heads, self._harness = folder, heads, harness
        harness.start()
        harness.set_theme(dark=False)
        self.panel = harness.open_module(CHECKOUT / "NNSegment" / "NNSegment.py")

    def work(self, workspace: Path, time_text: str) -> None:
        """The whole tutorial."""
        self.panel.choose("workspaceEdit", workspace)
        self.task()
        self.plan()
        self.train(time_text)
        self.results()
        self.apply()
        self.segments()
        self.panel.close()

    def task(self) -> None:
        from NNSegmentUI.sample_data import load_head

        for index in range(self._heads):
            load_head(index)
        self.unfold("taskButton")
        self.panel.click("addAllPairsButton")
        self.panel.set_text("nameEdit", "Head")
        self.panel.click("createTaskButton")
        self.panel.click("checkButton")
        self.finish("check")
        self.picture("task")

    def plan(self) -> None:
        self.unfold("planButton")
        self.panel.choose("presetCombo", "Small U-Net (2 GB or processor)")
        self.panel.click("makePlanButton")
        self.finish("plan")
        self.picture("plan")

    def train(self, time_text: str) -> None:
        self.unfold("trainButton")
        self.panel.choose("trainConfigurationBox", "3d_fullres")
        self.panel.choose("trainFoldBox", "All folds, one after the other")
        self.panel.choose("trainLengthBox", "Other …")
        self.panel.set_text("trainLengthEdit", time_text)
        self.panel.click("trainCurvesButton")
        self.panel.click("trainStartButton")
        runs, row = self.panel["runsTable"], self.panel["trainConfigurationBox"].currentIndex
        self.panel.wait_until(lambda: percent(runs.item(row, 1).text()) >= 60, 3600, "the second fold's curves")
        self.picture("train")
        self._harness.plot_png(self._folder / "curves.png", (560, 360))
        self.finish("train")

    def results(self) -> None:
        self.unfold("resultsButton")
        self.panel.click("bestButton")
        self.finish("best")
        self.panel.choose("scoresTable", 0)  # the worst case
        self.picture("results")

    def apply(self) -> None:
        from NNSegmentUI.sample_data import load_head

        volume = load_head(self._heads, with_segmentation=False)[0]
        self.unfold("applyButton")
        self.panel.choose("applyVolume0", volume)
        self.panel.click("applyRunButton")
        self.finish("predict")
        self.panel.click("applyShow3DButton")
        self.picture("apply")

    def segments(self) -> None:
        """The slice views and the 3D view of the answer, side by side."""
        import numpy as np
        import slicer
        from NNSegmentUI.case_view import jump_to_segments, show_volume

        from bench.rendering import save_png

        shown = slicer.util.getNode(f"Head {self._heads + 1} prediction")
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            node.GetDisplayNode().SetVisibility(node.GetName() == shown.GetName())
        show_volume(slicer.util.getNode(f"Head {self._heads + 1}"))
        slicer.app.layoutManager().resetSliceViews()
        jump_to_segments(shown)
        rim = shown.GetSegmentation().GetSegmentIdBySegmentName("rim")
        shown.GetDisplayNode().SetSegmentOpacity3D(rim, 0.4)  # the core lies inside
        three_d = slicer.app.layoutManager().threeDWidget(0).threeDView()
        three_d.mrmlViewNode().SetBoxVisible(False)
        three_d.mrmlViewNode().SetAxisLabelsVisible(False)
        slicer.app.layoutManager().resetThreeDViews()
        views = [self._harness.slice_view_pixels(name, VIEW) for name in ("Red", "Green", "Yellow")]
        views.append(self._harness.three_d_pixels(VIEW))
        top, bottom = np.hstack([views[0], views[3]]), np.hstack([views[1], views[2]])
        save_png(np.vstack([top, bottom]), self._folder / "segments.png")

    def unfold(self, section: str) -> None:
        for name in SECTIONS:
            self.panel[name].collapsed = name != section
        self._harness.process_events()

    def picture(self, name: str) -> None:
        self.panel.widget.context.poll()
        self.panel.screenshot(self._folder / f"{name}.png")
        print(f"{name}.png", flush=True)

    def finish(self, verb: str) -> None:
        """Wait until no job of this verb runs."""
        context = self.panel.widget.context
        self.panel.wait_until(lambda: context.running_verb(verb) is None, 4 * 3600, f"the end of {verb}")
        self.wait(1.5)

    def wait(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        self.panel.wait_until(lambda: time.monotonic() > ends, seconds + 60)


def percent(state: str) -> int:
    """How far a run is, by its cell in the grid of runs: '▶60%'; 0 while it does not run."""
    return int(state.strip("▶%")) if state.startswith("▶") and state.endswith("%") else 0


if __name__ == "__main__":
    main()
