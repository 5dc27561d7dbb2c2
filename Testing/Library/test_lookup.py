"""Which model the words of a prediction mean."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from task_on_disk import nnunet_v2

from NNSegmentLib import pipeline
from NNSegmentLib.errors import PlanError, RunError, SettingsError, TaskError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.lookup import folders_of, model_of, model_place, plan_of
from NNSegmentLib.task import load_task

SMALL = "nnUNetSmallPlans"


@pytest.fixture
def folders(tmp_path):
    """A task with models of two plans, of which the default one was selected."""
    nnunet_v2(tmp_path / "nnUNet_raw" / "Dataset501_Blocks", n_cases=5)
    found = pipeline.folders_of(501, tmp_path)
    for preset in ("default", "small"):
        made = pipeline.plan(501, tmp_path, preset=preset)
        add_model(found, made.name, "3d_fullres")
    select(found, "nnUNetPlans")
    return found


def add_model(folders, plans: str, configuration: str) -> None:
    model = folders.model(plans, configuration)
    model.fold(0).folder.mkdir(parents=True)
    shutil.copy(folders.plan(plans), model.plan)
    shutil.copy(folders.raw / "dataset.json", model.dataset_json)
    model.fold(0).checkpoint_final.write_bytes(b"weights")


def select(folders, plans: str, postprocessing: Path | str = "") -> None:
    name = {"trainer": "nnUNetTrainer", "plans_identifier": plans, "configuration": "3d_fullres"}
    best = {"selected_model_or_models": [name], "postprocessing_file": str(postprocessing)}
    folders.selection.write_text(json.dumps({"folds": [0], "best_model_or_ensemble": best}))


def chosen(folders, plans=None, preset=None) -> str:
    return model_of(501, None, folders.workspace, None, plans, preset, None).parts[0].folder.name


def test_the_selected_model_is_meant_unless_a_plan_is_named(folders):
    assert chosen(folders) == "nnUNetTrainer__nnUNetPlans__3d_fullres"
    assert chosen(folders, plans=SMALL) == f"nnUNetTrainer__{SMALL}__3d_fullres"
    assert chosen(folders, preset="small") == f"nnUNetTrainer__{SMALL}__3d_fullres"


def test_of_several_models_of_a_plan_the_selected_one_is_meant(folders):
    add_model(folders, SMALL, "2d")
    with pytest.raises(SettingsError, match=r"several models \(2d, 3d_fullres\); choose one with -c"):
        chosen(folders, plans=SMALL)

    select(folders, SMALL)

    assert chosen(folders, plans=SMALL) == f"nnUNetTrainer__{SMALL}__3d_fullres"


def test_the_only_model_of_a_plan_keeps_the_post_processing_that_was_selected_with_it(folders):
    rules = folders.results / "rules.json"
    rules.write_text("[]")
    select(folders, SMALL, rules)

    for named in ({}, {"plans": SMALL}, {"preset": "small"}):
        asked = {"plans": None, "preset": None} | named
        assert model_of(501, None, folders.workspace, None, **asked, folds=None).postprocessing == rules

    other = model_of(501, None, folders.workspace, None, "nnUNetPlans", None, None)
    assert (other.parts[0].plan.name, other.postprocessing) == ("nnUNetPlans", None)


def test_a_selection_of_another_plan_need_not_be_complete(folders):
    shutil.rmtree(folders.model("nnUNetPlans", "3d_fullres").folder)

    assert chosen(folders, plans=SMALL) == f"nnUNetTrainer__{SMALL}__3d_fullres"


@pytest.mark.parametrize("as_given", [str, Path, load_task])
def test_a_task_that_is_pointed_at_is_worked_on_where_it_lies(tmp_path, monkeypatch, as_given):
    raw = nnunet_v2(tmp_path / "elsewhere" / "nnUNet_raw" / "Dataset501_Blocks")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))

    assert folders_of(as_given(raw)).workspace == Workspace.at(tmp_path / "elsewhere")
    assert folders_of(as_given(raw), tmp_path / "named").workspace == Workspace.at(tmp_path / "named")
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    assert folders_of(as_given(raw)).results == tmp_path / "results" / "Dataset501_Blocks"


@pytest.mark.parametrize("raw_is", ["linked", "elsewhere", "not named"])
def test_folders_that_the_environment_names_are_used_wherever_the_task_lies(tmp_path, monkeypatch, raw_is):
    raw = nnunet_v2(tmp_path / "data" / "nnUNet_raw" / "Dataset501_Blocks")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    named = {"linked": tmp_path / "link" / "nnUNet_raw", "elsewhere": tmp_path / "other", "not named": ""}[raw_is]
    for key, value in {"raw": named, "preprocessed": tmp_path / "fast", "results": tmp_path / "results"}.items():
        monkeypatch.setenv(f"nnUNet_{key}", str(value))

    found = folders_of(raw)

    assert (found.preprocessed, found.results) == (
        tmp_path / "fast" / "Dataset501_Blocks", tmp_path / "results" / "Dataset501_Blocks"
    )  # fmt: skip
    assert found.raw == raw


def test_a_task_without_a_name_is_no_path(tmp_path):
    with pytest.raises(TaskError, match="There is no task"):
        folders_of("", tmp_path)


@pytest.mark.parametrize("name", ["missing.zip", "missing.pth"])
def test_a_missing_model_file_is_not_taken_for_a_task(tmp_path, name):
    assert model_place(name, tmp_path) == Path(name)


def test_a_name_wins_over_the_preset_whose_plan_was_given_it(folders):
    assert plan_of(folders, "nnUNetPlans", "small").name == "nnUNetPlans"


def test_a_plan_without_a_model_is_told(folders):
    with pytest.raises(RunError, match="no trained model of the plan mine, but of nnUNetPlans, nnUNetSmallPlans"):
        chosen(folders, plans="mine")


DAMAGED = ["", "{}", "[]", "null", '{"plans_name": 3']


@pytest.mark.parametrize("is_nnunets", [False, True], ids=["ours", "nnU-Net's"])
@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_plan_that_was_written_last_is_named_and_no_older_one_taken(folders, content, is_nnunets):
    small = folders.plan(SMALL)
    small.write_text(content)
    if is_nnunets:
        small.with_suffix(".reasons").unlink()
    os.utime(folders.plan("nnUNetPlans"), (0, 0))

    with pytest.raises(PlanError, match=rf"{SMALL}\.json is (not valid JSON|no nnU-Net v2 plans file)"):
        plan_of(folders)


def test_a_damaged_plan_that_is_older_than_the_last_does_not_matter(folders):
    folders.plan(SMALL).write_text("{}")
    os.utime(folders.plan(SMALL), (0, 0))

    assert plan_of(folders).name == "nnUNetPlans"


@pytest.mark.parametrize("content", [*DAMAGED, '{"transpose_forward": [0, 0, 0]}'])
def test_planning_again_takes_the_place_of_a_damaged_plan_which_is_kept(folders, content):
    path, said = folders.plan("nnUNetPlans"), []
    before = path.read_text()
    kept = [path.with_name("nnUNetPlans.json.damaged"), path.with_name("nnUNetPlans.json.damaged2")]

    for damaged in (content, "damaged again"):
        path.write_text(damaged)
        pipeline.plan(501, folders.workspace, say=said.append)

    assert path.read_text() == before
    assert [file.read_text() for file in kept] == [content, "damaged again"]
    assert [sentence.rsplit(" ", 1)[1] for sentence in said] == [f"{file}." for file in kept]
    assert plan_of(folders, "nnUNetPlans").name == "nnUNetPlans"


def test_a_plan_that_cannot_be_read_for_a_moment_stays_where_it_is(folders, monkeypatch):
    path, read = folders.plan("nnUNetPlans"), Path.read_text
    before = path.read_text()

    def held(file, **options):
        if file == path:
            raise PermissionError(13, "a virus scanner has it open")
        return read(file, **options)

    monkeypatch.setattr(Path, "read_text", held)
    with pytest.raises(PlanError, match="virus scanner"):
        pipeline.plan(501, folders.workspace)

    monkeypatch.undo()
    assert path.read_text() == before
    assert not list(path.parent.glob("*.damaged*"))


def test_planning_again_mends_damaged_reasons_and_keeps_configurations_written_by_hand(folders):
    path = folders.plan("nnUNetPlans")
    values = json.loads(path.read_text())
    values["configurations"]["mine"] = {"inherits_from": "3d_fullres", "batch_size": 3}
    path.write_text(json.dumps(values))
    path.with_suffix(".reasons").write_text("{")

    pipeline.plan(501, folders.workspace)

    assert plan_of(folders, "nnUNetPlans").configuration("mine").batch_size == 3


@pytest.fixture
def tasks(tmp_path):
    """A workspace with tasks of several names."""
    workspace = Workspace.at(tmp_path)
    for name in ("Dataset004_Heart", "Dataset501_Mem", "Dataset502_Twin", "Dataset503_Twin", "Dataset504_501"):
        (workspace.raw / name).mkdir(parents=True)
    return workspace


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("Mem", "Dataset501_Mem"),
        ("Dataset501_Mem", "Dataset501_Mem"),
        (501, "Dataset501_Mem"),
        ("004", "Dataset004_Heart"),
        ("Dataset503_Twin", "Dataset503_Twin"),
    ],
)
def test_a_task_is_found_by_number_and_by_name_with_or_without_it(tasks, reference, name):
    assert tasks.task(reference).name == name


def test_a_digit_that_is_no_number_names_no_task(tasks):
    with pytest.raises(TaskError, match="There is no task ²"):
        tasks.task("²")


def test_a_name_that_several_tasks_have_is_refused_with_their_names(tasks):
    with pytest.raises(TaskError, match="one task Twin, found Dataset502_Twin, Dataset503_Twin; give the whole name"):
        tasks.task("Twin")
    with pytest.raises(TaskError, match="no task Tw in .* make one with 'nnsegment convert'"):
        tasks.task("Tw")
