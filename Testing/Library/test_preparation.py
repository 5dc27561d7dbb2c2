"""Preparing the cases of a task: what is done again, by whom, and when not."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from task_on_disk import PLAIN, blocks, edit_json, nnunet_v2, noise

from NNSegmentLib import pipeline
from NNSegmentLib.errors import PlanError, RunError, TaskError
from NNSegmentLib.exchange import list_models
from NNSegmentLib.image import read_labels, write_image, write_labels
from NNSegmentLib.lookup import cases_in_no_fold
from NNSegmentLib.machine.locks import only_one_in
from NNSegmentLib.model import find_model_folders
from NNSegmentLib.preprocessing.storage import PreparedStore, prepared_files
from NNSegmentLib.training.setup import at_work, training_request

CONFIGURATION = "3d_fullres"
FINER_MM = (1.5, 0.6, 0.6)


@pytest.fixture
def workspace(tmp_path) -> Path:
    """A planned task of six cases."""
    nnunet_v2(tmp_path / "nnUNet_raw" / "Dataset501_Blocks", n_cases=6)
    pipeline.plan(501, tmp_path)
    return tmp_path


def raw(workspace: Path) -> Path:
    return workspace / "nnUNet_raw" / "Dataset501_Blocks"


def folder_of(workspace: Path) -> Path:
    folders = pipeline.folders_of(501, workspace)
    return folders.prepared(pipeline.plan_of(folders).configuration(CONFIGURATION).data_identifier)


def prepare(workspace: Path, **more):
    (done,) = pipeline.preprocess(501, workspace, configurations=[CONFIGURATION], **more)
    return done


def add_case(workspace: Path, n: int) -> None:
    write_image(raw(workspace) / "imagesTr" / f"case{n}_0000.nii.gz", noise(n), PLAIN)
    write_labels(raw(workspace) / "labelsTr" / f"case{n}.nii.gz", blocks(), PLAIN)
    edit_json(raw(workspace) / "dataset.json", numTraining=n + 1)


def train_nothing(workspace: Path, fold: int):
    """A fold with weights, as far as its folder tells."""
    request = training_request(501, CONFIGURATION, fold, workspace)
    request.folder.folder.mkdir(parents=True, exist_ok=True)
    request.folder.checkpoint_final.touch()
    return request


def test_only_what_is_missing_is_prepared(workspace, monkeypatch):
    assert prepare(workspace).computed == 6
    monkeypatch.setattr("NNSegmentLib.preparation.one_after_another_in", _interrupt)  # the folder may be read-only
    assert prepare(workspace).computed == 0


def test_what_cannot_be_prepared_is_left_out_with_a_word_unless_it_is_named(workspace):
    plans, said = pipeline.folders_of(501, workspace).preprocessed / "nnUNetPlans.json", []
    values = json.loads(plans.read_text())
    own = values["configurations"][CONFIGURATION]
    values["configurations"]["mine"] = own | {"architecture": own["architecture"] | {"network_class_name": "my.Net"}}
    plans.write_text(json.dumps(values))

    done = pipeline.preprocess(501, workspace, say=said.append)

    assert {one.configuration for one in done} == {"2d", CONFIGURATION}
    assert [text for text in said if text.startswith("mine is not prepared. The plan asks for the network Net")]
    with pytest.raises(PlanError, match="the network Net"):
        pipeline.preprocess(501, workspace, configurations=["mine"])


def test_a_corrected_label_counts_whatever_its_date(workspace, tmp_path):
    folder = prepare(workspace).folder
    before = read_labels(raw(workspace) / "labelsTr" / "case0.nii.gz")
    corrected = tmp_path / "corrected.nii.gz"
    write_labels(corrected, np.where(before.array == 1, 2, 0), PLAIN)
    yesterday = time.time() - 86400
    os.utime(corrected, (yesterday, yesterday))
    shutil.copy2(corrected, raw(workspace) / "labelsTr" / "case0.nii.gz")

    assert prepare(workspace).computed == 1

    assert not (PreparedStore(folder).open("case0").labels == 1).any()
    copy = pipeline.folders_of(501, workspace).reference_labels / "case0.nii.gz"
    assert not (read_labels(copy).array == 1).any()
    assert prepare(workspace).computed == 0


@pytest.mark.parametrize("step", [100, 10_000_000, 2_000_000_000])
def test_cases_that_moved_to_a_disk_with_a_coarser_clock_are_not_prepared_again(workspace, step):
    prepare(workspace)
    for path in raw(workspace).glob("*Tr/*"):
        os.utime(path, ns=(0, path.stat().st_mtime_ns // step * step))

    assert prepare(workspace).computed == 0


@pytest.mark.parametrize(
    ("before_ns", "after_ns"),
    [
        pytest.param(1_700_000_000_123_456_700, 1_700_000_000_623_456_700, id="within a second"),
        pytest.param(1_700_000_001_000_000_000, 1_700_000_000_000_000_000, id="whole seconds out of an archive"),
    ],
)
def test_another_file_of_the_same_size_that_is_hardly_younger_or_older_counts(workspace, before_ns, after_ns):
    path = raw(workspace) / "labelsTr" / "case0.nii.gz"
    os.utime(path, ns=(0, before_ns))
    prepare(workspace)
    os.utime(path, ns=(0, after_ns))

    assert prepare(workspace).computed == 1


@pytest.mark.parametrize("note", ["null", "[]", "[[], []]", "[[1], [2]]", '[["a", 2], 3]'])
def test_a_damaged_note_of_a_cases_files_is_written_again(workspace, note):
    (prepare(workspace).folder / "case0.made_of").write_text(note)

    assert [prepare(workspace).computed for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("part", range(4))
def test_following_the_advice_about_a_damaged_prepared_file_prepares_its_case_again(workspace, part):
    store = PreparedStore(prepare(workspace).folder)
    path = prepared_files(store.folder, "case0")[part]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TaskError, match=rf"{path.name}.*; delete that file and run 'nnsegment preprocess' again"):
        store.open("case0")
    path.unlink()

    assert prepare(workspace).computed == 1

    assert store.open("case0").foreground


def test_folders_that_network_storage_lays_beside_prepared_cases_are_left_alone(workspace):
    folder = prepare(workspace).folder
    (folder / "@eaDir").mkdir()
    pipeline.plan(501, workspace, spacing_mm=FINER_MM)

    assert prepare(workspace).computed == 6

    assert (folder / "@eaDir").is_dir()


def test_files_dated_in_the_future_are_prepared_once(workspace):
    later = time.time() + 86400
    for path in raw(workspace).glob("*Tr/*"):
        os.utime(path, (later, later))

    assert [prepare(workspace).computed for _ in range(2)] == [6, 0]


def test_a_case_whose_preparation_was_interrupted_is_prepared_again(workspace, monkeypatch):
    prepare(workspace)
    edited = raw(workspace) / "imagesTr" / "case3_0000.nii.gz"
    write_image(edited, noise(99), PLAIN)
    monkeypatch.setattr("NNSegmentLib.preprocessing.storage.np.savez", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(workspace)
    monkeypatch.undo()

    assert prepare(workspace).computed == 1


def _interrupt(*_, **__):
    raise KeyboardInterrupt


def test_two_processes_prepare_one_after_the_other(workspace):
    folder = folder_of(workspace)
    said, done = [], []
    second = threading.Thread(target=lambda: done.append(prepare(workspace, say=said.append)))
    with only_one_in(folder):
        second.start()
        while not said:
            time.sleep(0.01)
        assert not done
    second.join(30)

    assert done[0].computed == 6
    assert "Another run works in" in said[0]


def test_cases_that_are_trained_on_are_not_prepared_for_another_plan(workspace):
    request = train_nothing(workspace, 0)
    files = sorted(request.prepared.iterdir())
    pipeline.plan(501, workspace, spacing_mm=FINER_MM)

    with only_one_in(request.folder.folder), pytest.raises(RunError, match="fold_0 .* wait for it, or stop it"):
        prepare(workspace)

    assert sorted(request.prepared.iterdir()) == files
    said = []
    assert prepare(workspace, say=said.append).computed == 6
    assert any("prepared anew for the plan nnUNetPlans: they were" in text for text in said)


def test_cases_that_are_trained_on_after_a_wait_for_them_are_not_prepared_for_another_plan(workspace):
    request = train_nothing(workspace, 0)
    files = sorted(request.prepared.iterdir())
    pipeline.plan(501, workspace, spacing_mm=FINER_MM)
    said, refused = [], []

    def prepare_for_the_new_plan():
        try:
            prepare(workspace, say=said.append)
        except RunError as error:
            refused.append(str(error))

    second = threading.Thread(target=prepare_for_the_new_plan)
    with only_one_in(request.folder.folder):
        with only_one_in(request.prepared):  # as the training that is about to begin prepares its cases
            request.folder.folder.joinpath("running.json").rename(waiting := workspace / "not yet")
            second.start()
            while not any("Waiting" in text for text in said):
                time.sleep(0.01)
            waiting.rename(request.folder.folder / "running.json")
        second.join(30)

    assert refused and "fold_0" in refused[0]
    assert sorted(request.prepared.iterdir()) == files
    with at_work(request):
        pass


@pytest.mark.parametrize("change", ["prepared for another plan", "set aside"])
def test_a_run_does_not_begin_with_what_changed_while_its_cases_were_prepared(workspace, change):
    request = train_nothing(workspace, 0)
    pipeline.plan(501, workspace, spacing_mm=FINER_MM, anew=change == "set aside")
    if change != "set aside":
        prepare(workspace)

    with pytest.raises(RunError, match=f"{change}.* start it"), at_work(request):
        pass


def test_a_run_does_not_begin_with_cases_that_are_being_deleted(workspace, monkeypatch):
    request, refused = train_nothing(workspace, 0), []
    pipeline.plan(501, workspace, spacing_mm=FINER_MM)

    def begin_meanwhile(path):
        path.unlink(missing_ok=True)
        if not refused:
            with pytest.raises(RunError, match="plan Dataset501_Blocks -p NAME") as raised, at_work(request):
                pass
            refused.append(raised)

    monkeypatch.setattr("NNSegmentLib.preparation.remove", begin_meanwhile)

    assert prepare(workspace).computed == 6
    assert refused


def test_nnunets_own_arrays_lie_elsewhere(workspace):
    """It takes its folder to hold files of one format."""
    theirs = pipeline.folders_of(501, workspace).preprocessed / folder_of(workspace).stem
    theirs.mkdir()
    (theirs / "case0.b2nd").touch()

    prepare(workspace)

    assert [path.name for path in theirs.iterdir()] == ["case0.b2nd"]


@pytest.mark.parametrize("content", ["[]", "null"])
def test_a_damaged_note_of_the_settings_is_written_again(workspace, content):
    folder = prepare(workspace).folder
    (folder / "prepared_for.json").write_text(content)

    assert prepare(workspace).computed == 6


# cases that come and go


def test_new_cases_are_measured_and_come_into_the_folds(workspace):
    add_case(workspace, 6)
    said = []

    pipeline.plan(501, workspace, say=said.append)

    folders, task = pipeline.folders_of(501, workspace), pipeline.open_task(501, workspace)
    assert any("measured anew" in text for text in said)
    assert any("folds were made; they are made anew" in text for text in said)
    assert {facts.id for facts in pipeline.extract_fingerprint(501, workspace).cases} == {f"case{n}" for n in range(7)}
    assert {case_id for fold in pipeline.folds_of(folders, task) for case_id in fold.validation} == {
        case.id for case in task.cases
    }


def test_new_cases_that_trained_folds_lack_are_named(workspace):
    train_nothing(workspace, 0)
    folders = pipeline.folders_of(501, workspace)
    before = folders.splits.read_text()
    add_case(workspace, 6)
    said = []

    training_request(501, CONFIGURATION, 1, workspace, say=said.append)

    assert (
        "1 case of Dataset501_Blocks (case6) are in no fold and are not trained on; begin again with all cases "
        "with 'nnsegment plan Dataset501_Blocks --anew'"
    ) in " ".join(said)
    assert cases_in_no_fold(folders, pipeline.open_task(501, workspace)) == ("case6",)
    assert folders.splits.read_text() == before


def test_folds_are_not_made_anew_under_a_training_that_has_just_begun(workspace):
    request = training_request(501, CONFIGURATION, 0, workspace)
    splits = pipeline.folders_of(501, workspace).splits
    before = splits.read_text()
    add_case(workspace, 6)

    with only_one_in(request.folder.folder):
        pipeline.plan(501, workspace)

    assert splits.read_text() == before


def test_folds_of_somebodys_own_are_kept(workspace):
    splits = pipeline.folders_of(501, workspace).splits
    splits.write_text(json.dumps([{"train": ["case0", "case1"], "val": ["case2"]}]))
    said = []

    training_request(501, CONFIGURATION, 0, workspace, say=said.append)

    assert json.loads(splits.read_text()) == [{"train": ["case0", "case1"], "val": ["case2"]}]
    assert "3 cases of Dataset501_Blocks (case3, case4, case5) are in no fold" in " ".join(said)
    assert f"add them to {splits}" in " ".join(said)


def test_nobody_is_told_to_begin_again_where_that_would_not_change_the_folds(workspace):
    train_nothing(workspace, 0)
    splits, said = pipeline.folders_of(501, workspace).splits, []
    splits.write_text(json.dumps([{"train": ["case0", "case1"], "val": ["case2"]}]))

    training_request(501, CONFIGURATION, 0, workspace, say=said.append)

    assert f"add them to {splits}" in " ".join(said)
    assert "--anew" not in " ".join(said)


# beginning again


def test_beginning_again_takes_all_cases_and_keeps_the_models(workspace):
    request = train_nothing(workspace, 0)
    add_case(workspace, 6)
    said = []

    pipeline.plan(501, workspace, anew=True, say=said.append)

    folders, task = pipeline.folders_of(501, workspace), pipeline.open_task(501, workspace)
    (kept,) = list_models(workspace)
    assert kept.folder.parents[2] == workspace / "nnUNet_results" / "earlier"
    assert kept.folder.name == request.model_folder.folder.name
    assert kept.set_aside == kept.folder.parents[1].name
    assert f"The models that were trained so far are kept in {kept.folder.parent}." in said
    assert folders.models() == ()
    assert find_model_folders(workspace / "nnUNet_results") == []  # whoever points there means the present models
    assert cases_in_no_fold(folders, task) == ()
    assert {facts.id for facts in pipeline.extract_fingerprint(501, workspace).cases} == {f"case{n}" for n in range(7)}
    assert training_request(501, CONFIGURATION, 0, workspace).fold_name == 0


def test_planning_again_measures_other_channels_and_tells_of_younger_files(workspace):
    said, later = [], time.time() + 60
    os.utime(raw(workspace) / "labelsTr" / "case0.nii.gz", (later, later))

    pipeline.plan(501, workspace, say=said.append)

    assert any(
        "of 1 case (case0) are younger than their measurement" in text
        and "'nnsegment plan Dataset501_Blocks --clean'" in text
        for text in said
    )

    for path in sorted((raw(workspace) / "imagesTr").iterdir()):
        shutil.copy(path, path.with_name(path.name.replace("_0000", "_0001")))
    edit_json(raw(workspace) / "dataset.json", channel_names={"0": "MR", "1": "CT"})

    assert pipeline.plan(501, workspace, say=said.append).configuration(CONFIGURATION).normalization[1:] == (
        "CTNormalization",
    )
    assert any("channels of Dataset501_Blocks are others than those that were measured" in text for text in said)


def test_beginning_again_measures_corrected_labels(workspace):
    before = pipeline.extract_fingerprint(501, workspace)
    write_labels(raw(workspace) / "labelsTr" / "case0.nii.gz", np.roll(blocks(), 3, axis=1), PLAIN)

    pipeline.plan(501, workspace, anew=True)

    assert pipeline.extract_fingerprint(501, workspace).intensities != before.intensities


def test_beginning_again_waits_for_a_training(workspace):
    request = train_nothing(workspace, 0)
    fingerprint = pipeline.folders_of(501, workspace).fingerprint
    fingerprint.unlink()

    with only_one_in(request.folder.folder), pytest.raises(RunError, match="wait for it, or stop it first"):
        pipeline.plan(501, workspace, anew=True)

    assert request.folder.checkpoint_final.is_file()
    assert not fingerprint.exists()  # refused before anything was measured


def test_a_comparison_is_waited_for(workspace):
    train_nothing(workspace, 0)
    results, said, ended = pipeline.folders_of(501, workspace).results, [], []

    def compare():
        try:
            pipeline.best(501, workspace, say=said.append)
        except RunError as error:
            ended.append(str(error))

    second = threading.Thread(target=compare)
    with only_one_in(results):
        second.start()
        while not said:
            assert second.is_alive()
            time.sleep(0.01)
        assert not ended
        with pytest.raises(RunError, match="wait for it, or stop it first"):
            pipeline.plan(501, workspace, anew=True)
        with pytest.raises(RunError, match="wait for it, or stop it first"):
            pipeline.predict(raw(workspace) / "imagesTr", workspace / "out", workspace, task=501)
    second.join(30)

    assert "Waiting for it." in said[0] and "validated yet" in ended[0]
    assert not list(results.glob("running.json"))


def test_beginning_again_twice_keeps_both(workspace):
    for _ in range(2):
        train_nothing(workspace, 0)
        pipeline.plan(501, workspace, anew=True)

    assert len({entry.set_aside for entry in list_models(workspace)}) == 2


def test_a_report_alone_is_nothing_to_set_aside(workspace):
    report = pipeline.folders_of(501, workspace).results / "report.html"
    report.parent.mkdir(parents=True)
    report.touch()

    pipeline.plan(501, workspace, anew=True)

    assert report.is_file()


# the plan of a trained model


def test_a_trained_fold_keeps_its_plan_when_it_goes_on(workspace):
    request = train_nothing(workspace, 0)
    described = request.model_folder.plan.read_bytes()
    pipeline.plan(501, workspace, spacing_mm=FINER_MM)

    again = training_request(501, CONFIGURATION, 0, workspace, resume=True)

    assert again.wanted == request.wanted
    assert request.model_folder.plan.read_bytes() == described


@pytest.mark.parametrize("change", ["plan", "labels"])
def test_folds_of_two_plans_do_not_share_a_model(workspace, change):
    request = train_nothing(workspace, 0)
    described = request.model_folder.plan.read_bytes(), request.model_folder.dataset_json.read_bytes()
    if change == "plan":
        pipeline.plan(501, workspace, spacing_mm=FINER_MM)
    else:
        edit_json(raw(workspace) / "dataset.json", labels={"background": 0, "left": 1, "other": 2})

    with pytest.raises(PlanError, match=f"{change}.* changed since the folds in .* plan Dataset501_Blocks --anew"):
        training_request(501, CONFIGURATION, 1, workspace)

    assert (request.model_folder.plan.read_bytes(), request.model_folder.dataset_json.read_bytes()) == described
    replaced = training_request(501, CONFIGURATION, 0, workspace)  # the only fold may be trained anew
    assert replaced.plan == pipeline.plan_of(pipeline.folders_of(501, workspace))
    assert (request.model_folder.plan.read_bytes(), request.model_folder.dataset_json.read_bytes()) != described


def test_more_cases_that_change_no_network_are_no_other_plan(workspace):
    train_nothing(workspace, 0)
    add_case(workspace, 6)
    pipeline.plan(501, workspace)

    assert training_request(501, CONFIGURATION, 1, workspace).fold_name == 1
