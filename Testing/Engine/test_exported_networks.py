"""Networks as ONNX and TorchScript: the same numbers, and a card that suffices to predict with them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_predictor import GRID, configuration, image, write_model

import NNSegmentLib as nns
from NNSegmentLib.engine import export
from NNSegmentLib.engine.predictor import LoadedPart, Predictor
from NNSegmentLib.image import Image
from NNSegmentLib.planning.plan import NetworkSpec, Resampling, load_plan, save_plan

onnx = pytest.importorskip("onnx", reason="ONNX files are written with the package onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX files are tried with the package onnxruntime")

REGIONS = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def residual() -> NetworkSpec:
    return NetworkSpec("ResidualEncoderUNet", (4, 8), ((3, 3, 3),) * 2, ((1, 1, 1), (1, 2, 2)), (1, 2), (1,))


def cascade(folder: Path) -> Path:
    parts = configuration("3d_lowres"), configuration("3d_cascade_fullres", previous_stage="3d_lowres")
    write_model(folder, "3d_lowres", parts)
    return write_model(folder, "3d_cascade_fullres", parts)


MODELS = {
    "plain": write_model,
    "planes": lambda folder: write_model(folder, "2d"),
    "residual": lambda folder: write_model(
        folder, configurations=[replace(configuration("3d_fullres"), network=residual())]
    ),
    "regions": lambda folder: write_model(folder, labels=REGIONS),
    "two channels": lambda folder: write_model(
        folder, channels=2, configurations=[configuration("3d_fullres", channels=2)]
    ),
    "cascade": cascade,
}


def onnx_session(path: Path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_onnx(path: Path, batch: np.ndarray) -> np.ndarray:
    return onnx_session(path).run(["logits"], {"image": batch})[0]


def run_torchscript(path: Path, batch: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return torch.jit.load(path)(torch.from_numpy(batch)).numpy()


RUN = {"onnx": run_onnx, "torchscript": run_torchscript}


@pytest.mark.parametrize("format", list(RUN))
@pytest.mark.parametrize("kind", list(MODELS))
def test_an_exported_network_gives_our_networks_logits(tmp_path, kind, format):
    model = nns.load_model(MODELS[kind](tmp_path / "model"))

    exported = nns.export_model(model.folder, tmp_path / "exported", format)

    for part in (*([model.parts[0].previous] if kind == "cascade" else []), model.parts[0]):
        network = LoadedPart.load(part, model, "cpu").networks[0]
        path = exported / part.folder.name / f"fold_0{export.ENDINGS[format]}"
        shape = json.loads(path.with_suffix(".json").read_text())["input"]["shape"][1:]
        for n in (1, 3):
            batch = np.random.default_rng(n).normal(size=(n, *shape)).astype(np.float32)
            with torch.inference_mode():
                expected = network(torch.from_numpy(batch)).numpy()
            assert np.abs(expected).max() > 0.1
            np.testing.assert_allclose(RUN[format](path, batch), expected, atol=1e-4)


def test_an_exported_network_computes_in_the_precision_that_its_user_gives_it(tmp_path):
    folder = write_model(tmp_path / "model")
    network = torch.jit.load(nns.export_model(folder, tmp_path / "one.pt", "torchscript"))
    batch = torch.zeros((1, *json.loads((tmp_path / "one.json").read_text())["input"]["shape"][1:]))

    assert network.to(torch.float64)(batch.double()).dtype == torch.float64


def test_every_fold_is_a_file_with_its_card_inside_and_beside(tmp_path):
    folder = write_model(tmp_path, folds=(0, 1))

    (tmp_path / "onnx").mkdir()  # an empty folder may be there already
    exported = nns.export_model(folder, tmp_path / "onnx", "onnx")
    nns.export_model(folder, tmp_path / "torchscript", "torchscript")

    names = sorted(str(p.relative_to(exported)) for p in exported.rglob("*.*"))
    assert names == [f"{MODEL}/fold_{fold}.{ending}" for fold in (0, 1) for ending in ("json", "onnx")]
    for fold in (0, 1):
        beside = json.loads((exported / MODEL / f"fold_{fold}.json").read_text())
        properties = {p.key: p.value for p in onnx.load(exported / MODEL / f"fold_{fold}.onnx").metadata_props}
        inside = {export.CARD: ""}
        torch.jit.load(tmp_path / "torchscript" / MODEL / f"fold_{fold}.pt", _extra_files=inside)
        assert json.loads(properties[export.CARD]) == json.loads(inside[export.CARD]) == beside
        assert (beside["fold"], beside["company"]["folds"]) == (fold, [0, 1])
    assert nns.load_model(folder, folds=[1]).members[0].fold == 1


def test_an_onnx_file_takes_patches_of_one_size_in_any_number(tmp_path):
    exported = nns.export_model(write_model(tmp_path), tmp_path / "one.onnx", "onnx")

    described = onnx_session(exported)

    assert [(i.name, i.shape) for i in described.get_inputs()] == [("image", ["batch", 1, 16, 16, 16])]
    assert [(o.name, o.shape[0], o.shape[1]) for o in described.get_outputs()] == [("logits", "batch", 3)]
    assert [used.version for used in onnx.load(exported).opset_import] == [17]


def predict_with_card(files: list[Path], values: np.ndarray) -> np.ndarray:
    """What a stranger does with the files and their cards, for images that need no resampling."""
    card = json.loads(files[0].with_suffix(".json").read_text())
    forward, backward = (card["preprocessing"][f"transpose_{way}"] for way in ("forward", "backward"))
    values = values.transpose(0, *(1 + axis for axis in forward))
    occupied = np.argwhere((values != 0).any(0))
    box = tuple(slice(a, b) for a, b in zip(occupied.min(0), occupied.max(0) + 1, strict=True))
    inside = np.stack([normalized(v[box], c) for v, c in zip(values, card["input"]["channels"], strict=True)])
    logits = np.mean([slide(onnx_session(file), inside, card["sliding_window"]) for file in files], axis=0)
    labels = np.zeros(values.shape[1:], int)
    labels[box] = decided(logits, card["output"])
    return labels.transpose(backward)


def normalized(values: np.ndarray, channel: dict) -> np.ndarray:
    stats = channel["intensities"]
    if channel["normalization"] == "CTNormalization":
        return (values.clip(stats["percentile_00_5"], stats["percentile_99_5"]) - stats["mean"]) / stats["std"]
    return (values - values.mean()) / values.std()


def slide(session, inside: np.ndarray, window: dict) -> np.ndarray:
    patch, step = window["patch_size"], window["step"]
    missing = [max(0, p - n) for p, n in zip(patch, inside.shape[1:], strict=True)]
    padded = np.pad(inside, [(0, 0), *((m // 2, m - m // 2) for m in missing)])
    weight = np.ones(patch)
    for axis, size in enumerate(patch):
        along = np.exp(-0.5 * ((np.arange(size) - size // 2) / (window["gaussian_sigma"] * size)) ** 2)
        weight *= along.reshape([-1 if a == axis else 1 for a in range(3)])
    summed, weights = 0.0, np.zeros(padded.shape[1:])
    for corner in itertools.product(*(starts(n, p, step) for n, p in zip(padded.shape[1:], patch, strict=True))):
        place = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        answer = mirrored_mean(session, padded[(slice(None), *place)], window["mirror_axes"])
        summed = np.zeros((len(answer), *weights.shape)) if np.isscalar(summed) else summed
        summed[(slice(None), *place)] += answer * weight
        weights[place] += weight
    inner = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, inside.shape[1:], strict=True))
    return (summed / weights)[(slice(None), *inner)]


def starts(length: int, patch: int, step: float) -> list[int]:
    n = int(np.ceil((length - patch) / (patch * step))) + 1
    return [round(i * (length - patch) / max(1, n - 1)) for i in range(n)]


def mirrored_mean(session, patch: np.ndarray, axes: list[int]) -> np.ndarray:
    answers = []
    for n in range(len(axes) + 1):
        for chosen in itertools.combinations([1 + axis for axis in axes], n):
            seen = np.ascontiguousarray(np.flip(patch, chosen))[None].astype(np.float32)
            answers.append(np.flip(session.run(None, {"image": seen})[0][0], chosen))
    return np.mean(answers, axis=0)


def decided(logits: np.ndarray, output: dict) -> np.ndarray:
    painted = [channel["painted_value"] for channel in output["channels"]]
    if output["activation"] == "softmax":
        return np.array(painted)[logits.argmax(0)]
    labels = np.zeros(logits.shape[1:], int)
    for logit, value in zip(logits, painted, strict=True):
        labels[logit > 0] = value
    return labels


@pytest.mark.parametrize("labels", [None, REGIONS])
def test_files_and_cards_alone_suffice_to_predict_like_we_do(tmp_path, labels):
    made = replace(configuration("3d_fullres", channels=2), normalization=("CTNormalization", "ZScoreNormalization"))
    folder = write_model(tmp_path, configurations=[made], channels=2, labels=labels, folds=(0, 1))
    save_plan(replace(load_plan(folder / "plans.json"), transpose_forward=(2, 0, 1)), folder / "plans.json")
    seen = image(seed=3, grid=replace(GRID, shape=(22, 30, 12), spacing_mm=(1.0, 1.0, 1.0)), channels=2)
    values = 1 + 0.5 * seen.array
    values[:, :3] = 0
    seen = Image(values, seen.geometry)

    exported = nns.export_model(folder, tmp_path / "exported", "onnx")
    found = predict_with_card(sorted((exported / MODEL).glob("*.onnx")), values.astype(np.float64))

    expected = Predictor(nns.load_model(folder)).predict(seen).labels
    assert len(np.unique(expected)) > 1
    assert (found == expected).mean() > 0.9995


def test_the_card_of_a_plan_with_torchs_resampling_tells_that_it_is_linear(tmp_path):
    torchs = Resampling(order=3, force_separate_z=False, function="resample_torch_fornnunet")
    made = replace(configuration("3d_fullres"), resampling_data=torchs, resampling_probabilities=torchs)

    exported = nns.export_model(write_model(tmp_path, configurations=[made]), tmp_path / "one.pt", "torchscript")

    card = json.loads(exported.with_suffix(".json").read_text())
    for found in (card["preprocessing"]["resampling_image"], card["output"]["resampling_probabilities"]):
        assert (found["order"], found["order_z"], found["force_separate_z"]) == (1, 0, False)


def test_one_network_can_be_one_file(tmp_path):
    folder = write_model(tmp_path / "model", folds=(0, 1))

    exported = nns.export_model(folder, tmp_path / "out" / "knee.pt", "torchscript", folds=[1])

    assert sorted(p.name for p in exported.parent.iterdir()) == ["knee.json", "knee.pt"]
    assert json.loads((exported.parent / "knee.json").read_text())["fold"] == 1


def test_torch_is_given_an_open_file_because_on_windows_it_opens_only_ascii_names(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise RuntimeError("open file failed because of errno 2 on fopen: No such file or directory")

    monkeypatch.setattr(torch.jit.ScriptModule, "save", refused)

    exported = nns.export_model(write_model(tmp_path / "model"), tmp_path / "Müller.pt", "torchscript")

    assert torch.jit.load(exported)


@pytest.mark.parametrize("format", list(RUN))
def test_what_cannot_be_exported_gets_a_sentence_and_leaves_nothing(tmp_path, format):
    folder = write_model(tmp_path / "model", folds=(0, 1))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(nns.SettingsError, match="one network"):
        nns.export_model(folder, tmp_path / f"out{export.ENDINGS[format]}", format)
    with pytest.raises(nns.StorageError, match="exists already"):
        nns.export_model(folder, taken, format)
    with pytest.raises(nns.ModelError, match="fold 7"):
        nns.export_model(folder, tmp_path / "out", format, folds=[7])
    with pytest.raises(nns.SettingsError, match="zip, onnx, torchscript"):
        nns.export_model(folder, tmp_path / "out", "keras")
    (folder / "fold_1" / "checkpoint_final.pth").write_text("damaged")
    with pytest.raises(nns.ModelError):
        nns.export_model(folder, tmp_path / "out", format)

    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_package_is_named_with_the_command_that_brings_it(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "model")
    monkeypatch.setattr(export, "find_spec", lambda name: None)

    with pytest.raises(nns.SettingsError, match="pip install onnx"):
        nns.export_model(folder, tmp_path / "out", "onnx")

    assert not (tmp_path / "out").exists()
    assert nns.export_model(folder, tmp_path / "out", "torchscript").is_dir()
