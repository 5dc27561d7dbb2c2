"""The whole journey through the command line, as a newcomer types it, on phantoms; and what bad input gets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from NNSegmentLib import answers, pipeline
from NNSegmentLib.cli import main
from NNSegmentLib.image import read_image, read_labels, write_image
from NNSegmentLib.sample import make_sample_task

pytestmark = pytest.mark.slow
SETTINGS = {
    "epochs": 2, "iterations_per_epoch": 4, "validation_iterations": 1, "optimizer": "adamw", "learning_rate": 0.003,
    "augmentation": "light", "mirror_axes": [], "validation_mirroring": False, "seed": 1, "loader_workers": 0,
}  # fmt: skip


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def run_json(capsys, *arguments: object) -> dict:
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A workspace with the sample task converted, planned, and two folds trained for a few steps."""
    folder = tmp_path_factory.mktemp("journey")
    source = make_sample_task(folder / "source", n_cases=5, n_test=1)
    settings = folder / "settings.json"
    settings.write_text(json.dumps(SETTINGS))
    at = ("--workspace", folder)
    assert run("convert", source, "--id", 7, "--name", "Sample", *at) == 0
    assert run("plan", 7, "--preset", "small", "-c", "3d_fullres", "2d", *at) == 0
    for configuration in ("3d_fullres", "2d"):
        for fold in (0, 1):
            assert run("train", 7, configuration, fold, "--settings", settings, "--npz", *at) == 0
    return folder


@pytest.fixture
def at(workspace):
    return ("--workspace", workspace)


def raw(workspace: Path) -> Path:
    return workspace / "nnUNet_raw" / "Dataset007_Sample"


def test_the_fingerprint_is_measured_again_and_told(workspace, at, capsys):
    stored = workspace / "nnUNet_preprocessed" / "Dataset007_Sample" / "dataset_fingerprint.json"

    assert run("fingerprint", 7, "--clean", *at) == 0

    assert capsys.readouterr().out.strip() == f"Fingerprint of 5 cases: {stored}"


def test_training_leaves_a_model_that_explains_itself(workspace):
    model = next((workspace / "nnUNet_results" / "Dataset007_Sample").glob("*__3d_fullres"))

    names = {p.name for p in model.iterdir()} | {p.name for p in (model / "fold_0").iterdir()}

    assert names >= {"plans.json", "dataset.json", "dataset_fingerprint.json", "fold_0", "fold_1", "checkpoint_final.pth",
                     "events.jsonl", "progress.png", "validation"}  # fmt: skip
    assert not list(model.rglob(".writing-*"))


def test_best_compares_configurations_and_their_ensemble(at, capsys):
    selection = run_json(capsys, "best", 7, "--folds", 0, 1, *at)

    assert len(json.dumps(selection)) > 0
    information = json.loads((at[1] / "nnUNet_results/Dataset007_Sample/inference_information.json").read_text())
    assert len(information["all_results"]) == 3
    assert information["folds"] == [0, 1]


def test_predictions_lie_on_the_input_grid_and_can_be_evaluated(at, workspace, capsys, tmp_path):
    images = raw(workspace) / "imagesTs"
    assert run("best", 7, "--folds", 0, 1, *at) == 0

    assert run("predict", "-t", 7, "-i", images, "-o", tmp_path / "out", *at) == 0

    predicted = sorted((tmp_path / "out").glob("*.nii.gz"))
    inputs = sorted(images.glob("*.nii.gz"))
    assert [p.name[:-7] for p in predicted] == [p.name[:-12] for p in inputs]
    for prediction, image in zip(predicted, inputs, strict=True):
        assert read_labels(prediction).geometry.same_grid(read_image(image).geometry, 1e-4)
    references = raw(workspace) / "labelsTs"
    scores = run_json(capsys, "evaluate", references, tmp_path / "out", *at)
    assert {"1", "2"} <= set(json.loads((tmp_path / "out" / "summary.json").read_text())["mean"])
    assert scores


