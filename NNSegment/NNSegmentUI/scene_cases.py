"""Cases from the scene: pairs of volumes and a segmentation are collected, and written as a new task or added to one."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .context import ERROR, INFO, SUCCESS, WARNING, PanelContext
from .pairs import channel_names, segment_choices, with_channels
from .widgets import fit_height, set_enabled

VOLUME_TYPES = ["vtkMRMLScalarVolumeNode"]
NOT_VOLUMES = ["vtkMRMLLabelMapVolumeNode", "vtkMRMLVectorVolumeNode"]
MOST_NOTES = 3
"""Sentences about written cases that are shown at once."""


class SceneCases(VTKObservationMixin):
    """The part of the task section that makes cases of loaded nodes."""

    def __init__(self, ui, context: PanelContext) -> None:
        VTKObservationMixin.__init__(self)
        self._ui, self._context = ui, context
        self.pairs: list = []
        self._selectors: list = []
        self._prepare_tables()
        ui.channelsEdit.connect("textChanged(QString)", self._make_selectors)
        ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._refresh_buttons)
        ui.addPairButton.connect("clicked()", self.add_pair)
        ui.addAllPairsButton.connect("clicked()", self.add_all_pairs)
        ui.createTaskButton.connect("clicked()", self.write)
        ui.nameEdit.connect("textChanged(QString)", self._refresh_buttons)
        ui.segmentsList.connect("itemChanged(QListWidgetItem*)", self._refresh_buttons)
        scene = slicer.mrmlScene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self._on_scene_changed)
        self.refresh()

    def cleanup(self) -> None:
        self.removeObservers()

    def refresh(self) -> None:
        """Follow the open task: its channels and labels are given."""
        ui, task = self._ui, self._context.task
        ui.channelsEdit.enabled = task is None
        if task is not None:
            ui.channelsEdit.text = ", ".join(channel.name for channel in task.channels)
        for widget in (ui.nameEdit, ui.nameEditLabel):
            widget.setVisible(task is None)
        self._make_selectors()
        self._show_pairs()

    @property
    def channels(self) -> tuple[str, ...]:
        return channel_names(self._ui.channelsEdit.text)

    def add_pair(self) -> None:
        """Add what the selectors show."""
        from NNSegmentLib.scene_tasks import Pair

        volumes = tuple(selector.currentNode() for selector in self._selectors)
        self._add([Pair(volumes, self._ui.segmentationSelector.currentNode(), "")])

    def add_all_pairs(self) -> None:
        """Add every segmentation whose volume is known, once; predictions are for the user to add, once corrected."""
        from NNSegmentLib.scene_tasks import find_pairs

        volumes = slicer.util.getNodesByClass(VOLUME_TYPES[0])
        found = find_pairs(slicer.mrmlScene, predictions=True)
        complete = [pair for pair in (with_channels(p, self.channels, volumes) for p in found) if pair is not None]
        new = [pair for pair in complete if not self._is_in_task(pair)]
        self._add([pair for pair in new if not pair.is_prediction])
        self._tell_pairs(found, complete, new)

    def _is_in_task(self, pair) -> bool:
        """Whether the open task has a case of this volume's name."""
        from NNSegmentLib.case_files import case_name

        task = self._context.task
        return task is not None and case_name(pair.volumes[0].GetName()) in [case.id for case in task.cases]

    def _tell_pairs(self, found, complete, new) -> None:
        """What was left out and why: predictions always, as they are left out on purpose, of the rest the gravest."""
        text, severity = self._why_left_out(found, complete, new)
        predictions = self._predictions_left_out(new)
        if text or predictions:
            self._context.say(" ".join(filter(None, (text, predictions))), WARNING if predictions else severity)

    def _why_left_out(self, found, complete, new) -> tuple[str, str]:
        """A sentence and its severity; an empty one when there is nothing to tell."""
        if not found:
            return _("No segmentation in the scene has a volume that it was drawn on."), WARNING
        if len(complete) < len(found):
            text = _(
                "Left out for want of a volume for every channel: {count}. Name volumes like P1_{first} and P1_{last}."
            )
            first, last = self.channels[0] if self.channels else "", self.channels[-1] if self.channels else ""
            return text.format(count=len(found) - len(complete), first=first, last=last), WARNING
        if self._listed_twice():
            text = _(
                "More than one segmentation belongs to {names}; leave out all but one, or put them together first."
            )
            return text.format(names=", ".join(self._listed_twice())), WARNING
        if len(new) < len(complete):
            text = _("Left out because the task has them already: {count}.")
            return text.format(count=len(complete) - len(new)), INFO
        return "", INFO

    def _predictions_left_out(self, new) -> str:
        """A sentence about the predictions that nobody has added by hand."""
        listed = [pair.segmentation for pair in self.pairs]
        count = len([pair for pair in new if pair.segmentation not in listed])
        text = _('Left out because they are predictions: {count}; add those that you have corrected with "{button}".')
        return text.format(count=count, button=self._ui.addPairButton.text) if count else ""

    def _listed_twice(self) -> list[str]:
        """Volumes of more than one pair: an image must not be learned and tested on at once."""
        volumes = [pair.volumes[0] for pair in self.pairs]
        return sorted({volume.GetName() for volume in volumes if volumes.count(volume) > 1})

    def write(self) -> None:
        """Write the pairs to disk, as a new task or into the open one."""
        from NNSegmentLib.errors import NNSegmentError

        had = {case.id for case in self._context.task.cases} if self._context.task else set()
        self._ui.Task.enabled = False
        try:
            task = self._add_to_task() if self._context.task else self._create_task()
        except NNSegmentError as error:
            self._context.say(str(error), ERROR)
            return
        finally:
            self._ui.Task.enabled = True
        count = len(self.pairs)
        self.pairs.clear()
        self._ui.nameEdit.text = ""
        self._context.open_task(task.name)
        self._tell_written(task, count, had)

    def _tell_written(self, task, count: int, had: set[str]) -> None:
        """How many cases were written, and what had to be done to them."""
        from NNSegmentLib.cases import load_origin

        text = _("{count} cases are in {task} now.").format(count=count, task=task.name)
        notes = [note for case in load_origin(task.folder).cases if case.id not in had for note in case.fixes]
        text = " ".join([text, *notes[:MOST_NOTES]])
        if len(notes) > MOST_NOTES:
            text += _(" And {count} more like these; {file} has them all.").format(
                count=len(notes) - MOST_NOTES, file=task.folder / "cases.json"
            )
        self._context.say(text, WARNING if notes else SUCCESS)

    def _create_task(self):
        from NNSegmentLib.scene_tasks import create_task_from_nodes

        return create_task_from_nodes(
            self._context.workspace, self._ui.nameEdit.text, self.channels, self.pairs, segments=self._ticked(),
            progress=self._progress,
        )  # fmt: skip

    def _add_to_task(self):
        from NNSegmentLib.scene_tasks import add_case

        task = self._context.task
        for done, pair in enumerate(self.pairs):
            self._progress(done, len(self.pairs), _("Writing {name}").format(name=pair.volumes[0].GetName()))
            task = add_case(task, pair.volumes, pair.segmentation, others="skip")
        return task

    def _progress(self, done: int, total: int, what: str) -> None:
        self._context.say(f"{what} ({done} / {total})")
        slicer.app.processEvents()

    def _ticked(self) -> list[str]:
        items = [self._ui.segmentsList.item(row) for row in range(self._ui.segmentsList.count)]
        return [item.data(qt.Qt.UserRole) for item in items if item.checkState() == qt.Qt.Checked]

    # widgets --------------------------------------------------------------------------------------------------------

    def _prepare_tables(self) -> None:
        table = self._ui.pairsTable
        table.verticalHeader().hide()
        for column, mode in enumerate(
            (qt.QHeaderView.Stretch, qt.QHeaderView.Stretch, qt.QHeaderView.ResizeToContents)
        ):
            table.horizontalHeader().setSectionResizeMode(column, mode)

    def _make_selectors(self, *_unused) -> None:
        """One volume selector per channel; those that stay keep their choice, as all do while nothing is written."""
        form, channels = self._ui.sceneForm, self.channels
        if not channels and self._selectors:
            self._refresh_buttons()
            return
        while len(self._selectors) > len(channels):
            form.removeRow(len(self._selectors))
            self._selectors.pop()
        while len(self._selectors) < len(channels):
            selector = _volume_selector(len(self._selectors))
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_volume_chosen)
            self._selectors.append(selector)
            form.insertRow(len(self._selectors), qt.QLabel(), selector)
        for name, selector in zip(channels, self._selectors, strict=True):
            text = _("Volume:") if len(channels) == 1 else _("Volume {channel}:").format(channel=name)
            form.labelForField(selector).text = text
        self._refresh_buttons()

    def _on_volume_chosen(self, *_unused) -> None:
        """The segmentation drawn on the first volume is the one that is meant."""
        from NNSegmentLib.scene_tasks import find_pairs

        volume = self._selectors[0].currentNode()
        for pair in find_pairs(slicer.mrmlScene) if volume else ():
            if pair.volumes[0] is volume:
                self._ui.segmentationSelector.setCurrentNode(pair.segmentation)
        self._refresh_buttons()

    def _on_scene_changed(self, *_unused) -> None:
        """Pairs whose nodes are gone go, too."""
        if slicer.mrmlScene.IsBatchProcessing():
            return
        kept = [pair for pair in self.pairs if all(map(_is_in_scene, (*pair.volumes, pair.segmentation)))]
        if len(kept) != len(self.pairs):
            self.pairs = kept
            self._show_pairs()
        self._refresh_buttons()

    def _add(self, pairs) -> None:
        known = [pair.segmentation for pair in self.pairs]
        self.pairs += [pair for pair in pairs if pair.segmentation not in known]
        self._show_pairs()

    def _remove(self, pair) -> None:
        self.pairs.remove(pair)
        self._show_pairs()

    def _show_pairs(self) -> None:
        table = self._ui.pairsTable
        table.setVisible(bool(self.pairs))
        table.setRowCount(0)
        table.setRowCount(len(self.pairs))
        for row, pair in enumerate(self.pairs):
            names = " + ".join(volume.GetName() for volume in pair.volumes)
            for column, text in enumerate((names, pair.segmentation.GetName())):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(text)
                table.setItem(row, column, item)
            table.setCellWidget(row, 2, self._remove_button(row, pair))
        fit_height(table, 6)
        self._show_segments()

    def _remove_button(self, row: int, pair):
        button = qt.QToolButton()
        button.setObjectName(f"removePairButton{row}")
        button.text, button.autoRaise = "✕", True
        button.toolTip = _("Leave this pair out.")
        button.connect("clicked()", lambda: self._remove(pair))
        return button

    def _show_segments(self) -> None:
        """Segments keep their tick when pairs come and go."""
        ui = self._ui
        unticked = self._unticked()
        choices = self._choices() if self.pairs else []
        ui.segmentsList.clear()
        for choice in choices:
            ui.segmentsList.addItem(self._segment_item(choice, choice.name not in unticked))
        for widget in (ui.segmentsList, ui.segmentsLabel):
            widget.setVisible(bool(choices))
        rows = min(len(choices), 6)
        ui.segmentsList.setFixedHeight((ui.segmentsList.sizeHintForRow(0) if rows else 0) * rows + 4)
        self._refresh_buttons()

    def _choices(self) -> list:
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.scene import segment_table

        try:
            return segment_choices([segment_table(pair.segmentation) for pair in self.pairs], self._context.task)
        except NNSegmentError as error:
            self._context.say(str(error), ERROR)
            return []

    def _unticked(self) -> set[str]:
        items = [self._ui.segmentsList.item(row) for row in range(self._ui.segmentsList.count)]
        return {item.data(qt.Qt.UserRole) for item in items if item.checkState() == qt.Qt.Unchecked}

    def _segment_item(self, choice, ticked: bool):
        text = _("{name}   in {count} of {all}").format(name=choice.name, count=choice.count, all=len(self.pairs))
        item = qt.QListWidgetItem(text)
        item.setToolTip(text)
        item.setData(qt.Qt.UserRole, choice.name)
        if choice.color is not None:
            pixmap = qt.QPixmap(12, 12)
            pixmap.fill(qt.QColor(*choice.color))
            item.setIcon(qt.QIcon(pixmap))
        if self._context.task is not None:
            item.setFlags(qt.Qt.ItemIsEnabled if choice.is_known else qt.Qt.NoItemFlags)
            if not choice.is_known:
                item.setToolTip(_("The task has no label of this name; it is left out."))
            ticked = choice.is_known
        item.setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)
        return item

    def _refresh_buttons(self, *_unused) -> None:
        ui, task = self._ui, self._context.task
        set_enabled(
            ui.addPairButton, self._why_no_pair(), _("Add the chosen volume and segmentation to the list below.")
        )
        text = _("Create task") if task is None else _("Add to {task}").format(task=task.name)
        ui.createTaskButton.text = text
        set_enabled(ui.createTaskButton, self._why_not_write(), _("Write the images and label maps to the workspace."))

    def _why_no_pair(self) -> str:
        if not self.channels:
            return _("Name a channel first.")
        if not all(selector.currentNode() for selector in self._selectors):
            return _("Choose a volume first.")
        return "" if self._ui.segmentationSelector.currentNode() else _("Choose a segmentation first.")

    def _why_not_write(self) -> str:
        if not self.pairs:
            return _("Add a volume with its segmentation first.")
        if self._context.workspace is None:
            return _("Choose a workspace first.")
        if any(len(pair.volumes) != len(self.channels) for pair in self.pairs):
            return _("Every case needs one volume per channel; remove the pairs and add them again.")
        if self._context.task is None and not self._ui.nameEdit.text.strip():
            return _("Give the task a name first.")
        return "" if self._ticked() else _("Tick a segment that counts.")


def _volume_selector(number: int):
    selector = slicer.qMRMLNodeComboBox()
    selector.setObjectName(f"volumeSelector{number}")
    selector.nodeTypes, selector.hideChildNodeTypes = VOLUME_TYPES, NOT_VOLUMES
    selector.addEnabled = selector.removeEnabled = False
    selector.noneEnabled = True
    selector.setMRMLScene(slicer.mrmlScene)
    return selector


def _is_in_scene(node) -> bool:
    return bool(slicer.mrmlScene.IsNodePresent(node))
