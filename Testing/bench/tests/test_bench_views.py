"""The views of the bench show what Slicer's own displayable managers put into them."""

from __future__ import annotations

import numpy as np
import pytest

RED = (1.0, 0.0, 0.0)


@pytest.fixture
def volume(bench):
    """20 × 30 × 40 voxels of 1 mm: dark, with a box of full brightness in the quarter of low x and low y."""
    import slicer

    array = np.zeros((20, 30, 40), np.uint8)
    array[:, :15, :20] = 255
    node = slicer.util.addVolumeFromArray(array, name="volume")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevelMinMax(0, 255)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def add_segment(volume, mask):
    import slicer

    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segmentation")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = segmentation.GetSegmentation().AddEmptySegment("organ", "organ", RED)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation, segment, volume)
    return segmentation


def pixel_of(ras):
    """Row and column of a world point in the axial view."""
    import slicer

    x, y, _ = slicer.app.layoutManager().sliceWidget("Red").sliceView().convertRASToXYZ(ras)
    height = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetDimensions()[1]
    return int(height - 1 - round(y)), int(round(x))


def test_an_axial_slice_shows_the_volume_where_it_lies_in_the_world(bench, volume):
    pixels = bench.slice_view_pixels("Red", (320, 240))

    assert pixels.shape == (240, 320, 3)
    assert tuple(pixels[pixel_of((10, 7, 10))]) == (255, 255, 255)
    assert tuple(pixels[pixel_of((30, 22, 10))]) == (0, 0, 0)


def test_a_segment_is_blended_over_the_volume_it_was_drawn_on(bench, volume):
    mask = np.zeros((20, 30, 40), bool)
    mask[:, 5:25, 5:35] = True
    add_segment(volume, mask)

    pixels = bench.slice_view_pixels("Red", (320, 240))

    bright, dark, outside = (pixels[pixel_of(p)].astype(int) for p in ((12, 10, 10), (30, 20, 10), (2, 2, 10)))
    assert bright[0] == 255 and 100 < bright[1] < 155 and bright[1] == bright[2]
    assert 100 < dark[0] < 155 and dark[1] == dark[2] == 0
    assert tuple(outside) == (255, 255, 255)


def test_hiding_a_segment_takes_its_color_from_the_slice(bench, volume):
    segmentation = add_segment(volume, np.ones((20, 30, 40), bool))
    segmentation.GetDisplayNode().SetVisibility(False)

    pixels = bench.slice_view_pixels("Red", (320, 240)).astype(int)

    assert np.array_equal(pixels[..., 0], pixels[..., 1])


def test_the_three_d_view_shows_a_surface_in_the_color_of_its_segment(bench, volume, tmp_path):
    import slicer

    mask = np.zeros((20, 30, 40), bool)
    mask[5:15, 5:25, 5:35] = True
    segmentation = add_segment(volume, mask)
    without = bench.three_d_pixels((200, 200)).astype(int)

    segmentation.CreateClosedSurfaceRepresentation()
    slicer.app.layoutManager().threeDWidget(0).threeDView().resetFocalPoint()

    def red(pixels):
        return ((pixels[..., 0] > 100) & (pixels[..., 1] < 40) & (pixels[..., 2] < 40)).mean()

    assert red(without) == 0
    assert red(bench.three_d_pixels((200, 200)).astype(int)) > 0.02
    assert bench.three_d_png(tmp_path / "3d.png").stat().st_size > 1000


def test_a_chart_is_drawn_in_the_color_of_its_series(bench):
    import slicer

    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "curve")
    slicer.util.updateTableFromArray(table, np.array([[0.0, 0.0], [1.0, 3.0], [2.0, 1.0]]), ["epoch", "dice"])
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "dice")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("epoch")
    series.SetYColumnName("dice")
    series.SetPlotType(series.PlotTypeScatter)
    series.SetColor(0.0, 0.0, 1.0)
    series.SetLineWidth(4)
    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", "chart")
    chart.AddAndObservePlotSeriesNodeID(series.GetID())

    slicer.modules.plots.logic().ShowChartInLayout(chart)
    pixels = bench.plot_pixels((300, 200)).astype(int)

    blue = (pixels[..., 2] > 200) & (pixels[..., 0] < 60) & (pixels[..., 1] < 60)
    assert blue.sum() > 300
    with pytest.raises(AttributeError, match="has no attribute"):
        slicer.app.layoutManager().plotWidget(0).plotView().setTitel("Dice")
