"""The answers of the last prediction that are in the scene: what is said of them, and how they are taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .scene_application import show_what_can_be


class ShownAnswers(VTKObservationMixin):
    """Forgets segmentations that leave the scene, and then calls `changed`."""

    def __init__(self, changed: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self._changed = changed
        self._shown: tuple[tuple, ...] = ()
        """(`Shown`, `ApplicationFolder`) of the last prediction, or of several that ended meanwhile."""
        self._asked_about: tuple[str, ...] = ()
        """Corrected segments of which the user knows that undo takes them away."""
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._forget_removed)

    def cleanup(self) -> None:
        self.removeObservers()

    @property
    def nodes(self) -> list:
        """The segmentations that the answers went into."""
        return [node for shown, _folder in self._shown for node in shown.nodes]

    @property
    def text(self) -> str:
        """Where each answer is; empty without any."""
        return " ".join(filter(None, (_sentences(shown, folder) for shown, folder in self._shown)))

    @property
    def last_text(self) -> str:
        """Where the answer is that was shown last."""
        return _sentences(*self._shown[-1])

    def clear(self) -> None:
        """Another prediction is to be shown."""
        self._shown, self._asked_about = (), ()

    def show(self, folder) -> str:
        """Put the answers of an application into the scene; returns why some cannot be shown, or nothing."""
        shown = show_what_can_be(folder)
        self._shown += ((shown, folder),)
        return " ".join(str(error) for error in shown.errors)

    def question(self) -> str:
        """What the user is to know before corrections are lost; empty when `undo` may go on."""
        from NNSegmentLib.errors import some
        from NNSegmentLib.scene import changed_since_prediction

        changed = tuple(name for node in self.nodes for name in changed_since_prediction(node))
        was_told, self._asked_about = changed == self._asked_about, changed
        text = _("Changed by hand since the prediction: {names}. Press Undo once more to take that away, too.")
        return "" if was_told or not changed else text.format(names=some(changed))

    def undo(self) -> str:
        """Take the segments away; segmentations that were made for them go, too, when nothing else is in them.

        Returns which ones stay.
        """
        from NNSegmentLib.scene import PREDICTION_ATTRIBUTE, undo_prediction

        nodes, kept = self.nodes, []
        self.clear()
        for node in nodes:
            is_ours = undo_prediction(node) and node.GetAttribute(PREDICTION_ATTRIBUTE)
            if is_ours and not node.GetSegmentation().GetNumberOfSegments():
                slicer.mrmlScene.RemoveNode(node)
            elif is_ours:
                kept.append(node.GetName())
        text = _("Still in the scene, with what was no part of the prediction: {names}.")
        return text.format(names=", ".join(kept)) if kept else ""

    def _forget_removed(self, *_unused) -> None:
        gone = [node for node in self.nodes if not slicer.mrmlScene.IsNodePresent(node)]
        if gone:
            self._shown = tuple(
                (replace(shown, nodes=tuple(node for node in shown.nodes if node not in gone)), folder)
                for shown, folder in self._shown
            )
            self._asked_about = ()
            self._changed()


def _sentences(shown, folder) -> str:
    lost = _("No longer in the scene: {names}; their label maps are in {folder}.")
    others = _("Not the volume that was segmented, or changed or moved since: {names}; the label maps are in {folder}.")
    texts = (
        (_("In the scene: {names}."), [node.GetName() for node in shown.nodes]),
        (lost, shown.lost),
        (others, shown.others),
    )
    return " ".join(text.format(names=", ".join(names), folder=folder.labels) for text, names in texts if names)
