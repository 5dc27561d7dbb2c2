"""Cases whose files are not those that a trained fold was made of are found, fold by fold."""

from __future__ import annotations

import os

import pytest

from NNSegmentLib import pipeline
from NNSegmentLib.folders import FoldFolder, TaskFolders, Workspace
from NNSegmentLib.provenance.corrected import corrected_cases
from NNSegmentLib.provenance.file_states import stamps_of
from NNSegmentLib.provenance.made_of import CaseFiles, MadeOf, save_made_of
from NNSegmentLib.records import write_json
from NNSegmentLib.task import Task

IDS = ("a", "b", "c")
BEGAN_S = 1_000_000


@pytest.fixture
def folders(tmp_path) -> TaskFolders:
    """A task of three cases, whose files are only looked at."""
    raw = tmp_path / "nnUNet_raw" / "Dataset501_Three"
    for path in [f"imagesTr/{n}_0000.nii.gz" for n in IDS] + [f"labelsTr/{n}.nii.gz" for n in IDS]:
        write(raw / path, 10, BEGAN_S - 100)
    card = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "box": 1}, "file_ending": ".nii.gz"}
    write_json(raw / "dataset.json", card | {"numTraining": len(IDS)})
    return Workspace.at(tmp_path).task("Dataset501_Three")


def write(path, size: int, time_s: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time_s, time_s))


def task_of(folders) -> Task:
    return pipeline.open_task(folders.raw)


def trained(folders, fold: int, noted: bool = True, began_s: float = BEGAN_S) -> FoldFolder:
    """What training leaves of a fold, made of the files as they are now."""
    model = folders.model("nnUNetPlans", "3d_fullres")
    run = model.fold(fold)
    write_json(model.plan, {})
    write(run.checkpoint_final, 1, began_s)
    if noted:
        files = tuple(CaseFiles(case.id, tuple(map(tuple, stamps_of(case)))) for case in task_of(folders).cases)
        save_made_of(MadeOf(IDS[1:], IDS[:1], files), run)
    return run


def labels(folders, case_id: str):
    return folders.raw / "labelsTr" / f"{case_id}.nii.gz"


def corrected(folders) -> tuple[str, ...]:
    return corrected_cases(folders, task_of(folders))


def test_nothing_is_corrected_while_nothing_is_trained_or_changed(folders):
    before = corrected(folders)
    trained(folders, 0)

    assert before == corrected(folders) == ()


@pytest.mark.parametrize(("size", "time_s"), [(10, BEGAN_S + 50), (11, BEGAN_S - 100), (10, BEGAN_S - 5000)])
def test_another_time_or_size_than_noted_counts_also_when_it_is_older(folders, size, time_s):
    trained(folders, 0)
    write(labels(folders, "b"), size, time_s)

    assert corrected(folders) == ("b",)


def test_a_fold_that_was_trained_later_does_not_speak_for_the_others(folders):
    trained(folders, 0)
    write(labels(folders, "b"), 11, BEGAN_S + 50)
    trained(folders, 1, began_s=BEGAN_S + 100)
    between = corrected(folders)
    trained(folders, 0, began_s=BEGAN_S + 200)

    assert (between, corrected(folders)) == (("b",), ())


def test_label_maps_that_came_before_a_noted_training_began_but_after_preparation_count(folders):
    trained(folders, 0, began_s=BEGAN_S + 100)
    write(labels(folders, "c"), 11, BEGAN_S)

    assert corrected(folders) == ("c",)


def test_a_run_without_a_note_has_seen_what_is_older_than_itself(folders):
    trained(folders, 0, noted=False)
    for case_id, seconds in (("a", -5000), ("b", 1), ("c", 5)):
        write(labels(folders, case_id), 11, BEGAN_S + seconds)

    assert corrected(folders) == ("c",)


def test_a_run_that_has_learnt_nothing_yet_and_files_that_are_gone_do_not_count(folders):
    run = trained(folders, 0)
    write(labels(folders, "b"), 11, BEGAN_S + 50)
    labels(folders, "c").unlink()
    with_weights = corrected(folders)
    run.checkpoint_final.unlink()

    assert (with_weights, corrected(folders)) == (("b",), ())