def test_a_single_file_is_predicted_into_a_file(at, workspace, tmp_path):
    image = sorted((raw(workspace) / "imagesTs").glob("*.nii.gz"))[0]

    assert run("predict", "-t", 7, "-c", "3d_fullres", "-f", 0, "-i", image, "-o", tmp_path / "one.nii.gz", *at) == 0

    assert read_labels(tmp_path / "one.nii.gz").geometry.same_grid(read_image(image).geometry, 1e-4)


def test_what_was_chosen_before_a_task_began_again_predicts_as_before(at, workspace, capsys, tmp_path):
    copy = tmp_path / "workspace"
    shutil.copytree(workspace, copy)
    at = ("--workspace", copy)
    image = next((raw(workspace) / "imagesTs").iterdir())
    assert run("best", 7, "--folds", 0, 1, *at) == 0
    assert run("predict", "-i", image, "-o", tmp_path / "before.nii.gz", "-t", 7, "--device", "cpu", *at) == 0

    assert run("plan", 7, "--preset", "small", "--only", "--anew", *at) == 0
    (set_aside,) = {Path(entry["folder"]).parent for entry in run_json(capsys, "model", "list", *at)["result"]}
    assert run("predict", "-i", image, "-o", tmp_path / "after.nii.gz", "-m", set_aside, "--device", "cpu", *at) == 0

    assert set_aside.parts[-3:-1] == ("earlier", set_aside.parts[-2])
    assert np.array_equal(read_labels(tmp_path / "after.nii.gz").array, read_labels(tmp_path / "before.nii.gz").array)
    assert run("predict", "-i", image, "-o", tmp_path / "none.nii.gz", "-t", 7, *at) == 1  # nothing trained since
    assert run("model", "list", *at) == 0
    assert "set aside 20" in capsys.readouterr().out


def test_report_and_diagram_are_written(at, tmp_path):
    assert run("report", 7, "-o", tmp_path / "report.html", *at) == 0
    assert run("diagram", 7, "3d_fullres", "-o", tmp_path / "net.svg", *at) == 0

    page = (tmp_path / "report.html").read_text()
    assert "3d_fullres" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "net.svg").read_text().lstrip().startswith("<")


def test_a_finished_run_is_not_trained_again_by_resuming(at, workspace):
    events = next((workspace / "nnUNet_results/Dataset007_Sample").glob("*__3d_fullres")) / "fold_0" / "events.jsonl"
    epochs = events.read_text().count("EpochFinished")

    assert run("train", 7, "3d_fullres", 0, "--resume", *at) == 0

    assert events.read_text().count("EpochFinished") == epochs


def test_training_again_or_resuming_nothing_is_told(workspace, tmp_path, capsys):
    copy = tmp_path / "workspace"
    shutil.copytree(workspace, copy)
    words = ("train", 7, "2d", "--settings", workspace / "settings.json", "--workspace", copy)

    assert run(*words[:3], 0, *words[3:]) == 0
    again = capsys.readouterr().err
    assert "Fold 0 of 2d was trained for 8 steps only" in again
    assert run(*words[:3], 2, "--resume", *words[3:]) == 0
    anew = capsys.readouterr().err

    earlier = next((copy / "nnUNet_results/Dataset007_Sample").glob("*__2d")) / "earlier_fold_0"
    assert f"The earlier run of this fold is kept in {earlier}.\n" in again
    assert "Nothing is stored to resume from, so this run starts at its beginning.\n" in anew


