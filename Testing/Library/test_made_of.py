"""A run knows the cases it was begun with, and says or refuses what does not fit them any more."""

from __future__ import annotations

import os

import numpy as np
import pytest

from NNSegmentLib import pipeline
from NNSegmentLib.errors import RunError, TaskError
from NNSegmentLib.folds import Fold, load_folds, save_folds
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_labels, write_image, write_labels
from NNSegmentLib.provenance.made_of import MadeOf, load_made_of, save_made_of
from NNSegmentLib.provenance.predicted_by import PredictedBy, Weights, keep_present
from NNSegmentLib.records import read_json, to_json, write_json
from NNSegmentLib.training.setup import training_request

GRID = Geometry((12, 14, 16))
CASES = ("a", "b", "c")


@pytest.fixture
def workspace(tmp_path):
    """A planned task of three cases, each of which is a fold's validation."""
    raw, rng = tmp_path / "nnUNet_raw" / "Dataset501_Three", np.random.default_rng(0)
    for case_id in CASES:
        labels = np.zeros(GRID.shape, np.uint8)
        labels[3:8, 4:9, 5:11] = 1
        write_image(raw / "imagesTr" / f"{case_id}_0000.nii.gz", (labels + rng.normal(size=GRID.shape)), GRID)
        write_labels(raw / "labelsTr" / f"{case_id}.nii.gz", labels, GRID)
    card = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "box": 1}, "file_ending": ".nii.gz"}
    write_json(raw / "dataset.json", card | {"numTraining": len(CASES)})
    pipeline.plan(501, tmp_path, preset="small")
    return tmp_path


@pytest.fixture
def begun(workspace):
    """What training leaves of fold 0, without training."""
    request = training_request(501, "3d_fullres", 0, workspace)
    request.folder.checkpoint_latest.parent.mkdir(parents=True)
    request.folder.checkpoint_latest.touch()
    save_made_of(MadeOf.of(request.fold, request.prepared), request.folder)
    return request


def resumed(workspace, **more):
    return training_request(501, "3d_fullres", 0, workspace, resume=True, **more)


def change_fold_0(workspace, train, validation):
    splits = pipeline.folders_of(501, workspace).splits
    save_folds((Fold(train, validation), *load_folds(splits)[1:]), splits)


def correct_labels(workspace, case_id):
    path = workspace / "nnUNet_raw" / "Dataset501_Three" / "labelsTr" / f"{case_id}.nii.gz"
    labels = read_labels(path)
    labels.array[9, 9, 9] = 1
    write_labels(path, labels.array, labels.geometry)


def test_what_a_run_is_made_of_is_read_back(begun):
    made_of = load_made_of(begun.folder)

    assert made_of == MadeOf.of(begun.fold, begun.prepared)
    assert made_of.validation == ("a",) and all(len(files.stamps) == 2 for files in made_of.files)


@pytest.mark.parametrize("trains", [True, False])
def test_cases_that_were_trained_on_are_not_validated_with(workspace, begun, trains):
    change_fold_0(workspace, ("a", "c"), ("b",))

    with pytest.raises(RunError, match=r"was trained on 1 case \(b\) .* restore the splits_final.json"):
        resumed(workspace, trains=trains)


def test_a_run_does_not_go_on_with_other_training_cases(workspace, begun):
    change_fold_0(workspace, ("b",), ("a",))

    with pytest.raises(RunError, match=r"other training cases .*\(gone: c\).* plan Dataset501_Three --anew"):
        resumed(workspace)
    assert resumed(workspace, trains=False).fold == Fold(("b",), ("a",))
    assert training_request(501, "3d_fullres", 0, workspace).fold == Fold(("b",), ("a",))


@pytest.mark.parametrize("finished", [True, False])
def test_corrected_labels_of_training_cases_are_said(workspace, begun, finished):
    if finished:
        begun.folder.checkpoint_final.touch()
    correct_labels(workspace, "b")
    said = []

    resumed(workspace, say=said.append)

    end = "as they were, and 'nnsegment train' without --resume begins again." if finished else "as they are now."
    assert [s for s in said if "changed since" in s and "1 training case (b)" in s and s.endswith(end)]


