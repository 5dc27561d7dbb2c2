"""The verbs as the console calls them, with as few words as possible."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import NNSegmentLib as nns
from NNSegmentLib.cli import main
from NNSegmentLib.records import require_writable
from NNSegmentLib.run import load_settings
from NNSegmentLib.sample import make_sample_task
from NNSegmentLib.training.budget import default_settings
from NNSegmentLib.training.setup import training_request


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A workspace with the sample task converted and planned."""
    folder = tmp_path_factory.mktemp("python")
    task = nns.convert(make_sample_task(folder / "source", n_cases=2, n_test=0), folder, id=7, name="Sample")
    nns.plan(task, preset="small")
    return folder


def test_without_settings_a_run_gets_those_that_fit_its_plan(workspace):
    request = training_request(7, "2d", 0, workspace)

    assert request.settings == default_settings(request.plan)
    assert request.settings.time_s is None


def test_a_fold_beyond_the_list_says_that_it_is_drawn_at_random(workspace):
    heard: list[str] = []

    training_request(7, "2d", 1, workspace, say=heard.append)
    listed = list(heard)
    training_request(7, "2d", 4, workspace, say=heard.append)

    assert not any("at random" in sentence for sentence in listed)
    assert any(s.startswith("Fold 4 is not among the folds 0 to 1") and "at random" in s for s in heard)


@pytest.mark.parametrize("wrong", [("3d_lowres", "0"), ("2d", "x"), ("2d", "0", "--device", "tpu")])
def test_training_is_not_announced_before_what_was_asked_is_known_to_be_right(workspace, wrong, capsys):
    assert main(["train", "7", *wrong, "--workspace", str(workspace)]) == 2

    assert len(capsys.readouterr().err.splitlines()) == 1


def test_mended_findings_are_no_errors_any_more(tmp_path, capsys):
    task = nns.convert(make_sample_task(tmp_path / "source", n_cases=2, n_test=0), tmp_path, id=8, name="Moved")
    labels = nns.read_labels(task.cases[0].labels)
    nns.write_labels(task.cases[0].labels, np.pad(labels.array, ((0, 1), (0, 0), (0, 0))), larger(labels.geometry))
    at = ("--workspace", str(tmp_path), "--json")

    assert main(["check", "8", *at]) == 2
    found = json.loads(capsys.readouterr().out)
    assert main(["check", "8", "--fix", *at]) == 0
    mended = json.loads(capsys.readouterr().out)

    assert [(f["severity"], f["mended"]) for f in found["findings"]] == [("error", False)]
    assert found["exit_code"] == 2
    assert [(f["check"], f["mended"]) for f in mended["findings"]] == [("label grid", True)]


def larger(geometry: nns.Geometry) -> nns.Geometry:
    """The same grid with one more slice."""
    z, y, x = geometry.shape
    return replace(geometry, shape=(z + 1, y, x))


def test_json_holds_null_where_a_number_is_none(tmp_path, capsys):
    geometry = nns.Geometry((4, 4, 4))
    for folder in ("references", "predictions"):
        nns.write_labels(tmp_path / folder / "a.nii.gz", np.zeros((4, 4, 4), np.uint8), geometry)

    assert main(["evaluate", str(tmp_path / "references"), str(tmp_path / "predictions"), "-l", "1", "--json"]) == 0

    out = capsys.readouterr().out
    assert "null" in out
    assert json.loads(out, parse_constant=pytest.fail)


@pytest.mark.parametrize("labels", [[], ["-l", "1"]])
def test_references_without_a_prediction_are_named_unless_the_user_is_chill(tmp_path, capsys, labels):
    for name in ("references/a", "references/b", "predictions/a"):
        nns.write_labels(tmp_path / f"{name}.nii.gz", np.ones((4, 4, 4), np.uint8), nns.Geometry((4, 4, 4)))
    names = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "all": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "predictions" / "dataset.json").write_text(json.dumps(names | {"numTraining": 2}))
    words = ["evaluate", str(tmp_path / "references"), str(tmp_path / "predictions"), *labels]

    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "Left out 1 of 2 references, which have no prediction: b." in err
    assert [case["case_id"] for case in json.loads(out)["cases"]] == ["a"]
    assert main([*words, "--chill"]) == 0
    assert "Left out" not in capsys.readouterr().err


def test_a_cascade_without_its_first_stage_is_refused_before_any_work(workspace):
    fine = nns.plan(7, workspace, preset="small", spacing_mm=(0.3, 0.3, 0.3), name="Fine")
    before = sorted(workspace.rglob("*"))

    with pytest.raises(nns.TaskError, match="train all folds of 3d_lowres first"):
        training_request(7, "3d_cascade_fullres", 0, workspace, plans=fine.name)

    assert sorted(workspace.rglob("*")) == before


def test_an_output_that_cannot_be_written_is_told_before_predicting(tmp_path):
    (tmp_path / "file").write_text("")

    require_writable(tmp_path / "new" / "newer")

    assert not (tmp_path / "new").exists()
    for place in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(nns.StorageError, match="a file is where its folder should be"):
            require_writable(place)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", "should be a JSON object"),
        ('{"epochs": "three"}', "epochs should be a whole number, found 'three'"),
        ('{"epochs": 1.5}', "epochs should be a whole number, found 1.5"),
        ('{"compile": 1}', "compile should be true or false"),
        ('{"batch_size": 0}', "batch_size must be at least 1, found 0; correct this training setting"),
        ('{"epochs": 0}', "epochs must be at least 1, found 0; correct"),
        ('{"loss": "mse"}', "loss must be one of dice_ce, .*, found 'mse'; correct"),
        ('{"time_s": 0}', "time_s must be more than 0 seconds, found 0.0; correct"),
        ('{"learning_rate": NaN}', "learning_rate must be a number above 0, found nan; correct"),
        ('{"foreground_fraction": 2}', "foreground_fraction must be between 0 and 1, found 2.0; correct"),
        ('{"mirror_axes": "all"}', "mirror_axes should be a list, found 'all'"),
    ],
)
def test_settings_of_a_wrong_kind_are_named(tmp_path, text, sentence):
    (tmp_path / "settings.json").write_text(text)

    with pytest.raises(nns.SettingsError, match=sentence):
        load_settings(tmp_path / "settings.json")
