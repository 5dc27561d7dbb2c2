"""Prepared arrays against those nnU-Net v2 made of the same files with the same plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from NNSegmentLib.image import LabelMap, read_image, read_labels
from NNSegmentLib.labels import LabelSet
from NNSegmentLib.planning.plan import load_plan
from NNSegmentLib.preprocessing.prepare import prepare_image
from NNSegmentLib.records import read_json

CASES = [
    ("Dataset004_Hippocampus", "3d_fullres", "hippocampus_001"),
    ("Dataset004_Hippocampus", "3d_fullres", "hippocampus_003"),
    ("Dataset510_SarcomaMRCTPET", "3d_fullres", "STS_001"),
    ("Dataset520_CardiacCine", "2d", "patient002_frame01"),
    ("Dataset520_CardiacCine", "3d_fullres", "patient001_frame01"),
    ("Dataset530_Membranes", "2d", "m000"),
]


def source(data: Path, data_set: str, case: str) -> tuple[list[Path], Path]:
    if data_set == "Dataset530_Membranes":
        name = f"{int(case[1:])}.png"
        return [data / "membranes_2d/images" / name], data / "membranes_2d/labels" / name
    folder = data / {"Dataset004_Hippocampus": "Task04_Hippocampus"}.get(data_set, data_set)
    return sorted((folder / "imagesTr").glob(f"{case}[_.]*")), folder / "labelsTr" / f"{case}.nii.gz"


@pytest.mark.parametrize(("data_set", "configuration", "case"), CASES)
def test_a_prepared_case_equals_nnunets(shared_data, peer, data_set, configuration, case):
    images, label_file = source(shared_data, data_set, case)
    plan = load_plan(peer / "plans" / data_set / "nnUNetPlans.json")
    label_set = LabelSet.from_dataset_json(read_json(peer / "plans" / data_set / "dataset.json"))
    labels = read_labels(label_file, plan.reader)
    if labels.array.max() == 255:
        labels = LabelMap((labels.array == 255).astype(np.uint8), labels.geometry)
    expected = np.load(peer / "preprocessed" / f"{data_set}__{configuration}__{case}.npz", allow_pickle=False)

    found = prepare_image(read_image(images, plan.reader), labels, plan, configuration, label_set, case)

    start, shape = found.placement.crop_start, found.placement.crop_shape
    assert np.array_equal(np.stack([start, np.add(start, shape)], axis=1), expected["bbox"])
    assert found.placement.shape_before_crop == tuple(expected["shape_before"])
    assert found.image.shape == expected["data"].shape
    assert np.abs(found.image - expected["data"]).max() <= 1e-3
    assert (found.labels == expected["seg"][0]).mean() >= 0.9999
