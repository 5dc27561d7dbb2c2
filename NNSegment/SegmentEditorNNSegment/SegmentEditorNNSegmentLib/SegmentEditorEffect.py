"""A trained model segments the source volume into the segmentation that is being edited.

The model runs in a child process, as from the panel: the Segment Editor stays usable meanwhile. Slicer imports this file
by its path, so it has no neighbours to import from; what it shares with the panel is in NNSegmentUI.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import qt
import slicer
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

POLL_MS = 500


@dataclass(frozen=True)
class Asked:
    """What was asked of a model: the files, and the nodes that the answer is for."""

    folder: object
    """ApplicationFolder with the copies of the volume and the answer."""
    application: object
    volume: object
    segmentation: object
    """The nodes, not their ids: after a scene is closed, the nodes of the next one get the same ids."""


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    """The effect's options: which model, and a button that turns into a progress bar."""

    def __init__(self, scriptedEffect):
        scriptedEffect.name = "NNSegment"
        scriptedEffect.title = _("NNSegment")
        scriptedEffect.perSegment = False
        scriptedEffect.requireSegments = False
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self.context = self.job = self.asked = self.timer = None
        self.cards = {}

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        made = effects.qSlicerSegmentEditorScriptedEffect(None)
        made.setPythonSource(Path(__file__).as_posix())
        return made

    def icon(self):
        return qt.QIcon(str(Path(__file__).with_name("SegmentEditorEffect.png")))

    def helpText(self):
        return (
            "<html>"
            + _("Segment the source volume with a trained model.")
            + "<br>"
            + _("Segments get the names and colours of training; segments of other names are kept.")
            + " "
            + _("Models are trained in the module NNSegment.")
            + "</html>"
        )

    # What Slicer calls ----------------------------------------------------------------------------------------------

    def setupOptionsFrame(self):
        from NNSegmentUI.context import PanelContext
        from NNSegmentUI.job_view import JobView
        from NNSegmentUI.widgets import plain_label

        self.context = PanelContext()
        self.model_box = qt.QComboBox()
        self.model_box.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
        self.model_box.toolTip = _("The trained models in the workspace of the module NNSegment.")
        self.mirroring_box = qt.QCheckBox(_("Mirror the volume for a better result (slower)"))
        self.mirroring_box.checked = True
        self.apply_button = qt.QPushButton(_("Apply"))
        self.status_label = plain_label()
        self.status_label.wordWrap = True
        job_frame = qt.QWidget()
        self.job_view = JobView(job_frame, self.context, "effect")
        self.scriptedEffect.addLabeledOptionsWidget(_("Model:"), self.model_box)
        for widget in (self.mirroring_box, self.apply_button, job_frame, self.status_label):
            self.scriptedEffect.addOptionsWidget(widget)
        self._connect()

    def activate(self):
        """Look again for models: one may have been trained since."""
        self._open_workspace()
        self.updateGUIFromMRML()

    def setMRMLDefaults(self):
        self.scriptedEffect.setParameterDefault("Mirroring", 1)  # Slicer keeps no empty text: "Model" has no default

    def updateGUIFromMRML(self):
        from NNSegmentUI.widgets import choose_value, set_enabled

        if self.context is None or self.scriptedEffect.parameterSetNode() is None:
            return  # the editor may call before the options are made, and when the scene closes
        if not self.scriptedEffect.active():
            return  # the editor tells all effects of a change, and models are looked up for one that is seen only
        blocked = self.model_box.blockSignals(True)
        choose_value(self.model_box, self._saved_model())
        self.model_box.blockSignals(blocked)
        blocked = self.mirroring_box.blockSignals(True)
        self.mirroring_box.checked = self.scriptedEffect.integerParameter("Mirroring") != 0
        self.mirroring_box.blockSignals(blocked)
        set_enabled(self.apply_button, self._reason_against(), _("Segment the source volume with this model."))

    def updateMRMLFromGUI(self):
        from NNSegmentUI.widgets import chosen

        self.scriptedEffect.setParameter("Model", chosen(self.model_box) or "")
        self.scriptedEffect.setParameter("Mirroring", int(self.mirroring_box.checked))

    def sourceVolumeNodeChanged(self):
        self.updateGUIFromMRML()

    def cleanup(self):
        """The work goes on without the editor; its answer stays in the workspace.

        What is connected to the effect's own methods keeps it alive, and its widgets would go on to call it.
        """
        if self.timer is None:
            return
        self.timer.stop()
        for sender, signal, receiver in self._connections():
            sender.disconnect(signal, receiver)
        self.context.message.disconnect(self._on_message)
        self.context.job_ended.disconnect(self._on_ended)
        self.job_view.cleanup()
        self.timer = None

    # The work -------------------------------------------------------------------------------------------------------

    def on_apply(self):
        """Write the volume, and start the model on it."""
        from NNSegmentLib.errors import NNSegmentError

        try:
            asked = self._write_question()
        except NNSegmentError as error:
            self._say(str(error))
            return
        job = self.context.start_job(
            self._words(asked.folder), _("Segment with {model}").format(model=self._model_name())
        )
        if job is not None:
            self.asked, self.job = asked, job
            self.job_view.show(job)
            self._say("")
            self.timer.start()
        else:
            asked.folder.discard()
        self.updateGUIFromMRML()

    def _on_ended(self, job, state):
        if self.job is None or job.id != self.job.id:
            return
        asked, self.job, self.asked = self.asked, None, None
        self.timer.stop()
        self.job_view.show(None)
        gone = [node for node in (asked.volume, asked.segmentation) if not slicer.mrmlScene.IsNodePresent(node)]
        if state != "finished":
            self._say(job.failure())
        elif not gone:
            self._say(self._shown(asked))
        asked.folder.put_away()
        if state == "finished" and gone:
            self._say(_kept(asked, gone[0]))
        self.updateGUIFromMRML()

    def _shown(self, asked: Asked) -> str:
        """Put the answer into the segmentation; returns a sentence about it."""
        from NNSegmentLib import scene
        from NNSegmentLib.errors import NNSegmentError

        try:
            prediction = asked.folder.prediction(asked.application, asked.application.cases[0])
            if asked.segmentation is self._segmentation():
                self.scriptedEffect.saveStateForUndo()
            scene.show_prediction(prediction, asked.volume, asked.segmentation)
        except NNSegmentError as error:
            return str(error)
        names = ", ".join(label.name for label in prediction.label_set.foreground)
        return _("{volume} was segmented: {names}").format(volume=asked.volume.GetName(), names=names)

    def _write_question(self) -> Asked:
        from NNSegmentUI.scene_application import wait_cursor

        from NNSegmentLib.application import EFFECT, IMAGE_ENDING, Application, AppliedCase, new_application_folder
        from NNSegmentLib.case_files import case_name
        from NNSegmentLib.scene import read_case, require_exact

        volume, segmentation, card = self._volume(), self._segmentation(), self._card()
        require_exact(segmentation)  # now, not after minutes of computing
        name = case_name(volume.GetName())
        with wait_cursor():
            arrays = read_case(name, [volume])
            folder = new_application_folder(self.context.workspace_path)
            folder.write_case(name, arrays.channels, arrays.geometry, IMAGE_ENDING)
        case = AppliedCase(name, (volume.GetID(),), volume.GetName(), segmentation.GetID())
        labels = card.label_set
        application = Application((case,), labels.labels, labels.regions_class_order, shown_by=EFFECT)
        folder.save(application)  # the panel puts the copies away where Slicer ends before the model does
        return Asked(folder, application, volume, segmentation)

    def _words(self, folder) -> list[str]:
        """The command line, as one would type it."""
        words = ["predict", "-m", self._model(), "-i", str(folder.images), "-o", str(folder.labels)]
        return words if self.mirroring_box.checked else [*words, "--no-mirroring"]

    # What is chosen -------------------------------------------------------------------------------------------------

    def _connect(self):
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MS)
        for sender, signal, receiver in self._connections():
            sender.connect(signal, receiver)
        self.context.message.connect(self._on_message)
        self.context.job_ended.connect(self._on_ended)

    def _connections(self):
        return (
            (self.model_box, "currentIndexChanged(int)", self._on_chosen),
            (self.mirroring_box, "toggled(bool)", self._on_chosen),
            (self.apply_button, "clicked()", self.on_apply),
            (self.timer, "timeout()", self.context.poll),
        )

    def _on_chosen(self, _value):
        self.updateMRMLFromGUI()
        self.updateGUIFromMRML()

    def _on_message(self, text, severity):
        if severity == "error":
            self._say(text)

    def _say(self, text):
        self.status_label.text = text

    def _open_workspace(self):
        """The panel's workspace and Python; while a model works here, what it was started in stays open."""
        from NNSegmentUI.context import saved_python, saved_workspace

        if self.job is None:
            self.context.python = saved_python()
            self.context.open_workspace(saved_workspace())
            self.cards.clear()
            self._fill_models()

    def _fill_models(self):
        from NNSegmentUI.apply_models import workspace_choices
        from NNSegmentUI.widgets import fill_box

        entries = [(choice.key, choice.title) for choice in workspace_choices(self.context.workspace)]
        fill_box(self.model_box, entries)
        if not self._saved_model() and entries:
            self.scriptedEffect.setParameter("Model", entries[0][0])

    def _reason_against(self) -> str:
        """Why Apply cannot be clicked, or nothing."""
        from NNSegmentUI.dependencies import without_torch

        if self.job is not None:
            return _("The model is at work.")
        if lacking := without_torch(self.context):
            return lacking
        if not self.model_box.count:
            return _("There is no trained model in the workspace yet: train one in the module NNSegment.")
        if self._volume() is None or self._segmentation() is None:
            return _("Choose a segmentation and a source volume first.")
        return self._reason_against_model()

    def _reason_against_model(self) -> str:
        from NNSegmentLib.errors import NNSegmentError

        try:
            channels = self._card().channels
        except NNSegmentError as error:
            return str(error)
        if len(channels) == 1:
            return ""
        return _("The model takes {n} volumes ({names}): apply it in the module NNSegment.").format(
            n=len(channels), names=", ".join(channels)
        )

    def _card(self):
        """Channels and labels of the chosen model, read once."""
        from NNSegmentLib.model.card import read_card

        model = self._model()
        if model not in self.cards:
            self.cards[model] = read_card(model)
        return self.cards[model]

    def _saved_model(self) -> str:
        """The model that the scene remembers; to ask for one that it does not is an error in Slicer's log."""
        return self.scriptedEffect.parameter("Model") if self.scriptedEffect.parameterDefined("Model") else ""

    def _model(self) -> str:
        return self.model_box.itemData(self.model_box.currentIndex) or ""

    def _model_name(self) -> str:
        return self.model_box.itemText(self.model_box.currentIndex)

    def _volume(self):
        editor = self.scriptedEffect.parameterSetNode()
        return editor.GetSourceVolumeNode() if editor else None

    def _segmentation(self):
        editor = self.scriptedEffect.parameterSetNode()
        return editor.GetSegmentationNode() if editor else None


def _kept(asked: Asked, gone) -> str:
    """Where the answer is whose place in the scene is gone."""
    file = asked.folder.label_map(asked.application, asked.application.cases[0])
    return _("{name} is no longer in the scene; the label map of the model is {file}").format(
        name=gone.GetName(), file=file
    )
