"""The best configuration or ensemble, from the validations of all folds."""

from __future__ import annotations

import json
import math
import os
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from NNSegmentLib.arguments import build_parser
from NNSegmentLib.errors import ModelError, RunError, SettingsError
from NNSegmentLib.evaluation import load_scores
from NNSegmentLib.exchange import list_models
from NNSegmentLib.folders import ModelFolders, Workspace
from NNSegmentLib.folds import Fold, save_folds
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_labels, write_labels
from NNSegmentLib.labels import LabelSet
from NNSegmentLib.model.selected import read_selected, trained_again
from NNSegmentLib.provenance.file_states import stamps_of
from NNSegmentLib.provenance.made_of import CaseFiles, MadeOf, save_made_of
from NNSegmentLib.provenance.predicted_by import PredictedBy, StageInput, Weights, keep_present, note_stage_input
from NNSegmentLib.records import to_json, write_json
from NNSegmentLib.selection.best import find_best, load_selection
from NNSegmentLib.task import Case

LABELS = {"background": 0, "edge": 1, "core": 2}
TWO = LabelSet.from_dataset_json({"labels": LABELS})
SHAPE = (6, 12, 12)
GRID = Geometry(SHAPE, (2.0, 1.0, 1.0))
CASES = ("a", "b", "c", "d")
SPLITS = (Fold(("c", "d"), ("a", "b")), Fold(("a", "b"), ("c", "d")))
MODELS = [("nnUNetPlans", "2d"), ("nnUNetPlans", "3d_fullres")]


def reference(case):
    labels = np.zeros(SHAPE, np.uint8)
    start = CASES.index(case)
    labels[1:5, start : start + 7, 2:9] = 1
    labels[2:4, start + 2 : start + 5, 4:7] = 2
    return labels


def guess(case, share, seed):
    """The reference as probabilities, with a share of the voxels set to another class."""
    rng = np.random.default_rng(seed + CASES.index(case))
    wrong = rng.random(SHAPE) < share
    labels = np.where(wrong, rng.integers(0, 3, SHAPE), reference(case))
    certainty = np.where(wrong, 0.5, 0.8)
    rest = (1 - certainty) / 2
    return np.stack([np.where(labels == value, certainty, rest) for value in range(3)]).astype(np.float32)


class World:
    """A workspace with references, splits and validated models."""

    def __init__(self, root: Path) -> None:
        self.folders = _task_folders(root)
        self.references = self.folders.raw / "labelsTr"
        for case in CASES:
            write_labels(self.references / f"{case}.nii.gz", reference(case), GRID)
        save_folds(SPLITS, self.folders.splits)

    def validated(self, configuration, share, seed, plans="nnUNetPlans", npz=True, folds=(0, 1)):
        model = self.folders.model(plans, configuration)
        write_json(model.folder / "dataset.json", {"labels": LABELS})
        write_json(model.folder / "plans.json", {})
        for fold in folds:
            for case in SPLITS[fold].validation:
                self.predict(model.fold(fold).validation, case, guess(case, share, seed), npz)
        return model

    def predict(self, folder, case, probabilities, npz=True):
        write_labels(folder / f"{case}.nii.gz", probabilities.argmax(0).astype(np.uint8), GRID)
        if npz:
            np.savez_compressed(folder / f"{case}.npz", probabilities=probabilities)

    def best(self, candidates=MODELS, folds=None, **options):
        return find_best(
            self.folders, TWO, candidates, folds, references=self.references, file_ending=".nii.gz", **options
        )


def _task_folders(root):
    workspace = Workspace.at(root)
    (workspace.raw / "Dataset501_Cubes").mkdir(parents=True)
    return workspace.task(501)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "my work")
    world.validated("2d", 0.3, seed=1)
    world.validated("3d_fullres", 0.25, seed=100)
    return world


def dice_by_hand(arrays):
    """nnU-Net's foreground mean over cases given as {case: labels}."""
    scores = []
    for value in (1, 2):
        pairs = [(array == value, reference(case) == value) for case, array in arrays.items()]
        scores.append(np.mean([2 * (p & r).sum() / (p.sum() + r.sum()) for p, r in pairs]))
    return np.mean(scores)


