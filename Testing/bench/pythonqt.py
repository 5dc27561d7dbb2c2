"""PySide6 made to behave like PythonQt, the Qt binding inside Slicer, and as strict: the module `qt` of the bench.

What differs and is bridged: properties are attributes and hide the getters of the same name; `connect("signal(type)",
f)` names signals by text; a C++ object takes no new attributes; dynamic properties and children are attributes.
Where PythonQt only prints (a wrong signal, an exception in a slot), the bench raises or remembers.
"""

from __future__ import annotations

import enum
import os
import traceback
import types

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets

SOURCES = (QtCore, QtGui, QtWidgets, QtNetwork, QtUiTools)
QObject = QtCore.QObject

# Shiboken looks these C++ virtuals up by name, so a property in their place would call itself for ever.
VIRTUAL = {"sizeHint", "minimumSizeHint"}
# These are virtual as well, and properties in PythonQt: their getters are asked, who do not look for an override.
VIRTUAL_PROPERTIES = {("QProgressBar", "text")}

slot_errors: list[tuple[str, BaseException]] = []
"""Exceptions raised inside slots, which PythonQt prints and forgets."""

_native_property = QObject.property
_native_set_property = QObject.setProperty
_native_children = QObject.children
_native_getattribute = QObject.__getattribute__
_connections: dict[int, dict[str, list[tuple]]] = {}
"""By the address of the C++ object and the signal's name: (callable, signal, what it is connected to)."""


def is_lookalike(cls: type) -> bool:
    """A class that stands for one of Slicer's C++ classes, not a Python subclass of it."""
    return "_lookalike" in cls.__dict__


def is_cpp(cls: type) -> bool:
    return cls.__module__.startswith("PySide6") or is_lookalike(cls)


# --- properties -------------------------------------------------------------------------------------------------


def _make_property(cls: type, name: str, writable: bool) -> property:
    setter = getattr(cls, "set" + name[0].upper() + name[1:], None)
    getter = getattr(cls, name) if (cls.__name__, name) in VIRTUAL_PROPERTIES else None

    def read(self):
        return getter(self) if getter else _native_property(self, name)

    def write(self, value):
        if not writable:
            raise AttributeError(f"Property '{name}' of {type(self).__name__} object is not writable")
        try:
            accepted = setter(self, value) is None if setter else _native_set_property(self, name, value)
        except TypeError:
            accepted = _native_set_property(self, name, value)
        if not accepted:
            raise AttributeError(f"Property '{name}' of {type(self).__name__} does not accept {value!r}")

    return property(read, write)


def _shadow_getters(cls: type) -> None:
    """Every Q_PROPERTY becomes an attribute, so that `w.text()` fails as it does in Slicer."""
    meta = getattr(cls, "staticMetaObject", None)
    if meta is None or meta.className() != cls.__name__:
        return
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        declared = meta.property(index)
        name = declared.name()
        if name not in VIRTUAL and (cls.__name__, name) != ("QTimer", "singleShot"):
            setattr(cls, name, _make_property(cls, name, declared.isWritable()))


# --- attributes ---------------------------------------------------------------------------------------------------


def _missing_attribute(self, name: str):
    """Dynamic properties and children by object name are attributes; anything else is an error."""
    if not name.startswith("__"):
        value = _native_property(self, name)
        if value is not None:
            return value
        for child in _native_children(self):
            if _native_property(child, "objectName") == name:
                return child
    raise AttributeError(f"{type(self).__name__} has no attribute named '{name}'")


def _own_connect(self, name: str):
    """Shiboken serves its own connect and disconnect to instances, whatever the class says."""
    if name == "connect":
        return types.MethodType(connect, self)
    if name == "disconnect":
        return types.MethodType(disconnect, self)
    return _native_getattribute(self, name)


def _set_described(self, name: str, value) -> bool:
    for cls in type(self).__mro__:
        described = cls.__dict__.get(name)
        if isinstance(described, QtCore.Property):
            if described.fset is None:
                raise AttributeError(f"Property '{name}' of {type(self).__name__} object is not writable")
            described.fset(self, value)
            return True
        if described is not None and hasattr(type(described), "__set__"):
            described.__set__(self, value)
            return True
    return False


def _strict_setattr(self, name: str, value) -> None:
    if _set_described(self, name, value):
        return
    if name.startswith("__") or isinstance(value, QtCore.SignalInstance) or not is_cpp(type(self)):
        self.__dict__[name] = value
    elif isinstance(value, QObject) and _native_property(value, "objectName") == name:
        return  # the loader of .ui files offers each child as an attribute; it is found as a child already
    elif _native_property(self, name) is not None:
        _native_set_property(self, name, value)
    else:
        raise AttributeError(
            f"'{name}' does not exist on {type(self).__name__} and creating new attributes on C++ objects is not allowed"
        )


# --- signals ------------------------------------------------------------------------------------------------------


def _no_signal(self, signature: str) -> AttributeError:
    return AttributeError(f"signal '{signature}' does not exist on {type(self).__name__}")


def _normalized(signature: str) -> str:
    return QtCore.QMetaObject.normalizedSignature(signature).data().decode()


