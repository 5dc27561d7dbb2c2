"""nnU-Net's plans file: what is written is read again, and what cannot be used is told by its entry."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from test_planner import HEART, HIPPOCAMPUS, LIVER, PROSTATE, plan_of

from NNSegmentLib.errors import PlanError
from NNSegmentLib.planning.plan import (
    load_plan,
    plan_from_json,
    plan_to_json,
    save_plan,
    with_configurations,
)
from NNSegmentLib.planning.presets import PRESETS


def test_one_number_stands_for_all_stages_or_axes_of_a_network():
    plan = plan_of(**HIPPOCAMPUS)
    short = plan_to_json(plan)
    network = short["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    network |= {"kernel_sizes": 3, "strides": [1, 2, 2, 2], "n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2}

    assert plan_from_json(short).configuration("3d_fullres").network == plan.configuration("3d_fullres").network


def test_a_plan_with_a_cascade_survives_writing_and_reading(tmp_path):
    plan = plan_of(**LIVER)

    save_plan(plan, tmp_path / "nnUNetPlans.json")

    assert load_plan(tmp_path / "nnUNetPlans.json") == plan
    assert list(plan_to_json(plan)["configurations"]["3d_lowres"])[-2:] == ["batch_dice", "next_stage"]


@pytest.mark.parametrize("reasons", ["[]", "5", '{"patch": [1]}', '"x"'])
def test_reasons_that_are_no_sentences_are_refused(tmp_path, reasons):
    save_plan(plan_of(**LIVER), tmp_path / "nnUNetPlans.json")
    (tmp_path / "nnUNetPlans.reasons").write_text(reasons)

    with pytest.raises(PlanError, match=r"nnUNetPlans\.reasons should give a sentence for every decision"):
        load_plan(tmp_path / "nnUNetPlans.json")


CASCADE = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


def test_an_untouched_cascade_is_written_with_two_keys():
    assert plan_to_json(plan_of(**LIVER))["configurations"]["3d_cascade_fullres"] == CASCADE


@pytest.mark.parametrize(
    ("name", "edited"),
    [
        ("3d_cascade_fullres", CASCADE | {"batch_size": 7, "patch_size": [32, 64, 96]}),
        ("mine", {"inherits_from": "3d_fullres", "batch_size": 7}),
        ("mine", {"inherits_from": "3d_cascade_fullres", "previous_stage": None, "batch_dice": False}),
        ("mine", {"inherits_from": "3d_lowres", "next_stage": "3d_cascade_fullres", "spacing": [2.0, 2.0, 2.0]}),
    ],
    ids=["cascade", "no cascade", "no cascade of a cascade", "first stage"],
)
def test_what_a_configuration_changes_of_its_parent_survives_writing_and_reading(tmp_path, name, edited):
    values = spoiled(plan_to_json(plan_of(**LIVER)), "configurations", **{name: edited})
    plan = plan_from_json(values)

    save_plan(plan, tmp_path / "nnUNetPlans.json")

    assert load_plan(tmp_path / "nnUNetPlans.json") == plan
    assert json.loads((tmp_path / "nnUNetPlans.json").read_text())["configurations"][name] == edited


def test_a_configuration_whose_parent_is_not_in_the_plan_is_written_whole():
    plan = plan_of(**LIVER)
    cascade = plan.configuration("3d_cascade_fullres")

    read = plan_from_json(plan_to_json(replace(plan, configurations=(cascade,))))

    assert read.configurations == (replace(cascade, inherits_from=""),)


def test_what_a_configuration_inherits_follows_the_new_plan():
    before = plan_from_json(spoiled(plan_to_json(plan_of(**LIVER)), "configurations", mine=CASCADE | {"batch_size": 7}))
    made = plan_of(**LIVER, preset="small")

    plan = with_configurations(made, before, ["mine"])
    mine, full = plan.configuration("mine"), plan.configuration("3d_fullres")

    assert plan.configurations[:-1] == made.configurations and plan.reasons == made.reasons
    assert mine == replace(full, name="mine", batch_size=7, **CASCADE)


def test_a_configuration_whose_parent_the_new_plan_lacks_stays_as_it_is():
    low = {"inherits_from": "3d_lowres", "batch_size": 7}
    before = plan_from_json(spoiled(plan_to_json(plan_of(**LIVER)), "configurations", mine=low))

    mine = with_configurations(plan_of(**HIPPOCAMPUS), before, ["mine"]).configuration("mine")

    assert mine == replace(before.configuration("mine"), inherits_from="")


def spoiled(values: dict, *path: str, **changes) -> dict:
    """A copy of a plan's JSON with entries changed at a path of keys; None takes an entry out."""
    copied = json.loads(json.dumps(values))
    place = copied
    for key in path:
        place = place[key]
    place.update(changes)
    for key in [key for key, value in changes.items() if value is None]:
        del place[key]
    return copied