def test_the_average_of_two_wins_when_their_errors_differ(world):
    selection = world.best()

    single = [dice_by_hand({c: guess(c, *of).argmax(0) for c in CASES}) for of in ((0.3, 1), (0.25, 100))]
    both = dice_by_hand({c: (guess(c, 0.3, 1) + guess(c, 0.25, 100)).argmax(0) for c in CASES})
    assert [c.dice for c in selection.candidates] == pytest.approx([*single, both])
    assert both > max(single) and selection.best.title == "2d + 3d_fullres"
    assert [m.configuration for m in selection.members] == ["2d", "3d_fullres"]
    assert selection.folds == (0, 1)


def test_the_best_is_post_processed_and_only_the_best(world):
    selection = world.best()

    folder = selection.best.folder
    after = load_scores(folder / "postprocessed" / "summary.json")
    assert selection.postprocessing.steps and selection.dice_after == after.foreground_mean.dice > selection.best.dice
    assert selection.postprocessing_file == folder / "postprocessing.pkl" and selection.postprocessing_file.is_file()
    written = sorted(path.parent for path in world.folders.results.rglob("postprocessing.pkl"))
    assert written == [folder]


def test_folders_and_names_are_nnunets(world):
    world.best()

    results = world.folders.results
    gathered = results / "nnUNetTrainer__nnUNetPlans__2d" / "crossval_results_folds_0_1"
    ensemble = (
        results
        / "ensembles"
        / "ensemble___nnUNetTrainer__nnUNetPlans__2d___nnUNetTrainer__nnUNetPlans__3d_fullres___0_1"
    )
    for folder in (gathered, ensemble):
        names = {path.name for path in folder.iterdir() if path.is_file()}
        assert names >= {"a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz", "summary.json", "plans.json", "dataset.json"}
    assert np.array_equal(read_labels(gathered / "c.nii.gz").array, guess("c", 0.3, 1).argmax(0))


def test_an_ensemble_has_the_plan_of_its_first_member(world):
    for configuration in ("2d", "3d_fullres"):
        write_json(world.folders.model("nnUNetPlans", configuration).folder / "plans.json", {"of": configuration})

    selection = world.best()

    assert json.loads((selection.best.folder / "plans.json").read_text()) == {"of": "2d"}
    assert selection.plans_file == selection.best.folder / "plans.json"


def test_inference_information_has_nnunets_keys(world):
    selection = world.best()

    information = json.loads((world.folders.results / "inference_information.json").read_text())
    assert list(information) == [
        "folds", "dataset_name_or_id", "considered_models", "ensembling_allowed", "all_results", "best_model_or_ensemble",
    ]  # fmt: skip
    assert information["considered_models"][0] == {
        "plans": "nnUNetPlans", "configuration": "2d", "trainer": "nnUNetTrainer",
    }  # fmt: skip
    assert list(information["all_results"])[2].startswith("ensemble___nnUNetTrainer__nnUNetPlans__2d___")
    assert information["best_model_or_ensemble"] == {
        "result_on_crossval_pre_pp": selection.best.dice,
        "result_on_crossval_post_pp": selection.dice_after,
        "postprocessing_file": str(selection.best.folder / "postprocessing.pkl"),
        "some_plans_file": str(selection.best.folder / "plans.json"),
        "selected_model_or_models": [
            {"configuration": c, "trainer": "nnUNetTrainer", "plans_identifier": "nnUNetPlans"}
            for c in ("2d", "3d_fullres")
        ],
    }


def test_a_saved_selection_is_read_back_even_after_moving_the_results(world, tmp_path):
    selection = world.best()

    loaded = load_selection(world.folders.selection)
    assert to_json(loaded) | {"notes": []} == to_json(selection) | {"notes": []}
    assert loaded.table().splitlines()[:5] == selection.table().splitlines()[:5]

    moved = world.folders.results.rename(tmp_path / "elsewhere")
    again = load_selection(moved / "inference_information.json")
    assert again.postprocessing == selection.postprocessing
    assert moved in again.postprocessing_file.parents and moved in again.plans_file.parents


