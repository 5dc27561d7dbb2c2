"""Giving models away and taking them in."""

from __future__ import annotations

import json
import zipfile

import pytest

from NNSegmentLib.errors import ModelError
from NNSegmentLib.exchange import describe_model, export_model, import_model, list_models
from NNSegmentLib.folders import Workspace

MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def trained(tmp_path, peer):
    """A results folder with one model whose weights are any bytes."""
    folder = tmp_path / "there" / "nnUNet_results" / "Dataset007_Knee" / MODEL
    (folder / "fold_0" / "validation").mkdir(parents=True)
    source = next((peer / "models" / "plain_two_folds").iterdir())
    for name in ("plans.json", "dataset.json"):
        (folder / name).write_text((source / name).read_text())
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"weights")
    (folder / "fold_0" / "validation" / "summary.json").write_text("{}")
    (folder / "fold_0" / "validation" / "case.nii.gz").write_bytes(b"not exported")
    (folder.parent / "inference_information.json").write_text(json.dumps({"all_results": {MODEL: 0.75}}))
    return folder.parent


def test_an_exported_model_is_the_same_after_importing_it_elsewhere(trained, tmp_path):
    archive = export_model(trained, tmp_path / "knee.zip")

    entries = import_model(archive, tmp_path / "here")

    there = list_models(Workspace.at(tmp_path / "there"))
    assert [(e.task, e.configuration, e.folds, e.dice) for e in entries] == [
        ("Dataset007_Knee", "3d_fullres", ("0",), 0.75)
    ]
    assert [e.folds for e in there] == [e.folds for e in entries]
    assert (entries[0].folder / "fold_0" / "checkpoint_final.pth").read_bytes() == b"weights"
    assert describe_model(entries[0].folder).parts[0].patch_size == describe_model(trained / MODEL).parts[0].patch_size


def test_an_export_is_laid_out_as_nnunet_does_and_leaves_predictions_at_home(trained, tmp_path):
    archive = export_model(trained, tmp_path / "knee.zip")

    names = zipfile.ZipFile(archive).namelist()

    assert f"Dataset007_Knee/{MODEL}/fold_0/checkpoint_final.pth" in names
    assert "Dataset007_Knee/inference_information.json" in names
    assert not [name for name in names if name.endswith(".nii.gz")]


def test_importing_never_overwrites_a_model(trained, tmp_path):
    archive = export_model(trained, tmp_path / "knee.zip")

    with pytest.raises(ModelError, match="exists already"):
        import_model(archive, tmp_path / "there")


def test_a_zip_without_a_model_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")

    with pytest.raises(ModelError, match="should hold"):
        import_model(tmp_path / "other.zip", tmp_path / "here")
    with pytest.raises(ModelError, match="no trained model"):
        export_model(tmp_path, tmp_path / "none.zip")
