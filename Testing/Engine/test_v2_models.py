"""Models of every nnU-Net v2: plans old and new, regions, ignore labels, re-orienting readers, and what is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_predictor import GRID, configuration, image, write_model

from NNSegmentLib.cli import main
from NNSegmentLib.engine.predictor import Predictor
from NNSegmentLib.errors import InputError, ModelError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import Image, read_labels, write_image
from NNSegmentLib.model import load_model
from NNSegmentLib.planning.plan import NetworkSpec, load_plan
from NNSegmentLib.predicting.files import FileRequest, predict_files
from NNSegmentLib.task import Case

RESIDUAL = NetworkSpec("ResidualEncoderUNet", (4, 8), ((3, 3, 3),) * 2, ((1, 1, 1), (2, 2, 2)), (1, 2), (1,))


def edit_plan(folder: Path, change: Callable[[dict], object]) -> Path:
    values = json.loads((folder / "plans.json").read_text())
    change(values)
    (folder / "plans.json").write_text(json.dumps(values))
    return folder


def predicted(folder: Path, picture: Image | None = None) -> np.ndarray:
    found = Predictor(load_model(folder), device="cpu").predict(picture or image(), want_probabilities=True)
    return found.probabilities


def old_flat_keys(values: dict) -> None:
    """The plan as nnU-Net v2.0 to v2.2 wrote it."""
    for c in values["configurations"].values():
        architecture = c.pop("architecture")
        kwargs = architecture["arch_kwargs"]
        blocks = kwargs.get("n_conv_per_stage") or kwargs["n_blocks_per_stage"]
        c |= {
            "UNet_class_name": architecture["network_class_name"].rsplit(".", 1)[-1],
            "UNet_base_num_features": kwargs["features_per_stage"][0],
            "n_conv_per_stage_encoder": blocks,
            "n_conv_per_stage_decoder": kwargs["n_conv_per_stage_decoder"],
            "num_pool_per_axis": [1, 1, 1],
            "pool_op_kernel_sizes": kwargs["strides"],
            "conv_kernel_sizes": kwargs["kernel_sizes"],
            "unet_max_num_features": 320,
        }
    values["foreground_intensity_properties_by_modality"] = values.pop("foreground_intensity_properties_per_channel")


def bare_scalars(values: dict) -> None:
    """Kernels, strides and convolutions as single numbers, as hand-written plans have them."""
    kwargs = values["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    kwargs |= {"kernel_sizes": 3, "strides": [1, 2], "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1}


def moved_class(values: dict) -> None:
    architecture = values["configurations"]["3d_fullres"]["architecture"]
    name = architecture["network_class_name"].rsplit(".", 1)[-1]
    architecture["network_class_name"] = f"dynamic_network_architectures.architectures.residual_unet.{name}"


def without_optional_keys(values: dict) -> None:
    for key in (
        "original_median_spacing_after_transp",
        "original_median_shape_after_transp",
        "experiment_planner_used",
    ):
        del values[key]
    kwargs = values["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    for key in ("dropout_op", "dropout_op_kwargs", "nonlin_kwargs", "norm_op_kwargs"):
        del kwargs[key]


def stripped_to_what_prediction_needs(values: dict) -> None:
    for key in ("data_identifier", "batch_size", "median_image_size_in_voxels", "batch_dice"):
        del values["configurations"]["3d_fullres"][key]


def inherited(values: dict) -> None:
    values["configurations"]["mine"] = values["configurations"].pop("3d_fullres")
    values["configurations"]["3d_fullres"] = {"inherits_from": "mine", "batch_size": 4}


@pytest.mark.parametrize("network", [None, RESIDUAL], ids=["plain", "residual"])
@pytest.mark.parametrize(
    "change",
    [old_flat_keys, moved_class, without_optional_keys, stripped_to_what_prediction_needs, inherited],
    ids=lambda c: c.__name__,
)
def test_plans_of_all_ages_describe_the_same_model(tmp_path, network, change):
    made = configuration("3d_fullres") if network is None else with_network(network)
    folder = write_model(tmp_path, configurations=(made,))
    expected = predicted(folder)

    np.testing.assert_array_equal(predicted(edit_plan(folder, change)), expected)


def with_network(network: NetworkSpec):
    from dataclasses import replace

    return replace(configuration("3d_fullres"), network=network)


def test_a_model_need_not_tell_how_many_cases_it_was_trained_on(tmp_path):
    folder = write_model(tmp_path)
    expected = predicted(folder)
    values = json.loads((folder / "dataset.json").read_text())
    del values["numTraining"]
    (folder / "dataset.json").write_text(json.dumps(values))

    np.testing.assert_array_equal(predicted(folder), expected)


def test_single_numbers_stand_for_every_stage(tmp_path):
    folder = write_model(tmp_path)
    expected = predicted(folder)

    np.testing.assert_array_equal(predicted(edit_plan(folder, bare_scalars)), expected)


def in_architecture(**changes):
    return lambda values: values["configurations"]["3d_fullres"]["architecture"].update(changes)


def in_network(**changes):
    return lambda values: values["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(changes)


FOREIGN = [
    (in_architecture(network_class_name="my.networks.Primus"), "the network Primus; supported are PlainConvUNet and Res"),
    (in_network(nonlin="torch.nn.ReLU"), "nonlin ReLU; supported is .*LeakyReLU"),
    (in_network(nonlin_kwargs={"negative_slope": 0.2}), "negative_slope 0.2"),
    (in_network(norm_op="torch.nn.modules.batchnorm.BatchNorm3d"), "norm_op BatchNorm3d"),
    (in_network(norm_op=None), "norm_op none"),
    (in_network(conv_op="torch.nn.modules.conv.Conv2d"), "conv_op Conv2d"),
    (in_network(dropout_op="torch.nn.Dropout3d"), "dropout_op Dropout3d"),
    (in_network(squeeze_excitation=True), "squeeze_excitation"),
    (lambda v: (old_flat_keys(v), v["configurations"]["3d_fullres"].update(UNet_class_name="SwinUNETR")), "SwinUNETR"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), FOREIGN)
def test_another_architecture_is_refused_by_name(tmp_path, change, sentence):
    folder = edit_plan(write_model(tmp_path), change)

    with pytest.raises(ModelError, match=sentence) as refused:
        load_model(folder)

    assert "\n" not in str(refused.value)


def test_another_architecture_beside_the_models_own_does_not_matter(tmp_path):
    """Plans carry every configuration along, also those of networks that only other software knows."""
    made = (configuration("3d_fullres"), configuration("2d"))
    folder = write_model(tmp_path, configurations=made)
    expected = predicted(folder)

    def foreign(values: dict) -> None:
        values["configurations"]["2d"]["architecture"]["network_class_name"] = "my.networks.Primus"

    np.testing.assert_array_equal(predicted(edit_plan(folder, foreign)), expected)
    with pytest.raises(InputError, match="Primus"):
        load_plan(folder / "plans.json").configuration("2d")


def test_plans_without_configurations_are_refused(tmp_path):
    folder = edit_plan(write_model(tmp_path), lambda values: values.update(configurations={}))

    with pytest.raises(ModelError, match="no configuration"):
        load_model(folder)


def test_an_unknown_normalisation_is_refused_when_the_model_is_loaded(tmp_path):
    change = in_configuration(normalization_schemes=["QuantileNormalization"])
    folder = edit_plan(write_model(tmp_path), change)

    with pytest.raises(InputError, match="QuantileNormalization; supported are ZScoreNormalization"):
        Predictor(load_model(folder), device="cpu")


def in_configuration(**changes):
    return lambda values: values["configurations"]["3d_fullres"].update(changes)


SCHEMES = {
    "ZScoreNormalization": lambda a: (a - a.mean()) / a.std(),
    "CTNormalization": lambda a: np.clip(a, 0, 2) - 1,
    "NoNormalization": lambda a: a,
    "RescaleTo01Normalization": lambda a: (a - a.min()) / (a.max() - a.min()),
}


def test_each_channel_is_normalised_by_the_scheme_of_its_name(tmp_path):
    made = configuration("3d_fullres", channels=len(SCHEMES))
    folder = write_model(tmp_path, configurations=(made,), channels=len(SCHEMES))
    edit_plan(folder, in_configuration(normalization_schemes=list(SCHEMES), spacing=[1.2, 1.0, 1.0]))
    picture = image(channels=len(SCHEMES))

    prepared = Predictor(load_model(folder), device="cpu").prepare(picture).prepared[0]

    for found, given, rule in zip(prepared.image, picture.array.astype(np.float64), SCHEMES.values(), strict=True):
        np.testing.assert_allclose(found, rule(given), atol=1e-5)


def test_an_ignore_label_is_never_predicted(tmp_path):
    """The network has no output for it: three values, two outputs."""
    folder = write_model(tmp_path)
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["labels"] |= {"ignore": 3}
    (folder / "dataset.json").write_text(json.dumps(dataset))

    found = Predictor(load_model(folder), device="cpu").predict(image(), want_probabilities=True)

    assert found.probabilities.shape == (3, *GRID.shape)
    assert set(np.unique(found.labels)) <= {0, 1, 2}


def test_regions_with_an_ignore_label_have_an_output_for_each_region(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    folder = write_model(tmp_path, labels={"labels": labels, "regions_class_order": [1, 2]})
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["labels"] |= {"ignore": 3}
    (folder / "dataset.json").write_text(json.dumps(dataset))

    found = Predictor(load_model(folder), device="cpu").predict(image(), want_probabilities=True)

    whole, core = found.probabilities > 0.5
    np.testing.assert_array_equal(found.labels, np.where(core, 2, whole.astype(int)))


TURNS = {
    "right anterior superior": (np.diag([1.0, 1.0, 1.0]), (0, 0, 0)),
    "left posterior superior": (np.diag([-1.0, -1.0, 1.0]), (15.0, 15.0, 0.0)),
    "feet first": (np.diag([1.0, 1.0, -1.0]), (0.0, 0.0, 15.0)),
}


@pytest.mark.parametrize(
    ("reader", "ending"),
    [
        ("NibabelIOWithReorient", ".nii.gz"),
        ("SimpleITKIOWithReorient", ".nii.gz"),
        ("SimpleITKIOWithReorient", ".nrrd"),
    ],
)
def test_models_that_reorient_see_one_picture_however_it_is_stored(tmp_path, reader, ending):
    """One picture stored three ways: flipped back, all label maps are the same, and lie on their own file's grid."""
    picture = np.random.default_rng(3).normal(size=(16, 16, 16)).astype(np.float32)
    folder = edit_plan(write_model(tmp_path / "model"), lambda values: values.update(image_reader_writer=reader))
    predictor = Predictor(load_model(folder), device="cpu", mirroring=False)

    found = {}
    for name, (direction, origin) in TURNS.items():
        grid = Geometry((16, 16, 16), (1.0, 1.0, 1.0), tuple(map(float, origin)), tuple(map(tuple, direction.tolist())))
        flips = [axis for axis in range(3) if direction[2 - axis, 2 - axis] < 0]
        path = tmp_path / name / f"a_0000{ending}"
        write_image(path, np.flip(picture, flips), grid)
        out = tmp_path / name / f"out{ending}"
        predict_files(predictor.model, lambda: predictor, [Case("a", (path,))], FileRequest(out))
        written = read_labels(out)
        assert written.geometry.same_grid(grid)
        found[name] = np.flip(written.array, flips)

    first = found["right anterior superior"]
    assert len(np.unique(first)) > 1
    assert all(np.array_equal(labels, first) for labels in found.values())


