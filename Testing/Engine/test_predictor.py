"""Prediction of images and folders with tiny models on disk."""

from __future__ import annotations

import json
import pkgutil
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch

from NNSegmentLib import pipeline
from NNSegmentLib.cli import main
from NNSegmentLib.engine import predictor as predictor_module
from NNSegmentLib.engine.checkpoints import Checkpoint, save_checkpoint
from NNSegmentLib.engine.network import UNet, build_network
from NNSegmentLib.engine.predictor import Predictor
from NNSegmentLib.errors import ImageError, InputError, ModelError, NNSegmentError, RunError, SettingsError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import Image, LabelMap, read_geometry, read_labels, write_image
from NNSegmentLib.model import load_model
from NNSegmentLib.planning.plan import Configuration, IntensityStats, NetworkSpec, Plan, save_plan
from NNSegmentLib.predicting.cases import find_cases
from NNSegmentLib.predicting.files import FileRequest, predict_files, require_output_name
from NNSegmentLib.predicting.inputs import require_channels
from NNSegmentLib.prediction import Prediction
from NNSegmentLib.probability_files import load_probabilities
from NNSegmentLib.task import Case

GRID = Geometry((18, 20, 14), (1.2, 1.0, 1.0), (5.0, -3.0, 2.0))
LABELS = {"background": 0, "a": 1, "b": 2}


def configuration(name: str, **changes) -> Configuration:
    d = 2 if name == "2d" else 3
    channels = changes.pop("channels", 1)
    network = NetworkSpec("PlainConvUNet", (4, 8), ((3,) * d,) * 2, ((1,) * d, (2,) * d), (1, 1), (1,))
    return Configuration(
        name=name,
        data_identifier=f"nnUNetPlans_{name}",
        batch_size=2,
        patch_size=(16,) * d,
        median_shape=(16.0,) * d,
        spacing_mm=changes.pop("spacing_mm", (1.0,) * d),
        normalization=("ZScoreNormalization",) * channels,
        use_mask_for_norm=(False,) * channels,
        network=network,
        batch_dice=False,
        **changes,
    )