def test_the_table_shows_every_class_and_marks_the_best(world):
    selection = world.best(ensembles=False)

    lines = selection.table().splitlines()
    assert lines[0].split() == ["Dice", "edge", "core"]
    assert lines[1].startswith("2d") and "best" not in lines[1]
    assert lines[2].startswith("3d_fullres") and lines[2].endswith("← best")
    assert f"{selection.dice_after:.4f}" in lines[3]
    assert "Compared on fold 0, 1 of 2." in lines and "largest component" in lines[-1]


def test_instructions_are_our_command_lines(world):
    selection = world.best()

    text = (world.folders.results / "inference_instructions.txt").read_text()
    commands = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line.split()[1] for line in commands] == ["predict", "predict", "predict", "ensemble", "postprocess"]
    parsed = [build_parser().parse_args(shlex.split(line)[1:]) for line in commands]
    assert Path(parsed[1].model) == world.folders.results / selection.members[0].name and parsed[1].save_probabilities
    assert parsed[4].rules == selection.postprocessing_file


def test_the_first_of_equals_wins_and_single_models_come_before_ensembles(tmp_path):
    world = World(tmp_path)
    world.validated("2d", 0.3, seed=1)
    world.validated("3d_fullres", 0.3, seed=1)

    assert world.best().best.title == "2d"


def test_a_single_configuration_needs_no_probabilities(tmp_path):
    world = World(tmp_path)
    world.validated("2d", 0.3, seed=1, npz=False)

    selection = world.best([MODELS[0]])

    assert selection.best.title == "2d"
    assert "ensemble" not in (world.folders.results / "inference_instructions.txt").read_text()


def test_an_ensemble_without_probabilities_is_left_out_with_a_note(world):
    (world.folders.model(*MODELS[1]).fold(1).validation / "d.npz").unlink()

    selection = world.best()

    assert len(selection.candidates) == 2
    assert any("--save-probabilities" in note and "2d + 3d_fullres" in note for note in selection.notes)


def test_only_folds_that_all_have_finished_are_compared(world):
    (world.folders.model(*MODELS[0]).fold(1).validation / "d.nii.gz").unlink()

    selection = world.best()

    assert selection.folds == (0,)
    assert any("lacks 1 of 2 validation cases (d)" in note and "nnsegment validate" in note for note in selection.notes)
    assert (world.folders.model(*MODELS[0]).folder / "crossval_results_folds_0").is_dir()
    with pytest.raises(RunError, match="lacks 1 of 2"):
        world.best(folds=["0", "1"])


def test_a_validation_by_weights_that_were_replaced_is_not_compared(world):
    fold = world.folders.model(*MODELS[0]).fold(1)
    fold.checkpoint_final.write_bytes(b"half-trained")
    os.utime(fold.checkpoint_final, (0, 0))  # older than what it predicted
    keep_present(fold, PredictedBy(Weights.of(fold.checkpoint_final, 1, 10), tuple(map(CaseFiles, "cd"))), ".nii.gz")
    assert world.best().folds == (0, 1)

    fold.checkpoint_final.write_bytes(b"trained to the end")
    selection = world.best()

    assert selection.folds == (0,)
    left_out = "The validation of fold 1 of nnUNetTrainer__nnUNetPlans__2d was made by weights that were replaced"
    assert any(left_out in note and "-p nnUNetPlans --save-probabilities'" in note for note in selection.notes)


