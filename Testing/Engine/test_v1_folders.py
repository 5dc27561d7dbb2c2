"""Version-1 models wherever the user points, and files that do not fit, are damaged or want to run code."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from version_1 import GRID, image, model_folder, network, plan, stage_plan, write_fold, write_model

from NNSegmentLib.engine.predictor import Predictor
from NNSegmentLib.errors import ModelError
from NNSegmentLib.exchange import export_model, import_model
from NNSegmentLib.model import load_model
from NNSegmentLib.model.card import read_card
from NNSegmentLib.model.version_1 import is_v1_folder


def test_a_model_is_found_from_every_depth(tmp_path):
    folder = write_model(tmp_path / "results", folds=("fold_0", "fold_1"))
    first = folder / "fold_0"

    for place in (tmp_path, tmp_path / "results", folder.parents[2], folder.parents[1], folder.parent, folder):
        found = load_model(place)
        assert (found.folder, found.configurations) == (folder, ("3d_fullres",))
        assert [m.fold for m in found.members] == [0, 1]
    for place in (first, first / "model_final_checkpoint.model", first / "model_final_checkpoint.model.pkl"):
        assert [m.fold for m in load_model(place).members] == [0]
    assert [m.fold for m in load_model(folder, folds=[1]).members] == [1]


def test_the_fold_trained_on_everything_is_called_all(tmp_path):
    folder = write_model(tmp_path, folds=("all",))

    assert [m.fold for m in load_model(folder).members] == ["all"]
    assert [m.fold for m in load_model(folder / "all").members] == ["all"]
    write_model(tmp_path, folds=("fold_0",))
    assert [m.fold for m in load_model(folder).members] == [0]
    assert [m.fold for m in load_model(folder, folds=["all"]).members] == ["all"]


def test_unfinished_models_use_their_best_checkpoint(tmp_path):
    values = plan()
    folder = write_model(tmp_path, values)
    write_fold(folder / "fold_1", network(values), values, name="model_best")

    assert [m.fold for m in load_model(folder).members] == [0]
    both = load_model(folder, folds=[0, 1]).members
    assert [m.checkpoint.name for m in both] == ["model_final_checkpoint.model", "model_best.model"]
    assert [m.fold for m in load_model(folder, checkpoint="model_best.model").members] == [1]


def test_several_models_need_a_choice(tmp_path):
    write_model(tmp_path)
    write_model(tmp_path, plan([stage_plan(patch=(16, 16))]), "2d")

    with pytest.raises(ModelError, match="several models .*choose a configuration"):
        load_model(tmp_path)
    assert load_model(tmp_path, "2d").configurations == ("2d",)
    with pytest.raises(ModelError, match="no trained configuration 3d_lowres"):
        load_model(tmp_path, "3d_lowres")
    shutil.copytree(model_folder(tmp_path), model_folder(tmp_path, task="Task005_Other"))
    with pytest.raises(ModelError, match="several data sets .*Task004_Tiny, Task005_Other"):
        load_model(tmp_path)


def test_a_folder_moved_elsewhere_still_knows_what_it_is(tmp_path):
    folder = write_model(tmp_path / "a", plan([stage_plan(patch=(16, 16))]), "2d").rename(tmp_path / "mine")

    assert load_model(folder).configurations == ("2d",)
    with pytest.raises(ModelError, match="no configuration 3d_fullres; it is a 2d"):
        load_model(folder, "3d_fullres")


def test_a_zip_of_version_1_is_a_model(tmp_path):
    folder = write_model(tmp_path / "results")
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path / "results" / "nnUNet"))

    assert load_model(tmp_path / "model.zip").configurations == ("3d_fullres",)
    assert read_card(tmp_path / "model.zip").channels == ("MRI",)


@pytest.mark.parametrize("kind", ["zip", "onnx", "torchscript"])
def test_version_1_is_not_exported_as_version_2(tmp_path, kind):
    folder = write_model(tmp_path / "results")

    with pytest.raises(ModelError, match="is a model of nnU-Net v1, which predicts here but is not exported"):
        export_model(folder, tmp_path / "out", kind)

    assert not (tmp_path / "out").exists()


def test_a_zip_of_version_1_needs_no_import(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("3d_fullres/Task004_Tiny/nnUNetTrainerV2__nnUNetPlansv2.1/plans.pkl", b"")

    with pytest.raises(ModelError, match=r"needs no import, predict with -m model\.zip"):
        import_model(tmp_path / "model.zip", tmp_path)


def test_old_plans_without_kernels_pool_late_and_use_kernels_of_three(tmp_path):
    of_stage = stage_plan(patch=(8, 16, 16), pools=[[1, 2, 2], [2, 2, 2]], kernels=[[3, 3, 3]] * 3)
    values = plan([of_stage])
    folder = write_model(tmp_path, values)
    del of_stage["pool_op_kernel_sizes"], of_stage["conv_kernel_sizes"]
    del values["transpose_forward"], values["conv_per_stage"]
    (folder / "plans.pkl").write_bytes(pickle.dumps(values))

    spec = load_model(folder).parts[0].configuration.network

    assert spec.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2))
    assert spec.kernel_sizes == ((3, 3, 3),) * 3
    assert Predictor(load_model(folder), device="cpu").predict(image()).labels.shape == GRID.shape


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plans_of_every_pickle_protocol_are_read(tmp_path, protocol):
    folder = write_model(tmp_path, plan(modalities=["CT"], schemes=["CT"]))
    (folder / "plans.pkl").write_bytes(pickle.dumps(plan(modalities=["CT"], schemes=["CT"]), protocol))

    model = load_model(folder)

    assert model.plan.intensities[0].percentile_99_5 == 90.0
    assert model.parts[0].configuration.patch_size == (16, 16, 16)


def test_wrapped_networks_and_distributed_trainers_are_read(tmp_path):
    values = plan([stage_plan(patch=(8, 8, 8), spacing=(2.0, 2.0, 2.0)), stage_plan()])
    folder = write_model(tmp_path, values, "3d_lowres", trainer="nnUNetTrainerV2_DDP", stage=0)
    write_fold(folder / "fold_0", network(values), values, 0, "nnUNetTrainerV2_DDP", prefix="module.")

    model = load_model(folder)

    assert model.configurations == ("3d_lowres",)
    assert Predictor(model, device="cpu").predict(image()).labels.shape == GRID.shape


@pytest.mark.parametrize("place", ["", ".."])
def test_a_dataset_json_beside_the_model_names_the_labels(tmp_path, place):
    folder = write_model(tmp_path)
    assert [label.name for label in load_model(folder).label_set.foreground] == ["label 1", "label 2"]

    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    (folder / place / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert [label.name for label in load_model(folder).label_set.foreground] == ["Anterior", "Posterior"]

    (folder / place / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "one"}}))
    assert [label.name for label in load_model(folder).label_set.foreground] == ["label 1", "label 2"]


TRAINERS = [
    *("nnUNetTrainerV2", "nnUNetTrainer", "nnUNetTrainerV2CascadeFullRes", "nnUNetTrainerV2_DDP"),
    *("nnUNetTrainerV2_Loss_DiceCE_noSmooth", "nnUNetTrainerV2_noMirroring_copy2", "nnUNetTrainerV2_momentum09in2D"),
    *("nnUNetTrainerV2BraTSRegions_DDP", "nnUNetTrainerV2_SGD_lr1en1", "nnUNetTrainerCE", "nnUNetTrainerV2_insaneDA"),
]
FOREIGN = [
    *("nnUNetTrainerV2_BN", "nnUNetTrainerV2_ReLU", "nnUNetTrainerV2_ResencUNet", "nnUNetTrainerV2_DA3_BN"),
    *("nnUNetTrainerV2_3ConvPerStage", "nnUNetTrainerV2_GeLU", "mine", "", "nnUNetTrainerV2_Mish", "os.system"),
]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trainers_with_the_plans_network_are_known(tmp_path, trainer):
    stages = [stage_plan(patch=(8, 8, 8)), stage_plan()]
    assert load_model(write_model(tmp_path, plan(stages), trainer=trainer, stage=1)).members


@pytest.mark.parametrize("trainer", FOREIGN)
def test_other_trainers_are_refused_by_name(tmp_path, trainer):
    folder = write_model(tmp_path)
    write_fold(folder / "fold_0", network(plan()), plan(), None, trainer)

    with pytest.raises(ModelError, match=repr(trainer) + ".*supported are"):
        load_model(folder)


def without(name):
    return lambda state: state.pop(name)


def another(name, *shape):
    return lambda state: state.update({name: torch.zeros(shape)})


FOREIGN_WEIGHTS = {
    "batch norm": (
        another("conv_blocks_context.0.blocks.0.instnorm.running_mean", 4),
        r"conv_blocks_context\.0\.blocks\.0\.instnorm normalises over the batch",
    ),
    "residual": (another("encoder.stages.0.blocks.0.conv1.weight", 4), "encoder.stages.0.* does not belong to Generic"),
    "deeper": (another("conv_blocks_context.2.0.blocks.0.conv.weight", 4), "conv_blocks_context.2.* has no place in"),
    "missing": (without("tu.0.weight"), "the layer tu.0 of the Generic_UNet .* is not there"),
    "kernel": (
        another("conv_blocks_localization.0.0.blocks.0.conv.weight", 4, 8, 1, 3, 3),
        r"conv_blocks_localization\.0\.0\.blocks\.0\.conv\.weight has the shape \(4, 8, 1, 3, 3\), .* \(4, 8, 3, 3, 3\)",
    ),
    "classes": (another("seg_outputs.0.weight", 5, 4, 1, 1, 1), r"seg_outputs\.0\.weight has the shape \(5,"),
}


@pytest.mark.parametrize("name", FOREIGN_WEIGHTS)
def test_a_network_that_does_not_fit_is_named_by_its_layer(tmp_path, name):
    spoil, sentence = FOREIGN_WEIGHTS[name]
    folder = write_model(tmp_path)
    path = folder / "fold_0" / "model_final_checkpoint.model"
    values = torch.load(path, weights_only=False)
    spoil(values["state_dict"])
    torch.save(values, path)

    with pytest.raises(ModelError, match=sentence) as refused:
        Predictor(load_model(folder), device="cpu")

    assert "\n" not in str(refused.value)


class Runs:
    """Unpickling one of these leaves a file behind."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("field", [*plan(), *(f"stage {key}" for key in stage_plan())])
