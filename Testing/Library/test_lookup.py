"""Which model the words of a prediction mean."""

from __future__ import annotations

import json
import shutil

import pytest
from task_on_disk import nnunet_v2

from NNSegmentLib import pipeline
from NNSegmentLib.errors import RunError, SettingsError
from NNSegmentLib.lookup import model_of

SMALL = "nnUNetSmallPlans"


@pytest.fixture
def folders(tmp_path):
    """A task with models of two plans, of which the default one was selected."""
    nnunet_v2(tmp_path / "nnUNet_raw" / "Dataset501_Blocks", n_cases=5)
    found = pipeline.folders_of(501, tmp_path)
    for preset in ("default", "small"):
        made = pipeline.plan(501, tmp_path, preset=preset)
        add_model(found, made.name, "3d_fullres")
    select(found, "nnUNetPlans")
    return found


def add_model(folders, plans: str, configuration: str) -> None:
    model = folders.model(plans, configuration)
    model.fold(0).folder.mkdir(parents=True)
    shutil.copy(folders.plan(plans), model.plan)
    shutil.copy(folders.raw / "dataset.json", model.dataset_json)
    model.fold(0).checkpoint_final.write_bytes(b"weights")


def select(folders, plans: str) -> None:
    name = {"trainer": "nnUNetTrainer", "plans_identifier": plans, "configuration": "3d_fullres"}
    best = {"selected_model_or_models": [name], "postprocessing_file": ""}
    folders.selection.write_text(json.dumps({"folds": [0], "best_model_or_ensemble": best}))


def chosen(folders, plans=None, preset=None) -> str:
    return model_of(501, None, folders.workspace, None, plans, preset, None).parts[0].folder.name


def test_the_selected_model_is_meant_unless_a_plan_is_named(folders):
    assert chosen(folders) == "nnUNetTrainer__nnUNetPlans__3d_fullres"
    assert chosen(folders, plans=SMALL) == f"nnUNetTrainer__{SMALL}__3d_fullres"
    assert chosen(folders, preset="small") == f"nnUNetTrainer__{SMALL}__3d_fullres"


def test_of_several_models_of_a_plan_the_selected_one_is_meant(folders):
    add_model(folders, SMALL, "2d")
    with pytest.raises(SettingsError, match=r"several models \(2d, 3d_fullres\); choose one with -c"):
        chosen(folders, plans=SMALL)

    select(folders, SMALL)

    assert chosen(folders, plans=SMALL) == f"nnUNetTrainer__{SMALL}__3d_fullres"


def test_a_plan_without_a_model_is_told(folders):
    with pytest.raises(RunError, match="no trained model of the plan mine, but of nnUNetPlans, nnUNetSmallPlans"):
        chosen(folders, plans="mine")
