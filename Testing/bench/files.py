"""Loading and saving nodes, as `slicer.util.loadVolume` and its kin ask the application for."""

from __future__ import annotations

from pathlib import Path

from .lookalikes import define

FILE_TYPES = {
    ".nrrd": "VolumeFile", ".nhdr": "VolumeFile", ".nii": "VolumeFile", ".nii.gz": "VolumeFile", ".mha": "VolumeFile",
    ".vtk": "ModelFile", ".vtp": "ModelFile", ".stl": "ModelFile", ".csv": "TableFile", ".tsv": "TableFile",
    ".ctbl": "ColorTableFile", ".h5": "TransformFile", ".tfm": "TransformFile", ".mrml": "SceneFile",
    ".mrb": "SceneFile", ".seg.nrrd": "SegmentationFile",
}  # fmt: skip
VOLUME_OPTIONS = {"labelmap": 0x1, "center": 0x2, "singleFile": 0x4, "autoWindowLevel": 0x8, "discardOrientation": 0x10}
"""What `loadVolume` may be told → its bit; without `singleFile` the one-slice files of a folder become one volume."""
NODE_CLASSES = {
    "SegmentationFile": ("vtkMRMLSegmentationNode", "vtkMRMLSegmentationStorageNode"),
    "ModelFile": ("vtkMRMLModelNode", "vtkMRMLModelStorageNode"),
    "TransformFile": ("vtkMRMLTransformNode", "vtkMRMLTransformStorageNode"),
    "TableFile": ("vtkMRMLTableNode", "vtkMRMLTableStorageNode"),
    "ColorTableFile": ("vtkMRMLColorTableNode", "vtkMRMLColorTableStorageNode"),
}


def known_extension(file: str) -> str:
    """The longest known ending of the file's name, or "" for none."""
    name = Path(file).name.lower()
    return max((e for e in FILE_TYPES if name.endswith(e)), key=len, default="")


def file_stem(file: str) -> str:
    name = Path(file).name
    return name[: len(name) - len(known_extension(file))] or name


@define
class qSlicerCoreIOManager:
    def fileType(self, file):
        return FILE_TYPES.get(known_extension(file), "NoFile")

    def fileWriterFileType(self, node, extension=""):
        return node.GetClassName()

    def extractKnownExtension(self, file, node=None):
        return known_extension(file)

    def stripKnownExtension(self, file, node=None):
        return file[: len(file) - len(known_extension(file))]

    def loadNodes(self, file_type, parameters, loaded=None, messages=None):
        file = parameters["fileName"]
        if not Path(file).exists():
            return False
        if file_type == "SceneFile":
            return load_scene(file, parameters.get("clear", False))
        name = parameters.get("name") or file_stem(file)
        node = load_node(file_type, file, name, parameters)
        if node is not None and loaded is not None:
            loaded.AddItem(node)
        return node is not None

    def saveNodes(self, file_type, parameters, messages=None, scene=None):
        if file_type == "SceneFile":
            return save_scene(parameters["fileName"])
        import slicer

        node = slicer.mrmlScene.GetNodeByID(parameters["nodeID"])
        node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        storage.SetFileName(parameters["fileName"])
        storage.SetUseCompression(parameters.get("useCompression", 1))
        return bool(storage.WriteData(node))


def load_scene(file: str, clear: bool) -> bool:
    import slicer

    slicer.mrmlScene.SetURL(file)
    return bool(slicer.mrmlScene.Connect() if clear else slicer.mrmlScene.Import())


def save_scene(file: str) -> bool:
    import slicer

    slicer.mrmlScene.SetURL(file)
    return bool(slicer.mrmlScene.WriteToMRB(file) if file.endswith(".mrb") else slicer.mrmlScene.Commit())


def load_node(file_type: str, file: str, name: str, parameters: dict):
    import slicer

    volumes = slicer.modules.volumes.logic()
    if file_type == "VolumeFile":
        return volumes.AddArchetypeVolume(file, name, volume_options(parameters))
    if file_type == "SegmentationFile" and known_extension(file) != ".seg.nrrd":
        return segmentation_of_label_map(volumes.AddArchetypeVolume(file, name, 1), name)
    node_class, storage_class = NODE_CLASSES[file_type]
    node = slicer.mrmlScene.AddNewNodeByClass(node_class, name)
    storage = slicer.mrmlScene.AddNewNodeByClass(storage_class)
    storage.SetFileName(file)
    if not storage.ReadData(node):
        slicer.mrmlScene.RemoveNode(node)
        return None
    node.SetAndObserveStorageNodeID(storage.GetID())
    if node.IsA("vtkMRMLDisplayableNode"):
        node.CreateDefaultDisplayNodes()
    return node


def volume_options(parameters: dict) -> int:
    return sum(bit for name, bit in VOLUME_OPTIONS.items() if parameters.get(name))


def segmentation_of_label_map(label_map, name: str):
    import slicer

    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    segmentation.CreateDefaultDisplayNodes()
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(label_map, segmentation)
    slicer.mrmlScene.RemoveNode(label_map)
    return segmentation
