"""Train: the grid of runs, how long and where, start and resume, and what the training is doing now."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from .curves import Curves
from .dependencies import without_torch
from .job_view import JobView
from .widgets import (
    choose_value,
    chosen,
    connect_path,
    copy_to_clipboard,
    device_words,
    fill_box,
    fill_devices,
    fit_height,
    load_section,
    option,
    set_enabled,
    show_text,
    tip,
)

IN_TURN, ALL = "folds", "all"
USUAL = "3d_fullres"
"""The configuration to begin with, where the plan has it."""


class TrainSection:
    """Collects what to train, shows the command line, and starts it as a job."""

    def __init__(self, parent_button, context, resource_path) -> None:
        self._context, self._button = context, parent_button
        self._widget, self.ui = load_section(resource_path("UI/Train.ui"), parent_button)
        self._job_view = JobView(self.ui.trainJobFrame, context, "train")
        self._curves = Curves()
        self._statuses = ()
        self._layout_due = False
        """Whether the views are to make room for the curves as soon as there are any."""
        fill_devices(self.ui.trainDeviceBox)
        fill_box(self.ui.trainLengthBox, _lengths())
        self._connect()
        self.refresh()

    def _connect(self) -> None:
        for box in (self.ui.trainConfigurationBox, self.ui.trainFoldBox):
            box.connect("currentIndexChanged(int)", self._on_run_chosen)
        for box in (self.ui.trainLengthBox, self.ui.trainDeviceBox):
            box.connect("currentIndexChanged(int)", self._refresh_controls)
        self.ui.trainLengthEdit.connect("textChanged(QString)", self._refresh_controls)
        for path in (self.ui.trainSettingsPath, self.ui.trainPretrainedPath):
            connect_path(path, self._refresh_controls)
        self.ui.trainProbabilitiesBox.connect("toggled(bool)", self._refresh_controls)
        self.ui.runsTable.connect("cellClicked(int,int)", self._on_cell)
        self.ui.trainStartButton.connect("clicked()", self.start)
        self.ui.trainResumeButton.connect("clicked()", self.resume)
        self.ui.trainCopyButton.connect("clicked()", self._copy)
        self._button.connect("contentsCollapsed(bool)", self._on_collapsed)
        self.ui.trainCurvesButton.connect("toggled(bool)", self._on_curves)
        context = self._context
        for signal in (context.task_changed, context.plan_changed, context.results_changed, context.jobs_changed):
            signal.connect(self.refresh)
        context.job_events.connect(self._on_events)
        context.job_ended.connect(self._on_ended)

    # What there is ----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read the runs again and show them."""
        plan = self._context.plan()
        self._statuses = self._read_statuses(plan)
        self._fill_boxes(plan)
        self._fill_grid(plan)
        self._tell_of_new_cases()
        self._attach()
        self._refresh_controls()
        self._refresh_epoch()

    def _read_statuses(self, plan):
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.training.run_states import run_statuses

        if plan is None:
            return ()
        try:
            return run_statuses(self._context.folders, self._context.task, plan)
        except NNSegmentError as error:
            self._context.say(str(error), "error")
            return ()

    def _fill_boxes(self, plan) -> None:
        names = [configuration.name for configuration in plan.configurations] if plan else []
        folds = self._folds()
        is_new = not self.ui.trainConfigurationBox.count
        fill_box(self.ui.trainConfigurationBox, [(name, name) for name in names])
        if is_new:
            choose_value(self.ui.trainConfigurationBox, USUAL)
        entries = [(str(fold), _("Fold {number}").format(number=fold)) for fold in folds]
        entries += (
            [(IN_TURN, _("All folds, one after the other")), (ALL, _("All cases, no validation"))] if names else []
        )
        fill_box(self.ui.trainFoldBox, entries)

    def _tell_of_new_cases(self) -> None:
        """And of corrected ones."""
        if self._button.collapsed:
            return
        unlearned = self._context.unlearned_cases()
        box = _("Begin again with all cases, new and corrected ones")
        advice = _("To train on them, plan again with “{box}” ticked under Plan.").format(box=box)
        show_text(self.ui.trainNewCasesLabel, f"{unlearned.text()} {advice}" if unlearned else "")

    def _on_collapsed(self, collapsed: bool) -> None:
        if not collapsed:
            self._tell_of_new_cases()

    def _folds(self) -> list:
        return sorted({status.fold for status in self._statuses if status.fold != ALL})

    def _fill_grid(self, plan) -> None:
        table = self.ui.runsTable
        names = [configuration.name for configuration in plan.configurations] if plan else []
        folds = [*self._folds(), ALL] if names else []
        table.setVisible(bool(names))
        table.rowCount, table.columnCount = len(names), len(folds)
        table.setVerticalHeaderLabels(names)
        table.setHorizontalHeaderLabels([_("all") if fold == ALL else str(fold) for fold in folds])
        for status in self._statuses:
            table.setItem(names.index(status.configuration), folds.index(status.fold), _cell(status))
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)
        if names:
            fit_height(table)

    def _attach(self) -> None:
        """Follow a training that runs, whoever started it."""
        running = self._context.running_verb("train", "validate")
        if running is not None and (self._job_view.job is None or not self._job_view.is_running):
            self._show_job(running)
        elif self._job_view.job is not None and not self._context.is_here(self._job_view.job):
            self._job_view.show(None)

    def _show_job(self, job) -> None:
        self._job_view.show(job)
        words = job.request.arguments
        self.ui.trainCommandEdit.text = self._command(words)

    # What is chosen ---------------------------------------------------------------------------------------------------

    def words(self, resume: bool = False) -> tuple[str, ...]:
        """The command for what is chosen; raises SettingsError."""
        from NNSegmentLib.training.length import TrainingLength, length_words

        plan, fold = self._context.plan(), chosen(self.ui.trainFoldBox)
        words = ["train", self._context.task.name, chosen(self.ui.trainConfigurationBox), fold, "-p", plan.name]
        if resume:
            return (*words, "--resume", *device_words(self.ui.trainDeviceBox))
        length = TrainingLength(chosen(self.ui.trainLengthBox))
        words += length_words(length, self.ui.trainLengthEdit.text, len(self._folds()) if fold == IN_TURN else 1)
        words += device_words(self.ui.trainDeviceBox)
        if self.ui.trainSettingsPath.currentPath:
            words += option("--settings", self.ui.trainSettingsPath.currentPath)
        if self.ui.trainPretrainedPath.currentPath:
            words += option("--pretrained", self.ui.trainPretrainedPath.currentPath)
        return (*words, *(["--save-probabilities"] if self.ui.trainProbabilitiesBox.checked else []))

    def start(self) -> None:
        """Train what is chosen from the beginning."""
        self._start(resume=False)

    def resume(self) -> None:
        """Go on with the chosen run."""
        self._start(resume=True)

    def _start(self, resume: bool) -> None:
        if gone := self._why_nothing():  # the files were deleted since the section was filled
            self.refresh()
            self._context.say(gone, "error")
            return
        words = self.words(resume)
        title = _("Training {configuration}, {fold} of {task}").format(
            configuration=words[2], fold=self.ui.trainFoldBox.currentText.lower(), task=self._context.task.name
        )
        job = self._context.start_job(words, title)
        if job is not None:
            self._show_job(job)
            self._refresh_controls()

    def _chosen_status(self):
        wanted = chosen(self.ui.trainConfigurationBox), chosen(self.ui.trainFoldBox)
        return next((s for s in self._statuses if (s.configuration, str(s.fold)) == wanted), None)

    def _refresh_controls(self) -> None:
        from NNSegmentLib.errors import NNSegmentError

        self.ui.trainLengthEdit.setVisible(chosen(self.ui.trainLengthBox) == "other")
        hint, lacking = self._why_nothing(), without_torch(self._context)
        show_text(self.ui.trainHintLabel, hint or lacking)
        for part in (self.ui.trainForm, self.ui.trainAdvancedBox, self.ui.trainCurvesButton, self.ui.trainCommandRow):
            part.setVisible(not hint)
        command, wrong = "", ""
        if not hint:
            try:
                command = self._command(self.words())
            except NNSegmentError as error:
                wrong = str(error)
        if not self._job_view.is_running:
            self.ui.trainCommandEdit.text = command
        self.ui.trainCommandEdit.setCursorPosition(0)
        self._refresh_buttons(hint or lacking or wrong)

    def _refresh_buttons(self, wrong: str) -> None:
        status = self._chosen_status()
        busy = _("This run is being trained; stop it first.") if self._is_running(status) else ""
        again = status is not None and status.state not in ("none", "running")
        self.ui.trainStartButton.text = _("Train again") if again else _("Train")
        start_tip = _again_text(status) if again else _("Start the training.")
        set_enabled(self.ui.trainStartButton, wrong or busy, start_tip)
        nothing = "" if status is not None and status.can_resume else _("The chosen run has nothing to go on from.")
        resume_tip = _("Go on where the run stopped, with the length it was started with.")
        set_enabled(self.ui.trainResumeButton, wrong or busy or nothing, resume_tip)

    def _is_running(self, status) -> bool:
        """Whether a process works in the chosen run, or in one of all folds, or a job is about to."""
        configuration = chosen(self.ui.trainConfigurationBox)
        wanted = [status] if status is not None else [s for s in self._statuses if s.configuration == configuration]
        taken = {folder for job in self._context.running_jobs() for folder in job.request.run_folders}
        return any(s.state == "running" or s.folder.folder in taken for s in wanted)

    def _why_nothing(self) -> str:
        if self._context.task is None:
            return _("Open or create a task first.")
        if self._context.plan() is None:
            return _("Make a plan first.")
        return ""

    def _command(self, words) -> str:
        return self._context.command_line(words)

    def _copy(self) -> None:
        copy_to_clipboard(self.ui.trainCommandEdit.text)
        self._context.say(_("The command line is in the clipboard."), "info")

    # What happens -----------------------------------------------------------------------------------------------------

    def _on_run_chosen(self) -> None:
        self._refresh_controls()
        self._refresh_epoch()
        self._draw()

    def _on_cell(self, row: int, column: int) -> None:
        folds = [*self._folds(), ALL]
        self.ui.trainConfigurationBox.setCurrentIndex(row)
        choose_value(self.ui.trainFoldBox, str(folds[column]))

    def _on_events(self, job, events) -> None:
        from NNSegmentLib.run import Message

        if job.request.arguments[0] not in ("train", "validate"):
            return
        for event in events:
            if isinstance(event, Message):
                self._context.say(event.text)  # on what it runs, above all: nobody chose the processor
        plan = self._context.plan()
        self._statuses = self._read_statuses(plan)
        self._fill_grid(plan)
        self._refresh_controls()
        self._refresh_epoch()
        self._draw()

    def _on_ended(self, job, state) -> None:
        if job.request.arguments[0] in ("train", "validate"):
            self._context.results_changed.emit()
            self._draw()

    def _refresh_epoch(self) -> None:
        """Epoch, Dice of each class, and the time left of the chosen run, or of the one that runs."""
        status = self._watched()
        show_text(self.ui.trainEpochLabel, self._epoch_text(status) if status is not None else "")

    def _watched(self):
        """The chosen run; while all folds are trained in turn, the one at work."""
        status = self._chosen_status()
        if status is not None:
            return status
        return next((s for s in self._statuses if s.state == "running"), None)

    def _epoch_text(self, status) -> str:
        from NNSegmentLib.jobs.progress import epoch_text

        name = _run_name(status)
        if status.failure:
            return f"{name}: {status.failure}"
        if status.last is None:
            return ""
        parts = [f"{name}: {epoch_text(status.last)}"]
        names = [label.name for label in self._context.task.labels.foreground]
        if len(names) == len(status.last.dice_per_class):
            known = zip(names, status.last.dice_per_class, strict=True)
            parts.append(", ".join(f"{label} {dice:.2f}" for label, dice in known if dice is not None))
        if status.dice is not None:
            parts.append(_("validation Dice {dice}").format(dice=f"{status.dice:.3f}"))
        return " · ".join(part for part in parts if part)

    def _on_curves(self, shown: bool) -> None:
        self._layout_due = shown
        self._draw()

    def _draw(self) -> None:
        status = self._watched()
        if status is None or not self.ui.trainCurvesButton.checked:
            return
        from NNSegmentLib.run import read_events

        self._curves.draw(read_events(status.folder.events), _run_name(status))
        if self._layout_due:
            self._layout_due = False
            self._curves.show_in_layout()


