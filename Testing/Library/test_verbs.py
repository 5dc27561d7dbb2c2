"""What the verbs make of arguments as people write them: `~`, one value for several, NumPy's numbers, and mistakes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from task_on_disk import PLAIN, blocks, decathlon, nnunet_v2

import NNSegmentLib as nns
from NNSegmentLib import pipeline
from NNSegmentLib.cli import main

TASK = "Dataset501_Blocks"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A workspace with a planned task and two of its configurations trained, whose weights are any bytes."""
    workspace = tmp_path_factory.mktemp("verbs")
    nnunet_v2(workspace / "nnUNet_raw" / TASK, n_cases=5)
    made = nns.plan(501, workspace)
    folders = pipeline.folders_of(501, workspace)
    for configuration in ("2d", "3d_fullres"):
        model = folders.model(made.name, configuration)
        model.fold(0).folder.mkdir(parents=True)
        shutil.copy(folders.plan(made.name), model.plan)
        shutil.copy(folders.raw / "dataset.json", model.dataset_json)
        model.fold(0).checkpoint_final.write_bytes(b"weights")
    return workspace


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # what Windows asks
    return tmp_path


def label_folders(folder, *names):
    """Folders of the same label maps; the first has a dataset.json."""
    for name in names:
        nns.write_labels(folder / name / "a.nii.gz", blocks(), PLAIN)
        np.savez_compressed(
            folder / name / "a.npz", probabilities=np.eye(3, dtype=np.float32)[blocks()].transpose(3, 0, 1, 2)
        )
    card = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "left": 1, "right": 2}, "file_ending": ".nii.gz"}
    (folder / names[0] / "dataset.json").write_text(json.dumps(card | {"numTraining": 1}))


def test_a_tilde_is_the_users_home_wherever_a_path_is_given(planned, home):
    label_folders(home, "predictions", "references")
    nns.postprocess("~/predictions", references="~/references")
    zipped = nns.export_model(501, "~/model.zip", workspace=planned)

    assert nns.load_model("~/model.zip", "2d").configurations == ("2d",)
    assert nns.import_model("~/model.zip", home / "elsewhere")
    assert nns.write_report(501, "~/report.html", planned) == home / "report.html"
    assert nns.diagram(501, "2d", "~/network.svg", planned) == home / "network.svg"
    assert nns.evaluate("~/predictions", "~/references").cases
    assert nns.ensemble(["~/predictions", "~/references"], "~/mean") == (home / "mean" / "a.nii.gz",)
    assert nns.postprocess("~/predictions", "~/cleaned", rules="~/predictions/postprocessing.json") is not None
    assert (home / "cleaned" / "a.nii.gz").is_file()
    assert nns.export_task(501, "~/v1", planned).folder.is_relative_to(home / "v1")
    shutil.copy(pipeline.folders_of(501, planned).plan("nnUNetPlans"), home)
    assert nns.load_plan("~/nnUNetPlans.json").name == "nnUNetPlans"
    assert zipped == home / "model.zip"
    assert not (home / "~").exists()


def test_one_value_is_taken_where_several_may_be(planned, tmp_path):
    label_folders(tmp_path, "predictions")

    (done,) = nns.preprocess(501, planned, configurations="2d")
    written = nns.ensemble(tmp_path / "predictions", tmp_path / "mean")
    task = nns.convert(planned / "nnUNet_raw" / TASK, tmp_path, channels="CT", id="7")
    image = nns.read_image(str(task.cases[0].images[0]))

    assert done.configuration == "2d"
    assert [path.name for path in written] == ["a.nii.gz"]
    assert (task.name, [channel.name for channel in task.channels]) == ("Dataset007_Blocks", ["CT"])
    assert len(image.array) == 1


@pytest.mark.parametrize("folds", [0, "0", [0], np.arange(1), np.int64(0)])
def test_folds_are_numbers_texts_or_arrays(planned, tmp_path, folds):
    model = nns.load_model(planned / "nnUNet_results" / TASK, "2d", folds)

    nns.export_model(501, tmp_path / "m.zip", folds=folds, workspace=planned)

    assert [member.fold for member in model.members] == [0]
    with pytest.raises(nns.ModelError, match="no trained fold all"):
        nns.export_model(501, tmp_path / "m.zip", folds="all", workspace=planned)
    with pytest.raises(nns.RunError, match="Fold 0 of .* has no validation"):
        nns.best(501, planned, folds=folds)


def test_numpys_numbers_are_labels(tmp_path):
    label_folders(tmp_path, "predictions", "references")
    places = (tmp_path / "predictions", tmp_path / "references")

    assert nns.evaluate(*places, np.array([1, 2])).targets == ((1,), (2,))
    assert nns.evaluate(*places, 1).targets == ((1,),)
    assert nns.LabelSet((nns.Label("background", 0), nns.Label("left", (np.int64(1),)))).name_of(np.int64(1)) == "left"


