"""Apply: a model, volumes or a folder of images, and the segments that come of them."""

from __future__ import annotations

import os
from itertools import zip_longest

import slicer
from slicer.i18n import tr as _

from .apply_models import OTHER, model_choices, read_card
from .dependencies import without_torch
from .job_view import JobView
from .pairs import companions
from .scene_application import late_answers, write_volumes
from .shown_answers import ShownAnswers
from .widgets import (
    beside_field,
    chosen,
    connect_path,
    copy_to_clipboard,
    device_words,
    fill_box,
    fill_devices,
    is_typed,
    load_section,
    option,
    plain_label,
    resting,
    set_enabled,
    show_text,
)

ONE, LOADED, FOLDER = "one", "loaded", "folder"


class ApplySection:
    """Collects what to predict, writes the images, starts the job, and shows the answer."""

    def __init__(self, parent_button, context, resource_path) -> None:
        self._context = context
        self._widget, self.ui = load_section(resource_path("UI/Apply.ui"), parent_button)
        self._widget.setMRMLScene(slicer.mrmlScene)
        self._job_view = JobView(self.ui.applyJobFrame, context, "apply")
        self._choices, self._card, self._why = (), None, ""
        self._selectors: list[tuple] = []
        self._first_volume = None
        self._answers = ShownAnswers(self._tell_answers)
        self._can_cancel = False
        """Whether the button says Cancel."""
        fill_devices(self.ui.applyDeviceBox)
        self._fill_inputs()
        self._offer_half()
        self._connect()
        self.refresh()

    def _fill_inputs(self) -> None:
        entries = ((ONE, _("One volume")), (LOADED, _("All loaded volumes")), (FOLDER, _("A folder of images")))
        fill_box(self.ui.applyInputBox, entries)

    def _offer_half(self) -> None:
        from NNSegmentLib.machine.processor import tells_amx

        reason = "" if tells_amx() else _("It would take longer here: it needs Linux and a processor with Intel's AMX.")
        set_enabled(self.ui.applyHalfBox, reason, self.ui.applyHalfBox.toolTip)

    def _connect(self) -> None:
        ui, context = self.ui, self._context
        ui.applyModelBox.connect("currentIndexChanged(int)", self._on_model)
        self._typing = resting(ui.applyModelPath, self._take_path)
        connect_path(ui.applyModelPath, self._on_path)
        ui.applyInputBox.connect("currentIndexChanged(int)", self._refresh_controls)
        for path in (ui.applyInputFolder, ui.applyOutputFolder):
            connect_path(path, self._refresh_controls)
        ui.applyFoldsEdit.connect("textChanged(QString)", self._refresh_controls)
        ui.applyDeviceBox.connect("currentIndexChanged(int)", self._refresh_controls)
        for box in (ui.applyMirroringBox, ui.applyHalfBox, ui.applyProbabilitiesBox):
            box.connect("toggled(bool)", self._refresh_controls)
        ui.applyRunButton.connect("clicked()", self._on_run)
        ui.applyCopyButton.connect("clicked()", self._copy)
        ui.applyUndoButton.connect("clicked()", self._undo)
        for signal in (context.workspace_changed, context.task_changed, context.results_changed):
            signal.connect(self.refresh)
        context.jobs_changed.connect(self._attach)
        context.job_ended.connect(self._on_ended)
        context.workspace_changed.connect(self._take_late_answers)

    def cleanup(self) -> None:
        self._typing.stop()
        self._answers.cleanup()

    # Models -----------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look for models again."""
        self._choices = model_choices(self._context, self.ui.applyModelPath.currentPath)
        box = self.ui.applyModelBox
        decided = box.currentIndex > 0 or bool(self.ui.applyModelPath.currentPath)  # else the first, the best there is
        fill_box(box, [(choice.key, choice.title) for choice in self._choices], keep=decided)
        self._attach()
        self._on_model()

    def _on_path(self) -> None:
        """A path that is typed rests first: below its beginnings, such as /, there is a whole disk to look through."""
        if not is_typed(self.ui.applyModelPath):
            self._take_path()
            return
        self._typing.start()
        self._show_model(None, _("The model is looked for once the path rests."))

    def _take_path(self) -> None:
        self._typing.stop()
        self._choices = model_choices(self._context, self.ui.applyModelPath.currentPath)
        self._on_model()

    def _on_model(self) -> None:
        self._show_model(*read_card(self._choice()))

    def _show_model(self, card, why: str) -> None:
        choice, self._card, self._why = self._choice(), card, why
        for part in (self.ui.applyModelPath, self.ui.applyModelPathLabel):
            part.setVisible(choice.key == OTHER)
        show_text(self.ui.applyModelLabel, self._card.text() if self._card else self._why)
        self._offer_channels(self._card.channels if self._card else ())
        self._refresh_controls()

    def _choice(self):
        key = chosen(self.ui.applyModelBox)
        return next((choice for choice in self._choices if choice.key == key), self._choices[-1])

    def _offer_channels(self, names) -> None:
        """A selector per channel of the model; those of a model with more channels are kept for later."""
        while len(self._selectors) < len(names):
            self._add_selector(len(self._selectors))
        for n, (label, selector) in enumerate(self._selectors):
            for part in (label, selector):
                part.setVisible(n < len(names))
            if n < len(names):
                label.text = beside_field(_("{channel}:").format(channel=names[n]))

    def _add_selector(self, number: int) -> None:
        label, selector = plain_label(), slicer.qMRMLNodeComboBox()
        label.setBuddy(selector)
        label.setMinimumWidth(self.ui.applyOutputLabel.minimumWidth)  # the fields stand below each other
        selector.setObjectName(f"applyVolume{number}")
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.showChildNodeTypes = False
        selector.noneEnabled, selector.addEnabled, selector.removeEnabled = True, False, False
        selector.noneDisplay = _("Choose a volume")
        selector.toolTip = _("The volume for this channel of the model.")
        selector.setMRMLScene(slicer.mrmlScene)
        changed = self._refresh_controls if number else self._on_first_volume
        selector.connect("currentNodeChanged(vtkMRMLNode*)", changed)
        self.ui.applyChannelsRow.layout().addRow(label, selector)
        self._selectors.append((label, selector))

    def _on_first_volume(self) -> None:
        """Nothing of the patient who was chosen before is mixed with another one's."""
        volume = self._selectors[0][1].currentNode()
        if volume is not self._first_volume:  # the selector also tells when its list alone has changed
            self._first_volume = volume
            self._choose_other_channels(volume)
            self._leave_other_segmentation(volume)
        self._refresh_controls()

    def _choose_other_channels(self, volume) -> None:
        """The companions of the first volume where their names tell them, none where not."""
        others = companions(volume, self._card.channels if self._card else (), loaded_volumes())
        for (_label, selector), other in zip_longest(self._selectors[1:], others):  # more than the model has channels
            selector.setCurrentNode(other)

    def _leave_other_segmentation(self, volume) -> None:
        """A segmentation of another volume does not take the segments of this one unasked."""
        from NNSegmentLib.scene_tasks import REFERENCE_ROLE

        output = self.ui.applyOutputSelector
        if volume is not None and output.currentNode() is not None:
            drawn_on = output.currentNode().GetNodeReferenceID(REFERENCE_ROLE)
            if drawn_on and drawn_on != volume.GetID():
                output.setCurrentNode(None)

    # What is chosen ---------------------------------------------------------------------------------------------------

    def _volumes(self) -> list:
        """The chosen volume of every channel, None where there is none."""
        channels = len(self._card.channels) if self._card else 0
        return [selector.currentNode() for _label, selector in self._selectors[:channels]]

    def _groups(self) -> list:
        """The cases to predict, each as its volumes."""
        if chosen(self.ui.applyInputBox) == ONE:
            return [self._volumes()]
        return [[volume] for volume in loaded_volumes()]

    def _words(self, images, labels) -> tuple[str, ...]:
        choice, ui = self._choice(), self.ui
        words = ["predict", *option("-i", str(images)), *option("-o", str(labels)), *choice.words]
        if self._folds():
            words += ["-f", *self._folds()]
        words += [] if ui.applyMirroringBox.checked else ["--no-mirroring"]
        words += ["--half"] if ui.applyHalfBox.checked else []
        words += ["--save-probabilities"] if ui.applyProbabilitiesBox.checked else []
        return (*words, *device_words(ui.applyDeviceBox))

    def _why_not(self) -> str:
        """Why Apply is not possible, as a sentence; empty when it is."""
        if self._context.workspace is None:
            return _("Open a workspace first; the prediction is computed there.")
        if self._card is None:
            return self._why
        if why := self._why_not_folds():
            return why
        kind = chosen(self.ui.applyInputBox)
        if kind == FOLDER:
            return self._why_not_folder()
        if kind == LOADED:
            return self._why_not_loaded()
        missing = [name for name, node in zip(self._card.channels, self._volumes(), strict=True) if node is None]
        return _("Choose a volume for {channel}.").format(channel=missing[0]) if missing else ""

    def _folds(self) -> list[str]:
        return self.ui.applyFoldsEdit.text.replace(",", " ").split()

    def _why_not_folds(self) -> str:
        from NNSegmentLib.errors import SettingsError
        from NNSegmentLib.given import fold_names

        try:
            fold_names(self._folds() or None)
        except SettingsError as error:
            return str(error)
        return ""

    def _why_not_folder(self) -> str:
        if not os.path.isdir(self.ui.applyInputFolder.currentPath):  # unlike Path's, never raises
            return _("Choose a folder of images.")
        return "" if self.ui.applyOutputFolder.currentPath else _("Choose a folder for the results.")

    def _why_not_loaded(self) -> str:
        if len(self._card.channels) > 1:
            return _("The model takes several channels; choose one volume for each, case by case.")
        return "" if loaded_volumes() else _("No volume is loaded.")

    def _refresh_controls(self) -> None:
        ui, kind = self.ui, chosen(self.ui.applyInputBox)
        ui.applyChannelsRow.setVisible(kind == ONE and self._card is not None)
        ui.applySingleRow.setVisible(kind == ONE)
        ui.applyFolderRow.setVisible(kind == FOLDER)
        for button in (ui.applyShow3DButton, ui.applyUndoButton):
            button.setVisible(kind != FOLDER)
        running, why, lacking = self._job_view.is_running, self._why_not(), without_torch(self._context)
        self._can_cancel = running
        ui.applyRunButton.text = _("Cancel") if running else _("Apply")
        tip = _("Stop the prediction.") if running else _("Segment with this model.")
        set_enabled(ui.applyRunButton, "" if running else lacking or why, tip)
        show_text(ui.applyHintLabel, lacking if self._context.workspace else why)
        set_enabled(
            ui.applyShow3DButton,
            "" if ui.applyShow3DButton.segmentationNode() else _("Nothing is predicted yet."),
            _("Show the segments in 3D."),
        )
        undo_tip = _(
            "Take the segments of the last prediction away; what they replaced comes back, and other segments stay as "
            "they are. Where some were changed by hand since, the first click only says so."
        )
        set_enabled(ui.applyUndoButton, "" if self._answers.nodes else _("Nothing is predicted yet."), undo_tip)
        if not running:
            self._show_command("" if why else self._preview())

    def _preview(self) -> str:
        if chosen(self.ui.applyInputBox) == FOLDER:
            words = self._words(self.ui.applyInputFolder.currentPath, self.ui.applyOutputFolder.currentPath)
        else:
            words = self._words("IMAGES", "LABELS")
        return self._context.command_line(words)

    def _show_command(self, text: str) -> None:
        self.ui.applyCommandEdit.text = text
        self.ui.applyCommandEdit.setCursorPosition(0)
        self.ui.applyCommandRow.setVisible(bool(text))

    def _copy(self) -> None:
        copy_to_clipboard(self.ui.applyCommandEdit.text)
        self._context.say(_("The command line is in the clipboard."), "info")

    # What happens -----------------------------------------------------------------------------------------------------

    def _on_run(self) -> None:
        from NNSegmentLib.application import application_of

        if self._can_cancel or self._why_not():  # the job may have ended a moment ago
            self._job_view.stop()
            self._refresh_controls()
            return
        show_text(self.ui.applyStatusLabel, "")
        is_folder = chosen(self.ui.applyInputBox) == FOLDER
        words = self._folder_words() if is_folder else self._volume_words()
        if words is None:
            return
        title = _("Segmenting with {model}").format(model=self.ui.applyModelBox.currentText)
        job = self._context.start_job(words, title)
        if job is not None:
            self._follow(job)
        elif not is_folder:  # the chosen folders may be those of an application from before
            application_of(words).discard()

    def _folder_words(self):
        return self._words(self.ui.applyInputFolder.currentPath, self.ui.applyOutputFolder.currentPath)

    def _volume_words(self):
        """Write the volumes and name the command; None when a volume cannot be used."""
        from NNSegmentLib.application import new_application_folder
        from NNSegmentLib.errors import NNSegmentError

        one = chosen(self.ui.applyInputBox) == ONE
        folder = None
        try:
            folder = new_application_folder(self._context.workspace_path)
            write_volumes(
                folder, self._groups(), self._card,
                segmentation=self.ui.applyOutputSelector.currentNode() if one else None,
                roi=self.ui.applyRoiSelector.currentNode() if one else None,
                probabilities=self.ui.applyProbabilitiesBox.checked,
                say=self._say_at_once,
            )  # fmt: skip
        except NNSegmentError as error:
            if folder is not None:
                folder.discard()
            self._context.say(str(error), "error")
            return None
        finally:
            show_text(self.ui.applyStatusLabel, "")
        return self._words(folder.images, folder.labels)

    def _say_at_once(self, text: str) -> None:
        """Painted now: while volumes are written, events wait."""
        show_text(self.ui.applyStatusLabel, text)
        self.ui.applyStatusLabel.repaint()

    def _follow(self, job) -> None:
        self._job_view.show(job)
        self._show_command(self._context.command_line(job.request.arguments))
        self._refresh_controls()

    def _attach(self) -> None:
        """Follow a prediction that runs already, whoever started it."""
        running, view = self._context.running_verb("predict"), self._job_view
        if running is not None and not view.is_running:
            self._follow(running)
        elif view.job is not None and not view.is_running and not self._context.is_here(view.job):
            view.show(None)

    def _on_ended(self, job, state) -> None:
        from NNSegmentLib.application import application_of

        if job.request.arguments[0] != "predict":
            return
        folder = application_of(job.request.arguments)
        if folder is None or not folder.load().shown_by:
            if state == "finished":
                self._show_answer(folder, job)
            if folder is not None:
                folder.put_away()
        self._refresh_controls()

    def _show_answer(self, folder, job) -> None:
        if folder is None:
            words = job.request.arguments
            show_text(self.ui.applyStatusLabel, _label_maps_in(words[words.index("-o") + 1]))
            return
        self._answers.clear()
        if problem := self._answers.show(folder):
            self._context.say(problem, "error")
        self._tell_answers()

    def _take_late_answers(self) -> None:
        """Predictions of the workspace that ended while the panel was closed, or another workspace open in it."""
        late, told = late_answers(self._context.unfollowed_jobs("predict")), []
        if any(_is_for_the_scene(job, folder) for job, folder in late):
            self._answers.clear()
        for job, folder in late:
            if _is_for_the_scene(job, folder):
                told += [self._answers.show(folder), self._answers.last_text]
            elif job.status() == "finished":
                told.append(_label_maps_in(folder.labels))
            folder.put_away()
            if self._job_view.job is not None and self._job_view.job.folder == job.folder:
                self._job_view.show(job)
        if told:
            text = _("A prediction has ended meanwhile. {what}")
            self._context.say(text.format(what=" ".join(part for part in told if part)), "warning")
            self._tell_answers()

    def _tell_answers(self) -> None:
        nodes = self._answers.nodes
        self.ui.applyShow3DButton.setSegmentationNode(nodes[-1] if nodes else None)
        show_text(self.ui.applyStatusLabel, self._answers.text)
        self._refresh_controls()

    def _undo(self) -> None:
        """Take the last prediction away; where that takes corrections, too, only the second time it is asked for."""
        if question := self._answers.question():
            self._context.say(question, "warning")
            return
        kept = self._answers.undo()
        self._tell_answers()
        show_text(self.ui.applyStatusLabel, kept)
        self._context.say("")


def loaded_volumes() -> list:
    """The scalar volumes of the scene that are no label maps."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    plain = [
        node for node in nodes if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors()
    ]
    return [node for node in plain if node.GetImageData() is not None]


def _is_for_the_scene(job, folder) -> bool:
    """Whether there are answers that the panel shows, as nobody else does."""
    return job.status() == "finished" and not folder.load().shown_by


def _label_maps_in(folder) -> str:
    return _("The label maps are in {folder}.").format(folder=folder)
