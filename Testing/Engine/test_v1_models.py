"""nnU-Net v1's models predict here as they did there: found anywhere, mapped layer by layer, refused where they differ."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from version_1 import GRID, GenericUNet, image, network, plan, stage_plan, write_model

from NNSegmentLib.cli import main
from NNSegmentLib.engine.network import build_network
from NNSegmentLib.engine.predictor import Predictor
from NNSegmentLib.engine.v1_weights import load_v1_weights
from NNSegmentLib.errors import ModelError
from NNSegmentLib.exchange import describe_model
from NNSegmentLib.image import Image, read_labels, write_image
from NNSegmentLib.model import load_model
from NNSegmentLib.predicting.cases import find_cases
from NNSegmentLib.predicting.files import FileRequest, predict_files

ANISOTROPIC = {"pools": [[1, 2, 2], [2, 2, 2]], "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]]}


def standardized(array: np.ndarray) -> np.ndarray:
    return (array - array.mean()) / (array.std() + 1e-8)


@torch.no_grad()
def opinion(made: torch.nn.Module, array: np.ndarray, axes=(0, 1, 2), activation=lambda x: x.softmax(1)) -> np.ndarray:
    """Probabilities (n_outputs, Z, Y, X) of one patch: each mirrored view becomes probabilities before the mean."""
    batch = torch.from_numpy(np.ascontiguousarray(array[None], dtype=np.float32))
    views = [[2 + axes[k] for k in range(len(axes)) if n >> k & 1] for n in range(2 ** len(axes))]
    return torch.stack([activation(made(batch.flip(v))).flip(v)[0] for v in views]).mean(0).numpy()


def probabilities(folder: Path, picture: Image, **options) -> np.ndarray:
    options = {"device": "cpu"} | options
    return Predictor(load_model(folder), **options).predict(picture, want_probabilities=True).probabilities


@pytest.mark.parametrize(
    ("patch", "shape"),
    [
        ({}, (1, 16, 16, 16)),
        ({"pools": [[2, 2, 2], [2, 2, 2]]}, (2, 16, 16, 16)),
        (ANISOTROPIC, (1, 8, 16, 16)),
        ({"pools": [[1, 2, 2]], "kernels": [[1, 3, 3], [1, 3, 3]]}, (1, 5, 16, 16)),
        ({"patch": (16, 16)}, (3, 16, 16)),
    ],
    ids=["isotropic", "two poolings", "anisotropic", "flat kernels to the bottom", "2d"],
)
@pytest.mark.parametrize("convs", [2, 3])
def test_our_network_gives_generic_unets_logits(tmp_path, patch, shape, convs):
    values = plan([stage_plan(**{"patch": shape[1:]} | patch)], ["MRI"] * shape[0], conv_per_stage=convs)
    folder = write_model(tmp_path, values)
    spec = load_model(folder).parts[0].configuration.network
    picture = torch.randn(2, *shape)

    ours = build_network(spec, shape[0], 3).eval()
    weights = load_v1_weights(folder / "fold_0" / "model_final_checkpoint.model", ours, spec)
    ours.load_state_dict(weights, strict=False)

    with torch.no_grad():
        torch.testing.assert_close(ours(picture), network(values)(picture), atol=1e-4, rtol=1e-4)


def test_features_stop_growing_where_version_1_stopped(tmp_path):
    deep = {"pools": [[2, 2]] * 5, "patch": (32, 32)}
    flat = write_model(tmp_path / "2d", plan([stage_plan(**deep)], base_num_features=32))

    assert load_model(flat).parts[0].configuration.network.features == (32, 64, 128, 256, 480, 480)
    three = write_model(tmp_path / "3d", plan([stage_plan(pools=[[2, 2, 2]] * 4)], base_num_features=32))
    assert load_model(three).parts[0].configuration.network.features == (32, 64, 128, 256, 320)


def test_mirrored_views_and_folds_are_averaged_as_probabilities(tmp_path):
    values = plan()
    folder = write_model(tmp_path, values, folds=("fold_0", "fold_1"))
    picture = image()

    found = probabilities(folder, picture)

    array = standardized(picture.array)
    expected = np.mean([opinion(network(values, seed=s), array) for s in (0, 1)], axis=0)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    plain = np.mean([opinion(network(values, seed=s), array, axes=()) for s in (0, 1)], axis=0)
    np.testing.assert_allclose(probabilities(folder, picture, mirroring=False), plain, atol=2e-5)
    labels = Predictor(load_model(folder), device="cpu").predict(picture).labels
    np.testing.assert_array_equal(labels, expected.argmax(0))


def test_overlapping_tiles_are_averaged_as_probabilities(tmp_path):
    values = plan()
    folder = write_model(tmp_path, values)
    grid = replace(GRID, shape=(16, 16, 24))
    picture = image(grid=grid)

    found = probabilities(folder, picture, mirroring=False)

    array, total, weights = standardized(picture.array), 0, 0
    distance = sum(((np.arange(16) - 8.0) / 2).reshape([-1 if a == b else 1 for b in range(3)]) ** 2 for a in range(3))
    weight = np.exp(-0.5 * distance)
    for start in (0, 8):
        pad = [(0, 0), (0, 0), (start, 8 - start)]
        one = opinion(network(values), array[..., start : start + 16], axes=())
        total = total + np.pad(one * weight, [(0, 0), *pad])
        weights = weights + np.pad(weight, pad)
    np.testing.assert_allclose(found, total / weights, atol=2e-5)


def test_planes_are_predicted_and_mirrored_in_plane_only(tmp_path):
    values = plan([stage_plan(patch=(16, 16))])
    folder = write_model(tmp_path, values, "2d")
    picture = image(grid=replace(GRID, shape=(3, 16, 16)))

    found = probabilities(folder, picture)

    made, array = network(values), standardized(picture.array)
    for z in range(3):
        np.testing.assert_allclose(found[:, z], opinion(made, array[:, z], axes=(0, 1)), atol=2e-5)


def test_models_trained_without_mirroring_are_not_mirrored(tmp_path):
    values = plan()
    folder = write_model(tmp_path, values, trainer="nnUNetTrainerV2_noMirroring")
    picture = image()

    expected = opinion(network(values), standardized(picture.array), axes=())

    np.testing.assert_allclose(probabilities(folder, picture), expected, atol=2e-5)


def masked(picture: Image) -> Image:
    """Zero in two corners, so that the crop box is the whole image and the mask is not."""
    picture.array[:, :6, :6, :6] = 0
    picture.array[:, -5:, -5:, -5:] = 0
    return picture


def test_masked_channels_are_zero_outside_the_mask(tmp_path):
    values = plan(masks=[True])
    folder = write_model(tmp_path, values)
    picture = masked(image(mean=7.0))

    found = probabilities(folder, picture, mirroring=False)

    inside = picture.array != 0
    array = np.where(inside, (picture.array - picture.array[inside].mean()) / picture.array[inside].std(), 0)
    np.testing.assert_allclose(found, opinion(network(values), array, axes=()), atol=1e-4)


def test_normalisation_comes_after_resampling(tmp_path):
    """Half the voxels along an axis: after linear-like smoothing the spread is smaller, and must be 1 again."""
    values = plan([stage_plan(spacing=(2.0, 2.0, 2.0), patch=(8, 8, 8))])
    model = load_model(write_model(tmp_path, values))

    prepared = Predictor(model, device="cpu").prepare(image()).prepared[0]

    assert prepared.image.shape == (1, 8, 8, 8)
    assert abs(float(prepared.image.mean())) < 1e-4
    assert abs(float(prepared.image.std()) - 1) < 1e-4
    assert abs(float(zoom(standardized(image().array)[0], 0.5, order=3).std()) - 1) > 0.1


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("CT", lambda a: (np.clip(a, -10, 90) - 40) / 20),
        ("CT2", lambda a: (np.clip(a, -10, 90) - a[(a > -10) & (a < 90)].mean()) / a[(a > -10) & (a < 90)].std()),
        ("noNorm", lambda a: a),
        ("nonCT", standardized),
        ("somethingElse", standardized),
    ],
)
def test_each_normalisation_scheme_does_what_version_1_did(tmp_path, scheme, expected):
    model = load_model(write_model(tmp_path, plan(modalities=["CT"], schemes=[scheme])))
    picture = replace(image(), array=image().array * 60 + 40)

    prepared = Predictor(model, device="cpu").prepare(picture).prepared[0]

    np.testing.assert_allclose(prepared.image, expected(picture.array.astype(np.float64)), atol=1e-3)


def test_probabilities_are_resampled_not_logits(tmp_path):
    values = plan([stage_plan(spacing=(2.0, 1.0, 1.0))])
    folder = write_model(tmp_path, values)
    picture = image(grid=replace(GRID, shape=(32, 16, 16)))
    predictor = Predictor(load_model(folder), device="cpu", mirroring=False)

    ready = predictor.prepare(picture)
    found = predictor.finish(ready, predictor.run(ready), want_probabilities=True).probabilities

    coarse = opinion(network(values), ready.prepared[0].image, axes=())
    at = np.clip((np.arange(32) + 0.5) / 2 - 0.5, 0, 15)
    low, part = np.minimum(at.astype(int), 14), at - np.minimum(at.astype(int), 14)
    part = part[None, :, None, None]
    expected = coarse[:, low] * (1 - part) + coarse[:, low + 1] * part
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_axes_are_transposed_as_the_plan_says(tmp_path):
    values = plan(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])
    folder = write_model(tmp_path, values)
    picture = image()

    found = probabilities(folder, picture, mirroring=False)

    turned = opinion(network(values), standardized(picture.array).transpose(0, 3, 1, 2), axes=())
    np.testing.assert_allclose(found, turned.transpose(0, 2, 3, 1), atol=2e-5)


def test_brats_regions_are_painted_in_their_order(tmp_path):
    values = plan(n_classes=3)
    folder = write_model(tmp_path, values, trainer="nnUNetTrainerV2BraTSRegions", outputs=3)
    picture = image()

    prediction = Predictor(load_model(folder), device="cpu").predict(picture, want_probabilities=True)
    alone = Predictor(load_model(folder), device="cpu").predict(picture)

    made = network(values, outputs=3)
    expected = opinion(made, standardized(picture.array), activation=torch.sigmoid)
    np.testing.assert_allclose(prediction.probabilities, expected, atol=2e-5)
    painted = np.zeros(GRID.shape, int)
    for region, value in zip(expected, (1, 2, 3), strict=True):
        painted[region > 0.5] = value
    np.testing.assert_array_equal(alone.labels, painted)
    assert [label.values for label in load_model(folder).label_set.foreground] == [(1, 2, 3), (2, 3), (3,)]


CASCADE_TRAINER = "nnUNetTrainerV2CascadeFullRes"


@pytest.fixture
def cascade(tmp_path) -> Path:
    values = plan([stage_plan(patch=(8, 8, 8), spacing=(2.0, 2.0, 2.0)), stage_plan()])
    write_model(tmp_path, values, "3d_lowres", stage=0)
    write_model(tmp_path, values, "3d_cascade_fullres", trainer=CASCADE_TRAINER, stage=1, inputs=3)
    return tmp_path


def test_a_cascade_takes_its_first_stages_labels(cascade):
    picture = image()
    model = load_model(cascade)

    found = Predictor(model, device="cpu", mirroring=False).predict(picture, want_probabilities=True).probabilities

    low = Predictor(load_model(cascade, "3d_lowres"), device="cpu", mirroring=False).predict(picture).labels
    stacked = np.concatenate([standardized(picture.array), (low == 1)[None], (low == 2)[None]])
    values = plan([stage_plan(patch=(8, 8, 8), spacing=(2.0, 2.0, 2.0)), stage_plan()])
    np.testing.assert_allclose(found, opinion(network(values, 1, inputs=3), stacked, axes=()), atol=2e-5)
    assert model.configurations == ("3d_cascade_fullres",)
    assert model.parts[0].previous.configuration.name == "3d_lowres"


def test_both_stages_of_a_cascade_have_the_fold_that_is_asked_for(cascade):
    first = load_model(cascade, "3d_lowres").members[0].checkpoint.parent
    shutil.copytree(first, first.with_name("fold_4"))

    assert [m.fold for m in load_model(cascade).parts[0].previous.members] == [0, 4]
    assert [m.fold for m in load_model(cascade, folds=[0]).parts[0].previous.members] == [0]


def test_the_first_stage_is_squeezed_onto_the_grid_without_the_crop(cascade):
    """Version 1 resizes the whole label map to the cropped image's grid; a model trained so expects it."""
    picture = image()
    picture.array[:, :4] = 0
    picture.array[:, 10:] = 0

    predictor = Predictor(load_model(cascade), device="cpu")
    given = np.zeros(GRID.shape, np.uint8)
    given[8:] = 1
    ready = predictor.prepare(picture, read_map(given))
    inputs = predictor._input(predictor._parts[0], ready.prepared[0], ready, lambda *step: None)

    assert inputs.shape == (3, 6, 16, 16)
    np.testing.assert_array_equal(inputs[1, :, 0, 0], [0, 0, 0, 1, 1, 1])


