"""The names Slicer's own widgets have in Python: properties, signals, slots and invokable methods, from api.json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

TABLE = json.loads((Path(__file__).parent / "api.json").read_text())

# Invokable in Slicer, but declared in a way the extraction of the headers missed; seen in slicer.util's own calls.
MISSED = {
    "qSlicerApplication": {"layoutManager", "mainWindow", "extensionsManagerModel", "testAttribute"},
    "qSlicerCoreApplication": {"testingEnabled", "isInstalled", "applicationName"},
    "ctkVTKRenderView": {"renderer", "activeCamera"},
    "qSlicerWidget": {"mrmlScene", "setMRMLScene"},
    "qSlicerAbstractCoreModule": {"logic", "widgetRepresentation", "createNewWidgetRepresentation", "moduleName"},
}


def ancestry(class_name: str):
    """The entries of a class and its Slicer and CTK bases, nearest first."""
    while class_name in TABLE:
        yield class_name, TABLE[class_name]
        class_name = TABLE[class_name]["base"]


@cache
def signals(class_name: str) -> frozenset[str]:
    return frozenset(s for _, entry in ancestry(class_name) for s in entry["signals"])


@cache
def properties(class_name: str) -> frozenset[str]:
    return frozenset(p for _, entry in ancestry(class_name) for p in entry["properties"])


@cache
def methods(class_name: str) -> frozenset[str]:
    return frozenset(m for name, entry in ancestry(class_name) for m in {*entry["methods"], *MISSED.get(name, ())})


@cache
def enum_values(class_name: str) -> dict[str, int]:
    """Names of enumeration values and their rank; the true numbers are not in the table."""
    found = {}
    for _, entry in ancestry(class_name):
        for values in entry["enums"].values():
            found.update({v: rank for rank, v in enumerate(values) if v not in found})
    return found
