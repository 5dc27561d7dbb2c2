"""Giving models away and taking them in."""

from __future__ import annotations

import json
import os
import shutil
import zipfile

import pytest

from NNSegmentLib.answers import models_text
from NNSegmentLib.errors import ModelError, StorageError
from NNSegmentLib.exchange import describe_model, export_model, import_model, list_models
from NNSegmentLib.folders import ModelFolders, Workspace
from NNSegmentLib.provenance.made_of import CaseFiles, MadeOf, load_made_of, save_made_of, seen_in_training
from NNSegmentLib.records import write_json

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


def test_an_imported_model_knows_the_cases_that_it_was_trained_on_but_no_state_of_their_files(trained, tmp_path):
    made_of = MadeOf(("a",), ("b",), (CaseFiles("a", ((1, 2),)), CaseFiles("b", ((3, 4),))))
    save_made_of(made_of, ModelFolders(trained / MODEL).fold(0))

    (entry,) = import_model(export_model(trained, tmp_path / "knee.zip"), tmp_path / "here")

    fold = ModelFolders(entry.folder).fold(0)
    assert seen_in_training(fold, ["a", "b", "c"]) == ["a"]
    write_json(tmp_path / "a.made_of", [[5, 6]])
    assert load_made_of(fold).changed(tmp_path) == []
    assert made_of.changed(tmp_path) == ["a"]


def test_an_export_of_some_folds_predicts_with_those(trained, tmp_path):
    shutil.copytree(trained / MODEL / "fold_0", trained / MODEL / "fold_1")
    (trained / "inference_information.json").write_text(json.dumps({"folds": [0, 1], "all_results": {MODEL: 0.75}}))

    archive = zipfile.ZipFile(export_model(trained, tmp_path / "knee.zip", folds=[1]))

    selection = json.loads(archive.read("Dataset007_Knee/inference_information.json"))
    assert selection == {"folds": [1], "all_results": {MODEL: 0.75}}
    assert f"Dataset007_Knee/{MODEL}/fold_0/checkpoint_final.pth" not in archive.namelist()


def test_importing_never_overwrites_a_model(trained, tmp_path):
    archive = export_model(trained, tmp_path / "knee.zip")

    with pytest.raises(ModelError, match="exists already"):
        import_model(archive, tmp_path / "there")


def test_a_folder_needs_no_import(tmp_path):
    with pytest.raises(
        ModelError, match="Expected the zip of a model, found the folder .*; it needs no import: predict"
    ):
        import_model(tmp_path, tmp_path / "elsewhere")


def test_models_of_one_data_set_are_imported_one_after_the_other(trained, tmp_path):
    other = MODEL.replace("3d_fullres", "2d")
    shutil.copytree(trained / MODEL, trained / other)
    first = export_model(trained, tmp_path / "first.zip", configuration="3d_fullres")
    second = export_model(trained, tmp_path / "second.zip")
    shutil.rmtree(trained / MODEL)
    third = export_model(trained, tmp_path / "third.zip")

    import_model(first, tmp_path / "here")
    with pytest.raises(ModelError, match="exists already"):
        import_model(second, tmp_path / "here")
    imported = import_model(third, tmp_path / "here")

    assert [entry.configuration for entry in imported] == ["2d"]
    assert [entry.configuration for entry in list_models(tmp_path / "here")] == ["2d", "3d_fullres"]


def test_an_import_that_fails_leaves_what_another_one_brought_meanwhile(trained, tmp_path, monkeypatch):
    archive, results = export_model(trained, tmp_path / "knee.zip"), tmp_path / "here" / "nnUNet_results"
    replace, others = os.replace, results / "Dataset007_Knee" / "theirs"

    def full_disk(source, target):
        if target.parent == results / "Dataset007_Knee":
            others.mkdir()
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        import_model(archive, tmp_path / "here")

    assert others.is_dir()


def test_a_comparison_that_is_there_already_stays(trained, tmp_path):
    archive = export_model(trained, tmp_path / "knee.zip")
    there = tmp_path / "here" / "nnUNet_results" / "Dataset007_Knee" / "inference_information.json"
    there.parent.mkdir(parents=True)
    there.write_text("mine")

    import_model(archive, tmp_path / "here")

    assert there.read_text() == "mine"
    assert (there.parent / MODEL).is_dir()