@pytest.mark.parametrize("is_noted", [True, False])  # as in validations of nnU-Net
def test_a_comparison_tells_which_folds_were_trained_again_since(world, is_noted):
    model = world.folders.model(*MODELS[0])
    for number, cases in enumerate(("ab", "cd")):
        path = model.fold(number).checkpoint_final
        path.write_bytes(b"first")
        os.utime(path, (0, 0))  # older than what it predicted
        if is_noted:
            made_by = PredictedBy(Weights.of(path, number, 10), tuple(map(CaseFiles, cases)))
            keep_present(model.fold(number), made_by, ".nii.gz")
    selection = world.best(MODELS[:1])
    os.utime(path)  # a copy of the same weights
    assert trained_again(world.folders.results) == ""
    os.utime(path, (0, 0))
    assert list_models(world.folders.workspace)[0].dice == pytest.approx(selection.best.dice)

    path.write_bytes(b"again")

    assert trained_again(world.folders.results) == (
        "Trained again since the models were compared: fold 1 of nnUNetTrainer__nnUNetPlans__2d; run "
        "'nnsegment best Dataset501_Cubes' again."
    )
    assert list_models(world.folders.workspace)[0].dice is None
    assert load_selection(world.folders.selection).compared == selection.compared


def test_weights_that_are_no_younger_than_the_comparison_are_not_read_before_each_prediction(world, monkeypatch):
    path = world.folders.model(*MODELS[0]).fold(0).checkpoint_final
    path.write_bytes(b"weights")
    world.best(MODELS[:1])
    os.utime(path, (1, 1))  # unpacked, or copied before the comparison was

    read = []
    monkeypatch.setattr("NNSegmentLib.provenance.predicted_by._sha256", lambda path: read.append(path) or "other")

    assert trained_again(world.folders.results) == ""
    assert read == []


def test_a_cascade_validated_with_an_earlier_stage_that_was_replaced_is_not_compared(world, monkeypatch):
    stages = SimpleNamespace(configuration=lambda name: SimpleNamespace(previous_stage="2d"))
    monkeypatch.setattr("NNSegmentLib.selection.comparison.load_plan", lambda path: stages)
    first, fold = world.folders.model(*MODELS[0]), world.folders.model(*MODELS[1]).fold(1)
    for folder in (first.fold(1), fold):
        folder.checkpoint_final.write_bytes(b"first")
        os.utime(folder.checkpoint_final, (0, 0))  # older than what it predicted
    made_by = Weights.of(first.fold(1).checkpoint_final, 1, 10)
    for case in "cd":
        note_stage_input(StageInput(made_by, CaseFiles(case), True), first.next_stage("3d_fullres"))
    files = tuple(CaseFiles(case, previous_stage=made_by.sha256) for case in "cd")
    keep_present(fold, PredictedBy(Weights.of(fold.checkpoint_final, 1, 10), files), ".nii.gz")
    assert world.best(MODELS[1:]).folds == (0, 1)

    first.fold(1).checkpoint_final.write_bytes(b"trained again")

    selection = world.best(MODELS[1:])
    assert selection.folds == (0,)
    assert any("fold 1" in note and "weights of 2d that were replaced (for c, d)" in note for note in selection.notes)


def test_a_validation_of_images_that_were_replaced_is_noted(world):
    cases = [Case(name, (world.folders.raw / "imagesTr" / f"{name}_0000.nii.gz",), None) for name in "cd"]
    for case in cases:
        case.images[0].parent.mkdir(exist_ok=True)
        case.images[0].write_bytes(b"first")
    fold = world.folders.model(*MODELS[0]).fold(1)
    fold.checkpoint_final.touch()
    os.utime(fold.checkpoint_final, (0, 0))  # older than what it predicted
    files = tuple(CaseFiles(case.id, (*map(tuple, stamps_of(case)), (1, 2))) for case in cases)
    keep_present(fold, PredictedBy(Weights.of(fold.checkpoint_final, 1, 10), files), ".nii.gz")
    before = world.best(cases=cases).notes

    cases[1].images[0].write_bytes(b"another")

    [added] = set(world.best(cases=cases).notes) - {*before}
    assert added == (
        "Fold 1 of nnUNetTrainer__nnUNetPlans__2d was validated on images of 1 case (d) of another time or size than "
        "there are now; unless they were only copied, predict them anew with 'nnsegment validate Dataset501_Cubes 2d 1 "
        "-p nnUNetPlans --save-probabilities'."
    )