def bad_inputs(workspace: Path, tmp_path: Path) -> dict[str, tuple]:
    empty = tmp_path / "empty"
    empty.mkdir()
    nan = tmp_path / "nan_0000.nii.gz"
    image = read_image(sorted((raw(workspace) / "imagesTs").glob("*.nii.gz"))[0])
    write_image(nan, np.where(image.array[0] > image.array.mean(), np.nan, image.array[0]), image.geometry)
    text = tmp_path / "text_0000.nii.gz"
    text.write_text("no image")
    model = next((workspace / "nnUNet_results/Dataset007_Sample").glob("*__3d_fullres"))
    out = tmp_path / "out"
    return {
        "unknown task": ("plan", 77),
        "folder that is no task": ("convert", empty),
        "missing folder": ("convert", tmp_path / "nowhere"),
        "taken number": ("convert", workspace / "source", "--id", 7),
        "unknown configuration": ("train", 7, "3d_lowres", 0),
        "fold that is no number": ("train", 7, "3d_fullres", "first"),
        "missing image": ("predict", "-m", model, "-i", tmp_path / "no_0000.nii.gz", "-o", out),
        "empty image folder": ("predict", "-m", model, "-i", empty, "-o", out),
        "NaN image": ("predict", "-m", model, "-i", nan, "-o", out),
        "no image at all": ("predict", "-m", model, "-i", text, "-o", out),
        "folder that is no model": ("predict", "-m", empty, "-i", nan, "-o", out),
        "too many channels": ("predict", "-m", model, "-i", nan, nan, "-o", out),
        "changed schedule": ("train", 7, "3d_fullres", 0, "--resume", "--epochs", 9),
        "bad recipe": ("train", 7, "3d_fullres", 3, "--recipe", "nowhere:nothing"),
        "more GPUs than there are": ("train", 7, "3d_fullres", 3, "--gpus", 64),
        "no predictions": ("evaluate", raw(workspace) / "labelsTs", empty),
        "report of nothing": ("report", 77),
    }


def test_bad_input_gets_one_sentence_and_leaves_nothing_behind(at, workspace, tmp_path, capsys):
    before = sorted(p for p in workspace.rglob("*") if p.name != "STOP")
    wrong = []
    for what, arguments in bad_inputs(workspace, tmp_path).items():
        capsys.readouterr()
        code = run(*arguments, *at)
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nnsegment: ")]
        if code not in (1, 2) or len(said) != 1 or "Traceback" in said[0] or len(said[0]) < 40:
            wrong.append((what, code, said))
    assert wrong == []
    assert sorted(p for p in workspace.rglob("*") if p.name != "STOP") == before
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_wrong_usage_exits_with_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("train", 7)

    assert stopped.value.code == 2


@pytest.mark.parametrize("words", [("train", "7"), ("bogus",), ("plan", "7", "--gpu-memory", "x"), ()])
def test_wrong_usage_is_one_json_object_too(capsys, words):
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--json"])

    said = capsys.readouterr()
    assert stopped.value.code == json.loads(said.out)["exit_code"] == 2
    assert said.err.endswith(f"error: {json.loads(said.out)['error']}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
def test_a_request_to_end_leaves_nothing_half_written(tmp_path):
    code = f"""
import os, signal, time
from pathlib import Path
from NNSegmentLib import cli, records
def write(args, terminal):
    with records.written_whole(Path({str(tmp_path)!r}) / "labels.nii.gz"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
cli.COMMANDS["doctor"] = write
raise SystemExit(cli.main(["doctor"]))
"""

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ended.returncode == 130
    assert ended.stderr == "nnsegment: Stopped; what was finished is kept.\n"
    assert not list(tmp_path.iterdir())


def test_planning_only_the_cascades_two_stages_prepares_the_data_of_both(monkeypatch, tmp_path):
    """Without the second stage's data the first one's validation leaves no input for it."""
    made = SimpleNamespace(name="nnUNetPlans", configuration=lambda name: SimpleNamespace(name=name, inherits_from="x"))
    prepared = []
    monkeypatch.setattr(pipeline, "plan", lambda *_, **__: made)
    monkeypatch.setattr(pipeline, "preprocess", lambda *_, configurations, **__: prepared.extend(configurations))
    monkeypatch.setattr(pipeline, "folders_of", lambda *_: SimpleNamespace(plan=lambda name: tmp_path))
    monkeypatch.setattr(answers, "plan_text", lambda *_: "")

    assert run("plan", 7, "-c", "3d_lowres", "3d_cascade_fullres") == 0

    assert prepared == ["3d_lowres", "3d_cascade_fullres"]
