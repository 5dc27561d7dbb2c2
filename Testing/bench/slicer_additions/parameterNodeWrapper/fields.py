"""The fields of a parameter node: their types, defaults and limits, and how each is written as text."""

import enum
import json
import pathlib
import types
import typing
from dataclasses import dataclass

import slicer


@dataclass(frozen=True)
class Default:
    value: object


@dataclass(frozen=True)
class Minimum:
    minimum: float

    def check(self, value):
        if value < self.minimum:
            raise ValueError(f"{value} is below the minimum, {self.minimum}")


@dataclass(frozen=True)
class Maximum:
    maximum: float

    def check(self, value):
        if value > self.maximum:
            raise ValueError(f"{value} is above the maximum, {self.maximum}")


@dataclass(frozen=True)
class WithinRange:
    minimum: float
    maximum: float

    def check(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} and {self.maximum}")


@dataclass(frozen=True)
class Choice:
    choices: list

    def check(self, value):
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")


@dataclass(frozen=True)
class Decimals:
    value: int


@dataclass(frozen=True)
class SingleStep:
    value: float


EMPTY = {int: 0, float: 0.0, str: "", bool: False, list: [], dict: {}, tuple: (), pathlib.Path: pathlib.Path()}


def withoutNone(kind):
    """`Optional[X]` → (X, True); anything else → (itself, False)."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = [k for k in typing.get_args(kind) if k is not type(None)]
        if len(kinds) != 1:
            raise TypeError(f"a parameter of type {kind} is not supported here")
        return kinds[0], True
    return kind, False


def isNode(kind):
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


@dataclass(frozen=True)
class Field:
    """One parameter: how it is checked, written to the node and read back."""

    name: str
    kind: object
    optional: bool
    annotations: tuple
    default: object

    @property
    def origin(self):
        return typing.get_origin(self.kind) or self.kind

    @property
    def isNode(self):
        return isNode(self.kind)

    def find(self, annotation):
        return next((a for a in self.annotations if isinstance(a, annotation)), None)

    def check(self, value):
        if value is None and (self.optional or self.isNode):
            return
        accepted = (int, float) if self.origin is float else self.origin
        if not isinstance(value, accepted) or (self.origin is int and isinstance(value, bool)):
            raise TypeError(f"parameter '{self.name}' is {self.kind}, got {value!r}")
        for annotation in self.annotations:
            if hasattr(annotation, "check"):
                annotation.check(value)

    def toText(self, value):
        if value is None:
            return "None"
        if isinstance(value, enum.Enum):
            return value.name
        return json.dumps(value) if self.origin in (list, tuple, dict) else str(value)

    def fromText(self, text):
        if self.optional and text == "None":
            return None
        if self.origin is bool:
            return text == "True"
        if isinstance(self.origin, type) and issubclass(self.origin, enum.Enum):
            return self.origin[text]
        return self.origin(json.loads(text)) if self.origin in (list, tuple, dict) else self.origin(text)


def emptyValue(kind, optional):
    origin = typing.get_origin(kind) or kind
    if optional or isNode(origin):
        return None
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return next(iter(origin))
    if origin not in EMPTY:
        raise TypeError(f"a parameter of type {kind} is not supported here")
    return EMPTY[origin]


def makeField(cls, name, hint):
    annotations = tuple(hint.__metadata__) if hasattr(hint, "__metadata__") else ()
    kind, optional = withoutNone(hint.__origin__ if annotations else hint)
    if isinstance(kind, type) and issubclass(kind, pathlib.PurePath):
        kind = pathlib.Path
    default = next((a.value for a in annotations if isinstance(a, Default)), emptyValue(kind, optional))
    choice = next((a for a in annotations if isinstance(a, Choice)), None)
    if choice and default not in choice.choices:
        default = choice.choices[0]
    field = Field(name, kind, optional, annotations, getattr(cls, name, default))
    field.check(field.default)
    return field


def makeFields(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: makeField(cls, name, hint) for name, hint in hints.items() if not name.startswith("_")}
