"""Typed parameters kept in a node of the scene and bound to widgets: Slicer's interface, written anew for the bench.

It covers numbers, text, truth values, paths, enumerations, lists and dicts of them, and nodes; a field of another type
is refused when the class is decorated.
"""

from .fields import Choice, Decimals, Default, Maximum, Minimum, SingleStep, WithinRange
from .wrapper import parameterNodeWrapper

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Maximum",
    "Minimum",
    "SingleStep",
    "WithinRange",
    "parameterNodeWrapper",
]