def write_model(folder: Path, chosen: str = "3d_fullres", configurations=None, folds=(0,), labels=None, **plan) -> Path:
    """A model folder with random weights; the random numbers depend on fold and configuration."""
    labels = labels or {"labels": LABELS}
    channels = plan.pop("channels", 1)
    stats = IntensityStats(1.0, 1.0, 0.0, 2.0, 1.0, 0.0, 2.0)
    made = Plan(
        "Dataset001_Tiny", "nnUNetPlans", (0, 1, 2), tuple(configurations or (configuration(chosen),)), (stats,) * channels,
        (1.0, 1.0, 1.0), (16, 16, 16), **plan,
    )  # fmt: skip
    folder = folder / f"nnUNetTrainer__nnUNetPlans__{chosen}"
    save_plan(made, folder / "plans.json")
    dataset = {
        "channel_names": {str(i): "MR" for i in range(channels)},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    } | labels
    (folder / "dataset.json").write_text(json.dumps(dataset))
    described = made.configuration(chosen)
    outputs = len(labels["labels"]) - ("regions_class_order" in labels)
    inputs = channels + (2 if described.previous_stage else 0)
    for fold in folds:
        torch.manual_seed(fold + 10)
        network = build_network(described.network, inputs, outputs)
        state = Checkpoint(network.state_dict(), chosen, fold, {}, {}, mirroring_axes=(0, 1, 2))
        save_checkpoint(state, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def image(seed: int = 0, grid: Geometry = GRID, channels: int = 1) -> Image:
    values = np.random.default_rng(seed).normal(size=(channels, *grid.shape)).astype(np.float32)
    return Image(values, grid)


def write_case(folder: Path, name: str, seed: int = 0, grid: Geometry = GRID) -> Path:
    write_image(folder / name, image(seed, grid).array[0], grid)
    return folder / name


def precisions_of_networks(monkeypatch) -> set[tuple[int, torch.dtype]]:
    """Grows by the input channels and the weights' precision of every network that computes from now on."""
    forward, found = UNet.forward, set()

    def noted(network, images):
        found.update((images.shape[1], weight.dtype) for weight in network.parameters())
        return forward(network, images)

    monkeypatch.setattr(UNet, "forward", noted)
    return found


def test_nothing_of_the_first_prediction_of_a_process_stays_in_its_memory(tmp_path):
    """Its caller was at work while torch was loaded, whose objects are kept for good."""
    folder = write_model(tmp_path / "model")
    write_case(tmp_path / "in", "a_0000.nii.gz")
    code = (
        "import gc, sys; from NNSegmentLib import pipeline; from pathlib import Path\n"
        "pipeline.predict(Path(sys.argv[1]), Path(sys.argv[2]), model=sys.argv[3], device='cpu'); gc.collect()\n"
        "from NNSegmentLib.engine.predictor import Predictor\n"
        "sys.exit(sum(isinstance(one, Predictor) for one in gc.get_objects()))"
    )

    words = [sys.executable, "-c", code, tmp_path / "in", tmp_path / "out", folder]
    assert subprocess.run(words, check=False).returncode == 0


def test_labels_and_probabilities_lie_on_the_images_grid(tmp_path):
    predictor = Predictor(load_model(write_model(tmp_path)))

    prediction = predictor.predict(image(), want_probabilities=True)

    assert prediction.geometry == GRID
    assert prediction.labels.shape == GRID.shape
    assert prediction.probabilities.shape == (3, *GRID.shape)
    np.testing.assert_allclose(prediction.probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(prediction.probabilities.argmax(0), prediction.labels)
    np.testing.assert_array_equal(predictor.predict(image()).labels, prediction.labels)
    assert len(np.unique(prediction.labels)) > 1


def test_folds_are_averaged_as_logits(tmp_path):
    grid = replace(GRID, spacing_mm=(1.0, 1.0, 1.0))
    folder = write_model(tmp_path, folds=(0, 1))

    def log_ratio(folds):
        found = Predictor(load_model(folder, folds=folds)).predict(image(grid=grid), want_probabilities=True)
        return np.log(found.probabilities[1:]) - np.log(found.probabilities[:1])

    np.testing.assert_allclose(log_ratio((0, 1)), (log_ratio((0,)) + log_ratio((1,))) / 2, atol=0.02)


def test_mirroring_can_be_left_out(tmp_path):
    model = load_model(write_model(tmp_path))
    symmetric = image()
    symmetric.array[:] = 1.0
    symmetric.array[:, 9:, 10:, 7:] = 5.0

    with_mirrors = Predictor(model).predict(symmetric, want_probabilities=True)
    without = Predictor(model, mirroring=False).predict(symmetric, want_probabilities=True)

    assert np.abs(with_mirrors.probabilities - without.probabilities).max() > 1e-3


@pytest.mark.parametrize("chosen", ["3d_fullres", "2d"])
def test_half_precision_gives_nearly_the_same(tmp_path, monkeypatch, chosen):
    monkeypatch.setattr(predictor_module, "has_amx", lambda: True)  # other processors can, too, but slowly
    model = load_model(write_model(tmp_path, chosen, folds=(0, 1)))
    said = []

    full = Predictor(model, device="cpu").predict(image(), want_probabilities=True)
    inputs = precisions_of_networks(monkeypatch)
    half = Predictor(model, device="cpu", half=True, message=said.append).predict(image(), want_probabilities=True)

    assert inputs == {(1, torch.bfloat16)}
    assert np.mean(full.labels == half.labels) > 0.98
    difference = np.abs(full.probabilities - half.probabilities).max()
    assert 1e-5 < difference < 0.1
    assert not said


def test_half_precision_is_left_where_it_would_be_slower(tmp_path, monkeypatch):
    monkeypatch.setattr(predictor_module, "has_amx", lambda: False)
    model, said = load_model(write_model(tmp_path)), []

    found = Predictor(model, device="cpu", half=True, message=said.append).predict(image(), want_probabilities=True)

    expected = Predictor(model, device="cpu").predict(image(), want_probabilities=True)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert len(said) == 1
    assert said[0].startswith(
        "Half precision needs a processor with AMX; predicting in full precision on the processor ("
    )


def test_planes_are_predicted_with_two_dimensional_models(tmp_path):
    model = load_model(write_model(tmp_path, "2d"))

    assert Predictor(model).predict(image()).labels.shape == GRID.shape


def test_regions_are_painted_in_their_order(tmp_path):
    labels = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    prediction = Predictor(load_model(write_model(tmp_path, labels=labels))).predict(image(), want_probabilities=True)

    whole, core = prediction.probabilities > 0.5
    np.testing.assert_array_equal(prediction.labels, np.where(core, 2, whole.astype(int)))


@pytest.fixture
def cascade(tmp_path) -> Path:
    stages = (
        configuration("3d_lowres", spacing_mm=(1.6, 1.6, 1.6), next_stage="3d_cascade_fullres"),
        configuration("3d_cascade_fullres", previous_stage="3d_lowres"),
    )
    for stage in stages:
        write_model(tmp_path, stage.name, stages)
    return tmp_path


def test_a_cascade_equals_its_two_stages_by_hand(cascade):
    low = Predictor(load_model(cascade, "3d_lowres")).predict(image())
    full = Predictor(load_model(cascade, "3d_cascade_fullres"))

    by_hand = full.predict(image(), previous=LabelMap(low.labels, low.geometry))

    np.testing.assert_array_equal(full.predict(image()).labels, by_hand.labels)
    other = full.predict(image(), previous=LabelMap(np.zeros_like(low.labels), GRID))
    assert (other.labels != by_hand.labels).any()


def test_both_stages_of_a_cascade_are_predicted_in_half_precision(cascade, monkeypatch):
    monkeypatch.setattr(predictor_module, "has_amx", lambda: True)
    inputs = precisions_of_networks(monkeypatch)

    Predictor(load_model(cascade, "3d_cascade_fullres"), device="cpu", half=True).predict(image())

    assert inputs == {(1, torch.bfloat16), (3, torch.bfloat16)}


@pytest.mark.parametrize("option", ["--previous", "-prev_stage_predictions"])
def test_a_cascade_continues_from_given_label_maps_as_it_does_in_one_go(cascade, tmp_path, option):
    for n in range(2):
        write_case(tmp_path / "in", f"case{n}_0000.nii.gz", seed=n)
    low, full = (cascade / f"nnUNetTrainer__nnUNetPlans__{name}" for name in ("3d_lowres", "3d_cascade_fullres"))
    words = ["predict", "-i", str(tmp_path / "in"), "--device", "cpu", "-o"]
    assert main([*words, str(tmp_path / "low"), "-m", str(low)]) == 0
    assert main([*words, str(tmp_path / "at_once"), "-m", str(full)]) == 0
    shutil.rmtree(low)

    assert main([*words, str(tmp_path / "continued"), "-m", str(full), option, str(tmp_path / "low")]) == 0

    for n in range(2):
        at_once, continued = (read_labels(tmp_path / f / f"case{n}.nii.gz").array for f in ("at_once", "continued"))
        np.testing.assert_array_equal(continued, at_once)


@pytest.mark.parametrize("given", [False, True])
def test_the_stages_of_a_cascade_share_their_cases_progress(cascade, tmp_path, given):
    for n in range(2):
        write_case(tmp_path / "in", f"case{n}_0000.nii.gz", seed=n)
    low, full = (load_model(cascade, name) for name in ("3d_lowres", "3d_cascade_fullres"))
    cases, seen = find_cases([tmp_path / "in"], full), []
    if given:
        predict_files(low, lambda: Predictor(low), cases, FileRequest(tmp_path / "low"))
    request = FileRequest(tmp_path / "out", previous=tmp_path / "low" if given else None)

    predict_files(full, lambda: Predictor(full), cases, request, lambda *step: seen.append(step))

    shares = [done for done, _, _ in seen]
    assert shares == sorted(shares)
    begun = [done for done, _, what in seen if "case1: 0 of" in what]
    assert begun == ([1] if given else [1, 1.5])  # the earlier stage is half of the case
    assert seen[-1] == (2, 2, "cases")


def test_label_maps_of_an_earlier_stage_are_refused_where_they_do_not_fit(cascade, tmp_path):
    path = write_case(tmp_path, "case0_0000.nii.gz")
    low, full = (load_model(cascade, name) for name in ("3d_lowres", "3d_cascade_fullres"))
    request = FileRequest(tmp_path / "out", previous=tmp_path / "nowhere")

    with pytest.raises(ModelError, match="found the configuration 3d_lowres; leave out --previous"):
        predict_files(low, lambda: Predictor(low), [Case("case0", (path,))], request)
    with pytest.raises(ImageError, match="missing for 1 of 1: case0; give the folder"):
        predict_files(full, lambda: Predictor(full), [Case("case0", (path,))], request)
    assert not (tmp_path / "out").exists()


def test_what_the_first_stage_found_counts_in_a_cascades_masked_normalisation(tmp_path, monkeypatch):
    low = configuration("3d_lowres", next_stage="3d_cascade_fullres")
    full = configuration("3d_cascade_fullres", previous_stage="3d_lowres")
    full = replace(full, use_mask_for_norm=(True,))
    write_model(tmp_path, "3d_lowres", (low, full))
    predictor = Predictor(load_model(write_model(tmp_path, "3d_cascade_fullres", (low, full)), "3d_cascade_fullres"))
    grid = replace(GRID, spacing_mm=(1.0, 1.0, 1.0))
    picture = image(grid=grid)
    picture.array[0, :3] = 0
    picture.array[0, 0, 0, 0] = 5  # the crop keeps the corner
    found = np.zeros(grid.shape, np.uint8)
    found[1] = 2
    seen = []

    def record(networks, given, *_, **__):
        seen.append(given.numpy())
        return torch.zeros((3, *given.shape[1:]))

    monkeypatch.setattr("NNSegmentLib.engine.predictor.predict_logits", record)
    predictor.predict(picture, previous=LabelMap(found, grid))

    counted = (picture.array[0] != 0) | (found != 0)
    inside = picture.array[0][counted]
    np.testing.assert_allclose(seen[0][0][counted], (inside - inside.mean()) / inside.std(), atol=1e-5)


def test_a_cascade_without_its_first_stage_says_so(cascade):
    (cascade / "nnUNetTrainer__nnUNetPlans__3d_lowres").rename(cascade / "elsewhere")
    (cascade / "elsewhere" / "plans.json").unlink()

    with pytest.raises(ModelError, match="3d_lowres, whose model folder is not beside it"):
        Predictor(load_model(cascade, "3d_cascade_fullres")).predict(image())


def test_a_fold_that_the_first_stage_of_a_cascade_lacks_is_told_unless_its_label_maps_are_given(cascade, tmp_path):
    path = write_case(tmp_path / "in", "case0_0000.nii.gz")
    low, full = (cascade / f"nnUNetTrainer__nnUNetPlans__{name}" for name in ("3d_lowres", "3d_cascade_fullres"))
    pipeline.predict(path, tmp_path / "low", model=low, device="cpu")
    (low / "fold_0").rename(low / "fold_1")

    with pytest.raises(ModelError, match="3d_lowres, which .* the same folds, .* lacks fold 0; train"):
        pipeline.predict(path, tmp_path / "full", model=full, folds=[0], device="cpu")

    assert pipeline.predict(path, tmp_path / "full", model=full, device="cpu") == ("case0",)
    given = {"folds": [0], "previous": tmp_path / "low"}
    assert pipeline.predict(path, tmp_path / "given", model=full, device="cpu", **given) == ("case0",)


def test_an_ensemble_averages_probabilities(tmp_path):
    pair = (configuration("2d"), configuration("3d_fullres"))
    folders = [write_model(tmp_path, c.name, pair) for c in pair]
    names = [
        dict(zip(("trainer", "plans_identifier", "configuration"), f.name.split("__"), strict=True)) for f in folders
    ]
    information = {"folds": [0], "best_model_or_ensemble": {"selected_model_or_models": names}}
    (tmp_path / "inference_information.json").write_text(json.dumps(information))

    both = Predictor(load_model(tmp_path)).predict(image(), want_probabilities=True)

    each = [Predictor(load_model(f)).predict(image(), want_probabilities=True).probabilities for f in folders]
    np.testing.assert_allclose(both.probabilities, np.mean(each, axis=0), atol=1e-5)
    np.testing.assert_array_equal(both.labels, np.mean(each, axis=0).argmax(0))


def test_a_folder_of_cases_becomes_a_folder_of_label_maps(tmp_path, any_geometry):
    folder = write_model(tmp_path / "model")
    for n in (1, 2):
        write_case(tmp_path / "in", f"case{n}_0000.nii.gz", n, any_geometry)
    model, steps = load_model(folder), []

    done = predict_files(
        model,
        lambda: Predictor(model),
        find_cases([tmp_path / "in"], model),
        FileRequest(tmp_path / "out", save_probabilities=True),
        lambda *step: steps.append(step[:2]),
    )

    assert done == ("case1", "case2")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    of_cases = {f"case{n}.{ending}" for n in (1, 2) for ending in ("nii.gz", "npz", "pkl")}
    assert names == {*of_cases, "dataset.json", "plans.json"}
    assert read_geometry(tmp_path / "out" / "case1.nii.gz").same_grid(any_geometry)
    labels = read_labels(tmp_path / "out" / "case1.nii.gz").array
    np.testing.assert_array_equal(load_probabilities(tmp_path / "out" / "case1.npz", 3).argmax(0), labels)
    assert (steps[0], steps[-1]) == ((0, 2), (2, 2))


def test_a_single_image_becomes_a_single_file_of_its_type(tmp_path):
    model = load_model(write_model(tmp_path / "model"))
    source = write_case(tmp_path, "patient.nrrd")

    cases = find_cases([source], model)
    predict_files(model, lambda: Predictor(model), cases, FileRequest(tmp_path / "out.nrrd"))
    predict_files(model, lambda: Predictor(model), cases, FileRequest(tmp_path / "out"))

    expected = read_labels(tmp_path / "out.nrrd").array
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "patient.nrrd").array, expected)