FULL = ("configurations", "3d_fullres")


@pytest.mark.parametrize(
    ("path", "changes", "sentence"),
    [
        ((), {"plans_name": None}, "the entry plans_name of the file should be a text, found none"),
        ((), {"transpose_forward": "012"}, "the entry transpose_forward of the file should be a list, found '012'"),
        ((), {"transpose_forward": [0, 1, "z"]}, "the entry transpose_forward of the file should be 0, 1 and 2"),
        ((), {"transpose_forward": [0, 0, 0]}, "the entry transpose_forward .* in some order, found '.0, 0, 0.'"),
        ((), {"transpose_forward": [0, 1]}, "the entry transpose_forward of the file should be 0, 1 and 2"),
        (FULL[:1], {"3d_fullres": "x"}, "the configuration 3d_fullres should be a JSON object, found 'x'"),
        (FULL, {"patch_size": None}, "the entry patch_size of the configuration .* should be a list, found none"),
        ((*FULL, "architecture"), {"arch_kwargs": 3}, "an entry of the configuration 3d_fullres is of another kind"),
        (
            (*FULL, "architecture", "arch_kwargs"),
            {"strides": "x"},
            "an entry of the configuration 3d_fullres is of another kind than it should be",
        ),
        ((*FULL, "architecture"), {"arch_kwargs": None}, "the entry arch_kwargs of the configuration .* is missing"),
        ((), {"plans_name": "../mine"}, "the entry plans_name should have no '/', .* found '../mine'"),
        (FULL, {"data_identifier": "C:\\cases"}, "the entry data_identifier should have no '/', .* found 'C:"),
        (FULL, {"inherits_from": "mine"}, "configuration 3d_fullres inherits from mine, which is missing"),
        (FULL, {"inherits_from": "3d_fullres"}, "configurations inherit in a circle"),
    ],
)
def test_a_file_that_is_no_plan_is_told_by_the_entry_that_is_wrong(tmp_path, path, changes, sentence):
    values = plan_to_json(plan_of(**LIVER))
    (tmp_path / "plans.json").write_text(json.dumps(spoiled(values, *path, **changes)))

    with pytest.raises(PlanError, match=f"plans.json is no nnU-Net v2 plans file: {sentence}.*; copy it again"):
        load_plan(tmp_path / "plans.json")


ARCHITECTURE = (*FULL, "architecture", "arch_kwargs")


