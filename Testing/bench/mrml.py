"""Slicer's application without Slicer: the real scene, application logic and module logics of the slicer-core wheel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .rendering import prefer_egl

LOGICS = {
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Data": "vtkSlicerDataModuleLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Markups": "vtkSlicerMarkupsLogic",
}
TERMINOLOGIES = Path(__file__).parent / "terminologies"
"""A few entries under the names of Slicer's own lists, which the wheel does not bring."""

SLICE_VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


errors: list[str] = []
"""What VTK and MRML complained about since the start."""


@dataclass
class Mrml:
    """The scene and the logics that Slicer's application would own."""

    scene: object
    application_logic: object
    logics: dict[str, object] = field(default_factory=dict)
    slice_logics: dict[str, object] = field(default_factory=dict)
    view_logics: list[object] = field(default_factory=list)
    layout_logic: object = None
    observers: list[object] = field(default_factory=list)


def start_mrml() -> Mrml:
    """A scene in which segments, colours and slices work as in the application; the order of the steps matters."""
    prefer_egl()
    import slicer
    import vtk

    remember_errors(vtk)
    scene = slicer.vtkMRMLScene()
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    mrml = Mrml(scene, _application_logic(slicer, vtk, scene))
    _add_module_logics(slicer, mrml)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    _add_views(slicer, mrml)
    _keep_subject_hierarchy(slicer, vtk, mrml)
    return mrml


def remember_errors(vtk) -> None:
    """VTK prints its errors and goes on; keep them, so that a test can ask for them."""

    @vtk.calldata_type(vtk.VTK_STRING)
    def remember(_caller, _event, text):
        errors.append(text.strip())

    output = vtk.vtkOutputWindow()
    output.SetDisplayModeToAlwaysStdErr()
    output.AddObserver(vtk.vtkCommand.ErrorEvent, remember)
    vtk.vtkOutputWindow.SetInstance(output)


def _application_logic(slicer, vtk, scene):
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    for factory in (
        slicer.vtkMRMLThreeDViewDisplayableManagerFactory,
        slicer.vtkMRMLSliceViewDisplayableManagerFactory,
    ):
        factory.GetInstance().SetMRMLApplicationLogic(logic)
    logic.SetModuleLogic("Colors", logic.GetColorLogic())
    return logic


def _add_module_logics(slicer, mrml: Mrml) -> None:
    for name, class_name in LOGICS.items():
        logic = getattr(slicer, class_name)()
        if name == "Terminologies":
            logic.SetModuleShareDirectory(str(TERMINOLOGIES))
        logic.SetMRMLScene(mrml.scene)
        logic.SetMRMLApplicationLogic(mrml.application_logic)
        mrml.application_logic.SetModuleLogic(name, logic)
        mrml.logics[name] = logic


def _add_views(slicer, mrml: Mrml) -> None:
    for name, orientation in SLICE_VIEWS.items():
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(mrml.application_logic)
        mrml.application_logic.GetSliceLogics().AddItem(logic)
        logic.SetMRMLScene(mrml.scene)
        logic.AddSliceNode(name).SetOrientation(orientation)
        mrml.slice_logics[name] = logic
    view = slicer.vtkMRMLViewLogic()
    view.SetMRMLApplicationLogic(mrml.application_logic)
    view.SetMRMLScene(mrml.scene)
    mrml.application_logic.GetViewLogics().AddItem(view)
    view.AddViewNode("1")
    mrml.view_logics.append(view)
    mrml.layout_logic = slicer.vtkMRMLLayoutLogic()
    mrml.layout_logic.SetMRMLApplicationLogic(mrml.application_logic)
    mrml.layout_logic.SetMRMLScene(mrml.scene)
    mrml.layout_logic.GetLayoutNode().SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    map_views(mrml)


def items(collection) -> list:
    return [collection.GetItemAsObject(i) for i in range(collection.GetNumberOfItems())]


def view_nodes(mrml: Mrml) -> list:
    """The view nodes of the present layout."""
    return items(mrml.layout_logic.GetViewNodes())


def map_views(mrml: Mrml) -> None:
    """Mark which views the layout shows, as the application does; closing the scene takes the marks away."""
    shown = {node.GetID() for node in view_nodes(mrml)}
    for node in items(mrml.scene.GetNodesByClass("vtkMRMLAbstractViewNode")):
        node.SetMappedInLayout(node.GetID() in shown)


def _keep_subject_hierarchy(slicer, vtk, mrml: Mrml) -> None:
    """In the application a Qt plug-in makes an item for each data node, and takes it away again."""

    def hierarchy():
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(mrml.scene)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(_caller, _event, node):
        data = node.IsA("vtkMRMLDisplayableNode") or node.IsA("vtkMRMLTableNode")
        if data and not node.GetHideFromEditors() and not hierarchy().GetItemByDataNode(node):
            hierarchy().CreateItem(hierarchy().GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def leaving(_caller, _event, node):
        item = hierarchy().GetItemByDataNode(node) if node.IsA("vtkMRMLDisplayableNode") else 0
        if item:
            hierarchy().RemoveItem(item, False, False)

    mrml.observers = [added, leaving]
    mrml.scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, added)
    mrml.scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, leaving)
