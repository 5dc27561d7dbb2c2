"""The sample data are made on this computer, with nodes that a task can be made of."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from bench import harness

PANEL = Path(__file__).resolve().parents[2] / "NNSegment"


@pytest.fixture
def sample_data(monkeypatch):
    if harness.why_not():
        pytest.skip(harness.why_not())
    harness.start()
    monkeypatch.syspath_prepend(str(PANEL))
    from NNSegmentUI import sample_data

    yield sample_data
    harness.close_scene()


@pytest.fixture(params=["Slicer 5.10", "Slicer 5.12"])
def registered(request, monkeypatch):
    """What reaches the module Sample Data, with and without its named categories."""
    found = []

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(
            category, sampleName, uris, fileNames, nodeNames, customDownloader, thumbnailFileName
        ):
            found.append((category, sampleName, customDownloader, thumbnailFileName))

    if request.param == "Slicer 5.12":
        SampleDataLogic.registerCustomSampleDataCategory = staticmethod(lambda category, title: None)
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=SampleDataLogic))
    return found


def test_two_samples_with_pictures_are_registered(sample_data, registered):
    sample_data.register_sample_data()

    assert [(category, name) for category, name, *_ in registered] == [
        ("NNSegment", "NNSegmentTenHeads"),
        ("NNSegment", "NNSegmentEleventhHead"),
    ]
    assert all(Path(picture).is_file() for *_, picture in registered)


def test_the_module_registers_them_when_the_application_has_started(sample_data, registered):
    import slicer
    from bench.modules import load_scripted_module

    load_scripted_module(PANEL / "NNSegment.py")
    assert registered == []

    slicer.app.startupCompleted.emit()

    assert {name for _, name, *_ in registered} == {sample_data.TEN_HEADS, sample_data.ELEVENTH_HEAD}


def test_ten_heads_are_ten_pairs_that_a_task_can_be_made_of(sample_data, monkeypatch):
    import slicer

    from NNSegmentLib.scene_tasks import find_pairs

    monkeypatch.setattr(sample_data, "TRAINING_CASES", 3)

    nodes = sample_data.load_ten_heads()
    pairs = find_pairs(slicer.mrmlScene)

    assert [node.GetName() for node in nodes[::2]] == ["Head 1", "Head 2", "Head 3"]
    assert [(pair.volumes[0].GetName(), pair.segmentation.GetName(), pair.found_by) for pair in pairs] == [
        (f"Head {n}", f"Head {n} segmentation", "reference") for n in (1, 2, 3)
    ]


@pytest.mark.parametrize("index", [1, 2], ids=["oblique", "left-handed"])
def test_the_segments_lie_on_the_phantoms_mass_in_the_world(sample_data, index):
    import slicer

    from NNSegmentLib.sample import make_phantom

    volume, segmentation = sample_data.load_head(index)
    phantom = make_phantom(index)

    matrix = slicer.util.arrayFromVTKMatrix(world_matrix(volume))
    assert np.allclose(matrix, phantom.geometry.ijk_to_ras, atol=1e-6)
    for value, name in ((1, "core"), (2, "rim")):
        segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume)
        assert np.array_equal(mask > 0, phantom.labels == value)


def world_matrix(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def test_the_eleventh_head_is_another_one_and_comes_without_a_segmentation(sample_data):
    import slicer

    (volume,) = sample_data.load_eleventh_head()

    assert volume.GetName() == "Head 11"
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