def read_map(array: np.ndarray):
    from NNSegmentLib.image import LabelMap

    return LabelMap(array, GRID)


def test_info_and_predict_work_from_the_command_line(tmp_path, capsys):
    values = plan(modalities=["CT", "PET"], schemes=["CT", "nonCT"], n_classes=2)
    write_model(tmp_path / "results", values, folds=("fold_0", "all"))
    for channel, array in enumerate(image(channels=2).array):
        write_image(tmp_path / "in" / f"patient_{channel:04d}.nii.gz", array, GRID)

    assert main(["model", "info", str(tmp_path / "results")]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("0 = CT, 1 = PET", "3d_fullres", "16×16×16", "1 × 1 × 1", "label 1 (1)"))
    order = ["predict", "-m", str(tmp_path / "results"), "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main([*order, "--device", "cpu", "--save-probabilities"]) == 0

    written = {p.name for p in (tmp_path / "out").iterdir()}
    assert written == {"patient.nii.gz", "patient.npz", "patient.pkl", "dataset.json", "plans.pkl"}
    expected = Predictor(load_model(tmp_path), device="cpu").predict(image(channels=2)).labels
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "patient.nii.gz").array, expected)
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]["label 2"] == 2


def test_the_post_processing_of_the_model_is_applied(tmp_path):
    """Two pieces that touch only at a corner are two for version 1; the smaller one goes."""
    from NNSegmentLib.postprocessing import apply_postprocessing, load_postprocessing

    folder = write_model(tmp_path)
    rules = {"for_which_classes": [[1, 2], 1], "min_valid_object_sizes": "None", "num_samples": 1}
    (folder / "postprocessing.json").write_text(json.dumps(rules))
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[:2, :2, :2] = 1
    labels[2, 2, 2] = 2

    cleaned = apply_postprocessing(labels, load_postprocessing(load_model(folder).postprocessing))

    np.testing.assert_array_equal(cleaned, np.where(labels == 1, 1, 0))
    assert load_model(folder, postprocess=False).postprocessing is None


