"""Cases from the scene: pairs of volumes and a segmentation are collected, and written as a new task or added to one."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .context import ERROR, INFO, SUCCESS, WARNING, PanelContext
from .pair_list import PairList, names_of
from .pairs import channel_names, companions, with_channels
from .scene_application import wait_cursor
from .segment_list import SegmentList
from .widgets import beside_field, plain_label, set_enabled

VOLUME_TYPES = ["vtkMRMLScalarVolumeNode"]
NOT_VOLUMES = ["vtkMRMLLabelMapVolumeNode", "vtkMRMLVectorVolumeNode"]
MOST_NOTES = 3
"""Sentences about written cases that are shown at once."""


class SceneCases(VTKObservationMixin):
    """The part of the task section that makes cases of loaded nodes."""

    def __init__(self, ui, context: PanelContext) -> None:
        VTKObservationMixin.__init__(self)
        self._ui, self._context = ui, context
        self._selectors: list = []
        self._first_volume = None
        self._add_all_tip = ui.addAllPairsButton.toolTip
        self._replaced: list[str] = []
        """The cases of the open task that the last writing has given other labels."""
        self._segments = SegmentList(ui, self._refresh_buttons)
        self._list = PairList(ui.pairsTable, self._on_pairs_changed)
        ui.channelsEdit.connect("textChanged(QString)", self._on_channels_changed)
        ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._refresh_buttons)
        ui.addPairButton.connect("clicked()", self.add_pair)
        ui.addAllPairsButton.connect("clicked()", self.add_all_pairs)
        ui.createTaskButton.connect("clicked()", self.write)
        ui.nameEdit.connect("textChanged(QString)", self._refresh_buttons)
        scene = slicer.mrmlScene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self._on_scene_changed)
        self.refresh()

    def cleanup(self) -> None:
        self.removeObservers()
        self._list.cleanup()

    def refresh(self) -> None:
        """Follow the open task: its channels and labels are given."""
        ui, task = self._ui, self._context.task
        ui.channelsEdit.enabled = task is None
        if task is not None:
            ui.channelsEdit.text = ", ".join(channel.name for channel in task.channels)
        for widget in (ui.nameEdit, ui.nameEditLabel):
            widget.setVisible(task is None)
        self._on_channels_changed()

    @property
    def channels(self) -> tuple[str, ...]:
        return channel_names(self._ui.channelsEdit.text)

    def add_pair(self) -> None:
        """Add what the selectors show."""
        from NNSegmentLib.scene_tasks import Pair

        volumes = tuple(selector.currentNode() for selector in self._selectors)
        pair = Pair(volumes, self._ui.segmentationSelector.currentNode(), "")
        listed = self._list.clash(pair)
        if listed is not None:
            self._context.say(_already(listed), WARNING)
            return
        self._list.add([pair])
        if warning := self._why_may_replace(pair):
            self._context.say(warning, WARNING)

    def add_all_pairs(self) -> None:
        """Add every segmentation whose volume is known, once; predictions are for the user to add, once corrected."""
        from NNSegmentLib.scene_tasks import find_pairs

        found = find_pairs(slicer.mrmlScene, predictions=True)
        volumes = _loaded_volumes()
        complete = [pair for pair in (with_channels(p, self.channels, volumes) for p in found) if pair is not None]
        new = [pair for pair in complete if not self._is_in_task(pair)]
        self._list.add([pair for pair in new if not pair.is_prediction])
        self._tell_pairs(found, complete, new)

    def _is_in_task(self, pair) -> bool:
        """Whether the open task has a case of this volume's name."""
        from NNSegmentLib.case_files import case_name

        task, name = self._context.task, pair.volumes[0].GetName()
        return task is not None and case_name(name, [case.id for case in task.cases]) != case_name(name)

    def _why_may_replace(self, pair) -> str:
        """A sentence where the volume may be in the task already: no image is to be learned and tested on at once."""
        from NNSegmentLib.errors import some
        from NNSegmentLib.scene_tasks import cases_named

        task = self._context.task
        names = [case.id for case in cases_named(task, pair.volumes[0])] if task is not None else []
        text = _(
            "{task} has {names} already: where that is the same image, this pair will replace it; else it becomes a case "
            "of another name."
        )
        return text.format(task=task.name, names=some(names)) if names else ""

    def _tell_pairs(self, found, complete, new) -> None:
        """What was left out and why: predictions always, as they are left out on purpose, of the rest the gravest."""
        text, severity = self._why_left_out(found, complete, new)
        predictions = self._predictions_left_out(new)
        if text or predictions:
            self._context.say(" ".join(filter(None, (text, predictions))), WARNING if predictions else severity)

    def _why_left_out(self, found, complete, new) -> tuple[str, str]:
        """A sentence and its severity; an empty one when there is nothing to tell."""
        from NNSegmentLib.errors import some

        if not found:
            return _("No segmentation in the scene has a volume that it was drawn on."), WARNING
        if len(complete) < len(found):
            text = _(
                "Left out for want of a volume for every channel: {count}. Name volumes like P1_{first} and P1_{last}."
            )
            first, last = self.channels[0], self.channels[-1]
            return text.format(count=len(found) - len(complete), first=first, last=last), WARNING
        listed = [(self._list.clash(pair), pair) for pair in new]
        otherwise = [other for other, pair in listed if other is not None and other.volumes != pair.volumes]
        if otherwise:
            return _already(otherwise[0]), WARNING
        if self._list.named_twice:
            text = _(
                "More than one segmentation belongs to {names}; leave out all but one, or put them together first."
            )
            return text.format(names=", ".join(self._list.named_twice)), WARNING
        if len(new) < len(complete):
            names = [pair.volumes[0].GetName() for pair in complete if pair not in new]
            text = _(
                "Left out because the task has cases of these names: {names}; add another patient's, and what you have "
                'corrected, with "{button}".'
            )
            return text.format(names=some(names), button=self._ui.addPairButton.text), INFO
        return "", INFO

    def _predictions_left_out(self, new) -> str:
        """A sentence about the predictions that nobody has added by hand."""
        count = len([pair for pair in new if self._list.clash(pair) is None])
        text = _('Left out because they are predictions: {count}; add those that you have corrected with "{button}".')
        return text.format(count=count, button=self._ui.addPairButton.text) if count else ""

    def write(self) -> None:
        """Write the pairs to disk, as a new task or into the open one."""
        from NNSegmentLib.errors import NNSegmentError

        self._list.settle()
        if why := self._why_not_write():  # segments may have changed a moment ago
            self._context.say(why, WARNING)
            return
        had, self._replaced = self._case_ids(), []
        self._ui.Task.enabled = False
        try:
            with wait_cursor():
                task = self._add_to_task() if self._context.task else self._create_task()
        except NNSegmentError as error:
            self._tell_failed(error, had)
            return
        finally:
            self._ui.Task.enabled = True
        for pair in self._list.pairs:
            self._list.remove(pair)
        self._ui.nameEdit.text = ""
        self._context.open_task(task.name)
        self._tell_written(task, had)

    def _case_ids(self) -> set[str]:
        """The cases of the open task."""
        return {case.id for case in self._context.task.cases} if self._context.task else set()

    def _tell_failed(self, error, had: set[str]) -> None:
        """Why a pair could not be written, and how many were before it: they are in the task and off the list."""
        self._context.reload_task()
        count, text = len(self._case_ids() - had) + len(self._replaced), str(error)
        if count:
            text += _(" Written before it, and in the task: {count}.").format(count=count)
        self._context.say(text, ERROR)

    def _tell_written(self, task, had: set[str]) -> None:
        """How many cases were written, and what had to be done to them."""
        from NNSegmentLib.cases import load_origin

        kept = had.difference(self._replaced)
        notes = [note for case in load_origin(task.folder).cases if case.id not in kept for note in case.fixes]
        counts = self._replaced_text(), self._count_text(task, had)
        text = " ".join([*filter(None, counts), *notes[:MOST_NOTES]])
        if len(notes) > MOST_NOTES:
            text += _(" And {count} more like these; {file} has them all.").format(
                count=len(notes) - MOST_NOTES, file=task.folder / "cases.json"
            )
        self._context.say(text, WARNING if notes else SUCCESS)

    def _count_text(self, task, had: set[str]) -> str:
        count = len([case for case in task.cases if case.id not in had])
        if not count and self._replaced:
            return ""
        text = _("1 case was written; {task} has {all} now.")
        if count != 1:
            text = _("{count} cases were written; {task} has {all} now.")
        return text.format(count=count, task=task.name, all=len(task.cases))

    def _replaced_text(self) -> str:
        from NNSegmentLib.errors import some

        if not self._replaced:
            return ""
        text = _("1 case was replaced: {names}.")
        if len(self._replaced) != 1:
            text = _("{count} cases were replaced: {names}.")
        return text.format(count=len(self._replaced), names=some(self._replaced))

    def _create_task(self):
        from NNSegmentLib.scene_tasks import create_task_from_nodes

        return create_task_from_nodes(
            self._context.workspace, self._ui.nameEdit.text, self.channels, self._list.pairs,
            segments=self._segments.ticked(), progress=self._progress,
        )  # fmt: skip

    def _add_to_task(self):
        """The task with the pairs; one of an image that it has takes the place of that case, once."""
        from NNSegmentLib.scene_tasks import add_case, case_of_image

        task, before, pairs = self._context.task, self._context.task, self._list.pairs
        for done, pair in enumerate(pairs):
            self._progress(done, len(pairs), _("Writing {name}").format(name=pair.volumes[0].GetName()))
            known = case_of_image(before, pair.volumes)
            old = known.id if known is not None and known.id not in self._replaced else ""
            task = add_case(task, pair.volumes, pair.segmentation, case_id=old, replace_case=bool(old), others="skip")
            self._replaced += [old] if old else []
            self._list.remove(pair)  # when a later one fails, this one must not be written again
        return task

    def _progress(self, done: int, total: int, what: str) -> None:
        """Paint the panel, but let no click through: the scene must not be closed between two cases."""
        self._context.say(f"{what} ({done} / {total})")
        slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)

    # widgets --------------------------------------------------------------------------------------------------------

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
            is_first = not self._selectors
            chosen = self._on_first_volume_chosen if is_first else self._refresh_buttons
            selector.connect("currentNodeChanged(vtkMRMLNode*)", chosen)
            self._selectors.append(selector)
            form.insertRow(len(self._selectors), plain_label(), selector)
        for name, selector in zip(channels, self._selectors, strict=True):
            text = _("Volume:") if len(channels) == 1 else _("Volume {channel}:").format(channel=name)
            form.labelForField(selector).text = beside_field(text)
            form.labelForField(selector).setBuddy(selector)
        self._refresh_buttons()

    def _on_first_volume_chosen(self, *_unused) -> None:
        """What belongs to the volume is meant, too: its segmentation and other channels, never another patient's."""
        volume = self._selectors[0].currentNode()
        if volume is not self._first_volume:  # the selector also tells when its list alone has changed
            self._first_volume = volume
            self._choose_segmentation(volume)
            self._choose_other_channels(volume)
        self._refresh_buttons()

    def _choose_segmentation(self, volume) -> None:
        from NNSegmentLib.scene_tasks import find_pairs

        selector = self._ui.segmentationSelector
        pairs, chosen = find_pairs(slicer.mrmlScene, predictions=True), selector.currentNode()
        own = [pair.segmentation for pair in pairs if pair.volumes[0] is volume and not pair.is_prediction]
        others = [pair.segmentation for pair in pairs if pair.volumes[0] is not volume]
        if own and chosen not in own:
            selector.setCurrentNode(own[-1])
        elif not own and chosen in others:
            selector.setCurrentNode(None)

    def _choose_other_channels(self, volume) -> None:
        others = companions(volume, self.channels, _loaded_volumes())
        for selector, other in zip(self._selectors[1:], others, strict=False):
            selector.setCurrentNode(other)

    def _on_channels_changed(self, *_unused) -> None:
        self._make_selectors()
        self._list.set_channels(self.channels)

    def _on_scene_changed(self, *_unused) -> None:
        """Pairs whose nodes are gone go, too."""
        if slicer.mrmlScene.IsBatchProcessing():
            return
        self._list.remove_lost()
        self._refresh_buttons()

    def _on_pairs_changed(self) -> None:
        self._segments.show(self._list.pairs, self._context.task)
        self._refresh_buttons()

    def _refresh_buttons(self, *_unused) -> None:
        ui, task = self._ui, self._context.task
        set_enabled(
            ui.addPairButton, self._why_no_pair(), _("Add the chosen volume and segmentation to the list below.")
        )
        set_enabled(ui.addAllPairsButton, self._why_no_channel(), self._add_all_tip)
        text = _("Create task") if task is None else _("Add to {task}").format(task=task.name)
        ui.createTaskButton.text = text
        set_enabled(ui.createTaskButton, self._why_not_write(), _what_is_written())

    def _why_no_channel(self) -> str:
        return "" if self.channels else _("Name a channel first.")

    def _why_no_pair(self) -> str:
        if why := self._why_no_channel():
            return why
        if not all(selector.currentNode() for selector in self._selectors):
            return _("Choose a volume first.")
        return "" if self._ui.segmentationSelector.currentNode() else _("Choose a segmentation first.")

    def _why_not_write(self) -> str:
        if not self._list.pairs:
            return _("Add a volume with its segmentation first.")
        if self._context.workspace is None:
            return _("Choose a workspace first.")
        if self._list.other_channels:
            text = _(
                "Pairs were added for the channels {channels}; name these again, or remove the pairs and add them anew."
            )
            return text.format(channels=", ".join(self._list.other_channels))
        if self._segments.problem:
            return self._segments.problem
        if self._context.task is None and not self._ui.nameEdit.text.strip():
            return _("Give the task a name first.")
        return "" if self._segments.ticked() else _("Tick a segment that counts.")


def _what_is_written() -> str:
    return _(
        "Write the images and label maps to the workspace. Where the open task has a case of the very same image, its "
        "label map is replaced; the former one is kept in the task's folder labels_replaced."
    )


def _volume_selector(number: int):
    selector = slicer.qMRMLNodeComboBox()
    selector.setObjectName(f"volumeSelector{number}")
    selector.nodeTypes, selector.hideChildNodeTypes = VOLUME_TYPES, NOT_VOLUMES
    selector.addEnabled = selector.removeEnabled = False
    selector.noneEnabled = True
    selector.toolTip = _("The volume of the case, in this channel.")
    selector.setMRMLScene(slicer.mrmlScene)
    return selector


def _loaded_volumes() -> list:
    """The volumes that the selectors offer."""
    nodes = slicer.util.getNodesByClass(VOLUME_TYPES[0])
    return [node for node in nodes if not node.GetHideFromEditors() and not any(map(node.IsA, NOT_VOLUMES))]


def _already(listed) -> str:
    """A sentence about a pair of the list, whose segmentation shall be added once more."""
    volume, segmentation = names_of(listed)
    text = _("{segmentation} is in the list already, with {volume}; remove that pair first to add another.")
    return text.format(segmentation=segmentation, volume=volume)
