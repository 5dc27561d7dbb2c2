"""Classes that stand for Slicer's qMRML*, ctk* and qSlicer* classes: names from the table, behaviour from here.

`define` turns a short Python class into a look-alike: what the table names and the class does not write is added (a
stored property, a signal, or a method that says that the bench does not do it); what the class writes and the table
does not name is refused. `lookalike(name)` makes any other class of the table on demand.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

from PySide6 import QtCore, QtWidgets

from . import api
from .pythonqt import SOURCES, QObject

SIGNAL_TYPES = {"bool": bool, "int": int, "double": float, "QString": str}
ACCEPTED = {
    "bool": (bool, int), "int": (int,), "double": (int, float), "QString": (str,), "QStringList": (list, tuple),
}  # fmt: skip
EMPTY = {"bool": False, "int": 0, "double": 0.0, "QString": ""}
QT_TYPES = {"bool": bool, "int": int, "double": float, "QString": str, "QStringList": "QStringList"}

# Protected C++ virtuals that a look-alike may override: they are Qt's, not names of Slicer.
OVERRIDES = {"sizeHint", "minimumSizeHint", "paintEvent", "resizeEvent", "eventFilter", "showEvent", "event"}

_classes: dict[str, type] = {}


class Lookalike:
    """Common start of all look-alikes; private state lives in `_bench`, which Slicer's classes do not have."""

    defaults: dict[str, object] = {}

    def __init__(self, *arguments):
        self.__dict__["_bench"] = SimpleNamespace(values={})
        text = next((a for a in arguments if isinstance(a, str)), None)
        super().__init__(*[a for a in arguments if isinstance(a, QObject)][:1])
        if text is not None:
            self.setText(text)
        self._build()

    def _build(self):
        """Make the children and connections; each class overrides it."""


def checked_value(owner: str, name: str, kind: str, value):
    """The value as the property stores it; AttributeError, as PythonQt's, when its type does not fit."""
    accepted = ACCEPTED.get(kind)
    fits = accepted is None or isinstance(value, accepted)
    if kind == "QStringList":
        fits = fits and all(isinstance(v, str) for v in value)
    if not fits:
        raise AttributeError(f"Property '{name}' of type '{kind}' of {owner} does not accept {value!r}")
    return list(value) if kind == "QStringList" else bool(value) if kind == "bool" else value


def default_value(cls: type, name: str, kind: str):
    for base in cls.__mro__:
        if name in base.__dict__.get("defaults", {}):
            return base.__dict__["defaults"][name]
    return [] if kind == "QStringList" else EMPTY.get(kind)


def stored_property(name: str, kind: str, writable: bool) -> QtCore.Property:
    """A property kept in `_bench.values`; `_on_<name>(value)` of the class runs after a change."""

    def read(self):
        return self._bench.values.get(name, default_value(type(self), name, kind))

    def write(self, value):
        value = checked_value(type(self).__name__, name, kind, value)
        if value == read(self):
            return
        self._bench.values[name] = value
        reaction = getattr(type(self), "_on_" + name, None)
        if reaction:
            reaction(self, value)
        elif name + "Changed" in {s.partition("(")[0] for s in api.signals(api_name(type(self)))}:
            getattr(self, name + "Changed").emit(value)

    return QtCore.Property(QT_TYPES.get(kind, "QVariant"), read, write if writable else None)


def api_name(cls: type) -> str:
    """The Slicer class that a look-alike, or a Python subclass of one, stands for."""
    return next(base.__name__ for base in cls.__mro__ if "_lookalike" in base.__dict__)


def add_properties(entry: dict, namespace: dict) -> None:
    for name, (kind, access) in entry["properties"].items():
        namespace.setdefault(name, stored_property(name, kind, access == "rw"))


def add_signals(entry: dict, namespace: dict) -> None:
    """Signals under their names; `_signal_types` maps the text of their arguments to what PySide knows them by."""
    overloads: dict[str, dict[str, object]] = {}
    for signature in entry["signals"]:
        name, _, rest = signature.partition("(")
        arguments = rest.rstrip(")")
        types = tuple(SIGNAL_TYPES.get(a, object) for a in re.split(r",(?![^<]*>)", arguments) if a)
        overloads.setdefault(name, {})[arguments] = types
    for name, forms in overloads.items():
        several = len(forms) > 1
        namespace[name] = QtCore.Signal(*forms.values()) if several else QtCore.Signal(*next(iter(forms.values())))
        if several:
            overloads[name] = {text: types[0] if len(types) == 1 else types for text, types in forms.items()}
    namespace["_signal_types"] = overloads


def setter_of(name: str):
    return lambda self, value: setattr(self, name, value)


def not_in_the_bench(owner: str, method: str):
    def missing(self, *arguments):
        raise NotImplementedError(f"{owner}.{method} exists in Slicer, but the bench does not do it yet")

    return missing


def add_methods(name: str, entry: dict, base: type, namespace: dict) -> None:
    for method in {*entry["methods"], *api.MISSED.get(name, ())}:
        stored = method[3:4].lower() + method[4:] if method.startswith("set") else ""
        if method in namespace:
            continue
        if stored in entry["properties"]:
            namespace[method] = setter_of(stored)
        elif not hasattr(base, method):
            namespace[method] = not_in_the_bench(name, method)


def refuse_invented_names(name: str, written: dict) -> None:
    known = api.properties(name) | api.methods(name) | {s.partition("(")[0] for s in api.signals(name)}
    known |= OVERRIDES | {"defaults"} | set(api.enum_values(name))
    invented = [n for n in written if not n.startswith("_") and n not in known]
    if invented:
        raise TypeError(f"{name} of the bench has names that Slicer's class does not have: {invented}")


def base_class(name: str) -> type:
    if name in api.TABLE:
        return lookalike(name)
    for source in SOURCES:
        if hasattr(source, name):
            return getattr(source, name)
    return QtWidgets.QWidget


def define(cls: type) -> type:
    """Class decorator: the look-alike of the Slicer class of the same name."""
    name = cls.__name__
    entry = api.TABLE[name]
    if name in _classes and _classes[name].__subclasses__():
        raise TypeError(f"{name} is defined after a class that derives from it: import its file earlier")
    written = {k: v for part in reversed(cls.__mro__[:-1]) for k, v in vars(part).items()}
    written = {k: v for k, v in written.items() if k not in ("__dict__", "__weakref__")}
    refuse_invented_names(name, {k: v for k, v in written.items() if not k.startswith("__")})
    base = base_class(entry["base"])
    namespace = dict(written, _lookalike=True)
    add_properties(entry, namespace)
    add_signals(entry, namespace)
    add_methods(name, entry, base, namespace)
    for value, rank in api.enum_values(name).items():
        namespace.setdefault(value, rank)
    bases = (base,) if issubclass(base, Lookalike) else (Lookalike, base)
    _classes[name] = type(QObject)(name, bases, namespace)
    return _classes[name]


def lookalike(name: str) -> type:
    """The look-alike of a class of the table; AttributeError for any other name."""
    if name not in api.TABLE:
        raise AttributeError(f"'{name}' is not a class of Slicer that the bench knows")
    if name not in _classes:
        define(type(name, (), {}))
    return _classes[name]