def test_a_fold_that_was_trained_on_what_it_validates_with_is_not_compared(world):
    fold = world.folders.model(*MODELS[0]).fold(1)
    fold.checkpoint_final.touch()
    save_made_of(MadeOf(("c", "d"), ("a", "b"), ()), fold)

    with pytest.raises(RunError, match=r"Fold 1 of \S+__2d was trained on 2 cases \(c, d\)"):
        world.best(folds=[1])


def test_a_fold_that_is_meant_to_train_on_what_it_validates_with_is_noted(world):
    fold = world.folders.model(*MODELS[0]).fold(1)
    fold.checkpoint_final.touch()
    save_made_of(MadeOf(("b", "c"), ("c", "d"), ()), fold)

    [note] = [note for note in world.best().notes if "nothing about new cases" in note]
    assert note.startswith("Fold 1 of nnUNetTrainer__nnUNetPlans__2d was trained on 1 case that it validates with (c);")


def test_a_model_whose_labels_mean_something_else_is_not_compared(world):
    model = world.folders.model(*MODELS[0])
    write_json(model.dataset_json, {"labels": {"background": 0, "edge": 2, "core": 1}})

    selection = world.best()

    assert [candidate.title for candidate in selection.candidates] == ["3d_fullres"]
    assert any("__2d was trained with other labels" in n and "edge is 1 and was 2" in n for n in selection.notes)
    with pytest.raises(RunError, match=r"other labels .* plan Dataset501_Cubes --anew"):
        world.best([MODELS[0]])


def test_a_fold_with_a_case_that_was_removed_is_not_compared_and_the_selection_stays(world):
    world.best(MODELS[:1])
    cases = [Case(name, (world.folders.raw / f"{name}_0000.nii.gz",)) for name in "abc"]

    selection = world.best(MODELS[:1], cases=cases)

    assert selection.folds == (0,)
    assert any("validates with 1 case (d) that the task does not have; take" in note for note in selection.notes)
    with pytest.raises(RunError, match="the task does not have"):
        world.best(MODELS[:1], folds=[1], cases=cases)
    assert world.folders.selection.is_file()


def test_label_maps_of_cases_that_validate_elsewhere_now_are_not_compared(world):
    save_folds((SPLITS[0], Fold(("a", "b", "d"), ("c",))), world.folders.splits)

    with pytest.raises(RunError, match=r"1 label map \(d\) of other cases .*restore the .* or .*'nnsegment validate"):
        world.best(folds=[1])


def test_folds_of_nnunets_other_trainers_are_nnunets_to_finish(tmp_path):
    world = World(tmp_path)
    world.validated("2d", 0.3, seed=1, npz=False)
    ours = world.folders.model(*MODELS[0]).folder
    theirs = ours.rename(ours.with_name(ours.name.replace("nnUNetTrainer_", "nnUNetTrainer_250epochs_")))
    (theirs / "fold_1" / "validation" / "d.nii.gz").unlink()

    with pytest.raises(RunError, match="'nnUNetv2_train 501 2d 1 -tr nnUNetTrainer_250epochs -p nnUNetPlans --val'"):
        world.best([ModelFolders(theirs)], folds=[0, 1])


@pytest.mark.parametrize(
    ("weights", "command"),
    [
        ("checkpoint_final.pth", "validate Dataset501_Cubes 2d 2 -p nnUNetPlans"),
        ("checkpoint_latest.pth", "train Dataset501_Cubes 2d 2 -p nnUNetPlans --resume"),
        ("progress.png", "train Dataset501_Cubes 2d 2 -p nnUNetPlans"),
    ],
)
def test_a_fold_without_a_validation_is_not_trained_again(world, weights, command):
    fold = world.folders.model(*MODELS[0]).fold(2)
    fold.folder.mkdir()
    (fold.folder / weights).touch()

    with pytest.raises(RunError, match=f"has no validation; run 'nnsegment {command}'"):
        world.best(MODELS[:1], folds=[2])


