"""The head of the panel: workspace, task, status line, and what runs besides training and prediction."""

from __future__ import annotations

import os
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .context import ERROR, INFO, SUCCESS, TASK_KEY, WARNING, WORKSPACE_KEY, PanelContext, saved_workspace
from .widgets import is_typed, resting, set_enabled, tip

OWN_SECTIONS = ("train", "validate", "predict", "best")
"""Commands that have a place of their own further down in the panel."""
_ICONS = {
    INFO: qt.QStyle.SP_MessageBoxInformation,
    SUCCESS: qt.QStyle.SP_DialogApplyButton,
    WARNING: qt.QStyle.SP_MessageBoxWarning,
    ERROR: qt.QStyle.SP_MessageBoxCritical,
}


class PanelHead:
    """Connects the widgets above the sections with the context."""

    def __init__(self, ui, context: PanelContext, resource_path) -> None:
        from .dependencies import SetupRow

        self._ui, self._context = ui, context
        self._filling = False
        self._work = None
        self._setup = SetupRow(ui, context, resource_path)
        for frame in (ui.statusFrame, ui.workFrame):
            frame.hide()
        context.message.connect(self.show_message)
        context.workspace_changed.connect(self._show_workspace)
        context.task_changed.connect(self.refresh_tasks)
        context.jobs_changed.connect(self.refresh_work)
        context.job_events.connect(self._show_progress)
        self._typing = resting(ui.workspaceEdit, self._open_workspace)
        self._leaving = qt.QTimer()
        self._leaving.setSingleShot(True)
        self._leaving.connect("timeout()", self._leave_line)
        ui.workspaceEdit.comboBox().lineEdit().connect("editingFinished()", self._end_typing)
        ui.workspaceEdit.connect("currentPathChanged(QString)", self._on_path)
        ui.taskCombo.connect("currentIndexChanged(int)", self._open_task)
        ui.workStopButton.connect("clicked()", self._stop_work)

    def cleanup(self) -> None:
        """Nothing goes on in the background without the panel, and nothing is opened while it is taken apart."""
        self._typing.stop()
        self._leaving.stop()
        self._ui.workspaceEdit.comboBox().lineEdit().disconnect("editingFinished()", self._end_typing)
        self._setup.cleanup()

    def open_last_workspace(self) -> None:
        """The workspace of last time with its task, else ~/NNSegment."""
        task = slicer.app.userSettings().value(TASK_KEY)
        self._ui.workspaceEdit.currentPath = saved_workspace()
        self._open_workspace()  # the line may show this folder already, as the newest of its history
        if task and task in self._context.task_names():
            self._context.open_task(task)

    def _show_workspace(self) -> None:
        if _place(self._ui.workspaceEdit) != self._context.workspace_path:
            self._ui.workspaceEdit.currentPath = str(self._context.workspace_path)
        self.refresh_tasks()

    def show_message(self, text: str, severity: str) -> None:
        """A sentence with its sign; an empty one hides the line. A long path is cut off rather than widening the panel."""
        ui = self._ui
        ui.statusFrame.setVisible(bool(text))
        size = ui.statusLabel.fontMetrics().height()
        ui.statusIcon.setPixmap(slicer.app.style().standardIcon(_ICONS[severity]).pixmap(size, size))
        ui.statusLabel.text = text
        ui.statusLabel.setToolTip(tip(text))

    def refresh_tasks(self) -> None:
        """The tasks of the workspace, after the entry for a new one."""
        ui, context = self._ui, self._context
        names = context.task_names()
        self._filling = True
        ui.taskCombo.clear()
        ui.taskCombo.addItem(_("New task …"))
        for name in names:
            ui.taskCombo.addItem(name)
        shown = context.task.name if context.task else None
        ui.taskCombo.setCurrentIndex(names.index(shown) + 1 if shown in names else 0)
        self._filling = False
        self._remember()

    def refresh_work(self) -> None:
        """Show the newest job that has no place of its own in a section."""
        from NNSegmentLib.machine.launch import as_line

        running = [job for job in self._context.running_jobs() if job.request.arguments[0] not in OWN_SECTIONS]
        before, self._work = self._work, running[0] if running else None
        ui = self._ui
        ui.workFrame.setVisible(self._work is not None)
        if self._work is not None and (before is None or before.folder != self._work.folder):
            ui.workCommand.setText(as_line(self._work.command))
            ui.workCommand.setCursorPosition(0)
            ui.workProgress.setRange(0, 0)
            ui.workProgress.setFormat(self._work.request.title)
            self._show_stop(asked=self._work.folder.stop.exists())

    def _show_progress(self, job, events) -> None:
        from NNSegmentLib.run import Message, Progressed

        if self._work is None or job.id != self._work.id:
            return
        for event in events:
            if isinstance(event, Progressed):
                self._ui.workProgress.setRange(0, event.total)
                self._ui.workProgress.setValue(int(event.done))
                self._ui.workProgress.setFormat(f"{event.what} %v / %m")
            elif isinstance(event, Message):
                self._context.say(event.text)

    def _stop_work(self) -> None:
        from NNSegmentLib.errors import NNSegmentError

        try:
            self._work.request_stop()
        except NNSegmentError as error:
            self._context.say(str(error), ERROR)
            return
        self._show_stop(asked=True)

    def _show_stop(self, asked: bool) -> None:
        reason = _("The work ends as soon as it can.") if asked else ""
        set_enabled(self._ui.workStopButton, reason, _("Ask the work to stop; what is finished is kept."))

    def _on_path(self) -> None:
        """A path that is typed rests first; one that is browsed for, or set from outside, counts at once."""
        if is_typed(self._ui.workspaceEdit):
            self._typing.start()
        else:
            self._open_workspace()
            self._show_open_workspace()

    def _end_typing(self) -> None:
        """A click elsewhere ends it, and is meant for what was there: another workspace is opened only then."""
        if self._typing.active:
            self._typing.stop()
            self._leaving.start()
        else:
            self._show_open_workspace()

    def _leave_line(self) -> None:
        self._open_workspace()
        self._show_open_workspace()

    def _open_workspace(self) -> None:
        """Open the folder of the line; of a new one only the last part may still be missing."""
        self._typing.stop()
        place = _place(self._ui.workspaceEdit)
        if not self._ui.workspaceEdit.currentPath.strip() or place == self._context.workspace_path:
            return
        if not os.path.isdir(place.parent):
            self._context.say(self._why_not(place.parent), WARNING)
            return
        self._context.say("")
        if self._context.open_workspace(place):
            self._keep_in_history(place)

    def _why_not(self, folder: Path) -> str:
        if self._context.workspace_path is None:
            return _("{folder} is not there; choose a folder for the workspace.").format(folder=folder)
        text = _("{folder} is not there; {workspace} stays open.")
        return text.format(folder=folder, workspace=self._context.workspace_path)

    def _show_open_workspace(self) -> None:
        """The line does not go on to show a folder that could not be opened: data would go elsewhere."""
        edit, path = self._ui.workspaceEdit, self._context.workspace_path
        if path is not None and _place(edit) != path:
            blocked = edit.blockSignals(True)
            edit.currentPath = str(path)
            edit.blockSignals(blocked)

    def _keep_in_history(self, place: Path) -> None:
        """A folder that is there is offered in the list of the line from now on."""
        edit = self._ui.workspaceEdit
        if place.is_dir():
            blocked = edit.blockSignals(True)  # the line shows other entries for a moment, while its list is sorted
            edit.addCurrentPathToHistory()
            edit.blockSignals(blocked)

    def _open_task(self, index: int) -> None:
        if not self._filling:
            self._context.say("")
            self._context.open_task(self._ui.taskCombo.itemText(index) if index > 0 else None)

    def _remember(self) -> None:
        settings, context = slicer.app.userSettings(), self._context
        settings.setValue(WORKSPACE_KEY, str(context.workspace_path or ""))
        settings.setValue(TASK_KEY, context.task.name if context.task else "")


def _place(edit) -> Path:
    """The folder that a path line shows."""
    from NNSegmentLib.given import expanded

    return expanded(edit.currentPath.strip()).absolute()