WRONG = {
    "no image": (lambda w: nns.predict([], w / "out", w, task=501), "an image, one file for each channel"),
    "neither task nor model": (lambda w: nns.predict(w, w / "out", w), "needs a task or a model, found neither"),
    "task and model": (lambda w: nns.predict(w, w / "out", w, task=501, model=w), "needs a task or a model, found both"),
    "another configuration": (
        lambda w: nns.predict(w, w / "out", model=loaded(w), configuration="2d"), "has its own configuration, but '2d'"
    ),
    "other folds": (lambda w: nns.predict(w, w / "out", model=loaded(w), folds=[0]), "has its own folds"),
    "another plan": (lambda w: nns.predict(w, w / "out", model=w, plans="mine"), "its own plan, but 'mine'"),
    "overlaps": (lambda w: nns.convert(w, w, overlaps="foo"), "overlaps should be one of order, regions, refuse"),
    "labels in texts": (lambda w: nns.evaluate(w, w, ["1"]), "Labels to score are whole numbers"),
    "no GPU": (lambda w: nns.train(501, "2d", 0, w, gpus=0), "gpus should be a whole number from 1, found 0"),
    "settings": (lambda w: nns.train(501, "2d", 0, w, settings={"epochs": 1}), "should be TrainingSettings, found dict"),
    "memory in a text": (lambda w: nns.plan(501, w, gpu_memory_gb="8"), "positive number of GB .* found '8'"),
    "spacing in a text": (lambda w: nns.plan(501, w, spacing_mm="1 1 1"), "three positive numbers in mm .*'1 1 1'"),
    "a single spacing": (lambda w: nns.plan(501, w, spacing_mm=1.0), "three positive numbers in mm .* found 1.0"),
    "nothing to average": (lambda w: nns.ensemble([], w / "out"), "the folders of predictions to average"),
    "empty path": (lambda w: nns.postprocess(w, rules=""), "path of a file or folder, found ''"),
    "a number for a path": (lambda w: nns.read_labels(5), "path of a file or folder, found 5"),
    "fold": (lambda w: nns.best(501, w, folds="first"), "A fold is a number from 0, or 'all', found 'first'"),
    "fold in part": (lambda w: nns.train(501, "2d", 1.5, w), "A fold is a number from 0, or 'all', found 1.5"),
    "workspace that is none": (lambda w: nns.convert(w, 7), "Expected the path of a file or folder, found 7"),
    "number of a task": (lambda w: nns.convert(w, w, id="seven"), "id should be a whole number from 0, found 'seven'"),
    "name that is a number": (lambda w: nns.convert(w, w, name=4), "name should be a text, found 4"),
    "workers to check": (lambda w: nns.check(501, w, workers="two"), "workers should be a whole number .*'two'"),
    "workers to plan": (lambda w: nns.plan(501, w, clean=True, workers="two"), "workers should be a whole number .*'two'"),
    "tolerance": (lambda w: nns.evaluate(w, w, [1], tolerance_mm="1"), "tolerance must be 0 mm or more, found '1'"),
    "time in a text": (lambda w: nns.quick_settings(time_s="15m"), "time_s should be a number, found '15m'"),
    "no device": (lambda w: nns.quick_settings(device=None), "device should be a text, found None"),
    "number of a folder": (lambda w: nns.load_task(501), "path of a file or folder, found 501"),
    "zero in a path": (lambda w: nns.read_labels("a\0b.nii.gz"), r"path of a file or folder, found 'a\\x00b"),
    "format": (lambda w: nns.export_model(501, format="keras", workspace=w), "format should be one of zip, onnx, torch"),
}  # fmt: skip


def loaded(workspace) -> nns.Model:
    return nns.load_model(workspace / "nnUNet_results" / TASK, "3d_fullres")


@pytest.mark.parametrize("what", WRONG)
def test_arguments_that_cannot_be_are_told_in_a_sentence(planned, what):
    call, sentence = WRONG[what]
    before = sorted(planned.rglob("*"))

    with pytest.raises(nns.SettingsError, match=sentence):
        call(planned)

    assert sorted(planned.rglob("*")) == before


def test_several_configurations_for_one_are_told_in_a_sentence(planned):
    with pytest.raises(nns.PlanError, match=r"has no configuration \['2d'\]; it has"):
        nns.train(501, ["2d"], 0, planned)


def test_a_memory_that_holds_no_patch_is_told_from_images_that_are_too_small(tmp_path):
    nnunet_v2(tmp_path / "nnUNet_raw" / TASK, n_cases=2, geometry=nns.Geometry((32, 32, 32)))

    with pytest.raises(nns.PlanError, match="1e-09 GB of graphics memory cannot hold the smallest patch"):
        nns.plan(501, tmp_path, gpu_memory_gb=1e-9)


