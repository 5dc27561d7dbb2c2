"""The pairs of volumes and a segmentation that wait to be written: a table that follows its nodes in the scene."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .pairs import ListedPair
from .widgets import fit_height, tip

MOST_ROWS = 6
SETTLE_MS = 200
"""Slicer tells of every segment by itself: only when no more news come are the segments of all pairs looked through."""


class PairList(VTKObservationMixin):
    """Shows the pairs in a QTableWidget, each with a button that leaves it out."""

    def __init__(self, table, changed: Callable[[], object]) -> None:
        VTKObservationMixin.__init__(self)
        self._table, self._changed = table, changed
        self._listed: list[ListedPair] = []
        self._channels: tuple[str, ...] = ()
        self._watched: set = set()
        self._settling = qt.QTimer()
        self._settling.setSingleShot(True)
        self._settling.setInterval(SETTLE_MS)
        self._settling.connect("timeout()", self._settled)
        table.verticalHeader().hide()
        modes = (qt.QHeaderView.Stretch, qt.QHeaderView.Stretch, qt.QHeaderView.ResizeToContents)
        for column, mode in enumerate(modes):
            table.horizontalHeader().setSectionResizeMode(column, mode)

    def cleanup(self) -> None:
        self._settling.stop()
        self.removeObservers()

    def settle(self) -> None:
        """Tell at once of changes to segments that nobody was told of yet."""
        if self._settling.active:
            self._settled()

    @property
    def pairs(self) -> list:
        """The pairs in their order, with their volumes in that of the channels."""
        return [listed.in_order(self._channels) or listed.pair for listed in self._listed]

    @property
    def other_channels(self) -> tuple[str, ...]:
        """The channels of a pair that was added for others than there are now; empty when all pairs fit."""
        others = (listed.channels for listed in self._listed if listed.in_order(self._channels) is None)
        return next(others, ())

    @property
    def named_twice(self) -> list[str]:
        """Volumes of more than one pair: an image must not be learned and tested on at once."""
        volumes = Counter(pair.volumes[0] for pair in self.pairs)
        return sorted({volume.GetName() for volume, n in volumes.items() if n > 1})

    def clash(self, pair):
        """The pair that has this one's segmentation already, or None."""
        return next((listed for listed in self.pairs if listed.segmentation is pair.segmentation), None)

    def add(self, pairs: Sequence) -> None:
        """Add those whose segmentation is in no pair yet, for the channels of this moment."""
        self._listed += [ListedPair(pair, self._channels) for pair in pairs if self.clash(pair) is None]
        self.show()

    def remove(self, pair) -> None:
        """Take off the pair of a segmentation; the table shows it with the next `show`."""
        self._listed = [listed for listed in self._listed if listed.pair.segmentation is not pair.segmentation]

    def remove_lost(self) -> None:
        """Pairs whose nodes are no longer in the scene go, too."""
        kept = [listed for listed in self._listed if all(map(_is_in_scene, _nodes(listed.pair)))]
        if len(kept) != len(self._listed):
            self._listed = kept
            self.show()

    def set_channels(self, channels: tuple[str, ...]) -> None:
        """Follow the names of the channels."""
        self._channels = channels
        self.show()

    def show(self) -> None:
        """Put the pairs into the table, and tell that they changed."""
        table, pairs = self._table, self.pairs
        table.setVisible(bool(pairs))
        table.setRowCount(0)
        table.setRowCount(len(pairs))
        for row, pair in enumerate(pairs):
            for column, text in enumerate(names_of(pair)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(tip(text))
                table.setItem(row, column, item)
            table.setCellWidget(row, 2, self._remove_button(row, pair))
        fit_height(table, MOST_ROWS)
        self._watch_nodes()
        self._settled()

    def _remove_button(self, row: int, pair):
        button = qt.QToolButton()
        button.setObjectName(f"removePairButton{row}")
        button.text, button.autoRaise = "✕", True
        button.toolTip = _("Leave this pair out.")
        button.connect("clicked()", lambda: self._on_removed(pair))
        return button

    def _on_removed(self, pair) -> None:
        self.remove(pair)
        self.show()

    def _watch_nodes(self) -> None:
        """While pairs wait, their nodes may be renamed, and segments be drawn, renamed or deleted."""
        nodes = {node for listed in self._listed for node in _nodes(listed.pair)}
        for node in self._watched - nodes:
            for event, receiver in self._events():
                self.removeObserver(node, event, receiver)
        for node in nodes - self._watched:
            for event, receiver in self._events():
                self.addObserver(node, event, receiver)
        self._watched = nodes

    def _events(self) -> tuple:
        segmentation = slicer.vtkSegmentation
        events = segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified
        on_segments = [(event, self._on_segments_changed) for event in events]
        return (vtk.vtkCommand.ModifiedEvent, self._on_node_changed), *on_segments

    def _on_segments_changed(self, *_unused) -> None:
        self._settling.start()

    def _settled(self) -> None:
        self._settling.stop()
        self._changed()

    def _on_node_changed(self, *_unused) -> None:
        table = self._table
        shown = [tuple(table.item(row, column).text() for column in (0, 1)) for row in range(table.rowCount)]
        if shown != [names_of(pair) for pair in self.pairs]:
            self.show()


def names_of(pair) -> tuple[str, str]:
    """What the table shows of a pair: its volumes and its segmentation."""
    return " + ".join(volume.GetName() for volume in pair.volumes), pair.segmentation.GetName()


def _nodes(pair) -> tuple:
    return (*pair.volumes, pair.segmentation)


def _is_in_scene(node) -> bool:
    return bool(slicer.mrmlScene.IsNodePresent(node))
