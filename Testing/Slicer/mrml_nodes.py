"""Volume, segmentation and transform nodes for tests, made with VTK alone."""

from __future__ import annotations

import numpy as np

TERMINOLOGY = {
    "organ": "~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~~^^~^^",
    "tumor": "~SCT^49755003^Morphologically Altered Structure~SCT^4147007^Mass~^^~~SCT^10200004^Liver~^^",
}


class Builder:
    """Nodes from arrays (z, y, x) and 4×4 matrices, made with VTK alone."""

    def __init__(self, scene) -> None:
        self.scene = scene

    def volume(self, array: np.ndarray, matrix, name: str = "CT", transform=None):
        import vtk

        node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        image = vtk.vtkImageData()
        image.SetDimensions(*array.shape[::-1])
        image.GetPointData().SetScalars(vtk_array(array))
        node.SetAndObserveImageData(image)
        node.SetIJKToRASMatrix(vtk_matrix(matrix))
        node.SetAndObserveTransformNodeID(transform.GetID() if transform else None)
        return node

    def segmentation(self, masks: dict, matrix, name: str = "Segmentation", transform=None, volume=None):
        """Segments from masks (z, y, x) by name, each on its own grid of the given matrix; None makes an empty one."""
        import slicer

        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        for number, (segment_name, mask) in enumerate(masks.items(), 1):
            segment = slicer.vtkSegment()
            segment.SetName(segment_name)
            segment.SetColor(0.2 * number, 0.4, 0.8)
            if segment_name in TERMINOLOGY:
                segment.SetTerminology(TERMINOLOGY[segment_name])
            if mask is not None:
                segment.AddRepresentation("Binary labelmap", oriented(mask.astype(np.uint8), matrix))
                node.GetSegmentation().AddSegment(segment, f"id{number}")
            else:
                node.GetSegmentation().AddEmptySegment(f"id{number}", segment_name)
        node.SetAndObserveTransformNodeID(transform.GetID() if transform else None)
        if volume is not None:
            node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        return node

    def surface(self, name: str, centre, radius: float, transform=None, kind: str = "Closed surface"):
        """A segmentation with a ball, as a surface or as a fractional label map on a 1 mm grid."""
        import slicer
        import vtk

        sphere = vtk.vtkSphereSource()
        sphere.SetCenter(*map(float, centre))
        sphere.SetRadius(radius)
        sphere.SetThetaResolution(40)
        sphere.SetPhiResolution(40)
        sphere.Update()
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.SetSourceRepresentationToClosedSurface()
        node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), name, [1, 0, 0], name)
        if kind != "Closed surface":
            segmentation = node.GetSegmentation()
            grid = vtk_matrix(np.eye(4))
            segmentation.SetConversionParameter(
                "Reference image geometry",
                slicer.vtkSegmentationConverter.SerializeImageGeometry(grid, [0, 9, 0, 9, 0, 9]),
            )
            segmentation.CreateRepresentation(kind)
            segmentation.SetSourceRepresentationName(kind)
            segmentation.RemoveRepresentation("Closed surface")
        node.SetAndObserveTransformNodeID(transform.GetID() if transform else None)
        return node

    def label_map(self, array: np.ndarray, matrix, name: str, transform=None):
        import slicer

        node = self.scene.AddNode(slicer.vtkMRMLLabelMapVolumeNode())
        node.SetName(name)
        node.SetAndObserveImageData(oriented(array.astype(np.int16), np.eye(4)))
        node.SetIJKToRASMatrix(vtk_matrix(matrix))
        node.CreateDefaultDisplayNodes()
        node.SetAndObserveTransformNodeID(transform.GetID() if transform else None)
        return node

    def color_table(self, label_map, entries: dict) -> None:
        table = self.scene.AddNewNodeByClass("vtkMRMLColorTableNode", "Names")
        table.SetTypeToUser()
        table.SetNumberOfColors(max(entries) + 1)
        for value, (name, color) in entries.items():
            table.SetColor(value, name, *(part / 255 for part in color), 1.0)
        label_map.GetDisplayNode().SetAndObserveColorNodeID(table.GetID())

    def linear(self, matrix, name: str = "Linear"):
        node = self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
        node.SetMatrixTransformToParent(vtk_matrix(matrix))
        return node

    def warp(self, shift_mm: float):
        """A non-linear transform that moves everything by `shift_mm` along x."""
        import vtk

        corners = np.array(np.meshgrid(*[(-200, 200)] * 3)).reshape(3, -1).T
        spline, before, after = vtk.vtkThinPlateSplineTransform(), vtk.vtkPoints(), vtk.vtkPoints()
        for corner in corners:
            before.InsertNextPoint(corner)
            after.InsertNextPoint(corner + [shift_mm, 0, 0])
        spline.SetBasisToR()
        spline.SetSourceLandmarks(before)
        spline.SetTargetLandmarks(after)
        node = self.scene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
        node.SetAndObserveTransformToParent(spline)
        return node


def vtk_array(array: np.ndarray):
    from vtk.util import numpy_support

    return numpy_support.numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True)


def vtk_matrix(matrix):
    import vtk

    made = vtk.vtkMatrix4x4()
    made.DeepCopy(np.asarray(matrix, float).ravel())
    return made


def oriented(array: np.ndarray, matrix):
    import slicer

    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*array.shape[::-1])
    image.GetPointData().SetScalars(vtk_array(array))
    image.SetGeometryFromImageToWorldMatrix(vtk_matrix(matrix))
    return image
