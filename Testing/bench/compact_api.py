"""Write api.json, the names of Slicer's widgets that the bench knows, from a full table of Slicer's and CTK's headers.

Run it as ``python compact_api.py FULL_TABLE.json`` when a module needs one more class: add the class to CLASSES.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

CLASSES = [
    "qMRMLWidget",
    "qMRMLNodeComboBox",
    "qMRMLCheckableNodeComboBox",
    "qMRMLSegmentSelectorWidget",
    "qMRMLSegmentsTableView",
    "qMRMLSubjectHierarchyComboBox",
    "qMRMLSubjectHierarchyTreeView",
    "qMRMLColorTableComboBox",
    "qMRMLTableView",
    "qMRMLTableWidget",
    "qMRMLPlotView",
    "qMRMLPlotWidget",
    "qMRMLSliderWidget",
    "qMRMLSpinBox",
    "qMRMLRangeWidget",
    "qMRMLSegmentationShow3DButton",
    "qMRMLSegmentEditorWidget",
    "qMRMLCollapsibleButton",
    "qMRMLTreeView",
    "qMRMLSliceWidget",
    "qMRMLSliceView",
    "qMRMLSliceControllerWidget",
    "qMRMLThreeDWidget",
    "qMRMLThreeDView",
    "qMRMLThreeDViewControllerWidget",
    "qMRMLLayoutManager",
    "qSlicerLayoutManager",
    "qSlicerWidget",
    "qSlicerAbstractModuleWidget",
    "qSlicerAbstractCoreModule",
    "qSlicerLoadableModule",
    "qSlicerScriptedLoadableModule",
    "qSlicerScriptedLoadableModuleWidget",
    "qSlicerApplication",
    "qSlicerCoreApplication",
    "qSlicerModuleManager",
    "qSlicerCoreIOManager",
    "qSlicerIOManager",
    "qSlicerMainWindow",
    "qSlicerSimpleMarkupsWidget",
    "qSlicerSegmentEditorAbstractEffect",
    "qSlicerSegmentEditorScriptedEffect",
    "qSlicerSegmentEditorEffectFactory",
    "ctkCollapsibleButton",
    "ctkCollapsibleGroupBox",
    "ctkPathLineEdit",
    "ctkComboBox",
    "ctkCheckableComboBox",
    "ctkSliderWidget",
    "ctkDoubleSlider",
    "ctkDoubleSpinBox",
    "ctkRangeWidget",
    "ctkDoubleRangeSlider",
    "ctkDirectoryButton",
    "ctkPushButton",
    "ctkCheckBox",
    "ctkFittedTextBrowser",
    "ctkMessageBox",
    "ctkColorPickerButton",
    "ctkMenuButton",
    "ctkSearchBox",
    "ctkExpandButton",
    "ctkVTKAbstractView",
    "ctkVTKRenderView",
    "ctkVTKSliceView",
    "ctkVTKChartView",
    "ctkLayoutManager",
    "ctkLayoutFactory",
    "ctkDynamicSpacer",
    "ctkCoordinatesWidget",
    "ctkToolTipTrapper",
    "ctkProxyStyle",
    "ctkSettings",
    "ctkThumbnailLabel",
    "ctkTreeComboBox",
    "ctkWorkflowWidget",
    "ctkErrorLogWidget",
]


def bare_method(signature: str) -> str:
    return re.search(r"(\w+)\s*\(", re.sub(r"Q_DECLARE_FLAGS\s*\([^)]*\)", "", signature)).group(1)


def bare_type(argument: str) -> str:
    """`const QString& id` and `QString` are the same to a connection."""
    argument = re.sub(r"\bconst\b|&", "", argument).strip()
    named = re.fullmatch(r"([\w:<>, ]+?\s*\*?)\s*\b(\w+)", argument)
    if named and (named.group(1).rstrip().endswith("*") or " " in argument) and argument != "unsigned int":
        argument = named.group(1)
    return argument.replace(" ", "") if "unsigned" not in argument else argument.strip()


def bare_signal(signature: str) -> str:
    name, _, arguments = signature.partition("(")
    types = [bare_type(a) for a in re.split(r",(?![^<]*>)", arguments.rpartition(")")[0]) if a.strip()]
    return f"{name}({','.join(types)})"


def compact(entry: dict) -> dict:
    enums = (re.fullmatch(r"(\w+)\{(.*)\}", text) for text in entry["enums"])
    return {
        "base": entry["base"],
        "properties": {name: [kind, access] for name, kind, access in entry["props"]},
        "signals": [bare_signal(s) for s in entry["signals"]],
        "methods": sorted({bare_method(s) for s in entry["slots"] + entry["invokable"]}),
        "enums": {e.group(1): e.group(2).split(",") for e in enums if e},
    }


def wanted(table: dict) -> list[str]:
    names, queue = [], list(CLASSES)
    while queue:
        name = queue.pop(0)
        if name in table and name not in names:
            names.append(name)
            queue.append(table[name]["base"])
    return sorted(names)


def main(source: str) -> None:
    table = json.loads(Path(source).read_text())
    lines = [f"{json.dumps(name)}: {json.dumps(compact(table[name]))}" for name in wanted(table)]
    (Path(__file__).parent / "api.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