@pytest.mark.parametrize(
    ("path", "changes", "sentence"),
    [
        (
            FULL,
            {"patch_size": [120, 128, 128]},
            r"patch_size .* divisible by .* strides, 32 × 32 × 32, found \[120, 12",
        ),
        (FULL, {"patch_size": [0, 0, 0]}, r"patch_size .* 2 or 3 whole numbers from 1 on, found \[0, 0, 0\]"),
        (FULL, {"patch_size": [-24, 24, 24]}, r"patch_size .* found \[-24, 24, 24\]"),
        (FULL, {"patch_size": [31.5, 32, 32]}, r"patch_size .* found \[31.5, 32, 32\]"),
        (FULL, {"patch_size": [32]}, r"patch_size .* 2 or 3 whole numbers from 1 on, found \[32\]"),
        (
            FULL,
            {"spacing": [0, 0, 0]},
            r"spacing .* 3 numbers above 0, one for each axis of the patch, found \[0, 0, 0\]",
        ),
        (FULL, {"spacing": [float("nan"), 1, 1]}, r"spacing .* found \[nan, 1, 1\]"),
        (FULL, {"spacing": [1, 1]}, r"spacing .* found \[1, 1\]"),
        (FULL, {"spacing": [1, -1, 1]}, r"spacing .* found \[1, -1, 1\]"),
        (FULL, {"spacing": ["x", 1, 1]}, "spacing .* found .'x', 1, 1"),
        (FULL, {"median_image_size_in_voxels": [float("nan")] * 3}, r"median_image_size_in_voxels .* found \[nan, "),
        (FULL, {"normalization_schemes": [3]}, r"normalization_schemes .* texts, found \[3\]"),
        (FULL, {"batch_size": 2.5}, "batch_size .* a whole number from 1 on, found 2.5"),
        (FULL, {"batch_size": 0}, "batch_size .* a whole number from 1 on, found 0"),
        (FULL, {"batch_size": -3}, "batch_size .* found -3"),
        (FULL, {"batch_size": float("nan")}, "batch_size .* found nan"),
        (ARCHITECTURE, {"kernel_sizes": 2}, r"kernel_sizes .* odd numbers, .* found \[\[2, 2, 2\]"),
        (ARCHITECTURE, {"kernel_sizes": -3}, "network .* has kernels below 1"),
        (ARCHITECTURE, {"strides": 0}, "network .* has strides below 1"),
        (ARCHITECTURE, {"features_per_stage": [32, 64]}, "network .* has 2 stages of features, but 6 of kernels"),
        (ARCHITECTURE, {"features_per_stage": 0}, "network .* has features below 1"),
        (ARCHITECTURE, {"n_stages": 0}, "a network of 0 stages"),
        (ARCHITECTURE, {"n_conv_per_stage": 0}, "network .* has blocks below 1"),
    ],
)
def test_a_configuration_of_impossible_numbers_is_told_by_its_entry_and_spoils_no_other(
    tmp_path, path, changes, sentence
):
    values = plan_to_json(plan_of(**LIVER))
    (tmp_path / "plans.json").write_text(json.dumps(spoiled(values, *path, **changes)))

    plan = load_plan(tmp_path / "plans.json")

    assert plan.configuration("2d") == plan_of(**LIVER).configuration("2d")
    with pytest.raises(PlanError, match=sentence) as refused:
        plan.configuration("3d_fullres")
    if path == FULL:
        assert f"{tmp_path / 'plans.json'}: the entry" in str(refused.value)
        assert "of the configuration 3d_fullres" in str(refused.value)


@pytest.mark.parametrize("preset", [preset.name for preset in PRESETS])
@pytest.mark.parametrize("data", [HIPPOCAMPUS, LIVER, HEART, PROSTATE, dict(shape=(1, 512, 512), spacing=(999, 1, 1))])
def test_every_configuration_that_is_planned_is_read_again(data, preset):
    plan = plan_of(**data, preset=preset)

    read = plan_from_json(plan_to_json(plan))

    assert read == replace(plan, reasons={})


def test_every_plan_and_model_of_nnunet_is_sound(peer):
    files = [*peer.glob("plans/*/*Plans*.json"), *peer.glob("models/*/*/plans.json")]

    assert len(files) >= 15
    assert not [plan.unsupported for plan in map(load_plan, files) if plan.unsupported]


def test_a_configuration_that_does_not_fit_the_new_plan_it_inherits_is_not_lost_without_a_word():
    mine = {"inherits_from": "3d_fullres", "patch_size": [48, 56, 48]}
    before = plan_from_json(spoiled(plan_to_json(plan_of(**HIPPOCAMPUS)), "configurations", mine=mine))

    with pytest.raises(PlanError, match="the entry patch_size of the configuration mine should be divisible by"):
        with_configurations(plan_of(**LIVER), before, ["mine"])
