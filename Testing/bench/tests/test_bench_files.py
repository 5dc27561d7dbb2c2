"""Files are loaded as Slicer loads them, neighbours in the folder included."""

from __future__ import annotations

import numpy as np

from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import write_image


def test_files_of_one_slice_become_one_volume_unless_a_single_one_is_asked_for(bench, tmp_path):
    import slicer

    for number in range(3):
        plane = np.full((1, 8, 10), number, np.int16)
        write_image(tmp_path / f"case{number}.nii.gz", plane, Geometry(plane.shape))
    file = str(tmp_path / "case0.nii.gz")

    together = slicer.util.loadVolume(file, {"name": "together"})
    single = slicer.util.loadVolume(file, {"name": "single", "singleFile": True})

    assert together.GetImageData().GetDimensions() == (10, 8, 3)
    assert single.GetImageData().GetDimensions() == (10, 8, 1)


def test_a_volume_is_loaded_as_a_label_map_where_that_is_asked_for(bench, tmp_path):
    import slicer

    file = tmp_path / "labels.nii.gz"
    write_image(file, np.ones((4, 8, 10), np.uint8), Geometry((4, 8, 10)))

    loaded = slicer.util.loadVolume(str(file), {"labelmap": True, "singleFile": True})

    assert loaded.GetClassName() == "vtkMRMLLabelMapVolumeNode"
