"""The section "Task": what the open task holds and whether it is sound; cases from the scene or from a folder."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from .case_table import CaseTable, case_rows
from .context import ERROR, SUCCESS, WARNING, PanelContext
from .scene_cases import SceneCases
from .widgets import connect_path, load_section, option, set_enabled


class TaskSection:
    """Fills the collapsible button `parent_button`."""

    def __init__(self, parent_button, context: PanelContext, resource_path) -> None:
        self._context = context
        widget, self._ui = load_section(resource_path("UI/Task.ui"), parent_button)
        self.scene_cases = SceneCases(self._ui, context)
        widget.setMRMLScene(slicer.mrmlScene)
        self._table = CaseTable(self._ui.casesTable, self.fix)
        self._was_open: str | None = None
        for signal in (context.task_changed, context.workspace_changed):
            signal.connect(self.refresh)
        context.jobs_changed.connect(self._on_jobs_changed)
        context.job_ended.connect(self._on_job_ended)
        for edit in (self._ui.importEdit, self._ui.importLabelsEdit):
            connect_path(edit, self._refresh_buttons)
        self._ui.checkButton.connect("clicked()", self.check)
        self._ui.fixAllButton.connect("clicked()", self.fix)
        self._ui.importFolderButton.connect("clicked()", self.import_folder)
        self.refresh()

    def cleanup(self) -> None:
        self.scene_cases.cleanup()

    def refresh(self) -> None:
        """Show the open task, or what makes a new one."""
        ui, task = self._ui, self._context.task
        for widget in (ui.summaryLabel, ui.casesTable, ui.checkButton, ui.fixAllButton):
            widget.setVisible(task is not None)
        if task is not None:
            ui.summaryLabel.text = _summary(task)
            self._table.show(case_rows([case.id for case in task.cases], self.findings()))
        if self._was_open != (task and task.name):
            self._was_open = task and task.name
            ui.sceneButton.collapsed = task is not None
            ui.importButton.collapsed = True
        self.scene_cases.refresh()
        self._refresh_buttons()

    def findings(self):
        """What the last check found, or None when there was none since the task changed."""
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.integrity import load_findings

        path = self._context.folders.findings
        dataset = self._context.task.folder / "dataset.json"
        try:
            return load_findings(path) if path.stat().st_mtime >= dataset.stat().st_mtime else None
        except (OSError, NNSegmentError):  # never checked, deleted meanwhile, or written by half
            return None

    def check(self) -> None:
        """Examine all files of the task in a job."""
        self._context.start_job(["check", self._context.task.name], _("Checking the files"))

    def fix(self) -> None:
        """Mend what can be mended, in a job."""
        self._context.start_job(["check", self._context.task.name, "--fix"], _("Mending the files"))

    def import_folder(self) -> None:
        """Make a task of a folder, in a job; it is opened when it is there."""
        ui = self._ui
        words = ["convert", ui.importEdit.currentPath]
        if ui.importLabelsEdit.currentPath:
            words += option("--labels", ui.importLabelsEdit.currentPath)
        if ui.importNameEdit.text.strip():
            words += option("--name", ui.importNameEdit.text.strip())
        self._context.start_job(words, _("Importing {folder}").format(folder=Path(ui.importEdit.currentPath).name))

    def _on_jobs_changed(self) -> None:
        gone = self._why_gone()
        if gone:
            self._context.say(gone, ERROR)
        self._refresh_buttons()

    def _on_job_ended(self, job, state) -> None:
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.jobs import JobState

        verb = job.request.arguments[0]
        if verb == "check":
            self._context.reload_task()
            self._tell_findings()
        elif verb == "convert" and state is JobState.FINISHED:
            try:
                self._context.open_task(job.result_of("task"))
            except NNSegmentError as error:
                self._context.say(str(error), ERROR)

    def _tell_findings(self) -> None:
        """What the check came to; the table tells it case by case."""
        findings = self.findings() if self._context.task else None
        if findings is None:
            return
        errors = {finding.case for finding in findings if finding.severity == ERROR}
        warnings = {finding.case for finding in findings if finding.severity == WARNING} - errors
        if errors:
            text = _("The check found errors in {count} places; the table tells which, and what can be mended.")
            self._context.say(text.format(count=len(errors)), ERROR)
        elif warnings:
            self._context.say(_("The check found something to look at; the table tells where."), WARNING)
        else:
            self._context.say(_("The check found nothing wrong."), SUCCESS)

    def _refresh_buttons(self, *_unused) -> None:
        ui, busy = self._ui, self._busy() or self._why_gone()
        set_enabled(ui.checkButton, busy, _("Look for everything wrong with the images and label maps."))
        set_enabled(ui.fixAllButton, busy or self._nothing_to_fix(), _("Mend what can be mended; originals are kept."))
        self._table.set_fixing(busy)
        set_enabled(ui.importFolderButton, self._why_no_import(), _("Copy the cases of this folder into a new task."))

    def _busy(self) -> str:
        job = self._context.running_verb("check", "convert")
        return _("Wait until this is done: {title}.").format(title=job.request.title) if job else ""

    def _why_gone(self) -> str:
        """A sentence when somebody deleted or moved the open task's folder; empty while it is there."""
        task = self._context.task
        if task is None or os.path.isfile(task.folder / "dataset.json"):  # unlike Path's, never raises
            return ""
        text = _("The folder {folder} of the open task is gone; put it back, or choose another task.")
        return text.format(folder=task.folder)

    def _nothing_to_fix(self) -> str:
        findings = self.findings() if self._context.task else None
        if findings is None:
            return _("Check the files first.")
        return "" if any(finding.fixable for finding in findings) else _("Nothing was found that can be mended.")

    def _why_no_import(self) -> str:
        path = self._ui.importEdit.currentPath
        if not os.path.isdir(path):  # unlike Path's, never raises
            return _("Choose a folder of images first.")
        return self._busy()


def _summary(task) -> str:
    """Name, number of cases, channels, and labels with their colours."""
    labels = ", ".join(_label(label) for label in task.labels.labels if not label.is_background)
    channels = ", ".join(escape(channel.name) for channel in task.channels)
    text = _("<b>{name}</b> · {count} cases · channels: {channels} · labels: {labels}")
    return text.format(name=escape(task.name), count=len(task.cases), channels=channels, labels=labels)


def _label(label) -> str:
    if label.color is None:
        return escape(label.name)
    red, green, blue = label.color
    return f'<span style="color:#{red:02x}{green:02x}{blue:02x}">■</span> {escape(label.name)}'
