"""What a cascade trains on: predictions of its first stage as it is trained now, of cases that it never saw."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from NNSegmentLib.errors import TaskError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.folds import Fold, save_folds
from NNSegmentLib.provenance.file_states import stamps_of
from NNSegmentLib.provenance.made_of import CaseFiles
from NNSegmentLib.provenance.predicted_by import StageInput, Weights, note_stage_input
from NNSegmentLib.task import Case
from NNSegmentLib.training.previous_stage import previous_stage_of

NEXT = "3d_cascade_fullres"
FOLDS = (Fold(("b",), ("a",)), Fold(("a",), ("b",)))
PLAN = SimpleNamespace(name="nnUNetPlans", configuration=lambda name: SimpleNamespace(previous_stage="3d_lowres"))


class FirstStage:
    """Checkpoints of a first stage, and the inputs that its folds wrote."""

    def __init__(self, root) -> None:
        self.folders = Workspace.at(root).task("Dataset501_Two")
        self.model = self.folders.model(PLAN.name, "3d_lowres")
        save_folds(FOLDS, self.folders.splits)
        self.cases = [Case(name, (root / f"{name}_0000.nii.gz",), root / f"{name}.nii.gz") for name in "ab"]
        for path in (path for case in self.cases for path in (*case.images, case.labels)):
            path.write_bytes(b"first")

    def trained(self, fold, content: bytes) -> None:
        path = self.model.fold(fold).checkpoint_final
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def wrote(self, fold, case_id: str) -> None:
        path, folder = self.model.fold(fold).weights, self.model.next_stage(NEXT)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{case_id}.npy").touch()
        held_out = fold != "all" and case_id not in FOLDS[fold].train
        (case,) = (case for case in self.cases if case.id == case_id)
        files = CaseFiles(case_id, tuple(map(tuple, stamps_of(case))))
        note_stage_input(StageInput(Weights.of(path, fold, 10), files, held_out), folder)

    def input(self):
        return previous_stage_of(self.folders, SimpleNamespace(cases=self.cases), PLAN, NEXT, FOLDS[0])


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "nnUNet_raw" / "Dataset501_Two").mkdir(parents=True)
    made = FirstStage(tmp_path)
    for fold, case_id in enumerate("ab"):
        made.trained(fold, b"first")
        made.wrote(fold, case_id)
    return made


def test_the_input_of_a_cascade_is_what_the_folds_wrote(stage):
    assert stage.input() == stage.model.next_stage(NEXT)


def weights(stage) -> None:
    stage.trained(1, b"trained again")


def images(stage) -> None:
    stage.cases[1].images[0].write_bytes(b"another image")


@pytest.mark.parametrize("replace", [weights, images])
def test_a_cascade_does_not_begin_with_predictions_by_weights_or_of_images_that_were_replaced(stage, replace):
    replace(stage)

    with pytest.raises(
        TaskError, match=r"1 case \(b\) .*'nnsegment validate Dataset501_Two 3d_lowres 1 -p nnUNetPlans'"
    ):
        stage.input()

    stage.wrote(1, "b")
    assert stage.input()


def test_corrected_labels_do_not_count_as_no_prediction_sees_them(stage):
    stage.cases[1].labels.write_bytes(b"corrected labels")

    assert stage.input()


def test_a_cascade_does_not_take_weights_that_saw_a_case_where_others_did_not(stage):
    stage.trained("all", b"all")
    stage.wrote("all", "a")

    with pytest.raises(
        TaskError, match=r"1 case \(a\) .*'nnsegment validate Dataset501_Two 3d_lowres 0 -p nnUNetPlans'"
    ):
        stage.input()

    stage.model.fold(0).checkpoint_final.unlink()
    assert stage.input()


def test_inputs_of_earlier_versions_are_taken_as_they_are(stage):
    (stage.model.next_stage(NEXT) / "b.json").unlink()
    stage.trained(1, b"trained again")

    assert stage.input()


def test_missing_inputs_are_named(stage):
    (stage.model.next_stage(NEXT) / "b.npy").unlink()

    with pytest.raises(TaskError, match=r"missing for 1 cases \(b\); train all folds of 3d_lowres first"):
        stage.input()
