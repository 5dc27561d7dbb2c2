"""The list of segments that count: each can lose its tick, and keeps it that way while pairs come and go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from .pairs import SegmentChoice, segment_choices
from .widgets import show_text, tip

MOST_ROWS = 6


class SegmentList:
    """Shows the segments of the pairs, or why they cannot be used, in the widgets of the task section."""

    def __init__(self, ui, ticked: Callable[[], object]) -> None:
        self._ui, self._on_change = ui, ticked
        self.problem = ""
        """Why the segments cannot be used; empty when they can."""
        self._shown: tuple | None = None
        self._without_tick: set[str] = set()
        ui.segmentsList.connect("itemChanged(QListWidgetItem*)", self._on_ticked)

    def ticked(self) -> list[str]:
        """The names of the segments that count, in their order."""
        items = [self._ui.segmentsList.item(row) for row in range(self._ui.segmentsList.count)]
        return [item.data(qt.Qt.UserRole) for item in items if item.checkState() == qt.Qt.Checked]

    def show(self, pairs: Sequence, task) -> None:
        """Follow the pairs; the labels of an open task decide which segments count."""
        if not pairs:
            self._without_tick.clear()
        choices = self._choices(pairs, task)
        now = choices, self.problem, len(pairs), task is None
        if now == self._shown:
            return
        self._shown = now
        self._fill(choices, len(pairs), task)
        show_text(self._ui.segmentsHint, self.problem)

    def _choices(self, pairs: Sequence, task) -> list[SegmentChoice]:
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.scene import segment_table

        nodes = [pair.segmentation for pair in pairs]
        self.problem = ""
        try:
            return segment_choices([segment_table(node) for node in nodes], [node.GetName() for node in nodes], task)
        except NNSegmentError as error:
            self.problem = str(error)
            return []

    def _fill(self, choices: Sequence[SegmentChoice], n_pairs: int, task) -> None:
        widget = self._ui.segmentsList
        blocked = widget.blockSignals(True)
        widget.clear()
        for choice in choices:
            widget.addItem(self._item(choice, n_pairs, task))
        widget.blockSignals(blocked)
        for each in (widget, self._ui.segmentsLabel):
            each.setVisible(bool(choices))
        rows = min(len(choices), MOST_ROWS)
        widget.setFixedHeight((widget.sizeHintForRow(0) if rows else 0) * rows + 4)

    def _item(self, choice: SegmentChoice, n_pairs: int, task):
        text = _("{name}   in {count} of {all}").format(name=choice.name, count=choice.count, all=n_pairs)
        item = qt.QListWidgetItem(text)
        item.setToolTip(tip(text))
        item.setData(qt.Qt.UserRole, choice.name)
        if choice.color is not None:
            pixmap = qt.QPixmap(12, 12)
            pixmap.fill(qt.QColor(*choice.color))
            item.setIcon(qt.QIcon(pixmap))
        counts = choice.name not in self._without_tick
        if task is not None:
            item.setFlags(qt.Qt.ItemIsEnabled if choice.is_known else qt.Qt.NoItemFlags)
            if not choice.is_known:
                item.setToolTip(_("The task has no label of this name; it is left out."))
            counts = choice.is_known
        item.setCheckState(qt.Qt.Checked if counts else qt.Qt.Unchecked)
        return item

    def _on_ticked(self, item) -> None:
        name = item.data(qt.Qt.UserRole)
        if item.checkState() == qt.Qt.Checked:
            self._without_tick.discard(name)
        else:
            self._without_tick.add(name)
        self._on_change()
