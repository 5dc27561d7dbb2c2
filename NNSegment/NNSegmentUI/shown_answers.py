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
        self._put: tuple[tuple, ...] = ()
        """(segmentation, what stands for the prediction that was put into it), in the order in which they came."""
        self._asked_about: tuple = ()
        """Corrected segments, as they looked, of which the user knows that undo takes them away."""
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._forget_removed)

    def cleanup(self) -> None:
        self.removeObservers()

    @property
    def nodes(self) -> list:
        """The segmentations that the answers went into."""
        return [node for node, _prediction in self._put]

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
        self._shown, self._put, self._asked_about = (), (), ()

    def show(self, folder) -> str:
        """Put the answers of an application into the scene; returns why some cannot be shown, or nothing."""
        from NNSegmentLib.scene import last_prediction

        shown = show_what_can_be(folder)
        self._shown += ((shown, folder),)
        self._put += tuple((node, last_prediction(node)) for node in shown.nodes)
        return " ".join(str(error) for error in shown.errors)

    def question(self) -> str:
        """What the user is to know before corrections are lost; empty when `undo` may go on."""
        from NNSegmentLib.errors import some
        from NNSegmentLib.scene import changed_since_prediction, predictions_since

        last = [node for node, prediction in self._put if predictions_since(node, prediction) == 0]
        changed = tuple(segment for node in last for segment in changed_since_prediction(node))
        was_told, self._asked_about = changed == self._asked_about, changed
        text = _("Changed by hand since the prediction: {names}. Press Undo once more to take that away, too.")
        return "" if was_told or not changed else text.format(names=some([name for name, _look in changed]))

    def undo(self) -> str:
        """Take the segments away; segmentations that were made for them go, too, when nothing else is in them.

        Returns which ones stay, and why: only the prediction that came last can be taken out of a segmentation.
        """
        from NNSegmentLib.scene import predictions_since

        put, shown, kept, waiting = self._put, self._shown, [], []
        self.clear()
        for node, prediction in reversed(put):
            since = predictions_since(node, prediction)
            if since:
                waiting.append((node, prediction))
            elif since == 0 and _stays_without_prediction(node):
                kept.append(node)
        if waiting:
            self._shown = shown
            self._keep(waiting[::-1])
        kept = [node for node in kept if slicer.mrmlScene.IsNodePresent(node)]
        texts = (
            (_("Still in the scene, with what was no part of the prediction: {names}."), kept),
            (_("Another prediction was put into {names} since; undo that one first."), [node for node, _p in waiting]),
        )
        return " ".join(text.format(names=_names(nodes)) for text, nodes in texts if nodes)

    def _forget_removed(self, *_unused) -> None:
        left = [entry for entry in self._put if slicer.mrmlScene.IsNodePresent(entry[0])]
        if len(left) < len(self._put):
            self._keep(left)
            self._changed()

    def _keep(self, put) -> None:
        """Go on with these segmentations and their predictions only."""
        self._put, self._asked_about = tuple(put), ()
        kept = [(replace(shown, nodes=tuple(n for n in shown.nodes if n in self.nodes)), f) for shown, f in self._shown]
        self._shown = tuple(kept)


def _stays_without_prediction(node) -> bool:
    """Undo the last prediction; whether a segmentation that was made for it stays, as something else is in it."""
    from NNSegmentLib.scene import PREDICTION_ATTRIBUTE, undo_prediction

    undo_prediction(node)
    is_ours = bool(node.GetAttribute(PREDICTION_ATTRIBUTE))
    if is_ours and not node.GetSegmentation().GetNumberOfSegments():
        slicer.mrmlScene.RemoveNode(node)
        return False
    return is_ours


def _names(nodes) -> str:
    return ", ".join(dict.fromkeys(node.GetName() for node in nodes))


def _sentences(shown, folder) -> str:
    lost = _("No longer in the scene: {names}; their label maps are in {folder}.")
    others = _("Not the volume that was segmented, or changed or moved since: {names}; the label maps are in {folder}.")
    texts = (
        (_("In the scene: {names}."), [node.GetName() for node in shown.nodes]),
        (lost, shown.lost),
        (others, shown.others),
    )
    return " ".join(text.format(names=", ".join(names), folder=folder.labels) for text, names in texts if names)
