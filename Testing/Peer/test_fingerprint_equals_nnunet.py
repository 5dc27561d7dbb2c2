"""Fingerprints of the reference data sets against those nnU-Net wrote."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from NNSegmentLib.fingerprint import compute_fingerprint, load_fingerprint, save_fingerprint
from NNSegmentLib.image import read_labels, write_labels
from NNSegmentLib.labels import LabelSet
from NNSegmentLib.task import Case, Channel, Task, load_task

ANATOMY = LabelSet.from_dataset_json({"labels": {"background": 0, "first": 1, "second": 2}})


def hippocampus(data, folder):
    images = sorted((data / "Task04_Hippocampus" / "imagesTr").glob("hippocampus*.nii.gz"))
    cases = tuple(Case(p.name[:-7], (p,), p.parent.parent / "labelsTr" / p.name) for p in images)
    return Task(folder, (Channel("MRI"),), ANATOMY, cases, ".nii.gz", len(cases))


def membranes(data, folder):
    cases = []
    for image in (data / "membranes_2d" / "images").glob("*.png"):
        labels = read_labels(data / "membranes_2d" / "labels" / image.name)
        write_labels(folder / image.name, (labels.array > 0).astype(np.uint8), labels.geometry)
        cases.append(Case(image.stem, (image,), folder / image.name))
    return Task(folder, (Channel("EM"),), ANATOMY, tuple(cases), ".png", len(cases))


TASKS = {
    "Dataset004_Hippocampus": hippocampus,
    "Dataset510_SarcomaMRCTPET": lambda data, _: load_task(data / "Dataset510_SarcomaMRCTPET"),
    "Dataset520_CardiacCine": lambda data, _: load_task(data / "Dataset520_CardiacCine"),
    "Dataset530_Membranes": membranes,
}


@pytest.mark.parametrize("name", list(TASKS))
def test_the_fingerprint_is_that_of_nnunet(name, shared_data, peer, tmp_path):
    theirs = load_fingerprint(peer / "plans" / name / "dataset_fingerprint.json")

    ours = compute_fingerprint(TASKS[name](shared_data, tmp_path))

    assert replace(ours, cases=(), intensities=()) == replace(theirs, intensities=())
    assert [asdict(stats) for stats in ours.intensities] == [
        pytest.approx(asdict(stats), rel=0.01) for stats in theirs.intensities
    ]


@pytest.mark.parametrize("name", list(TASKS))
def test_a_fingerprint_of_nnunet_is_written_back_as_it_was(name, peer, tmp_path):
    source = peer / "plans" / name / "dataset_fingerprint.json"

    save_fingerprint(load_fingerprint(source), tmp_path / "dataset_fingerprint.json")

    written = (tmp_path / "dataset_fingerprint.json").read_text()
    assert json.loads(written) == json.loads(source.read_text())
    assert list(json.loads(written)) == list(json.loads(source.read_text()))
