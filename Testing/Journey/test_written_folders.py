"""What `train` writes is a model folder of nnU-Net v2 as it stands: the same files, keys and kinds of values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_task import run

pytestmark = pytest.mark.slow
OURS_ALONE = {"nnsegment"}
"""Keys of a checkpoint that nnU-Net does not have and does not look at."""
NOTES = {"name", "tensorImageSize", "numTest"}
"""What the Decathlon's description says besides; nnU-Net's dataset.json may hold any more."""
FILES = ("plans.json", "dataset.json", "dataset_fingerprint.json")


@pytest.fixture(scope="module")
def theirs(peer) -> Path:
    return next((peer / "models" / "trained").iterdir())


def outline(value: object) -> object:
    """Keys and kinds of values, without the values; a list is what its entries are."""
    if isinstance(value, Mapping):
        return {str(key): outline(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        kinds = [outline(item) for item in value]
        return [type(value).__name__, *(kind for k, kind in enumerate(kinds) if kind not in kinds[:k])]
    if isinstance(value, torch.device):
        return "str"  # written as text, so that the file loads with weights_only
    if isinstance(value, torch.Tensor):
        return str(value.dtype)
    return type(value.item() if isinstance(value, np.generic) else value).__name__


def checkpoint(model: Path, weights_only: bool) -> dict:
    return torch.load(model / "fold_0" / "checkpoint_final.pth", map_location="cpu", weights_only=weights_only)


@pytest.fixture(scope="module")
def ours_loaded(tiny) -> dict:
    return checkpoint(tiny.model(), weights_only=True)


@pytest.fixture(scope="module")
def theirs_loaded(theirs) -> dict:
    return checkpoint(theirs, weights_only=False)


@pytest.mark.parametrize("name", FILES)
def test_a_json_file_has_nnunets_keys_and_kinds(tiny, theirs, name):
    ours, expected = (json.loads((folder / name).read_text()) for folder in (tiny.model(), theirs))

    ours = {key: value for key, value in ours.items() if key not in NOTES}
    assert outline(ours) == outline(expected)


def test_a_checkpoint_has_nnunets_keys_and_kinds(ours_loaded, theirs_loaded):
    parts = set(theirs_loaded) - {"network_weights", "optimizer_state"}

    assert set(ours_loaded) - OURS_ALONE == set(theirs_loaded)
    for part in parts - {"init_args"}:
        assert outline(ours_loaded[part]) == outline(theirs_loaded[part]), part
    arguments, expected = ours_loaded["init_args"], theirs_loaded["init_args"]
    assert set(arguments) == set(expected)
    for name in set(expected) - {"dataset_json"}:
        assert outline(arguments[name]) == outline(expected[name]), name


def test_plans_and_dataset_inside_a_checkpoint_are_those_beside_it(tiny, ours_loaded):
    arguments = ours_loaded["init_args"]

    assert arguments["plans"] == json.loads((tiny.model() / "plans.json").read_text())
    assert arguments["dataset_json"] == json.loads((tiny.model() / "dataset.json").read_text())
    assert (arguments["configuration"], arguments["fold"]) == ("3d_fullres", 0)


def test_the_optimizer_can_go_on_in_nnunet(ours_loaded, theirs_loaded):
    ours, expected = (loaded["optimizer_state"] for loaded in (ours_loaded, theirs_loaded))

    assert set(ours) == set(expected)
    (ours_group,), (expected_group,) = ours["param_groups"], expected["param_groups"]
    assert set(ours_group) - {"initial_lr"} == set(expected_group) - {"initial_lr"}
    for name in ("momentum", "nesterov", "weight_decay", "dampening", "maximize"):
        assert ours_group[name] == expected_group[name]
    parameters = {t.data_ptr() for t in ours_loaded["network_weights"].values()}
    assert ours_group["params"] == list(range(len(parameters)))
    assert outline(next(iter(ours["state"].values()))) == outline(next(iter(expected["state"].values())))


def test_every_layer_has_all_names_nnunet_asks_for(ours_loaded, theirs_loaded):
    ours, expected = (loaded["network_weights"] for loaded in (ours_loaded, theirs_loaded))

    def without_numbers(weights) -> set[str]:
        return {re.sub(r"\d+", "#", name) for name in weights}

    assert without_numbers(ours) == without_numbers(expected)
    stages = sum(re.fullmatch(r"encoder\.stages\.\d+\.0\.convs\.0\.conv\.weight", name) is not None for name in ours)
    convs = 2 * (stages + stages - 1)
    assert len(ours) == 8 * (convs + 2 * stages) + 4 * (stages - 1)
    for name, weight in ours.items():
        plain = name.removeprefix("decoder.").replace("all_modules.0", "conv").replace("all_modules.1", "norm")
        assert torch.equal(weight, ours[plain if plain in ours else name]), name
        assert weight.dtype == torch.float32


def test_the_folders_are_named_as_nnunet_looks_for_them(tiny):
    names = {str(p.relative_to(tiny.results)) for p in tiny.results.rglob("*") if p.is_file()}
    model = "nnUNetTrainer__nnUNetPlans__3d_fullres"

    wanted = {f"{model}/{name}" for name in FILES}
    for fold in (0, 1):
        files = ("checkpoint_final.pth", "checkpoint_best.pth", "progress.png", "validation/summary.json")
        wanted |= {f"{model}/fold_{fold}/{name}" for name in files}
    wanted |= {f"{model}/crossval_results_folds_0_1/{name}" for name in ("summary.json", "plans.json", "dataset.json")}
    assert wanted <= names
    chosen = json.loads((tiny.results / "inference_information.json").read_text())["best_model_or_ensemble"]
    rules = Path(chosen["postprocessing_file"])
    assert rules.suffix == ".pkl"
    assert {str(rules.with_suffix(ending).relative_to(tiny.results)) for ending in (".pkl", ".json")} <= names


@pytest.mark.parametrize(("format", "ending"), [("onnx", ".onnx"), ("torchscript", ".pt")])
def test_the_command_line_exports_what_predict_would_use(tiny, tmp_path, capsys, format, ending):
    pytest.importorskip(format if format == "onnx" else "torch", reason="ONNX files are written with the package onnx")
    where = ["--workspace", tiny.folder, "--json"]
    capsys.readouterr()

    run(f"model export 4 --format {format}", "-o", tmp_path / "networks", *where)

    assert json.loads(capsys.readouterr().out) == {format: str(tmp_path / "networks")}
    cards = [json.loads(p.read_text()) for p in sorted((tmp_path / "networks").rglob("*.json"))]
    chosen = json.loads((tiny.results / "inference_information.json").read_text())["best_model_or_ensemble"]
    names = [model["configuration"] for model in chosen["selected_model_or_models"]]
    assert len(cards) == 2 * len(names)
    assert len(list((tmp_path / "networks").rglob(f"*{ending}"))) == len(cards)
    for card in cards:
        assert card["input"]["channels"][0]["name"] == "MRI"
        assert [channel["name"] for channel in card["output"]["channels"]] == ["background", "Anterior", "Posterior"]
        assert [name.split("__")[-1] for name in card["company"]["ensemble"]] == (names if len(names) > 1 else [])