@pytest.mark.parametrize(
    ("asked", "error", "sentence"),
    [
        ({"configurations": "3d_lowres"}, nns.RunError, r"no trained 3d_lowres, it has 2d \(nnUNetPlans\), 3d_fullres"),
        ({"configurations": ["2d", "3d_lowres"]}, nns.RunError, "no trained 3d_lowres, it has 2d"),
        ({"configurations": ["mine"]}, nns.SettingsError, "configuration should be one of 2d, .* found 'mine'"),
        ({"plans": "nope"}, nns.RunError, r"no trained configuration of the plan nope, it has 2d \(nnUNetPlans\)"),
        ({"plans": "../evil"}, nns.SettingsError, "A plans name should consist of"),
    ],
)
def test_best_names_what_was_asked_for_and_what_there_is(planned, asked, error, sentence):
    with pytest.raises(error, match=sentence):
        nns.best(501, planned, **asked)


def test_predicting_names_the_configurations_that_are_trained(planned):
    with pytest.raises(nns.RunError, match=r"no trained 3d_lowres, it has 2d \(nnUNetPlans\), 3d_fullres"):
        nns.predict(planned, planned / "out", planned, task=501, configuration="3d_lowres")


def test_no_device_is_the_best_there_is(planned, tmp_path):
    images = planned / "nnUNet_raw" / TASK / "imagesTr"

    with pytest.raises(nns.ModelError, match="checkpoint_final.pth"):  # the weights are no network's
        nns.predict(images, tmp_path / "out", planned, task=501, configuration="2d", device=None)


def test_a_zip_of_several_models_is_told_by_its_own_name(planned, tmp_path):
    archive = nns.export_model(501, tmp_path / "both.zip", workspace=planned)

    with pytest.raises(nns.ModelError, match=f"^{archive} holds several models .*; choose a configuration.$"):
        nns.load_model(archive)


def test_a_model_is_described_and_exported_by_its_task(planned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert nns.describe_model(501, "2d", planned).parts[0].configuration == "2d"
    assert nns.export_model("501", workspace=planned).name == f"{TASK}.zip"
    with pytest.raises(nns.TaskError, match="There is no task 502"):
        nns.describe_model(502, workspace=planned)
    with pytest.raises(nns.ModelError, match="Expected a model folder"):
        nns.describe_model(tmp_path / "nowhere")


def test_labels_are_taken_from_a_decathlons_description_too(tmp_path):
    source = decathlon(tmp_path / "Task04_Balls")
    for path in (source / "labelsTr").glob("[!.]*"):
        nns.write_labels(tmp_path / "predictions" / path.name, blocks(), PLAIN)

    scores = nns.evaluate(tmp_path / "predictions", source / "labelsTr")

    assert scores.titles == ("left", "right")


def test_a_description_without_usable_labels_is_named(tmp_path):
    label_folders(tmp_path, "predictions", "references")
    (tmp_path / "predictions" / "dataset.json").write_text('{"labels": {"background": 0, "left": "one"}}')

    with pytest.raises(
        nns.TaskError, match=r"cannot be taken from .*predictions.dataset.json .*found 'one'.* --labels"
    ):
        nns.postprocess(tmp_path / "predictions", references=tmp_path / "references")


@pytest.fixture
def own(planned, tmp_path):
    """The workspace with a configuration that was written into the plans file by hand."""
    shutil.copytree(planned, tmp_path / "own")
    file = pipeline.folders_of(501, tmp_path / "own").plan("nnUNetPlans")
    values = json.loads(file.read_text())
    values["configurations"]["mine"] = {"inherits_from": "2d", "data_identifier": "mine", "batch_size": 3}
    file.write_text(json.dumps(values))
    return tmp_path / "own"


def test_a_configuration_written_into_the_plans_file_can_be_chosen(own, tmp_path, capsys):
    at = ("--workspace", str(own))

    assert main(["diagram", "501", "mine", "-o", str(tmp_path / "mine.svg"), *at]) == 0
    assert main(["plan", "501", "-c", "mine", *at]) == 0
    assert main(["preprocess", "501", "-c", "mine", *at]) == 0
    assert main(["best", "501", "-c", "mine", *at]) == 1
    assert "has no trained mine, it has 2d (nnUNetPlans)" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("diagram", "501", "nope", "-o", "n.svg"), *((v, "501", "-c", "nope") for v in ("plan", "preprocess", "best"))])  # fmt: skip
def test_an_unknown_configuration_is_wrong_usage(planned, words, capsys):
    before = sorted(planned.rglob("*"))

    assert main([*words, "--workspace", str(planned)]) == 2

    said = capsys.readouterr().err
    assert "nope" in said and "3d_fullres" in said
    assert sorted(planned.rglob("*")) == before