@pytest.mark.parametrize(
    ("given", "output", "accepted"),
    [
        ("p0.bmp", "x.doc", False),
        ("p0.bmp", "p0_pred.JPG", False),
        ("p0.bmp", "x.bmp", True),
        ("p0.bmp", "results_v1.2", True),
        ("p0.bmp", "made.before", True),
        ("p0.bmp", "made.txt", True),
        (".", "x.doc", True),
    ],
)
def test_one_image_is_not_predicted_into_a_folder_called_like_a_file(tmp_path, given, output, accepted):
    (tmp_path / "p0.bmp").touch()
    (tmp_path / "made.txt").mkdir()

    with nullcontext() if accepted else pytest.raises(ImageError, match="make the folder first"):
        require_output_name([tmp_path / given], tmp_path / output)


def test_a_folder_of_colour_pictures_is_predicted_as_a_single_one_is(tmp_path):
    three = configuration("2d", channels=3)
    model = load_model(write_model(tmp_path / "model", "2d", configurations=(three,), channels=3))
    (tmp_path / "in").mkdir()
    for name in ("one.bmp", "two.v2.bmp"):
        pixels = np.random.default_rng(len(name)).integers(0, 255, (20, 24, 3), np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / "in" / name))

    predict_files(model, lambda: Predictor(model), find_cases([tmp_path / "in"], model), FileRequest(tmp_path / "out"))
    predict_files(
        model,
        lambda: Predictor(model),
        find_cases([tmp_path / "in" / "one.bmp"], model),
        FileRequest(tmp_path / "1.bmp"),
    )

    assert (tmp_path / "out" / "two.v2.bmp").is_file()
    found, expected = (read_labels(path).array for path in (tmp_path / "out" / "one.bmp", tmp_path / "1.bmp"))
    np.testing.assert_array_equal(found, expected)


