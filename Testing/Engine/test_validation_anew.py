"""A validation and the cascade's inputs belong to the weights, files and fold that made them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_trainer import IDS, QUICK, configuration, prepared_ball, save_balls, stopping_after, tiny_request

from NNSegmentLib.engine.trainer import train_fold
from NNSegmentLib.engine.validation import validate_fold
from NNSegmentLib.evaluation import load_scores
from NNSegmentLib.folders import FoldFolder, ModelFolders, prepared_folder
from NNSegmentLib.folds import Fold
from NNSegmentLib.image import read_labels
from NNSegmentLib.planning.plan import Plan
from NNSegmentLib.preprocessing.storage import save_prepared
from NNSegmentLib.provenance.predicted_by import changed_since_predicted, load_predicted_by, load_stage_input
from NNSegmentLib.records import write_json

ONE_STEP = replace(QUICK, epochs=1, iterations_per_epoch=1)
LEARNT = replace(QUICK, epochs=4, iterations_per_epoch=10, learning_rate=0.02)
NEXT = "3d_cascade_fullres"


@pytest.fixture
def prepared(tmp_path):
    return save_balls(tmp_path / "preprocessed")


@pytest.fixture
def request_of(prepared, tmp_path):
    return partial(tiny_request, prepared, tmp_path / "model")


def written(folder: Path) -> dict[str, int]:
    """When each label map was written (ns)."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.nii.gz")}


def test_a_run_that_went_on_after_its_validation_is_scored_by_its_final_weights(request_of):
    request = request_of(LEARNT)
    train_fold(request, stopping_after(request.folder, 1))
    early = validate_fold(request, save_probabilities=True)

    run = train_fold(replace(request, resume=True))
    assert not run.folder.summary.exists()
    final = validate_fold(request)

    assert final.dice > early.dice
    assert validate_fold(request, again=True).dice == final.dice == load_scores(run.folder.summary).dice
    assert not (run.folder.validation / "case_3.npz").exists()
    assert load_predicted_by(run.folder).weights.steps == 40


def test_an_interrupted_validation_goes_on_where_it_was(request_of):
    request = request_of(ONE_STEP, fold=Fold(IDS[:2], IDS[2:]))
    folder = train_fold(request).folder.validation

    def ending(done, total, what):
        if "case_3" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate_fold(request, progress=ending)
    before = written(folder)
    scores = validate_fold(request)

    assert list(before) == ["case_2.nii.gz"]
    assert before.items() < written(folder).items()
    assert [case.case_id for case in scores.cases] == ["case_2", "case_3"]


def test_weights_that_were_copied_with_their_validation_are_the_same(request_of):
    request = request_of(ONE_STEP)
    folder = train_fold(request).folder
    validate_fold(request)
    before = written(folder.validation)

    os.utime(folder.checkpoint_final)
    validate_fold(request)

    assert written(folder.validation) == before


@pytest.mark.parametrize("younger", [True, False])
def test_a_validation_that_nothing_is_noted_of_is_kept_if_it_is_younger_than_the_weights(request_of, younger):
    request = request_of(ONE_STEP)
    folder = train_fold(request).folder
    validate_fold(request)
    folder.predicted_by.unlink()
    if not younger:
        os.utime(folder.checkpoint_final)
    before = written(folder.validation)

    validate_fold(request)

    assert (written(folder.validation) == before) == younger


def test_only_cases_whose_files_changed_are_predicted_anew(request_of, prepared):
    write_json(prepared / "case_2.made_of", [[1, 10], [1, 20]])
    request = request_of(ONE_STEP, fold=Fold(IDS[:2], IDS[2:]))
    folder = train_fold(request).folder.validation
    validate_fold(request)
    before = written(folder)

    write_json(prepared / "case_2.made_of", [[2, 10], [1, 20]])
    validate_fold(request)

    now = written(folder)
    assert now["case_3.nii.gz"] == before["case_3.nii.gz"]
    assert now["case_2.nii.gz"] > before["case_2.nii.gz"]


