"""Plans from nnU-Net's own fingerprints against the plans nnU-Net made of them, character by character."""

from __future__ import annotations

import json

import pytest

from NNSegmentLib.fingerprint import load_fingerprint
from NNSegmentLib.planning.plan import plan_to_json
from NNSegmentLib.planning.planner import make_plan
from NNSegmentLib.task import Channel, Task, parse_dataset_json

PLANS = [
    ("Dataset004_Hippocampus", "default"),
    ("Dataset004_Hippocampus", "resenc-m"),
    ("Dataset510_SarcomaMRCTPET", "default"),
    ("Dataset520_CardiacCine", "default"),
    ("Dataset520_CardiacCine", "resenc-l"),
    ("Dataset530_Membranes", "default"),
]


@pytest.mark.parametrize(("name", "preset"), PLANS)
def test_the_plan_is_that_of_nnunet_to_the_order_of_its_keys(name, preset, peer):
    folder = peer / "plans" / name
    dataset = json.loads((folder / "dataset.json").read_text())
    channels, labels, ending = parse_dataset_json(dataset, folder)
    task = Task(folder, tuple(map(Channel, channels)), labels, (), ending, dataset["numTraining"])

    plan = make_plan(task, load_fingerprint(folder / "dataset_fingerprint.json"), preset=preset)

    assert json.dumps(plan_to_json(plan), indent=4) == (folder / f"{plan.name}.json").read_text()