def pictures(folder: Path, *names: str, colours: int = 1) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        pixels = np.random.default_rng(len(name)).integers(0, 255, (20, 24, colours), np.uint8)
        volume = sitk.GetImageFromArray(pixels if colours > 1 else pixels[..., 0], isVector=colours > 1)
        sitk.WriteImage(volume, str(folder / name.lower()))
        (folder / name.lower()).rename(folder / name)
    return folder


@pytest.fixture
def one_channel(tmp_path):
    return load_model(write_model(tmp_path / "model", "2d"))


def test_all_images_of_a_folder_are_predicted_whatever_they_are_called(tmp_path, one_channel):
    source = pictures(tmp_path / "in", "a.png", "b.tif", "c.PNG", "plate_0001.png")
    said = []

    cases = find_cases([source], one_channel, said.append)
    predict_files(one_channel, lambda: Predictor(one_channel), cases, FileRequest(tmp_path / "out"))

    written = {path.name for path in (tmp_path / "out").glob("*.*") if path.suffix != ".json"}
    assert written == {"a.png", "b.tif", "c.png", "plate.png"}
    assert said == []


def test_numbers_of_pictures_are_channels_only_where_all_are_the_first(tmp_path, one_channel):
    first = pictures(tmp_path / "first", "a_0000.png", "b_0000.png")
    frames = pictures(tmp_path / "frames", *(f"img_000{n}.png" for n in range(3)))
    said = []

    assert [case.id for case in find_cases([first], one_channel, said.append)] == ["a", "b"]
    assert said == []
    assert [case.id for case in find_cases([frames], one_channel)] == ["img_0000", "img_0001", "img_0002"]
    assert [case.id for case in find_cases(sorted(frames.iterdir()), one_channel)] == [
        "img_0000",
        "img_0001",
        "img_0002",
    ]
    assert [case.id for case in find_cases([first / "a_0000.png"], one_channel)] == ["a"]