def test_importing_takes_nothing_but_models_and_what_belongs_to_them(trained, tmp_path):
    pair = trained / "ensembles" / f"ensemble___{MODEL}___{MODEL}___0"
    compared = trained / MODEL / "crossval_results_folds_0"
    for folder in (pair, compared):
        folder.mkdir(parents=True)
        (folder / "postprocessing.json").write_text("{}")
    archive = export_model(trained, tmp_path / "knee.zip")
    with zipfile.ZipFile(archive, "a") as opened:
        for name in ("readme.txt", "Dataset007_Knee/notes.txt", f"__MACOSX/Dataset007_Knee/{MODEL}/._plans.json"):
            opened.writestr(name, "not asked for")
    results = tmp_path / "here" / "nnUNet_results"
    results.mkdir(parents=True)
    (results / "readme.txt").write_text("mine")

    import_model(archive, tmp_path / "here")

    assert sorted(p.name for p in results.iterdir()) == ["Dataset007_Knee", "readme.txt"]
    assert (results / "readme.txt").read_text() == "mine"
    inside = {p.relative_to(results / "Dataset007_Knee").parts[0] for p in (results / "Dataset007_Knee").rglob("*")}
    assert inside == {MODEL, "ensembles", "inference_information.json"}
    for folder in (pair, compared):
        assert (results / folder.relative_to(trained.parent) / "postprocessing.json").is_file()


def test_an_import_that_fails_leaves_nothing_behind(trained, tmp_path, monkeypatch):
    archive, results = export_model(trained, tmp_path / "knee.zip"), tmp_path / "here" / "nnUNet_results"
    with zipfile.ZipFile(archive, "a") as opened:
        for name in ("plans.json", "dataset.json"):
            opened.writestr(f"Dataset008_Hip/model/{name}", (trained / MODEL / name).read_text())
        opened.writestr("Dataset008_Hip/model/notes.txt", "stored as it is")
    replace = os.replace

    def full_disk(source, target):
        if target.parent == results / "Dataset008_Hip":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        import_model(archive, tmp_path / "here")
    assert list(results.iterdir()) == []

    damaged = bytearray(archive.read_bytes())
    damaged[damaged.find(b"stored")] ^= 1
    archive.write_bytes(damaged)
    with pytest.raises(ModelError, match="cannot be read"):
        import_model(archive, tmp_path / "here")
    assert list(results.iterdir()) == []


def test_a_zip_without_a_model_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")

    with pytest.raises(ModelError, match="should hold"):
        import_model(tmp_path / "other.zip", tmp_path / "here")
    with pytest.raises(ModelError, match="no trained model to export; train one first"):
        export_model(tmp_path, tmp_path / "none.zip")
    with pytest.raises(ModelError, match="nowhere, found none there; train one"):
        export_model(tmp_path / "nowhere", tmp_path / "none.zip")


@pytest.mark.parametrize(
    ("name", "content"), [("plans.json", "{}"), ("plans.json", "["), ("dataset.json", "{}"), ("dataset.json", None)]
)
def test_a_model_whose_descriptions_cannot_be_used_is_not_imported(trained, tmp_path, name, content):
    archive = export_model(trained, tmp_path / "knee.zip")
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(tmp_path / "broken.zip", "w") as broken:
        for member in whole.namelist():
            if not member.endswith(f"{MODEL}/{name}"):
                broken.writestr(member, whole.read(member))
            elif content is not None:
                broken.writestr(member, content)

    with pytest.raises(ModelError, match=rf"The model {MODEL} in .*broken\.zip cannot be used: .*{name}") as refused:
        import_model(tmp_path / "broken.zip", tmp_path / "here")

    assert ".importing" not in str(refused.value)
    assert list((tmp_path / "here" / "nnUNet_results").iterdir()) == []


@pytest.mark.parametrize("dice", ["high", [1], {"a": 1}, True, 10**400, float("nan"), float("inf"), -1, None])
def test_a_dice_that_is_none_is_not_shown(trained, tmp_path, dice):
    (trained / "inference_information.json").write_text(json.dumps({"all_results": {MODEL: dice}}))

    [entry] = list_models(tmp_path / "there")

    assert entry.dice is None
    assert "–" in models_text([entry])