def _find_signal(self, signature: str) -> QtCore.SignalInstance:
    """The signal with exactly these argument types; raises AttributeError where PythonQt prints a warning."""
    name, _, rest = _normalized(signature).partition("(")
    signal = getattr(self, name, None)
    if not isinstance(signal, QtCore.SignalInstance):
        raise _no_signal(self, signature)
    arguments = rest.rstrip(")")
    for cls in type(self).__mro__:
        overloads = cls.__dict__.get("_signal_types", {}).get(name)
        if overloads is not None:
            if arguments not in overloads:
                raise _no_signal(self, signature)
            return signal[overloads[arguments]] if len(overloads) > 1 else signal
    if self.metaObject().indexOfSignal(f"{name}({arguments})") < 0:
        raise _no_signal(self, signature)
    return _native_overload(signal, arguments)


def _native_overload(signal, arguments: str):
    """Pick one of several C++ overloads; a signal with one form has nothing to pick."""
    if not arguments:
        return signal
    try:
        return signal[arguments]
    except (IndexError, KeyError, TypeError):
        return signal


def _accepted_count(function) -> int | None:
    """How many arguments PythonQt passes: all that are declared, defaults included; None means as many as there are."""
    bound = isinstance(function, types.MethodType)
    plain = function.__func__ if bound else function
    if not isinstance(plain, types.FunctionType) or plain.__code__.co_flags & 0x04:
        return None
    return plain.__code__.co_argcount - bound


def _receiver(receiver, slot):
    function = receiver if slot is None else getattr(receiver, slot.partition("(")[0])
    if not callable(function):
        raise TypeError(f"{function!r} cannot be connected: it is not callable")
    return function


def connect(self, signature: str, receiver, slot: str | None = None) -> bool:
    """PythonQt's connect: the callable is held strongly and gets only as many arguments as it declares."""
    function, signal = _receiver(receiver, slot), _find_signal(self, signature)
    sent = 0 if "()" in signature else signature.count(",") + 1
    accepted = _accepted_count(function)
    passed = sent if accepted is None else min(accepted, sent)

    def call(*arguments):
        try:
            function(*arguments[:passed])
        except Exception as error:  # a slot that raises must not unwind through C++
            slot_errors.append((signature, error))
            traceback.print_exc()

    signal.connect(call)
    _connections_of(self, signature).append((function, signal, call))
    return True


def disconnect(self, signature: str, receiver=None, slot: str | None = None) -> bool:
    """Undo connect for one callable, or for all callables of the signal; False if there was none."""
    _find_signal(self, signature)
    function = None if receiver is None else _receiver(receiver, slot)
    held = _connections_of(self, signature)
    for connection in [c for c in held if function is None or c[0] == function]:
        connection[1].disconnect(connection[2])
        held.remove(connection)
        if function is not None:
            return True
    return function is None


def _connections_of(self, signature: str) -> list[tuple]:
    """The list that connect and disconnect edit; it goes with the C++ object, whose address another one may get."""
    address = shiboken6.getCppPointer(self)[0]
    if address not in _connections:
        _connections[address] = {}
        self.destroyed.connect(lambda: _connections.pop(address, None))
    return _connections[address].setdefault(signature.partition("(")[0], [])


# --- the module `qt` ----------------------------------------------------------------------------------------------


def _equal_numbers(self, other) -> bool:
    """Enumerations are plain integers in PythonQt, so `state == 2` is a comparison that works there."""
    return self.value == other if isinstance(other, int) else self is other or _enum_equal(self, other)


def _enum_equal(one, other) -> bool:
    return type(one) is type(other) and one.value == other.value


def _adapt_enum(cls: type) -> None:
    cls.__int__ = cls.__index__ = lambda self: self.value
    cls.__eq__ = _equal_numbers
    cls.__hash__ = lambda self: hash(self.value)


def _adapt(cls: type) -> None:
    if issubclass(cls, QObject):
        _shadow_getters(cls)
        cls.__setattr__ = _strict_setattr
    for value in [cls, *vars(cls).values()]:
        if isinstance(value, type) and issubclass(value, enum.Enum) and not issubclass(value, int):
            _adapt_enum(value)


def _adapt_qobject() -> None:
    QObject.connect, QObject.disconnect = connect, disconnect
    QObject.__getattr__ = _missing_attribute
    QObject.__getattribute__ = _own_connect
    QObject.name = property(
        lambda self: _native_property(self, "objectName"),
        lambda self, value: _native_set_property(self, "objectName", value),
    )
    QObject.className = lambda self: self.metaObject().className()
    QObject.delete = lambda self: shiboken6.delete(self)


def make_qt_module() -> types.ModuleType:
    """The flat module `qt`; asking it for a name that Qt does not have raises AttributeError."""
    qt = types.ModuleType("qt", "Qt as PythonQt gives it")
    _adapt_qobject()
    for source in SOURCES:
        for name in dir(source):
            value = getattr(source, name)
            if isinstance(value, type):
                _adapt(value)
            if not name.startswith("_"):
                qt.__dict__.setdefault(name, value)
    return qt