def test_nnunets_zip_with_everything_it_packs_is_a_model(tmp_path):
    folder = write_model(tmp_path / "Dataset001_Tiny", folds=(0, 1))
    shutil.copytree(folder / "fold_0", folder / "fold_all")
    expected = predicted(folder)
    extras = ("fold_0/debug.json", "fold_0/progress.png", "fold_0/validation/summary.json", "dataset_fingerprint.json")
    for extra in (*extras, "crossval_results_folds_0_1/postprocessing.pkl"):
        (folder / extra).parent.mkdir(parents=True, exist_ok=True)
        (folder / extra).write_bytes(b"{}")
    with zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path))

    np.testing.assert_array_equal(predicted(tmp_path / "model.zip"), expected)
    assert [m.fold for m in load_model(tmp_path / "model.zip").members] == [0, 1]


def test_a_checkpoint_of_any_name_can_be_picked(tmp_path):
    folder = write_model(tmp_path, folds=(0, 1))
    best = folder / "fold_0" / "checkpoint_best.pth"
    (folder / "fold_1" / "checkpoint_final.pth").rename(best)

    other = Predictor(load_model(best), device="cpu").predict(image(), want_probabilities=True).probabilities

    assert [m.checkpoint for m in load_model(best).members] == [best]
    assert np.abs(other - predicted(folder / "fold_0")).max() > 1e-3