def test_one_number_among_many_pictures_renames_no_other(tmp_path, one_channel):
    source, said = pictures(tmp_path / "in", "a_0000.png", "b_0000.png", "c_0001.png"), []

    assert [case.id for case in find_cases([source], one_channel, said.append)] == ["a", "b", "c"]
    assert said == []


def test_stacks_are_no_frames_even_where_their_headers_call_slices_colours(tmp_path):
    one = load_model(write_model(tmp_path / "one"))
    three = configuration("2d", channels=3)
    several = load_model(write_model(tmp_path / "three", "2d", configurations=(three,), channels=3))
    (tmp_path / "in").mkdir()
    for n in range(3):
        tifffile.imwrite(tmp_path / "in" / f"patient_000{n}.tif", np.full((3, 20, 24), n, np.uint8))

    for model in (one, several):
        assert [(case.id, len(case.images)) for case in find_cases([tmp_path / "in"], model)] == [("patient", 3)]


@pytest.mark.parametrize("stray", ["screenshot.png", "A_seg.nrrd", "B.nii.gz"])
def test_beside_cases_in_nnunets_form_nothing_else_is_a_patient(tmp_path, stray):
    model, said = load_model(write_model(tmp_path / "model")), []
    write_case(tmp_path / "in", "A_0000.nii.gz")
    if stray.endswith("png"):
        pictures(tmp_path / "elsewhere", stray)
        shutil.move(tmp_path / "elsewhere" / stray, tmp_path / "in")
    else:
        write_case(tmp_path / "in", stray)

    assert [case.id for case in find_cases([tmp_path / "in"], model, said.append)] == ["A"]
    assert len(said) == 1 and f"{stray} (not named like CASE_0000.nii.gz, as others are)" in said[0]


def test_a_colour_picture_named_as_nnunet_does_is_a_case_without_its_number(tmp_path):
    three = configuration("2d", channels=3)
    model = load_model(write_model(tmp_path / "model", "2d", configurations=(three,), channels=3))
    source = pictures(tmp_path / "in", "a_0000.png", "b_0000.png", colours=3)

    assert [case.id for case in find_cases([source], model)] == ["a", "b"]


def test_no_image_is_opened_to_sort_what_a_model_of_one_channel_takes(tmp_path, one_channel, monkeypatch):
    names = [f"case{n}_0000.nii.gz" for n in range(30)] + [f"note{n}.txt" for n in range(30)]
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).touch()
    asked = []
    monkeypatch.setattr("NNSegmentLib.predicting.cases.stored_layout", lambda *given, **named: asked.append(given))

    assert len(find_cases([tmp_path / "in"], one_channel)) == 30
    assert asked == []


def test_numbers_of_colour_pictures_are_channels_where_each_file_holds_one(tmp_path):
    three = configuration("2d", channels=3)
    model = load_model(write_model(tmp_path / "model", "2d", configurations=(three,), channels=3))
    names = [f"img_000{n}.png" for n in range(3)]

    assert [case.id for case in find_cases([pictures(tmp_path / "grey", *names)], model)] == ["img"]
    assert len(find_cases([pictures(tmp_path / "rgb", *names, colours=3)], model)) == 3


def test_a_second_channel_of_a_patient_is_no_second_patient(tmp_path):
    model = load_model(write_model(tmp_path / "model"))
    for n in range(2):
        write_case(tmp_path / "in", f"patient_000{n}.nii.gz")

    cases = find_cases([tmp_path / "in"], model)

    assert [case.id for case in cases] == ["patient"]
    with pytest.raises(ImageError, match="channels 0000, 0001, the model expects 0000"):
        predict_files(model, lambda: Predictor(model), cases, FileRequest(tmp_path / "out"))


def test_files_that_are_left_out_are_named_with_the_reason(tmp_path):
    three = configuration("2d", channels=3)
    model = load_model(write_model(tmp_path / "model", "2d", configurations=(three,), channels=3))
    source, said = pictures(tmp_path / "in", "colour.png", "colour.bmp", colours=3), []
    write_case(source, "grey.nii.gz")
    for name in ("photo.jpg", "notes.txt", "Thumbs.db", "._colour.png", "dataset.json"):
        (source / name).write_bytes(b"x")

    assert [case.images for case in find_cases([source], model, said.append)] == [(source / "colour.png",)]

    assert len(said) == 1
    for part in (
        "colour.bmp (other files",
        "grey.nii.gz (not the 3 channels",
        "notes.txt, photo.jpg (no image",
        "save them as .png",
    ):
        assert part in said[0]
    assert not any(name in said[0] for name in ("Thumbs", "._", ".json"))


def test_opacity_and_channels_that_lead_are_taken_as_conversion_takes_them(tmp_path):
    three = configuration("2d", channels=3)
    model = load_model(write_model(tmp_path / "model", "2d", configurations=(three,), channels=3))
    colours = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)
    source = tmp_path / "in"
    source.mkdir()
    full = np.dstack([colours, np.full((20, 24), 255, np.uint8)])
    for name, pixels in (("rgb.png", colours), ("full.png", full)):
        sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(source / name))
    tifffile.imwrite(source / "led.tif", np.moveaxis(colours, -1, 0).copy(), imagej=True, metadata={"axes": "CYX"})

    predict_files(model, lambda: Predictor(model), find_cases([source], model), FileRequest(tmp_path / "out"))

    expected = read_labels(tmp_path / "out" / "rgb.png").array
    for name in ("full.png", "led.tif"):
        np.testing.assert_array_equal(read_labels(tmp_path / "out" / name).array, expected)


