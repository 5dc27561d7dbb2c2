"""What a saved scene remembers of the panel: references to what is on disk, nothing computed."""

from __future__ import annotations

import os
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

    A scene that is loaded opens its task, where that is on this computer, and so does one that was loaded before the
    panel came; closing a scene closes nothing.
    """

    def __init__(self, logic, context: PanelContext) -> None:
        VTKObservationMixin.__init__(self)
        self._logic, self._context = logic, context
        context.task_changed.connect(self.write)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.read)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.write)
        self.read()

    def cleanup(self) -> None:
        self.removeObservers()
        self._context.task_changed.disconnect(self.write)

    def write(self, *_unused) -> None:
        """Note what is open."""
        node, context = self._logic.getParameterNode(), self._context
        node.workspace = str(context.workspace_path or "")
        node.task = context.task.name if context.task else ""

    def read(self, *_unused) -> None:
        """Open what the scene remembers, as far as it is on this computer; then note what is open."""
        node, context = self._logic.getParameterNode(), self._context
        workspace, task = node.workspace, node.task  # what is opened is written into the node
        if workspace and os.path.isdir(workspace):  # Path.is_dir raises what keeps one from looking
            is_open = Path(workspace) == context.workspace_path or context.open_workspace(workspace)
            if is_open and task in context.task_names() and (context.task is None or context.task.name != task):
                context.open_task(task)
        self.write()
