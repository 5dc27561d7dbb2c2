"""Results: which configuration or ensemble is best, and every validation case with its Dice, to look at."""

from __future__ import annotations

import os
from pathlib import Path

from slicer.i18n import tr as _

from .case_view import CaseView
from .context import cannot_read
from .job_view import JobView
from .widgets import chosen, fill_box, fill_table, load_section, open_file, set_enabled, show_text


class ResultsSection:
    """Shows what `best` and the validations left on disk, and starts `best` and `report`."""

    def __init__(self, parent_button, context, resource_path) -> None:
        self._context = context
        self._widget, self.ui = load_section(resource_path("UI/Results.ui"), parent_button)
        self._job_view = JobView(self.ui.resultsJobFrame, context, "results")
        self._view = CaseView()
        self._cases, self._summaries = (), ()
        self._connect()
        self.refresh()

    def _connect(self) -> None:
        self.ui.bestButton.connect("clicked()", self.find_best)
        self.ui.reportButton.connect("clicked()", self.write_report)
        self.ui.scoresBox.connect("currentIndexChanged(int)", self._fill_scores)
        self.ui.scoresTable.connect("cellClicked(int,int)", self._on_case)
        context = self._context
        for signal in (context.task_changed, context.plan_changed, context.results_changed):
            signal.connect(self.refresh)
        context.jobs_changed.connect(self._refresh_buttons)
        context.job_ended.connect(self._on_ended)

    def refresh(self) -> None:
        """Read selection and scores again."""
        before, self._summaries = self._summaries, self._find_summaries()
        selection = self._selection()
        self._fill_candidates(selection)
        same_first = before[:1] == self._summaries[:1]  # a comparison that is new is what the user wants to see
        fill_box(self.ui.scoresBox, [(str(path), title) for path, title in self._summaries], keep=same_first)
        self._fill_scores()
        self._attach()
        self._refresh_buttons()

    def find_best(self) -> None:
        """Compare the trained configurations and their ensembles."""
        self._start(["best", self._context.task.name], _("Finding the best"))

    def write_report(self) -> None:
        """Write the HTML page about the task and its models."""
        self._start(["report", self._context.task.name], _("Writing the report"))

    def _start(self, words, title: str) -> None:
        job = self._context.start_job(words, title)
        if job is not None:
            self._job_view.show(job)
            self._refresh_buttons()

    def _attach(self) -> None:
        running = self._context.running_verb("best", "report")
        if running is not None:
            if not self._job_view.is_running:
                self._job_view.show(running)
        elif self._context.task is None:
            self._job_view.show(None)

    def _refresh_buttons(self) -> None:
        show_text(self.ui.resultsHintLabel, self._why_nothing())
        running = self._context.running_verb("best", "report") if self._context.workspace else None
        busy = _("Wait until this is done: {title}.").format(title=running.request.title) if running else ""
        tip = _("Compare all trained configurations and ensembles of two by cross-validation.")
        set_enabled(self.ui.bestButton, self._why_nothing() or busy, tip)
        no_task = "" if self._context.task is not None else _("Open or create a task first.")
        set_enabled(self.ui.reportButton, no_task or busy, _("Write one HTML page with everything about this task."))
        self.ui.scoresForm.setVisible(bool(self._summaries))

    def _why_nothing(self) -> str:
        if self._context.task is None:
            return _("Open or create a task first.")
        if not self._summaries:
            return _("Train at least one fold first; its validation appears here.")
        return ""

    # The comparison ---------------------------------------------------------------------------------------------------

    def _selection(self):
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.selection.record import load_selection

        if self._context.task is None or not os.path.isfile(self._context.folders.selection):
            return None
        try:
            return load_selection(self._context.folders.selection)
        except NNSegmentError as error:
            self._context.say(str(error), "error")
            return None

    def _fill_candidates(self, selection) -> None:
        table = self.ui.candidatesTable
        table.setVisible(selection is not None)
        show_text(self.ui.bestLabel, _best_text(selection) if selection else "")
        if selection is None:
            return
        from NNSegmentLib.scores import shown

        rows = [
            (c.title, shown(c.dice, 3), *(shown(dice, 3) for dice in c.dice_per_target)) for c in selection.candidates
        ]
        width = 2 + len(selection.targets)
        rows = [(*row, *[""] * (width - len(row))) for row in rows]
        fill_table(table, (_("Model"), _("Dice"), *selection.targets), rows, bold_row=selection.best_index)

    # The cases --------------------------------------------------------------------------------------------------------

    def _find_summaries(self) -> tuple[tuple[Path, str], ...]:
        """(summary.json, title) of every validation there is, gathered ones first."""
        if self._context.task is None:
            return ()
        found, models = [], self._models()
        for model in models:
            for folder in sorted(model.folder.glob("crossval_results_folds_*")):
                found.append((folder / "summary.json", _("{name}, all its folds").format(name=model.configuration)))
        for model in models:
            for folder in sorted(model.folder.glob("fold_*")):
                title = _("{name}, fold {fold}").format(name=model.configuration, fold=folder.name[len("fold_") :])
                found.append((folder / "validation" / "summary.json", title))
        return tuple((path, title) for path, title in found if path.is_file())

    def _models(self) -> tuple:
        try:
            return self._context.folders.models()
        except OSError as error:
            self._context.say(cannot_read(self._context.workspace_path, error), "error")
            return ()

    def _fill_scores(self) -> None:
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.scores import load_scores, shown

        path = chosen(self.ui.scoresBox)
        self.ui.scoresTable.setVisible(path is not None)
        self._cases = ()
        if path is None:
            return
        try:
            scores = load_scores(Path(path))
        except NNSegmentError as error:
            show_text(self.ui.scoresStatusLabel, str(error))
            return
        self._cases = tuple(sorted(scores.cases, key=_worst_first))
        labels = self._context.task.labels
        names = [labels.name_of(target) for target in scores.targets]
        rows = [(c.case_id, shown(c.mean_dice, 3), *(shown(m.dice, 3) for m in c.metrics)) for c in self._cases]
        fill_table(self.ui.scoresTable, (_("Case"), _("Dice"), *names), rows)
        mean = _("Cases: {count} · mean Dice {dice}").format(count=len(self._cases), dice=shown(scores.dice, 3))
        show_text(self.ui.scoresStatusLabel, mean)

    def _on_case(self, row: int, column: int) -> None:
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.scores import shown

        scores = self._cases[row]
        try:
            case = self._context.task.case(scores.case_id)
            reference = case.labels if case.labels is not None else scores.reference_file
            prediction = self._existing(scores)
            self._view.show(case.id, case.images[0], reference, prediction, self._context.task.labels)
        except NNSegmentError as error:
            self._context.say(str(error), "error")
            return
        text = _("{case}: reference as an outline, prediction filled. Dice {dice}.")
        self._context.say(text.format(case=case.id, dice=shown(scores.mean_dice, 3)), "info")

    def _existing(self, scores) -> Path:
        """The prediction's file, also after the results folder was moved."""
        beside = Path(chosen(self.ui.scoresBox)).parent / scores.prediction_file.name
        return beside if beside.is_file() else scores.prediction_file

    def _on_ended(self, job, state) -> None:
        verb = job.request.arguments[0]
        if verb == "best":
            self._context.results_changed.emit()
        elif verb == "report" and state == "finished":
            self._show_report(job)

    def _show_report(self, job) -> None:
        from NNSegmentLib.errors import NNSegmentError

        try:
            report = job.result_of("report")
        except NNSegmentError as error:
            self._context.say(str(error), "error")
            return
        self._context.say(_("The report is in {path}.").format(path=report), "success")
        open_file(report)


def _worst_first(case) -> float:
    return case.mean_dice if case.mean_dice == case.mean_dice else -1.0  # NaN is not equal to itself


def _best_text(selection) -> str:
    parts = [_("Best: {title}.").format(title=selection.best.title)]
    if selection.postprocessing_text:
        parts.append(_("Post-processing: {text}.").format(text=selection.postprocessing_text))
    parts += [note if note.endswith(".") else note + "." for note in selection.notes]
    return " ".join(parts)
