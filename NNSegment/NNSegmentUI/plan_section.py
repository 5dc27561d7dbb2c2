"""The section "Plan": what the data look like, the configurations that follow from it, and why."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .context import PanelContext
from .fingerprint_picture import draw_fingerprint
from .widgets import chosen, fill_box, fill_table, load_section, open_file, set_enabled, show_text, tip

COMMON_REASONS = ("spacing", "normalization", "transpose", "mask")
LEAST_WIDTH = 300
"""Pixels of a picture while the section has never been shown."""


def presets() -> tuple[tuple[str, str], ...]:
    """(value of --preset, text) of every choice."""
    return (
        ("default", _("Standard U-Net (8 GB)")),
        ("resenc-m", _("Residual U-Net, medium (9 GB)")),
        ("resenc-l", _("Residual U-Net, large (24 GB)")),
        ("resenc-xl", _("Residual U-Net, huge (40 GB)")),
        ("small", _("Small U-Net (2 GB or processor)")),
    )


class PlanSection:
    """Fills the collapsible button `parent_button`."""

    def __init__(self, parent_button, context: PanelContext, resource_path) -> None:
        self._context, self._button = context, parent_button
        _widget, self._ui = load_section(resource_path("UI/Plan.ui"), parent_button)
        self._plan, self._names = None, ()
        self._offered: tuple = ()
        """The task, whether it was trained, and its new cases, of the last offer to begin again."""
        ui = self._ui
        fill_box(ui.presetCombo, presets())
        for signal in (context.plan_changed, context.task_changed, context.results_changed):
            signal.connect(self.refresh)
        context.jobs_changed.connect(self._refresh_buttons)
        context.job_ended.connect(self._on_job_ended)
        parent_button.connect("contentsCollapsed(bool)", self._on_collapsed)
        ui.makePlanButton.connect("clicked()", self.make_plan)
        ui.anewBox.connect("toggled(bool)", self._refresh_buttons)
        ui.diagramButton.connect("clicked()", self.draw_network)
        ui.openDiagramButton.connect("clicked()", self.open_diagram)
        ui.configurationsTable.connect("itemSelectionChanged()", self._show_configuration)
        slicer.app.connect("paletteChanged(QPalette)", self._on_theme)
        self.refresh()

    def cleanup(self) -> None:
        slicer.app.disconnect("paletteChanged(QPalette)", self._on_theme)

    def refresh(self) -> None:
        """Show the plan of the open task; nothing is read while the section is closed."""
        if self._button.collapsed:
            self._plan = None
            return
        self._plan, ui = self._context.plan(), self._ui
        for widget in (ui.configurationsTable, ui.reasonsLabel, ui.commonReasonsButton, ui.diagramButton):
            widget.setVisible(self._plan is not None)
        self._offer_to_begin_again()
        self._show_fingerprint()
        if self._plan is not None:
            self._show_configurations()
        self._show_diagram()
        self._refresh_buttons()

    def make_plan(self) -> None:
        """Measure, plan and prepare the data in a job."""
        words = ["plan", self._context.task.name, "--preset", chosen(self._ui.presetCombo)]
        if self._ui.gpuMemorySpin.value > 0:
            words += ["--gpu-memory", f"{self._ui.gpuMemorySpin.value:g}"]
        if self._ui.anewBox.checked:
            words.append("--anew")
        elif self._is_stale():
            words.append("--clean")
        self._context.start_job(words, _("Planning and preparing the data"))

    def draw_network(self) -> None:
        """Draw the chosen configuration's network in a job."""
        path = self._diagram_path()
        if path is None:
            self.refresh()
            self._context.say(_("The plan is no longer there; make it again."), "error")
            return
        words = ["diagram", self._context.task.name, self._configuration(), "-p", self._plan.name, "-o", str(path)]
        job = self._context.start_job(words, _("Drawing the network"))
        if job is not None:
            self._refresh_buttons()

    def open_diagram(self) -> None:
        """Show the picture with the program that the system has for it, unless it was deleted behind the panel."""
        path = self._diagram_path()
        if path is not None and os.path.isfile(path):
            open_file(path)
        else:
            self.refresh()
            self._context.say(_("The picture is no longer there; draw the network again."), "error")

    def _on_theme(self, palette) -> None:
        """Draw in the new colours, which the widgets do not have yet."""
        if not self._button.collapsed:
            self._show_fingerprint(palette)

    def _on_collapsed(self, collapsed: bool) -> None:
        if not collapsed:
            self.refresh()

    def _on_job_ended(self, job, state) -> None:
        verb = job.request.arguments[0]
        if verb in ("plan", "preprocess", "fingerprint"):
            self._context.plan_changed.emit()
            if "--anew" in job.request.arguments:
                self._context.results_changed.emit()
        elif verb == "diagram":
            self._show_diagram()
            self._refresh_buttons()

    def _is_stale(self) -> bool:
        """Whether cases came or went since the data were measured."""
        fingerprint, dataset = self._context.folders.fingerprint, self._context.task.folder / "dataset.json"
        try:
            return fingerprint.stat().st_mtime < dataset.stat().st_mtime
        except OSError:  # not measured yet, or deleted behind the panel
            return False

    # what is shown --------------------------------------------------------------------------------------------------

    def _offer_to_begin_again(self) -> None:
        """Where models were trained; ticked when cases are new, until the user decides otherwise.

        Not for corrected ones: a label map that was only copied back looks like one, and all models would be set aside.
        """
        task, begun, unlearned = self._context.task, self._context.is_begun(), self._context.unlearned_cases()
        self._ui.anewBox.setVisible(begun)
        offered = (task.folder if task else None, begun, unlearned.new)
        if offered != self._offered:
            self._offered, self._ui.anewBox.checked = offered, bool(unlearned.new)
        show_text(self._ui.newCasesLabel, unlearned.text())

    def _show_fingerprint(self, palette=None) -> None:
        found = self._fingerprint()
        label = self._ui.fingerprintPicture
        label.setVisible(found is not None)
        if found is not None:
            names = [channel.name for channel in self._context.task.channels]
            label.setPixmap(draw_fingerprint(found, names, self._width(), label, palette))

    def _fingerprint(self):
        if self._context.task is None:
            return None
        if not os.path.isfile(self._context.folders.fingerprint):  # Path.is_file raises where it may not look
            return None
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.fingerprint import load_fingerprint

        try:
            return load_fingerprint(self._context.folders.fingerprint)
        except NNSegmentError as error:
            self._context.say(str(error), "error")
            return None

    def _show_configurations(self) -> None:
        """What is planned, then what is not, as its reasons tell."""
        from NNSegmentLib.planning.plan import CONFIGURATIONS

        planned = {configuration.name: configuration for configuration in self._plan.configurations}
        absent = [name for name in CONFIGURATIONS if name not in planned and name in self._plan.reasons]
        self._names = (*planned, *absent)
        header = (_("Configuration"), _("Patch"), _("Batch"), _("Voxel (mm)"))
        rows = [_cells(name, planned.get(name), self._plan) for name in self._names]
        table = self._ui.configurationsTable
        blocked = table.blockSignals(True)
        fill_table(table, header, rows)
        for row in range(len(planned), len(self._names)):
            for column in range(table.columnCount):
                table.item(row, column).setFlags(qt.Qt.ItemIsSelectable)
                table.item(row, column).setToolTip(tip(self._plan.reasons[self._names[row]]))
        table.selectRow(self._names.index("3d_fullres") if "3d_fullres" in planned else 0)
        table.blockSignals(blocked)
        self._show_configuration()

    def _show_configuration(self) -> None:
        if self._plan is not None and self._names:
            show_text(self._ui.reasonsLabel, _reasons_of(self._plan, self._chosen_name()))
            self._ui.commonReasonsLabel.text = _common_reasons(self._plan)
        self._show_diagram()
        self._refresh_buttons()

    def _show_diagram(self) -> None:
        path = self._diagram_path()
        is_there = path is not None and os.path.isfile(path)
        for widget in (self._ui.diagramPicture, self._ui.openDiagramButton):
            widget.setVisible(is_there)
        if is_there:
            picture = qt.QPixmap(str(path))
            width = min(self._width(), picture.width())
            self._ui.diagramPicture.setPixmap(picture.scaledToWidth(width, qt.Qt.SmoothTransformation))

    def _width(self) -> int:
        return max(self._button.width - 36, LEAST_WIDTH)

    def _chosen_name(self) -> str:
        row = self._ui.configurationsTable.currentRow()
        return self._names[max(row, 0)]

    def _configuration(self) -> str | None:
        """The chosen row when it is planned."""
        if self._plan is None or not self._names:
            return None
        name = self._chosen_name()
        return name if any(c.name == name for c in self._plan.configurations) else None

    def _diagram_path(self) -> Path | None:
        """Where the picture of the chosen configuration is; its name changes with the plan. None without a plan."""
        name = self._configuration()
        if name is None:
            return None
        try:
            stamp = int(self._context.folders.plan(self._plan.name).stat().st_mtime)
        except OSError:  # the plan was deleted behind the panel
            return None
        return self._context.folders.preprocessed / "diagrams" / f"{self._plan.name}_{name}_{stamp}.png"

    def _refresh_buttons(self) -> None:
        ui = self._ui
        set_enabled(
            ui.makePlanButton,
            self._why_no_plan(),
            _("Measure the images, choose patches and networks, and resample all cases. Runs as a job of its own."),
        )
        set_enabled(ui.diagramButton, self._why_no_diagram(), _("Draw the layers of the chosen configuration."))

    def _why_no_plan(self) -> str:
        if self._context.task is None:
            return _("Open or create a task first.")
        users = ("validate", "best", "predict", "report") if self._ui.anewBox.checked else ()
        job = self._context.running_verb("plan", "preprocess", "convert", "train", *users)
        return _("Wait until this is done: {title}.").format(title=job.request.title) if job else ""

    def _why_no_diagram(self) -> str:
        if self._configuration() is None:
            return _("Choose a configuration that is planned.")
        return _("The network is being drawn.") if self._context.running_verb("diagram") else ""


def _cells(name: str, configuration, plan) -> tuple[str, ...]:
    """One row of the table; a cascade has the patch of what it inherits from."""
    if configuration is None:
        return (name, _("not needed"), "", "")
    return (
        name,
        " × ".join(map(str, configuration.patch_size)),
        str(configuration.batch_size),
        "–" if plan.is_of_pictures else " × ".join(f"{size:.3g}" for size in configuration.spacing_mm),
    )


def _reasons_of(plan, name: str) -> str:
    """Sentences about one configuration."""
    own = [text for key, text in plan.reasons.items() if key == name or key.startswith(name + ".")]
    return f"<b>{escape(name)}</b>{_paragraphs(own)}" if own else ""


def _common_reasons(plan) -> str:
    """Sentences about what all configurations share."""
    return _paragraphs([plan.reasons[key] for key in COMMON_REASONS if key in plan.reasons])


def _paragraphs(sentences) -> str:
    return "".join(f'<p style="margin: 3px 0">{escape(text)}</p>' for text in sentences)