def test_opacity_that_is_left_out_is_told(tmp_path):
    three = configuration("2d", channels=3)
    model = load_model(write_model(tmp_path / "model", "2d", configurations=(three,), channels=3))
    said = []

    find_cases([pictures(tmp_path / "in", "a.png", colours=4)], model, said.append)

    assert len(said) == 1 and "alpha channel" in said[0] and "a.png" in said[0]


def test_a_picture_is_not_made_a_volume_for_a_volume_model(tmp_path, one_channel):
    model = load_model(write_model(tmp_path / "volumes"))
    source = pictures(tmp_path / "in", "a.png")

    with pytest.raises(ImageError, match="3d_fullres expects volumes, found a single plane of 20 × 24 pixels"):
        predict_files(model, lambda: Predictor(model), find_cases([source], model), FileRequest(tmp_path / "out"))
    fine = Geometry((1, 20, 14), (499.5, 0.5, 0.5), dimension=2)
    with pytest.raises(ImageError, match="3d_fullres expects volumes"):
        Predictor(model).predict(image(grid=fine))
    flat = image(grid=Geometry((1, 20, 14), (3.0, 1.0, 1.0)))
    assert Predictor(model).predict(flat).labels.shape == (1, 20, 14)  # a volume of one slice is none the less a volume
    assert Predictor(one_channel).predict(image()).labels.shape == GRID.shape


def test_a_folder_of_photographs_alone_is_refused_with_what_to_do(tmp_path, one_channel):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"x")

    with pytest.raises(ImageError, match=r"found only a\.jpg .*\.jpg files are not read: save them as \.png"):
        find_cases([tmp_path / "in"], one_channel)


def test_a_voxel_size_in_the_header_alone_is_told(tmp_path):
    model, said = load_model(write_model(tmp_path / "model")), []
    (tmp_path / "in").mkdir()
    described = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    for name in ("a_0000.tif", "b_0000.tif"):
        stack = image().array[0].astype(np.uint8)
        tifffile.imwrite(tmp_path / "in" / name, stack, imagej=True, resolution=(4, 4), metadata=described)
    (tmp_path / "in" / "b.json").write_text('{"spacing": [2, 0.25, 0.25]}')

    find_cases([tmp_path / "in"], model, said.append)

    assert len(said) == 1 and "header of a tells" in said[0] and '{"spacing": [2.0, 0.25, 0.25]}' in said[0]


def test_answers_beside_their_images_are_not_predicted(tmp_path):
    model, said = load_model(write_model(tmp_path / "model")), []
    for name in ("a_0000.nii.gz", "a.nii.gz"):
        write_case(tmp_path / "in", name)

    assert [case.images[0].name for case in find_cases([tmp_path / "in"], model, said.append)] == ["a_0000.nii.gz"]
    assert "a.nii.gz (other files are taken for the same case)" in said[0]


def test_grey_pictures_do_not_pass_for_colour_ones(tmp_path):
    two = configuration("3d_fullres", channels=2)
    model = load_model(write_model(tmp_path / "model", configurations=(two,), channels=2))
    write_case(tmp_path / "in", "T1.nii.gz")

    with pytest.raises(ImageError, match="one file per channel"):
        find_cases([tmp_path / "in"], model)


def test_a_single_image_is_reported_tile_by_tile(tmp_path):
    predictor = Predictor(load_model(write_model(tmp_path)), device="cpu", mirroring=False)
    path = write_case(tmp_path / "images", "one.nrrd")
    steps = []

    predict_files(
        predictor.model,
        lambda: predictor,
        [Case("one", (path,))],
        FileRequest(tmp_path / "out.nii.gz"),
        lambda *step: steps.append(step),
    )

    tiles = [step for step in steps if step[2].startswith("one: ")]
    assert tiles
    assert all(done <= total and "tiles" in what for done, total, what in tiles)


def test_a_failing_case_does_not_stop_the_others(tmp_path):
    model = load_model(write_model(tmp_path / "model"))
    for n in (1, 3):
        write_case(tmp_path / "in", f"case{n}_0000.nii.gz", n)
    (tmp_path / "in" / "case2_0000.nii.gz").write_bytes(b"no image")

    with pytest.raises(RunError, match="1 of 3 cases could not be predicted.*case2"):
        predict_files(
            model, lambda: Predictor(model), find_cases([tmp_path / "in"], model), FileRequest(tmp_path / "out")
        )

    assert {p.name for p in (tmp_path / "out").glob("*.nii.gz")} == {"case1.nii.gz", "case3.nii.gz"}


@pytest.mark.parametrize(
    ("where", "step"), [("NNSegmentLib.predicting.files", "prepare_input"), (Predictor.__module__, "Predictor.finish")]
)
def test_a_case_that_memory_does_not_suffice_for_does_not_stop_the_others(tmp_path, monkeypatch, where, step):
    for n in (1, 2):
        write_case(tmp_path / "in", f"case{n}_0000.nii.gz", n)
    predictor = Predictor(load_model(write_model(tmp_path / "model")), device="cpu", mirroring=False)
    real, calls = pkgutil.resolve_name(f"{where}:{step}"), []

    def greedy(*given):
        calls.append(given)
        if len(calls) == 1:
            raise MemoryError
        return real(*given)

    monkeypatch.setattr(f"{where}.{step}", greedy)
    with pytest.raises(RunError, match="1 of 2 cases.*case1: Main memory does not suffice; close other programs"):
        predict_files(
            predictor.model,
            lambda: predictor,
            find_cases([tmp_path / "in"], predictor.model),
            FileRequest(tmp_path / "out"),
        )

    assert sorted(path.name for path in (tmp_path / "out").glob("case*")) == ["case2.nii.gz"]