def _run_name(status) -> str:
    fold = _("all cases") if status.fold == ALL else _("fold {number}").format(number=status.fold)
    return f"{status.configuration}, {fold}"


def _again_text(status) -> str:
    """What becomes of the run that is there."""
    if status.folder.is_kept_when_replaced:
        text = _("Train from the beginning; the run that is there is kept in {folder}.")
    elif status.folder.has_weights:
        text = _("Train from the beginning; the finished run in {folder} is kept, and this unfinished one is replaced.")
    else:
        text = _("Train from the beginning.")
    return text.format(folder=status.folder.earlier.name)


def _lengths():
    from NNSegmentLib.training.length import TrainingLength

    texts = {
        TrainingLength.QUICK: _("Quick look (5 minutes)"),
        TrainingLength.HOUR: _("An hour"),
        TrainingLength.TONIGHT: _("Tonight until 7:00"),
        TrainingLength.FULL: _("Full nnU-Net schedule (1000 epochs)"),
        TrainingLength.OTHER: _("Other …"),
    }
    return [(str(length), text) for length, text in texts.items()]


def _cell(status):
    """What the grid shows of a run."""
    item = qt.QTableWidgetItem(_cell_text(status))
    item.setTextAlignment(qt.Qt.AlignCenter)
    item.setToolTip(tip(f"{_run_name(status)}: {_state_text(status)}"))
    return item


def _cell_text(status) -> str:
    share = f"{100 * status.last.epoch // max(status.last.epochs, 1)}%" if status.last else ""
    return {
        "none": "–",
        "running": "▶" + share,
        "stopped": "‖" + share,
        "failed": "!",
        "trained": "✓",
        "validated": f"{status.dice:.3f}" if status.dice is not None else "✓",
    }[str(status.state)]


def _state_text(status) -> str:
    return {
        "none": _("not trained yet"),
        "running": _("is being trained"),
        "stopped": _("stopped, can be resumed"),
        "failed": _("failed: {reason}").format(reason=status.failure),
        "trained": _("trained, without validation"),
        "validated": _("trained and validated"),
    }[str(status.state)]