def test_corrected_labels_of_validated_cases_are_said(workspace, begun):
    begun.folder.validation.mkdir()
    weights = Weights.of(begun.folder.checkpoint_latest, 0, 10)
    keep_present(begun.folder, PredictedBy(weights, MadeOf.of(begun.fold, begun.prepared).files), ".nii.gz")
    correct_labels(workspace, "a")
    said = []

    resumed(workspace, say=said.append)

    assert "Images or labels of 1 validation case (a) changed; validated anew." in said
    assert not any("training case" in sentence for sentence in said)


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_validation_without_a_note_is_kept_whatever_its_time_when_others_made_it(workspace, begun, is_ours):
    label_map = begun.folder.validation / "a.nii.gz"
    label_map.parent.mkdir()
    label_map.touch()
    os.utime(label_map, ns=(1, 1))  # copied without its time
    if not is_ours:
        begun.folder.made_of.unlink()
    weights = Weights.of(begun.folder.checkpoint_latest, 0, 10)

    keep_present(begun.folder, PredictedBy(weights, MadeOf.of(begun.fold, begun.prepared).files), ".nii.gz")

    assert label_map.exists() is not is_ours


def test_a_run_with_nothing_changed_says_nothing_of_it(workspace, begun):
    said = []

    resumed(workspace, say=said.append)

    assert not any("changed since" in sentence for sentence in said)


def test_a_fold_that_validates_what_it_trains_on_from_the_beginning_goes_on(workspace):
    request = training_request(501, "3d_fullres", "all", workspace)
    request.folder.checkpoint_final.parent.mkdir(parents=True)
    request.folder.checkpoint_final.touch()
    save_made_of(MadeOf.of(request.fold, request.prepared), request.folder)

    assert training_request(501, "3d_fullres", "all", workspace, resume=True).fold == request.fold


@pytest.mark.parametrize("missing", ["made_of", "checkpoint_latest"])
def test_a_run_without_notes_or_weights_goes_on_as_before(workspace, begun, missing):
    getattr(begun.folder, missing).unlink()
    change_fold_0(workspace, ("a", "c"), ("b",))

    assert resumed(workspace).fold == Fold(("a", "c"), ("b",))


def change_card(workspace, **entries):
    path = workspace / "nnUNet_raw" / "Dataset501_Three" / "dataset.json"
    write_json(path, read_json(path) | entries)


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"box": 1, "rim": 2}, {"rim": 1, "box": 2}, "box is 2 and was 1, rim is 1 and was 2"),
        ({"box": 1}, {"box": 1, "rim": 2}, "1 became 1, 2"),
    ],
)
def test_a_run_does_not_go_on_with_labels_that_mean_something_else(workspace, begun, before, now, told, trains):
    card = read_json(begun.model_folder.dataset_json)
    write_json(begun.model_folder.dataset_json, card | {"labels": {"background": 0, **before}})
    change_card(workspace, labels={"background": 0, **now})

    with pytest.raises(RunError, match=rf"\({told}\); restore .* plan Dataset501_Three --anew"):
        resumed(workspace, trains=trains)


def test_a_run_does_not_go_on_with_more_channels(workspace, begun):
    change_card(workspace, channel_names={"0": "MR", "1": "CT"})

    with pytest.raises(RunError, match=r"\(channels MR became MR, CT\)"):
        resumed(workspace)


def test_a_run_goes_on_with_new_names_of_labels_and_channels(workspace, begun):
    change_card(workspace, labels={"background": 0, "cube": 1}, channel_names={"0": "T1"})

    assert resumed(workspace).label_set.name_of(1) == "cube"


def test_a_damaged_note_is_named(begun):
    begun.folder.made_of.write_text('{"train": 5}')

    with pytest.raises(TaskError, match="made_of.json does not tell what the run is made of .* delete it"):
        load_made_of(begun.folder)


@pytest.mark.parametrize(("mirroring", "is_kept"), [(None, True), (True, True), (False, False)])
def test_a_note_of_an_earlier_version_which_tells_no_settings_fits_all(begun, mirroring, is_kept):
    begun.folder.validation.mkdir()
    (begun.folder.validation / "a.nii.gz").touch()
    files = MadeOf.of(begun.fold, begun.prepared).files
    weights = Weights.of(begun.folder.checkpoint_latest, 0, 10)
    write_json(begun.folder.predicted_by, to_json(PredictedBy(weights, files, mirroring=mirroring)))

    keep_present(begun.folder, PredictedBy(weights, files, 0.5, mirroring=True), ".nii.gz")

    assert (begun.folder.validation / "a.nii.gz").exists() is is_kept