def test_code_in_any_field_of_the_plans_does_not_run(tmp_path, field, protocol):
    folder = write_model(tmp_path)
    values = plan()
    where = values["plans_per_stage"][0] if field.startswith("stage ") else values
    where[field.removeprefix("stage ")] = Runs(tmp_path / "ran")
    (folder / "plans.pkl").write_bytes(pickle.dumps(values, protocol))

    with pytest.raises(ModelError, match="source you trust"):
        load_model(folder)

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("field", ["init", "name", "class", "plans"])
def test_code_in_the_description_of_a_checkpoint_does_not_run(tmp_path, field):
    path = write_model(tmp_path) / "fold_0" / "model_final_checkpoint.model.pkl"
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()) | {field: Runs(tmp_path / "ran")}))

    with pytest.raises(ModelError, match="source you trust"):
        load_model(tmp_path)

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("field", ["epoch", "state_dict", "plot_stuff", "best_stuff", "optimizer_state_dict"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, field):
    path = write_model(tmp_path) / "fold_0" / "model_final_checkpoint.model"
    torch.save(torch.load(path, weights_only=False) | {field: Runs(tmp_path / "ran")}, path)

    with pytest.raises(ModelError, match="source you trust"):
        Predictor(load_model(tmp_path), device="cpu")

    assert not (tmp_path / "ran").exists()


def laughs() -> list:
    """A few bytes that would be a billion numbers if anything walked through them."""
    value: list = [1] * 10
    for _ in range(30):
        value = [value] * 10
    return value


def in_stage(key, value):
    return lambda values: values["plans_per_stage"][0].update({key: value})


def in_plan(key, value):
    return lambda values: values.update({key: value})


WRONG_PLANS = [
    *(in_plan("plans_per_stage", v) for v in ([], {}, 3, {"x": 1}, {0: stage_plan(), 1: stage_plan(), 2: stage_plan()})),
    *(in_plan("modalities", v) for v in ({}, {0: laughs()}, {0: "x" * 10**6}, None, {0: "CT", "a": "b"})),
    *(in_plan("normalization_schemes", v) for v in ({}, {0: laughs()}, laughs())),
    *(in_plan("use_mask_for_norm", v) for v in (None, {1: True})),
    *(in_plan("transpose_forward", v) for v in ([0, 0, 1], [0, 1], "abc", laughs(), [0, 1, 7])),
    *(in_plan("dataset_properties", v) for v in (None, {"intensityproperties": {0: {}}}, {"intensityproperties": 1})),
    *(in_plan("base_num_features", v) for v in ("32", -4, 0, 10**400, float("nan"), laughs())),
    *(in_plan("conv_per_stage", v) for v in (0, 1, 10**9, "2")),
    *(in_plan("all_classes", v) for v in (None, [-1], laughs())),
    *(in_stage("patch_size", v) for v in (np.array([0, 0, 0]), [16] * 4, [15.5] * 3, np.array([10**9] * 3), "16", [])),
    *(in_stage("current_spacing", v) for v in ([0, 0, 0], [np.nan] * 3, [-1.0, 1, 1], [1.0], np.array([np.inf] * 3))),
    *(in_stage("pool_op_kernel_sizes", v) for v in ([], [[2, 2]], [[2] * 3] * 10**5, [[0] * 3], [[10**9] * 3], laughs())),
    *(in_stage("conv_kernel_sizes", v) for v in ([[3] * 3], [[5] * 3] * 2, [[3, 3]] * 2, [[0] * 3] * 2, None)),
    lambda values: values.clear(),
    lambda values: values["plans_per_stage"].update({0: [1]}),
    lambda values: values["plans_per_stage"][0].pop("patch_size"),
]  # fmt: skip


@pytest.mark.parametrize("spoil", WRONG_PLANS)
def test_plans_with_impossible_values_are_refused_in_one_sentence(tmp_path, spoil):
    folder = write_model(tmp_path)
    values = plan()
    spoil(values)
    (folder / "plans.pkl").write_bytes(pickle.dumps(values))

    with pytest.raises(ModelError) as refused:
        Predictor(load_model(folder), device="cpu")

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
    assert not re.search(r"NoneType|\b(str|int|float|tuple|indices|unhashable)\b", str(refused.value))


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:40]),
                                    lambda p: p.write_bytes(pickle.dumps([1])), lambda p: p.write_bytes(pickle.dumps({"name": "nnUNetTrainerV2"})),
                                    lambda p: p.write_bytes(pickle.dumps({"name": "nnUNetTrainerV2", "init": (1, 2)})),
                                    lambda p: p.write_bytes(pickle.dumps({"name": "nnUNetTrainerV2", "init": (1,) * 5 + ("x",)})),
                                    lambda p: p.write_bytes(pickle.dumps({"name": "nnUNetTrainerV2", "init": (1,) * 5 + (7,)}))])  # fmt: skip
def test_a_damaged_description_is_refused_in_one_sentence(tmp_path, damage):
    damage(write_model(tmp_path) / "fold_0" / "model_final_checkpoint.model.pkl")

    with pytest.raises(ModelError) as refused:
        load_model(tmp_path)

    assert "\n" not in str(refused.value)


def test_a_folder_with_plans_but_no_fold_is_no_model(tmp_path):
    folder = write_model(tmp_path)
    shutil.rmtree(folder / "fold_0")

    assert not is_v1_folder(folder)
    with pytest.raises(ModelError, match="expected plans.json.* or plans.pkl"):
        load_model(tmp_path)