@pytest.mark.parametrize("changes", [{"validation_mirroring": True}, {"validation_step": 0.9}])
def test_a_validation_with_other_settings_is_made_anew(request_of, changes):
    request = request_of(ONE_STEP)
    folder = train_fold(request).folder.validation
    validate_fold(request)
    before = written(folder)

    validate_fold(replace(request, settings=replace(ONE_STEP, **changes)))

    assert written(folder)["case_3.nii.gz"] > before["case_3.nii.gz"]


def test_only_cases_of_the_fold_are_scored(request_of):
    request = request_of(ONE_STEP, fold=Fold(IDS[:2], IDS[2:]))
    run = train_fold(request)
    validate_fold(request)

    scores = validate_fold(replace(request, fold=Fold(IDS[:2], IDS[3:])))

    assert [case.case_id for case in scores.cases] == ["case_3"]
    assert list(written(run.folder.validation)) == ["case_3.nii.gz"]


@pytest.fixture
def first_stage(request_of, prepared):
    """A request for the first stage of a cascade, whose cases are prepared for both stages."""
    low, cascade = configuration("3d_lowres", next_stage=NEXT), configuration(NEXT, previous_stage="3d_lowres")
    for index in range(len(IDS)):
        save_prepared(prepared_ball(index), prepared_folder(prepared.parent, cascade.data_identifier))
    plan = Plan("Dataset900_Balls", "nnUNetPlans", (0, 1, 2), (low, cascade), ())
    return partial(request_of, plan=plan, configuration="3d_lowres")


def trained(request):
    train_fold(request)
    validate_fold(request)
    return request.model_folder.next_stage(NEXT)


def input_is_of(folder: Path, request, case_id: str = "case_3") -> bool:
    """Whether the next stage's input is this fold's validation; both stages have one grid here."""
    validated = read_labels(request.folder.validation / f"{case_id}.nii.gz").array
    same_fold = load_stage_input(folder, case_id).weights.fold == request.fold_name
    return same_fold and np.array_equal(np.load(folder / f"{case_id}.npy"), validated)


def test_a_stage_that_is_trained_again_gives_the_next_one_new_input(first_stage):
    folder = trained(first_stage(ONE_STEP))
    before = np.load(folder / "case_3.npy")

    trained(first_stage(LEARNT))

    assert not np.array_equal(np.load(folder / "case_3.npy"), before)
    assert input_is_of(folder, first_stage())


def test_validating_again_writes_the_next_stages_input_again(first_stage):
    request = first_stage(ONE_STEP)
    folder = trained(request)
    np.save(folder / "case_3.npy", np.zeros((2, 2, 2), np.uint8))

    validate_fold(request, again=True)

    assert input_is_of(folder, request)


def test_a_cascade_is_validated_anew_where_its_first_stage_was_trained_again(first_stage, tmp_path):
    def first(settings):
        return trained(first_stage(settings, "fold_all", fold=Fold(IDS, IDS), fold_name="all"))

    inputs = first(ONE_STEP)
    request = replace(
        first_stage(ONE_STEP, configuration=NEXT),
        folder=FoldFolder(tmp_path / "cascade" / "fold_0"),
        model_folder=ModelFolders(tmp_path / "cascade"),
        previous_stage=inputs,
    )
    run = train_fold(request)
    validate_fold(request)
    before = written(run.folder.validation)

    validate_fold(request)
    kept = written(run.folder.validation)
    first(LEARNT)
    changed = changed_since_predicted(run.folder, request.prepared, inputs)
    validate_fold(request)

    assert kept == before
    assert changed == ["case_3"]
    assert written(run.folder.validation)["case_3.nii.gz"] > before["case_3.nii.gz"]
    assert changed_since_predicted(run.folder, request.prepared, inputs) == []


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("all_first", [True, False])
def test_the_next_stage_takes_predictions_of_weights_that_never_saw_the_case(first_stage, all_first, noted):
    of_all = first_stage(ONE_STEP, "fold_all", fold=Fold(IDS, IDS), fold_name="all")
    of_fold = first_stage(LEARNT)

    for request in (of_all, of_fold) if all_first else (of_fold, of_all):
        folder = trained(request)
        if not noted:
            (folder / "case_3.json").unlink(missing_ok=True)
    if not noted:
        validate_fold(of_fold)

    assert input_is_of(folder, of_fold)
    assert input_is_of(folder, of_all, "case_0")
    assert json.loads((folder / "case_3.json").read_text())["held_out"]