def test_what_nnunets_other_trainers_validate_is_theirs_also_where_cases_are_gone(world):
    ours = world.folders.model(*MODELS[0]).folder
    theirs = ours.rename(ours.with_name(ours.name.replace("nnUNetTrainer_", "nnUNetTrainer_250epochs_")))
    cases = [Case(name, (world.folders.raw / f"{name}_0000.nii.gz",)) for name in "abc"]

    with pytest.raises(RunError, match="run 'nnUNetv2_train 501 2d 1 .* --val --npz', or add them again"):
        world.best([ModelFolders(theirs)], folds=[1], cases=cases)


def trained(world, **folds):
    """What finished trainings leave in the folds of a configuration."""
    for configuration, numbers in folds.items():
        for number in numbers:
            path = world.folders.model("nnUNetPlans", configuration.removeprefix("_")).fold(number).checkpoint_final
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"weights")


def test_the_best_model_predicts_with_all_its_folds_though_fewer_were_compared(world):
    (world.folders.model(*MODELS[0]).fold(1).validation / "d.nii.gz").unlink()
    trained(world, _2d=(0,), _3d_fullres=(0, 1, 2))

    selection = world.best(ensembles=False)

    assert (selection.best.title, selection.folds, selection.prediction_folds) == ("3d_fullres", (0,), (0, 1, 2))
    assert any("fold 0, 1, 2 of 3d_fullres" in note for note in selection.notes)
    information = json.loads(world.folders.selection.read_text())
    assert (information["folds"], information["compared_folds"]) == ([0, 1, 2], [0])
    assert " -f 0 1 2\n" in (world.folders.results / "inference_instructions.txt").read_text()
    loaded = load_selection(world.folders.selection)
    assert to_json(loaded) | {"notes": []} == to_json(selection) | {"notes": []}
    assert loaded.notes[0] in selection.notes


def test_an_ensemble_predicts_with_the_folds_that_all_its_members_have(world):
    trained(world, _2d=(0, 1, 2), _3d_fullres=(0, 1, 2, 3))
    for configuration in MODELS:
        (world.folders.model(*configuration).fold(1).validation / "d.nii.gz").unlink()

    selection = world.best()

    assert (selection.best.title, selection.folds) == ("2d + 3d_fullres", (0,))
    assert selection.prediction_folds == (0, 1, 2)


def test_folds_that_were_asked_for_are_compared_and_predicted_with(world):
    trained(world, _2d=(0, 1), _3d_fullres=(0, 1))

    selection = world.best(folds=["1"])

    assert selection.folds == selection.prediction_folds == (1,)
    assert not any("Predictions use" in note for note in selection.notes)
    information = json.loads(world.folders.selection.read_text())
    assert information["folds"] == [1] and "compared_folds" not in information