def test_existing_outputs_are_kept_on_request(tmp_path):
    model = load_model(write_model(tmp_path / "model"))
    for n in (1, 2):
        write_case(tmp_path / "in", f"case{n}_0000.nii.gz", n)
    predictor, cases = Predictor(model), find_cases([tmp_path / "in"], model)
    predict_files(predictor.model, lambda: predictor, cases[:1], FileRequest(tmp_path / "out"))

    assert predict_files(predictor.model, lambda: predictor, cases, FileRequest(tmp_path / "out", overwrite=False)) == (
        "case2",
    )
    again = FileRequest(tmp_path / "out", overwrite=False, save_probabilities=True)
    assert predict_files(predictor.model, lambda: predictor, cases, again) == ("case1", "case2")


@pytest.mark.parametrize("direction", [np.diag([-1.0, -1.0, 1.0]), np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0.0]])])
def test_models_that_reorient_images_answer_on_the_files_grid(tmp_path, direction):
    """A bright octant is found where it is, whichever way the file stores its axes."""
    model = load_model(write_model(tmp_path / "model", reader="NibabelIOWithReorient"))
    grid = Geometry((9, 16, 12), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(map(tuple, direction.tolist())))
    source = write_case(tmp_path, "turned_0000.nii.gz", 3, grid)
    predictor = Predictor(model)
    case = Case("turned", (source,))

    predict_files(predictor.model, lambda: predictor, [case], FileRequest(tmp_path / "out.nii.gz"))

    written = read_labels(tmp_path / "out.nii.gz")
    assert written.geometry.same_grid(grid)
    ras = predictor.predict(case)
    voxels = np.argwhere(ras.labels > -1)
    back = np.rint(grid.voxel(ras.geometry.world(voxels))).astype(int)
    np.testing.assert_array_equal(written.array[tuple(back.T)], ras.labels.ravel())


@pytest.mark.parametrize(("reader", "apart"), [("SimpleITKIO", True), ("SimpleITKIOWithReorient", False)])
def test_channels_that_the_reader_turns_onto_each_other_are_not_said_to_lie_apart(tmp_path, reader, apart):
    two = configuration("3d_fullres", channels=2)
    model = load_model(write_model(tmp_path / "model", configurations=(two,), channels=2, reader=reader))
    mirrored = tuple((-x, y, z) for x, y, z in GRID.direction)
    far = tuple(GRID.world([(0, 0, GRID.shape[2] - 1)])[0])
    write_case(tmp_path / "in", "case_0000.nii.gz")
    write_case(tmp_path / "in", "case_0001.nii.gz", grid=replace(GRID, direction=mirrored, origin_mm=far))
    said = []

    predict_files(
        model,
        lambda: Predictor(model),
        find_cases([tmp_path / "in"], model),
        FileRequest(tmp_path / "out"),
        say=said.append,
    )

    assert any("lie that far apart" in sentence for sentence in said) is apart


def test_a_prediction_is_not_forced_onto_a_tilted_grid():
    tilted = replace(GRID, direction=((0.8, -0.6, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, 1.0)))

    with pytest.raises(ImageError, match="cannot be put back"):
        Prediction(np.zeros(GRID.shape, np.uint8), GRID, None).on_grid(tilted)


def test_a_wrong_number_of_channels_names_those_expected(tmp_path):
    model = load_model(write_model(tmp_path))

    with pytest.raises(ImageError, match=r"expects 1 channel \(MR, in this order\), found 2"):
        Predictor(model).predict(image(channels=2))


def test_a_coloured_picture_for_a_model_of_one_channel_is_to_be_saved_in_grey():
    picture = Image(np.zeros((3, 1, 8, 8), np.float32), Geometry((1, 8, 8), (999.0, 1.0, 1.0), dimension=2))

    with pytest.raises(ImageError, match="found 3; save the picture in shades of grey"):
        require_channels(picture, ("grey",))


def test_channels_that_lie_apart_are_predicted_and_named_once(tmp_path):
    two = configuration("3d_fullres", channels=2)
    model, said = write_model(tmp_path / "model", configurations=[two], channels=2), []
    for n, mm in enumerate((0, 20, 35)):
        write_case(tmp_path / "in", f"case{n}_0000.nii.gz", seed=n)
        moved = replace(GRID, origin_mm=(5.0 + mm, -3.0, 2.0))
        write_case(tmp_path / "in", f"case{n}_0001.nii.gz", seed=n + 9, grid=moved)

    done = pipeline.predict(tmp_path / "in", tmp_path / "out", model=model, device="cpu", say=said.append)

    (sentence,) = [text for text in said if "apart" in text]
    assert done == ("case0", "case1", "case2")
    assert sentence.startswith("The channels of case1 (20 mm), case2 (35 mm) lie that far apart")
    assert read_geometry(tmp_path / "out" / "case1.nii.gz").same_grid(GRID)


def test_missing_channel_files_are_named(tmp_path):
    two = configuration("3d_fullres", channels=2)
    model = load_model(write_model(tmp_path / "model", configurations=(two,), channels=2))
    for name in ("a_0000", "a_0001", "b_0000", "c_0000", "c_0002"):
        write_case(tmp_path / "in", f"{name}.nii.gz")

    with pytest.raises(RunError) as failed:
        predict_files(
            model, lambda: Predictor(model), find_cases([tmp_path / "in"], model), FileRequest(tmp_path / "out")
        )

    assert "b: The model expects 2 channels" in str(failed.value)
    assert "c: Case c has files for the channels 0000, 0002" in str(failed.value)
    assert (tmp_path / "out" / "a.nii.gz").is_file()