def test_info_says_what_a_model_is(tmp_path, capsys):
    """Channels in their order, labels with their values, configuration, folds, patch, spacing and size."""
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    made = configuration("3d_fullres", channels=2, spacing_mm=(2.5, 0.75, 0.75))
    of_labels = {"labels": {k: v for k, v in labels.items() if k != "ignore"}, "regions_class_order": [1, 2]}
    folder = write_model(tmp_path, configurations=(made,), channels=2, folds=(0, 3), labels=of_labels)
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset |= {"channel_names": {"1": "PET", "0": "CT"}, "labels": labels}
    (folder / "dataset.json").write_text(json.dumps(dataset))

    assert main(["model", "info", str(tmp_path)]) == 0

    said = capsys.readouterr().out
    size = sum(path.stat().st_size for path in folder.glob("fold_*/*.pth")) / 1e6
    for words in ("0 = CT, 1 = PET", "whole (1+2), core (2)", "3d_fullres", "0, 3", "16×16×16", "2.5 × 0.75 × 0.75",
                  "PlainConvUNet", f"{size:.1f}"):  # fmt: skip
        assert words in said


def test_the_axes_to_mirror_come_from_the_checkpoint(tmp_path):
    folder = write_model(tmp_path)
    path = folder / "fold_0" / "checkpoint_final.pth"
    plain = Predictor(load_model(folder), device="cpu", mirroring=False).predict(image(), want_probabilities=True)
    torch.save(torch.load(path, weights_only=True) | {"inference_allowed_mirroring_axes": None}, path)

    np.testing.assert_array_equal(predicted(folder), plain.probabilities)


def test_planning_again_refuses_to_lose_a_configuration_of_another_network(tmp_path):
    from NNSegmentLib.planning.custom import keeping_custom_configurations

    made = (configuration("3d_fullres"), configuration("2d"))
    folder = write_model(tmp_path, configurations=made)
    planned = load_plan(folder / "plans.json")

    def foreign(values: dict) -> None:
        values["configurations"]["mine"] = values["configurations"]["2d"] | {
            "architecture": {"network_class_name": "my.networks.Primus", "arch_kwargs": {}}
        }

    edit_plan(folder, foreign)

    with pytest.raises(InputError, match="Primus"):
        keeping_custom_configurations(planned, folder / "plans.json")
