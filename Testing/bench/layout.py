"""The layout manager with slice, 3D and plot views: real MRML views that render off screen, on demand."""

from __future__ import annotations

from .lookalikes import define, lookalike
from .mrml import Mrml


@define
class qMRMLSliceWidget:
    def _build(self):
        lookalike("qMRMLWidget")._build(self)
        self._bench.logic = None

    def sliceLogic(self):
        return self._bench.logic

    def mrmlSliceNode(self):
        return self._bench.logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._bench.logic.GetSliceCompositeNode()

    def fitSliceToBackground(self):
        self._bench.logic.FitSliceToBackground()


@define
class qMRMLLayoutManager:
    def _build(self):
        self._bench.__dict__.update(mrml=None, slices={}, three_d={}, plots={})

    def mrmlScene(self):
        return self._bench.mrml.scene

    def sliceViewNames(self):
        return list(self._bench.mrml.slice_logics)

    def sliceWidget(self, name):
        if name not in self._bench.mrml.slice_logics:
            return None
        if name not in self._bench.slices:
            widget = self._bench.slices[name] = lookalike("qMRMLSliceWidget")()
            widget._bench.logic = self._bench.mrml.slice_logics[name]
        return self._bench.slices[name]

    def mrmlSliceLogics(self):
        return self._bench.mrml.application_logic.GetSliceLogics()

    def mrmlViewLogics(self):
        return self._bench.mrml.application_logic.GetViewLogics()

    def setLayout(self, layout):
        self.layout = layout

    def resetSliceViews(self):
        for logic in self._bench.mrml.slice_logics.values():
            logic.FitSliceToBackground()


def make_layout_manager(mrml: Mrml):
    """The layout manager of the application; its views are made when somebody asks for them."""
    manager = lookalike("qSlicerLayoutManager")()
    manager._bench.mrml = mrml
    return manager
