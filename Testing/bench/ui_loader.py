"""Reading unmodified .ui files with qMRML and ctk widgets in them, as Slicer's designer plugins allow."""

from __future__ import annotations

import inspect
import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtUiTools, QtWidgets

from . import api
from .lookalikes import Lookalike, api_name, lookalike
from .pythonqt import VIRTUAL, QObject

TEXT_OF_WIDGET = "{widget} '{name}' of the .ui file"


def enumerators(text: str, class_name: str) -> int:
    """Value of `ctkPathLineEdit::Dirs|ctkPathLineEdit::Files`; AttributeError for a name the class does not have."""
    value = 0
    for part in text.split("|"):
        value |= int(getattr(lookalike(class_name), part.rpartition("::")[2]))
    return value


def has_property(cls: type, name: str) -> bool:
    """Whether Slicer's class has it by the table, or Qt's by the attributes that every property of Qt became.

    Meta-objects are not asked: PySide invalidates them while classes made in Python come and go.
    """
    of_slicer = api.properties(api_name(cls)) if issubclass(cls, Lookalike) else ()
    return name in of_slicer or name in VIRTUAL or isinstance(inspect.getattr_static(cls, name, None), property)


def check_properties(widget: ElementTree.Element, cls: type) -> None:
    """Designer turns a misspelt property into a dynamic one without a word; here it is an error."""
    for item in widget.findall("property"):
        name = item.get("name")
        is_of_designer = (cls, name) == (QtWidgets.QLabel, "buddy")
        if item.get("stdset") != "0" and not is_of_designer and not has_property(cls, name):
            raise AttributeError(f"{widget.get('class')} '{widget.get('name')}' has no property '{name}'")


class UiLoader(QtUiTools.QUiLoader):
    """`qt.QUiLoader`: registers the look-alikes it meets and makes the connections of the file itself."""

    def load(self, device, parent=None):
        root = ElementTree.fromstring(bytes(device.readAll().data()))
        flags = [flag for widget in root.iter("widget") for flag in self._prepare(widget)]
        connections = [self._take_connection(c) for c in root.iter("connection")]
        for section in root.findall("connections"):
            root.remove(section)
        top = self._load_native(root, parent)
        by_name = {w.objectName: w for w in [top, *top.findChildren(QObject)]}
        for name, property_name, value in flags:
            setattr(by_name[name], property_name, value)
        for sender, signal, receiver, slot in connections:
            self._connect(by_name, sender, signal, receiver, slot)
        for buddy in root.iterfind(".//property[@name='buddy']/cstring"):
            if buddy.text not in by_name:
                raise AttributeError(f"a label's buddy is '{buddy.text}', which is not a widget of the .ui file")
        return top

    def _prepare(self, widget):
        """Register the class; hand back the enumerations of look-alikes, which Qt's loader cannot read."""
        class_name = widget.get("class")
        if class_name not in api.TABLE:
            if class_name not in self.availableWidgets():
                raise AttributeError(
                    f"the .ui file has a widget of class '{class_name}', which neither Qt nor Slicer has"
                )
            native = getattr(QtWidgets, class_name, None)  # Line, for one, is no class
            if native is not None:
                check_properties(widget, native)
            return
        cls = lookalike(class_name)
        self.registerCustomWidget(cls)
        check_properties(widget, cls)
        for item in widget.findall("property"):
            text = item.findtext("set") or item.findtext("enum")
            if text and class_name.startswith(("ctk", "qMRML")) and text.startswith(("ctk", "qMRML")):
                widget.remove(item)
                yield widget.get("name"), item.get("name"), enumerators(text, class_name)

    def _take_connection(self, element):
        return [element.findtext(key) for key in ("sender", "signal", "receiver", "slot")]

    def _load_native(self, root, parent):
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        top = super().load(buffer, parent)
        if top is None:
            raise RuntimeError(f"the .ui file cannot be loaded: {self.errorString()}")
        return top

    def _connect(self, by_name, sender, signal, receiver, slot):
        for name in (sender, receiver):
            if name not in by_name:
                raise AttributeError(f"a connection of the .ui file names '{name}', which is not a widget of the file")
        by_name[sender].connect(signal, by_name[receiver], slot)