def test_a_comparison_that_ends_early_leaves_no_selection_of_what_is_gone(world, monkeypatch):
    world.best()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("NNSegmentLib.selection.best.crossvalidate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.best()

    assert not list(world.folders.results.glob("inference_*"))


def test_a_comparison_that_cannot_begin_keeps_the_selection(world):
    world.best()

    with pytest.raises(RunError, match="Fold 4"):
        world.best(folds=[4])

    assert len(list(world.folders.results.glob("inference_*"))) == 2


def test_a_model_that_has_not_finished_any_fold_is_left_out(world):
    world.validated("3d_lowres", 0.1, seed=7, folds=())
    (world.folders.model("nnUNetPlans", "3d_lowres").fold(0).validation).mkdir(parents=True)

    selection = world.best([*MODELS, ("nnUNetPlans", "3d_lowres")])

    assert selection.folds == (0, 1) and len(selection.candidates) == 3
    assert any("3d_lowres" in note and "lacks 2 of 2" in note for note in selection.notes)


def test_models_without_a_fold_in_common_cannot_be_compared(tmp_path):
    world = World(tmp_path)
    world.validated("2d", 0.3, seed=1, folds=(0,))
    world.validated("3d_fullres", 0.3, seed=2, folds=(1,))

    with pytest.raises(RunError, match="has no validation"):
        world.best()


def test_missing_folds_and_models_are_named(world, tmp_path):
    with pytest.raises(RunError, match="Fold 4"):
        world.best(folds=[0, 4])
    with pytest.raises(RunError, match="3d_lowres"):
        world.best([("nnUNetPlans", "3d_lowres")])
    with pytest.raises(RunError, match="nothing to compare"):
        world.best([])
    empty = World(tmp_path / "empty")
    empty.folders.model(*MODELS[0]).folder.mkdir(parents=True)
    with pytest.raises(RunError, match="No fold"):
        empty.best([MODELS[0]])


def test_the_fold_of_all_cases_is_no_cross_validation(world):
    world.predict(world.folders.model(*MODELS[0]).fold("all").validation, "a", guess("a", 0.9, 3))

    with pytest.raises(SettingsError, match="trained on every one; name numbered folds"):
        world.best([MODELS[0]], folds=["all"])


def test_a_random_fold_beyond_the_list_is_left_out_with_a_note(world):
    for model in MODELS:
        world.predict(world.folders.model(*model).fold(2).validation, "a", guess("a", 0.9, 3))

    selection = world.best()

    assert selection.folds == (0, 1) and len(selection.candidates) == 3
    assert any("Fold 2 is not in splits_final.json" in note for note in selection.notes)


def test_a_random_fold_counts_when_there_is_no_other(tmp_path):
    world = World(tmp_path)
    world.validated("2d", 0.3, seed=1, folds=())
    world.predict(world.folders.model(*MODELS[0]).fold(7).validation, "a", guess("a", 0.3, 3))

    assert world.best([MODELS[0]]).folds == (7,)


def test_a_case_in_two_folds_is_refused_where_no_file_tells_the_folds(world):
    world.folders.splits.unlink()
    world.predict(world.folders.model(*MODELS[0]).fold(1).validation, "a", guess("a", 0.1, 3))

    with pytest.raises(RunError, match="Case a was predicted in two folds"):
        world.best()


def test_an_older_result_is_replaced_as_a_whole(world):
    gathered = world.folders.model(*MODELS[0]).folder / "crossval_results_folds_0_1"
    stale = [folder / "z.nii.gz" for folder in (gathered, world.best().best.folder)]
    for path in stale:
        path.touch()

    world.best()

    assert not any(path.exists() for path in stale)


def test_a_class_that_is_nowhere_does_not_hide_the_difference(world):
    card = {"labels": {**LABELS, "nowhere": 3}}
    three = LabelSet.from_dataset_json(card)
    for model in MODELS:
        write_json(world.folders.model(*model).dataset_json, card)

    selection = find_best(world.folders, three, MODELS, references=world.references, ensembles=False)

    assert math.isnan(selection.best.dice) and selection.best.title == "3d_fullres"
    assert "NaN" in world.folders.selection.read_text()


def test_model_folders_of_other_trainers_can_be_compared(world):
    model = world.folders.model(*MODELS[0])
    renamed = type(model)(model.folder.rename(model.folder.with_name("nnUNetTrainer_1epoch__nnUNetPlans__2d")))

    selection = world.best([renamed])

    assert selection.members[0].trainer == "nnUNetTrainer_1epoch"
    assert selection.best.title == "2d (nnUNetTrainer_1epoch)"


@pytest.mark.parametrize("content", ["{}", "[]", '{"folds": [0], "best_model_or_ensemble": 5, "all_results": {}}', "x"])
def test_files_that_are_no_selection_are_refused(tmp_path, content):
    (tmp_path / "inference_information.json").write_text(content)

    with pytest.raises(ModelError, match=r"inference_information\.json"):
        load_selection(tmp_path / "inference_information.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [("{}", "it has no best_model_or_ensemble"), ('{"best_model_or_ensemble": null}', "an entry is of another kind")],
)
def test_what_a_selection_lacks_is_told_in_words(tmp_path, content, words):
    (tmp_path / "inference_information.json").write_text(content)

    with pytest.raises(ModelError, match=rf"is not what model selection writes \({words}\)"):
        read_selected(tmp_path)