@pytest.mark.parametrize(
    "rules",
    [
        {"for_which_classes": 3},
        {"for_which_classes": [0]},
        {"for_which_classes": [[]]},
        {"for_which_classes": [1], "min_valid_object_sizes": "{1: 3.0}"},
    ],
)
def test_post_processing_that_is_unknown_here_is_refused(tmp_path, rules):
    from NNSegmentLib.postprocessing import load_postprocessing

    (tmp_path / "postprocessing.json").write_text(json.dumps(rules))

    with pytest.raises(ModelError, match=r"postprocessing\.json"):
        load_postprocessing(tmp_path)


def test_a_bias_of_the_output_layer_is_used(tmp_path):
    values = plan()
    folder = write_model(tmp_path, values, trainer="nnUNetTrainerV2_lReLU_biasInSegOutput")
    path = folder / "fold_0" / "model_final_checkpoint.model"
    stored = torch.load(path, weights_only=False)
    stored["state_dict"]["seg_outputs.0.bias"] = torch.tensor([0.0, 0.0, 100.0])
    torch.save(stored, path)

    assert (Predictor(load_model(folder), device="cpu").predict(image()).labels == 2).all()


def test_several_cases_of_one_folder_are_predicted(tmp_path):
    model = load_model(write_model(tmp_path / "model"))
    for n in (1, 2):
        write_image(tmp_path / "in" / f"case{n}_0000.nii.gz", image(n).array[0], GRID)

    done = predict_files(
        model,
        lambda: Predictor(model, device="cpu"),
        find_cases([tmp_path / "in"], model),
        FileRequest(tmp_path / "out"),
    )

    assert done == ("case1", "case2")
    assert describe_model(model.folder).parts[0].folds == ("0",)


def test_the_opinion_is_a_network_with_version_1s_names():
    names = set(GenericUNet(1, 3, 4, [[2, 2, 2]], [[3, 3, 3]] * 2).state_dict())

    assert {"conv_blocks_context.0.blocks.1.instnorm.weight", "conv_blocks_context.1.1.blocks.0.conv.bias"} <= names
    assert {"conv_blocks_localization.0.0.blocks.0.conv.weight", "tu.0.weight", "seg_outputs.0.weight"} <= names
    assert not {"tu.0.bias", "seg_outputs.0.bias"} & names
