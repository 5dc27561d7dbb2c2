"""Plans of data sets that exist only as numbers, against nnU-Net's worked examples and drop rules."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from NNSegmentLib import arguments, cli, lookup
from NNSegmentLib.errors import PlanError, SettingsError
from NNSegmentLib.fingerprint import Fingerprint
from NNSegmentLib.folders import TaskFolders, Workspace
from NNSegmentLib.labels import LabelSet
from NNSegmentLib.planning.plan import (
    CONFIGURATIONS,
    IntensityStats,
    save_plan,
)
from NNSegmentLib.planning.planner import make_plan
from NNSegmentLib.planning.presets import PRESETS, SMALL_PATCH_VOXELS_2D, SMALL_PATCH_VOXELS_3D
from NNSegmentLib.task import Case, Channel, Task

STATS = IntensityStats(
    mean=40.0, std=50.0, min=-500.0, max=900.0, median=41.0, percentile_00_5=-90.0, percentile_99_5=170.0
)
HIPPOCAMPUS = dict(shape=(36, 50, 35), spacing=(1, 1, 1), n_labels=3, n_cases=260)
LIVER = dict(shape=(482, 512, 512), spacing=(1, 0.7676, 0.7676), n_labels=3, n_cases=131)
BRATS = dict(shape=(140, 171, 137), spacing=(1, 1, 1), n_labels=4, n_cases=484)
HEART = dict(shape=(18, 237, 208), spacing=(5, 1.5625, 1.5625), n_labels=4, n_cases=200)
PROSTATE = dict(shape=(20, 320, 319), spacing=(3.6, 0.625, 0.625), n_labels=3, n_cases=32)


def a_task(n_labels=3, n_cases=40, channels=("MRI",), ending=".nii.gz", reader=""):
    labels = {"background": 0} | {f"label {i}": i for i in range(1, n_labels)}
    label_set = LabelSet.from_dataset_json({"labels": labels})
    names = tuple(Channel(name) for name in channels)
    return Task(Path("Dataset900_Numbers"), names, label_set, (), ending, n_cases, reader)


def a_fingerprint(shapes, spacings, n_channels=1, relative_size=1.0):
    return Fingerprint(tuple(shapes), tuple(spacings), (STATS,) * n_channels, relative_size)


def plan_of(shape, spacing, n_labels=3, n_cases=40, **settings):
    return make_plan(a_task(n_labels, n_cases), a_fingerprint([shape], [spacing]), **settings)


@pytest.mark.parametrize(
    ("data", "preset", "configuration", "patch", "batch"),
    [
        (HIPPOCAMPUS, "default", "3d_fullres", (40, 56, 40), 9),
        (HIPPOCAMPUS, "default", "2d", (56, 40), 366),
        (LIVER, "default", "3d_fullres", (128, 128, 128), 2),
        (LIVER, "default", "2d", (512, 512), 12),
        (LIVER, "resenc-m", "3d_fullres", (128, 128, 128), 2),
        (LIVER, "resenc-l", "3d_fullres", (192, 192, 192), 2),
        (LIVER, "resenc-l", "2d", (512, 512), 35),
        (LIVER, "resenc-xl", "3d_fullres", (224, 256, 224), 2),
        (LIVER, "resenc-xl", "2d", (512, 512), 52),
        (BRATS, "default", "3d_fullres", (128, 128, 128), 2),
        (BRATS, "default", "2d", (192, 160), 105),
        (BRATS, "resenc-m", "3d_fullres", (128, 128, 128), 2),
        (BRATS, "resenc-l", "3d_fullres", (160, 192, 160), 3),
        (BRATS, "resenc-xl", "3d_fullres", (160, 192, 160), 5),
        (HEART, "default", "3d_fullres", (20, 256, 224), 4),
        (HEART, "default", "2d", (256, 224), 56),
        (HEART, "resenc-m", "3d_fullres", (20, 256, 224), 3),
        (HEART, "resenc-l", "3d_fullres", (20, 256, 224), 10),
        (HEART, "resenc-xl", "3d_fullres", (20, 256, 224), 17),
        (PROSTATE, "default", "3d_fullres", (20, 320, 256), 2),
        (PROSTATE, "resenc-m", "3d_fullres", (20, 256, 256), 2),
        (PROSTATE, "resenc-l", "3d_fullres", (20, 320, 320), 5),
        (PROSTATE, "resenc-xl", "3d_fullres", (20, 320, 320), 8),
    ],
)
def test_patch_and_batch_equal_nnunets(data, preset, configuration, patch, batch):
    found = plan_of(**data, preset=preset).configuration(configuration)

    assert (found.patch_size, found.batch_size) == (patch, batch)


def test_the_liver_network_has_six_stages_in_3d_and_eight_in_2d():
    plan = plan_of(**LIVER)

    assert plan.configuration("3d_fullres").network.features == (32, 64, 128, 256, 320, 320)
    assert plan.configuration("2d").network.features == (32, 64, 128, 256, 512, 512, 512, 512)


def test_large_volumes_get_a_low_resolution_and_a_cascade():
    plan = plan_of(**LIVER)
    low, full, cascade = (plan.configuration(n) for n in ("3d_lowres", "3d_fullres", "3d_cascade_fullres"))

    assert [c.name for c in plan.configurations] == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    assert (low.batch_dice, full.batch_dice, cascade.batch_dice) == (False, True, True)
    assert (low.next_stage, cascade.previous_stage, cascade.inherits_from) == (
        "3d_cascade_fullres",
        "3d_lowres",
        "3d_fullres",
    )
    share = math.prod(low.patch_size) / math.prod(low.median_shape)
    assert share >= 0.25 > share / 1.03**3  # one step less would not have sufficed
    assert all(isinstance(n, int) for n in low.median_shape)
    steps = math.log(low.spacing_mm[1] / 0.7676, 1.03)
    assert steps == pytest.approx(round(steps), abs=1e-6) and steps > 1


def test_fine_axes_are_coarsened_before_a_coarse_one():
    low = plan_of((120, 700, 700), (5.0, 0.5, 0.5)).configuration("3d_lowres")

    assert low.spacing_mm[0] == 5.0
    assert 0.5 < low.spacing_mm[1] == low.spacing_mm[2] < 2.5


def test_an_axis_is_coarse_until_the_others_are_half_as_coarse():
    low = plan_of((300, 512, 512), (2.5, 1.0, 1.0)).configuration("3d_lowres")

    assert low.spacing_mm[0] > 2.5
    assert 2 / 1.03 < low.spacing_mm[0] / low.spacing_mm[1] <= 2


def test_volumes_that_fit_a_patch_get_neither():
    assert [c.name for c in plan_of(**HIPPOCAMPUS).configurations] == ["2d", "3d_fullres"]
    assert not plan_of(**HIPPOCAMPUS).configuration("3d_fullres").batch_dice


def test_a_low_resolution_with_hardly_fewer_voxels_is_dropped():
    plan = plan_of((200, 210, 210), (1, 1, 1))

    assert [c.name for c in plan.configurations] == ["2d", "3d_fullres"]
    assert "fewer voxels" in plan.reasons["3d_lowres"]


def test_planes_get_only_2d():
    plan = plan_of((1, 512, 512), (999, 1, 1), n_labels=2, n_cases=30)

    assert [(c.name, c.patch_size, c.batch_size) for c in plan.configurations] == [("2d", (512, 512), 2)]


def test_the_coarsest_axis_comes_first():
    plan = plan_of((200, 30, 210), (0.9, 4.0, 0.8))

    assert plan.transpose_forward == (1, 0, 2)
    assert plan.transpose_backward == (1, 0, 2)
    assert plan.configuration("3d_fullres").spacing_mm == (4.0, 0.9, 0.8)
    assert plan.configuration("2d").spacing_mm == (0.9, 0.8)
    assert plan.original_median_shape == (30, 200, 210)


def test_transposing_there_and_back_is_no_change():
    plan = plan_of((200, 210, 30), (0.9, 0.8, 4.0))

    assert plan.transpose_forward == (2, 0, 1)
    assert [plan.transpose_forward[axis] for axis in plan.transpose_backward] == [0, 1, 2]


def test_spacing_and_shape_are_medians_over_the_cases():
    shapes, spacings = [(30, 40, 50), (60, 40, 50), (40, 44, 54)], [(2, 1, 1), (1, 1, 1), (1.5, 1, 1)]

    plan = make_plan(a_task(), a_fingerprint(shapes, spacings))

    assert plan.configuration("3d_fullres").spacing_mm == (1.5, 1.0, 1.0)
    assert plan.configuration("3d_fullres").median_shape == (40.0, 40.0, 50.0)
    assert (plan.original_median_spacing_mm, plan.original_median_shape) == ((1.5, 1, 1), (40, 40, 50))


def test_few_thick_slices_take_the_tenth_percentile_of_their_distance():
    spacings = [(3.0 + 0.5 * i, 0.7, 0.7) for i in range(11)]

    plan = make_plan(a_task(), a_fingerprint([(20, 256, 256)] * 11, spacings))

    assert plan.configuration("3d_fullres").spacing_mm == (3.5, 0.7, 0.7)


def test_a_tenth_percentile_finer_than_the_other_axes_is_kept_just_above_them():
    spacings = [(0.5, 0.7, 0.7)] * 4 + [(6.0, 0.7, 0.7)] * 7

    plan = make_plan(a_task(), a_fingerprint([(20, 256, 256)] * 11, spacings))

    assert plan.configuration("3d_fullres").spacing_mm == pytest.approx((0.70001, 0.7, 0.7), abs=1e-9)


def test_many_thick_slices_keep_their_median_distance():
    spacings = [(3.0 + 0.5 * i, 0.7, 0.7) for i in range(11)]

    plan = make_plan(a_task(), a_fingerprint([(100, 256, 256)] * 11, spacings))

    assert plan.configuration("3d_fullres").spacing_mm == (5.5, 0.7, 0.7)


def test_a_given_spacing_overrides_the_rule_in_the_order_of_the_files():
    plan = plan_of((200, 30, 210), (0.9, 4.0, 0.8), spacing_mm=(1.0, 2.0, 1.5))

    assert plan.configuration("3d_fullres").spacing_mm == (2.0, 1.0, 1.5)
    assert "asked for" in plan.reasons["spacing"]


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, -1, 1), (1, float("nan"), 1), (1, 1, float("inf"))])
def test_an_impossible_spacing_is_refused(spacing):
    with pytest.raises(SettingsError, match="three positive numbers"):
        plan_of(**HIPPOCAMPUS, spacing_mm=spacing)


@pytest.mark.parametrize(
    ("spacing", "left"), [((100, 1, 1), "0 × 50 × 35"), ((1, 1, 1e-9), "36 × 50 × 3.5e"), ((1e-320, 1, 1), "inf × 50")]
)
def test_a_spacing_that_leaves_no_voxels_or_far_too_many_is_refused(spacing, left):
    with pytest.raises(SettingsError, match=rf"1 to 1,000,000 voxels along each axis, but .* would leave it {left}"):
        plan_of(**HIPPOCAMPUS, spacing_mm=spacing)


@pytest.mark.parametrize("shape", [(2, 5000, 5000), (5000, 1, 5000)])
def test_no_axis_of_a_thin_volume_vanishes_at_low_resolution(shape):
    low = plan_of(shape, (1, 1, 1)).configuration("3d_lowres")

    assert min(low.median_shape) == 1 and min(low.patch_size) == 1


def test_normalization_follows_the_name_of_the_channel():
    names = ("CT", "ct", "MRI", "noNorm", "rescale_to_0_1", "rgb_to_0_1", "zscore")

    plan = make_plan(a_task(channels=names), a_fingerprint([(36, 50, 35)], [(1, 1, 1)], 7, relative_size=0.5))

    assert [n.removesuffix("Normalization") for n in plan.configurations[0].normalization] == [
        "CT", "CT", "ZScore", "No", "RescaleTo01", "RGBTo01", "ZScore",
    ]  # fmt: skip
    assert plan.configurations[0].use_mask_for_norm == (False, False, True, False, False, False, True)


def test_the_mask_is_used_only_when_cropping_removes_more_than_a_quarter():
    plan = make_plan(a_task(), a_fingerprint([(36, 50, 35)], [(1, 1, 1)], relative_size=0.75))

    assert plan.configurations[0].use_mask_for_norm == (False,)


def test_the_mask_serves_the_channels_whose_normalisation_needs_one():
    fingerprint = a_fingerprint([(36, 50, 35)], [(1, 1, 1)], n_channels=2, relative_size=0.5)

    plan = make_plan(a_task(channels=("CT", "MRI")), fingerprint)

    assert plan.configurations[0].use_mask_for_norm == (False, True)
    assert "from the non-zero part only" in plan.reasons["mask"]


@pytest.mark.parametrize(
    ("ending", "shape", "named", "expected"),
    [
        (".nii.gz", (36, 50, 35), "", "SimpleITKIO"),
        (".nrrd", (36, 50, 35), "", "SimpleITKIO"),
        (".nii", (36, 50, 35), "", "NibabelIO"),
        (".tif", (36, 50, 35), "", "Tiff3DIO"),
        (".tif", (1, 50, 35), "", "NaturalImage2DIO"),
        (".tiff", (36, 50, 35), "", "Tiff3DIO"),
        (".png", (1, 50, 35), "", "NaturalImage2DIO"),
        (".nii.gz", (36, 50, 35), "NibabelIOWithReorient", "NibabelIOWithReorient"),
        (".nii.gz", (36, 50, 35), "SomebodysOwn", "SimpleITKIO"),
    ],
)
def test_the_reader_is_the_first_of_nnunets_that_fits(ending, shape, named, expected):
    task = a_task(ending=ending, reader=named)

    assert make_plan(task, a_fingerprint([shape], [(1, 1, 1)])).reader == expected


@pytest.mark.parametrize(("askew", "expected"), [(0.0, "SimpleITKIO"), (5e-4, "NibabelIO"), (0.2, "NibabelIO")])
def test_a_reader_that_refuses_the_first_image_is_not_chosen(tmp_path, askew, expected):
    affine = np.eye(4)
    affine[0, 1] = askew
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4), np.int16), affine), tmp_path / "a_0000.nii.gz")
    task = replace(a_task(), cases=(Case("a", (tmp_path / "a_0000.nii.gz",)),))

    assert make_plan(task, a_fingerprint([(36, 50, 35)], [(1, 1, 1)])).reader == expected


def test_an_unknown_file_ending_is_refused():
    with pytest.raises(PlanError, match=".jpg"):
        make_plan(a_task(ending=".jpg"), a_fingerprint([(36, 50, 35)], [(1, 1, 1)]))


def test_more_memory_gives_larger_patches_and_less_gives_smaller():
    patches = [
        math.prod(plan_of(**LIVER, gpu_memory_gb=gb).configuration("3d_fullres").patch_size) for gb in (4, 8, 24)
    ]

    assert patches[0] < patches[1] < patches[2]
    assert plan_of(**LIVER, gpu_memory_gb=8) == plan_of(**LIVER)


@pytest.mark.parametrize("memory_gb", [0, -8, float("nan"), float("inf"), 1e308])
def test_memory_must_be_a_positive_number(memory_gb):
    with pytest.raises(SettingsError, match="positive number of GB up to 100,000"):
        plan_of(**LIVER, gpu_memory_gb=memory_gb)


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(SettingsError, match="resenc-xl, small"):
        plan_of(**LIVER, preset="huge")


@pytest.mark.parametrize("data", [HIPPOCAMPUS, LIVER, BRATS, HEART, PROSTATE])
def test_the_small_preset_stays_small(data):
    plan = plan_of(**data, preset="small")

    for configuration in plan.configurations:
        most = SMALL_PATCH_VOXELS_2D if configuration.is_2d else SMALL_PATCH_VOXELS_3D
        assert math.prod(configuration.patch_size) <= most
        assert 8 <= configuration.network.features[0] <= 16
        assert configuration.is_2d or 2 <= configuration.batch_size <= 4
    assert plan.name == "nnUNetSmallPlans"


@pytest.mark.parametrize("preset", [preset.name for preset in PRESETS])
def test_presets_share_the_prepared_cases_of_equal_grids(preset):
    plan = plan_of(**LIVER, preset=preset)

    assert plan.configuration("2d").data_identifier == "nnUNetPlans_2d"
    assert plan.configuration("3d_fullres").data_identifier == "nnUNetPlans_3d_fullres"
    assert plan.configuration("3d_cascade_fullres").data_identifier == "nnUNetPlans_3d_fullres"
    assert plan.configuration("3d_lowres").data_identifier == f"{plan.name}_3d_lowres"


def test_another_spacing_gets_prepared_cases_of_its_own():
    plan = plan_of(**LIVER, preset="small", spacing_mm=(2, 2, 2))

    assert plan.configuration("3d_fullres").data_identifier == "nnUNetSmallPlans_3d_fullres"


def test_a_plan_can_have_a_name_of_its_own():
    plan = plan_of(**HIPPOCAMPUS, name="mine")

    assert plan.name == "mine"
    assert plan.configuration("2d").data_identifier == "mine_2d"


NO_PLANS_NAMES = ["", ".", "..", ".hidden", "../evil", "a/b", "a\\b", "/tmp/evil", "my plans", "a\n", "C:evil",
                  "my__plans", "splits_final", "dataset"]  # fmt: skip


@pytest.mark.parametrize("name", NO_PLANS_NAMES)
def test_a_plans_name_that_is_no_plain_file_name_is_refused(name):
    with pytest.raises(SettingsError, match="A plans name should consist of letters, digits"):
        plan_of(**HIPPOCAMPUS, name=name)


@pytest.mark.parametrize("name", ["nnUNetPlans", "mine_2.1-b", "_", "Prüfung"])
def test_plain_plans_names_are_taken(name):
    assert plan_of(**HIPPOCAMPUS, name=name).name == name


@pytest.mark.parametrize("name", NO_PLANS_NAMES)
def test_no_plan_or_model_is_looked_for_outside_of_the_tasks_folders(tmp_path, name):
    folders = TaskFolders(Workspace.at(tmp_path), "Dataset900_Numbers", tmp_path)
    for model in (folders.model("nnUNetPlans", "2d"), folders.model("../evil", "2d")):
        save_plan(plan_of(**HIPPOCAMPUS), model.plan)
    save_plan(plan_of(**HIPPOCAMPUS), folders.plan("../evil"))

    with pytest.raises(SettingsError, match="A plans name should"):
        lookup.plan_of(folders, name)
    with pytest.raises(SettingsError, match="A plans name should"):
        lookup.model_of("900", None, folders.workspace, "2d", name, None, None)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-p", "../evil"), "A plans name should"),
        (("--spacing", "1", "-1", "1"), "A spacing is three positive numbers"),
        (("--spacing", "nan", "1", "1"), "A spacing is three positive numbers"),
        (("--gpu-memory", "nan"), "The graphics memory should be a positive number"),
    ],
)
def test_settings_that_no_task_can_be_planned_with_are_refused_before_it_is_measured(tmp_path, capsys, words, sentence):
    assert cli.main(["plan", "7", "--workspace", str(tmp_path), *words]) == 2

    refused = capsys.readouterr().err
    assert refused.startswith(f"nnsegment: {sentence}") and refused.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_command_line_offers_the_presets_and_configurations_that_there_are():
    assert tuple(preset.name for preset in PRESETS) == arguments.PRESETS
    assert arguments.CONFIGURATIONS == CONFIGURATIONS


def test_images_too_small_for_any_network_are_refused():
    with pytest.raises(PlanError, match="too small"):
        plan_of((5, 6, 7), (1, 1, 1))


def test_images_that_can_be_halved_once_are_not_called_too_small():
    plan = plan_of((12, 12, 12), (1, 1, 1))

    assert [c.network.n_stages for c in plan.configurations] == [2, 2]
    assert "too small" not in plan.reasons["2d"] + plan.reasons["3d_fullres"]


def test_a_single_small_case_gets_batches_of_two():
    assert plan_of((40, 40, 40), (1, 1, 1), n_cases=1).configuration("3d_fullres").batch_size == 2


def test_a_fingerprint_of_other_channels_is_refused():
    with pytest.raises(PlanError, match="2 channels but its fingerprint 1"):
        make_plan(a_task(channels=("T1", "T2")), a_fingerprint([(36, 50, 35)], [(1, 1, 1)]))


def test_an_empty_fingerprint_is_refused():
    with pytest.raises(PlanError, match="every case"):
        make_plan(a_task(), a_fingerprint([], []))


@pytest.mark.parametrize("preset", [preset.name for preset in PRESETS])
def test_every_decision_has_one_sentence(preset):
    plan = plan_of(**LIVER, preset=preset)

    expected = {"preset", "transpose", "spacing", "normalization", "mask"} | {c.name for c in plan.configurations}
    stages = ("2d", "3d_lowres", "3d_fullres")
    expected |= {f"{name}.{what}" for name in stages for what in ("patch_size", "batch_size", "network")}
    assert set(plan.reasons) == expected
    for sentence in plan.reasons.values():
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert sentence.endswith(".") and "\n" not in sentence
