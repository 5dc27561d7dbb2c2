"""Apply: a model, volumes or a folder of images, and the segments that come of them."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .apply_models import OTHER, model_choices, read_card
from .job_view import JobView
from .scene_application import show_results, write_volumes
from .widgets import (
    chosen,
    connect_path,
    copy_to_clipboard,
    device_words,
    fill_box,
    fill_devices,
    load_section,
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
        self._shown: tuple[str, ...] = ()
        """Ids of the segmentations that the last prediction went into."""
        fill_devices(self.ui.applyDeviceBox)
        self._fill_inputs()
        self._connect()
        self.refresh()

    def _fill_inputs(self) -> None:
        entries = ((ONE, _("One volume")), (LOADED, _("All loaded volumes")), (FOLDER, _("A folder of images")))
        fill_box(self.ui.applyInputBox, entries)

    def _connect(self) -> None:
        ui, context = self.ui, self._context
        ui.applyModelBox.connect("currentIndexChanged(int)", self._on_model)
        connect_path(ui.applyModelPath, self._on_path)
        ui.applyInputBox.connect("currentIndexChanged(int)", self._refresh_controls)
        for path in (ui.applyInputFolder, ui.applyOutputFolder):
            connect_path(path, self._refresh_controls)
        ui.applyFoldsEdit.connect("textChanged(QString)", self._refresh_controls)
        ui.applyDeviceBox.connect("currentIndexChanged(int)", self._refresh_controls)
        ui.applyMirroringBox.connect("toggled(bool)", self._refresh_controls)
        ui.applyProbabilitiesBox.connect("toggled(bool)", self._refresh_controls)
        ui.applyRunButton.connect("clicked()", self._on_run)
        ui.applyCopyButton.connect("clicked()", self._copy)
        ui.applyUndoButton.connect("clicked()", self._undo)
        for signal in (context.workspace_changed, context.task_changed, context.results_changed):
            signal.connect(self.refresh)
        context.jobs_changed.connect(self._attach)
        context.job_ended.connect(self._on_ended)

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
        self._choices = model_choices(self._context, self.ui.applyModelPath.currentPath)
        self._on_model()

    def _on_model(self) -> None:
        choice = self._choice()
        self._card, self._why = read_card(choice)
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
                label.text = _("{channel}:").format(channel=names[n])

    def _add_selector(self, number: int) -> None:
        label, selector = qt.QLabel(), slicer.qMRMLNodeComboBox()
        label.setMinimumWidth(self.ui.applyOutputLabel.minimumWidth)  # the fields stand below each other
        selector.setObjectName(f"applyVolume{number}")
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.showChildNodeTypes = False
        selector.noneEnabled, selector.addEnabled, selector.removeEnabled = True, False, False
        selector.noneDisplay = _("Choose a volume")
        selector.toolTip = _("The volume for this channel of the model.")
        selector.setMRMLScene(slicer.mrmlScene)
        selector.connect("currentNodeChanged(vtkMRMLNode*)", self._refresh_controls)
        self.ui.applyChannelsRow.layout().addRow(label, selector)
        self._selectors.append((label, selector))

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
        words = ["predict", "-i", str(images), "-o", str(labels), *choice.words]
        if ui.applyFoldsEdit.text.split():
            words += ["-f", *ui.applyFoldsEdit.text.replace(",", " ").split()]
        words += [] if ui.applyMirroringBox.checked else ["--no-mirroring"]
        words += ["--save-probabilities"] if ui.applyProbabilitiesBox.checked else []
        return (*words, *device_words(ui.applyDeviceBox))

    def _why_not(self) -> str:
        """Why Apply is not possible, as a sentence; empty when it is."""
        if self._context.workspace is None:
            return _("Open a workspace first; the prediction is computed there.")
        if self._card is None:
            return self._why
        kind = chosen(self.ui.applyInputBox)
        if kind == FOLDER:
            return self._why_not_folder()
        if kind == LOADED:
            return self._why_not_loaded()
        missing = [name for name, node in zip(self._card.channels, self._volumes(), strict=True) if node is None]
        return _("Choose a volume for {channel}.").format(channel=missing[0]) if missing else ""

    def _why_not_folder(self) -> str:
        if not Path(self.ui.applyInputFolder.currentPath or "/nowhere").is_dir():
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
        running, why = self._job_view.is_running, self._why_not()
        ui.applyRunButton.text = _("Cancel") if running else _("Apply")
        tip = _("Stop the prediction.") if running else _("Segment with this model.")
        set_enabled(ui.applyRunButton, "" if running else why, tip)
        show_text(ui.applyHintLabel, "" if self._context.workspace else why)
        set_enabled(
            ui.applyShow3DButton,
            "" if ui.applyShow3DButton.segmentationNode() else _("Nothing is predicted yet."),
            _("Show the segments in 3D."),
        )
        undo_tip = _("Take the segments of the last prediction away; what they replaced comes back.")
        set_enabled(ui.applyUndoButton, "" if self._shown else _("Nothing is predicted yet."), undo_tip)
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

        if self._job_view.is_running:
            self._job_view.stop()
            return
        show_text(self.ui.applyStatusLabel, "")
        words = self._folder_words() if chosen(self.ui.applyInputBox) == FOLDER else self._volume_words()
        if words is None:
            return
        title = _("Segmenting with {model}").format(model=self.ui.applyModelBox.currentText)
        job = self._context.start_job(words, title)
        if job is not None:
            self._follow(job)
        elif (copies := application_of(words)) is not None:
            copies.discard()

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
        running = self._context.running_verb("predict") if self._context.workspace else None
        if running is not None and not self._job_view.is_running:
            self._follow(running)

    def _on_ended(self, job, state) -> None:
        from NNSegmentLib.application import application_of

        if job.request.arguments[0] != "predict":
            return
        folder = application_of(job.request.arguments)
        if folder is None or not folder.load().shown_by:
            if state == "finished":
                self._show_results(folder, job)
            if folder is not None:
                folder.put_away()
        self._refresh_controls()

    def _show_results(self, folder, job) -> None:
        from NNSegmentLib.errors import NNSegmentError

        if folder is None:
            words = job.request.arguments
            text = _("The label maps are in {folder}.").format(folder=words[words.index("-o") + 1])
            show_text(self.ui.applyStatusLabel, text)
            return
        try:
            shown = show_results(folder)
        except NNSegmentError as error:
            self._context.say(str(error), "error")
            return
        if shown.nodes:
            self.ui.applyShow3DButton.setSegmentationNode(shown.nodes[-1])
            self._shown = tuple(node.GetID() for node in shown.nodes)
        show_text(self.ui.applyStatusLabel, _result_text(shown, folder))

    def _undo(self) -> None:
        """Bring back the segments from before the last prediction; segmentations that were made for it go."""
        from NNSegmentLib.scene import PREDICTION_ATTRIBUTE, undo_prediction

        shown, self._shown = self._shown, ()
        self.ui.applyShow3DButton.setSegmentationNode(None)
        for node in filter(None, map(slicer.mrmlScene.GetNodeByID, shown)):
            is_ours = undo_prediction(node) and node.GetAttribute(PREDICTION_ATTRIBUTE)
            if is_ours and not node.GetSegmentation().GetNumberOfSegments():
                slicer.mrmlScene.RemoveNode(node)
        show_text(self.ui.applyStatusLabel, "")
        self._refresh_controls()


def loaded_volumes() -> list:
    """The scalar volumes of the scene that are no label maps."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    plain = [
        node for node in nodes if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors()
    ]
    return [node for node in plain if node.GetImageData() is not None]


def _result_text(shown, folder) -> str:
    lost = _("No longer in the scene: {names}; their label maps are in {folder}.")
    others = _("Not the volume that was segmented, or changed or moved since: {names}; the label maps are in {folder}.")
    texts = (
        (_("In the scene: {names}."), [node.GetName() for node in shown.nodes]),
        (lost, shown.lost),
        (others, shown.others),
    )
    return " ".join(text.format(names=", ".join(names), folder=folder.labels) for text, names in texts if names)
