"""What a saved scene remembers of the panel: references to what is on disk, nothing computed."""

from __future__ import annotations

from pathlib import Path

import slicer
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.util import VTKObservationMixin

from .context import PanelContext


@parameterNodeWrapper
class NNSegmentParameterNode:
    """The folder of the workspace and the name of the task in it; empty while none is open."""

    workspace: str = ""
    task: str = ""


class SceneParameters(VTKObservationMixin):
    """Keeps the scene's parameter node and the panel's context in step.

    A scene that is loaded opens its task, where that is on this computer; closing a scene closes nothing.
    """

    def __init__(self, logic, context: PanelContext) -> None:
        VTKObservationMixin.__init__(self)
        self._logic, self._context = logic, context
        self.write()
        context.task_changed.connect(self.write)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._on_import)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.write)

    def cleanup(self) -> None:
        self.removeObservers()
        self._context.task_changed.disconnect(self.write)

    def write(self, *_unused) -> None:
        """Note what is open."""
        node, context = self._logic.getParameterNode(), self._context
        node.workspace = str(context.workspace_path or "")
        node.task = context.task.name if context.task else ""

    def _on_import(self, *_unused) -> None:
        node, context = self._logic.getParameterNode(), self._context
        workspace, task = node.workspace, node.task
        if not workspace or not Path(workspace).is_dir():
            self.write()
            return
        if Path(workspace) != context.workspace_path:
            context.open_workspace(workspace)
        if task and task in context.workspace.task_names():
            context.open_task(task)