def test_an_image_with_values_that_are_no_numbers_is_refused(tmp_path):
    broken = image()
    broken.array[0, 3, 3, 3] = np.nan

    with pytest.raises(ImageError, match="NaN"):
        Predictor(load_model(write_model(tmp_path))).predict(broken)


def test_weights_of_another_network_are_refused(tmp_path):
    folder = write_model(tmp_path)
    plan = json.loads((folder / "plans.json").read_text())
    plan["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [10**6, 10**6]
    (folder / "plans.json").write_text(json.dumps(plan))

    with pytest.raises(ModelError, match="by the plan"):
        Predictor(load_model(folder))


def test_a_plan_for_other_channels_than_its_data_set_is_refused(tmp_path):
    two = configuration("3d_fullres", channels=2)

    with pytest.raises(ModelError, match="normalises 2 channels, its dataset.json names 1"):
        Predictor(load_model(write_model(tmp_path, configurations=(two,))))


def in_configuration(key, value):
    return lambda plan: plan["configurations"]["3d_fullres"].update({key: value})


def in_network(key, value):
    return lambda plan: plan["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update({key: value})


WRONG_PLANS = [
    lambda plan: plan.update(transpose_forward=[0, 0, 1]),
    lambda plan: plan.update(configurations=[]),
    *((lambda plan, r=r: plan.update(image_reader_writer=r)) for r in ("MyReader", ["SimpleITKIO"], None)),
    in_configuration("batch_size", float("inf")),
    in_configuration("normalization_schemes", [["ZScoreNormalization"]]),
    *(in_configuration("spacing", s) for s in ([0, 0, 0], [-1, 1, 1], [float("nan")] * 3, [1, 1], [1e9] * 3)),
    *(in_configuration("patch_size", p) for p in ([10**6] * 3, [0] * 3, [16, 16], [-16] * 3, [15] * 3)),
    *(in_configuration("previous_stage", p) for p in ("3d_fullres", "../../etc")),
    *(in_configuration("resampling_fn_probabilities_kwargs", {"order": o}) for o in (99, "x")),
    in_configuration("resampling_fn_data", "os.system"),
    in_configuration("inherits_from", "3d_fullres"),
    *(in_network("n_stages", n) for n in (10**12, 0, -1, 2.5, True)),
    *(in_network("features_per_stage", f) for f in (10**9, [0, 0], [-4, 8], [4])),
    *(in_network("kernel_sizes", k) for k in (0, [[3, 3]] * 2, [[3, 3, 3]], {}, [[10**6] * 3] * 2)),
    *(in_network("strides", s) for s in (0, [[2, 2, 2]], [[3, 3, 3], [2, 2, 2]])),
    *(in_network("n_conv_per_stage", n) for n in (10**9, 0)),
    in_network("n_conv_per_stage_decoder", [1] * 9),
]


@pytest.mark.parametrize("spoil", WRONG_PLANS)
def test_plans_with_impossible_values_are_refused_in_one_sentence(tmp_path, spoil):
    folder = write_model(tmp_path)
    plan = json.loads((folder / "plans.json").read_text())
    spoil(plan)
    (folder / "plans.json").write_text(json.dumps(plan))

    with pytest.raises(InputError) as refused:
        Predictor(load_model(folder)).predict(image())

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("spoil", WRONG_PLANS)
def test_impossible_plans_are_refused_before_memory_is_estimated_with_them(tmp_path, spoil):
    folder = write_model(tmp_path)
    plan = json.loads((folder / "plans.json").read_text())
    spoil(plan)
    (folder / "plans.json").write_text(json.dumps(plan))
    write_case(tmp_path / "in", "a_0000.nii.gz")

    with pytest.raises(NNSegmentError) as refused:
        pipeline.predict([tmp_path / "in"], tmp_path / "out", model=folder, device="cpu")

    assert "\n" not in str(refused.value)


def test_an_unknown_trainer_is_refused_by_name(tmp_path):
    folder = write_model(tmp_path)
    path = folder / "fold_0" / "checkpoint_final.pth"
    values = torch.load(path, weights_only=True) | {"trainer_name": "nnUNet_Primus_M_Trainer"}
    torch.save(values, path)

    with pytest.raises(ModelError, match="nnUNet_Primus_M_Trainer"):
        Predictor(load_model(folder))


def test_impossible_settings_and_inputs_are_refused(tmp_path):
    model = load_model(write_model(tmp_path / "model"))
    first, second = write_case(tmp_path / "a", "x.nii.gz"), write_case(tmp_path / "b", "x.nii.gz")

    with pytest.raises(SettingsError, match="step"):
        Predictor(model, step=0)
    with pytest.raises(ImageError, match="found nothing there"):
        find_cases([tmp_path / "nowhere"], model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="found none"):
        find_cases([tmp_path / "empty"], model)
    with pytest.raises(ImageError, match="both be written"):
        predict_files(
            model, lambda: Predictor(model), find_cases([first, second], model), FileRequest(tmp_path / "out")
        )
    with pytest.raises(ImageError, match="overwrite its image"):
        predict_files(model, lambda: Predictor(model), find_cases([first], model), FileRequest(tmp_path / "a"))


def test_loading_a_model_loads_no_compiler(tmp_path):
    folder = write_model(tmp_path)
    code = f"""
import sys
from pathlib import Path
from NNSegmentLib.engine.predictor import Predictor
from NNSegmentLib.model import load_model
Predictor(load_model(Path({str(folder)!r})), device="cpu")
sys.exit(", ".join({{"torch._dynamo", "sympy"}} & set(sys.modules)) or 0)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
