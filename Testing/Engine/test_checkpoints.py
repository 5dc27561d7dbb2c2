"""Checkpoints: nnU-Net's keys, plain values, and files that want to run code."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from NNSegmentLib.engine.checkpoints import LOGGED, Checkpoint, load_checkpoint, load_weights, save_checkpoint
from NNSegmentLib.errors import ModelError, StorageError

NNUNET_KEYS = {
    *("network_weights", "optimizer_state", "grad_scaler_state", "logging", "_best_ema", "current_epoch"),
    *("init_args", "trainer_name", "inference_allowed_mirroring_axes"),
}


class Shared(torch.nn.Module):
    """A layer with two names, as nnU-Net's networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 2, 3)
        self.all_modules = torch.nn.Sequential(self.conv)


def checkpoint(**changes) -> Checkpoint:
    network = Shared()
    values = {
        "network_weights": network.state_dict(),
        "configuration": "3d_fullres",
        "fold": 0,
        "plans": {"plans_name": "nnUNetPlans", "spacing": [np.float64(1.5)]},
        "dataset_json": {"labels": {"background": 0, "a": 1}},
        "mirroring_axes": (0, 1, 2),
        "logging": {
            "mean_fg_dice": [np.float32(0.5), np.float64(np.nan)],
            "dice_per_class_or_region": [[np.float32(1)]],
        },
        "best_ema": np.float64(0.25),
        "current_epoch": 7,
        "extra": {"elapsed_s": 12.5, "steps": np.int64(3), "folder": Path("a")},
    }
    return Checkpoint(**(values | changes))


def test_a_checkpoint_comes_back_with_the_same_weights_and_plain_values(tmp_path):
    saved = checkpoint()

    save_checkpoint(saved, tmp_path / "checkpoint_final.pth")
    loaded = load_checkpoint(tmp_path / "checkpoint_final.pth")

    for name, tensor in saved.network_weights.items():
        assert torch.equal(loaded.network_weights[name], tensor)
    assert (loaded.configuration, loaded.fold, loaded.mirroring_axes) == ("3d_fullres", 0, (0, 1, 2))
    assert type(loaded.best_ema) is float
    assert loaded.best_ema == 0.25
    assert loaded.extra == {"elapsed_s": 12.5, "steps": 3, "folder": "a"}
    assert loaded.plans["spacing"] == [1.5]


def test_the_file_has_nnunets_keys_and_loads_with_torchs_own_safe_reader(tmp_path):
    save_checkpoint(checkpoint(), tmp_path / "c.pth")

    values = torch.load(tmp_path / "c.pth", weights_only=True)

    assert values.keys() >= NNUNET_KEYS
    assert values["init_args"].keys() == {"plans", "configuration", "fold", "dataset_json", "device"}
    assert tuple(values["logging"]) == LOGGED
    assert torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "c.pth") == []


def test_shared_layers_are_written_once(tmp_path):
    weights = {"a": torch.zeros(10**6), "b": torch.zeros(1)}
    weights["a.again"] = weights["a"]

    save_checkpoint(checkpoint(network_weights=weights), tmp_path / "c.pth")

    assert (tmp_path / "c.pth").stat().st_size < 5e6


def test_weights_are_stored_in_one_order_however_they_lie_in_memory(tmp_path):
    weight = torch.randn(4, 3, 2, 2, 2)
    given = weight.to(memory_format=torch.channels_last_3d)

    save_checkpoint(checkpoint(network_weights={"weight": given}), tmp_path / "c.pth")

    stored = load_checkpoint(tmp_path / "c.pth").network_weights["weight"]
    assert torch.equal(stored, weight)
    assert stored.is_contiguous()


def test_an_optimizer_goes_on_from_its_state(tmp_path):
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()

    save_checkpoint(checkpoint(optimizer_state=optimizer.state_dict()), tmp_path / "c.pth")
    restored = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9)
    restored.load_state_dict(load_checkpoint(tmp_path / "c.pth").optimizer_state)

    expected = optimizer.state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(restored.state_dict()["state"][0]["momentum_buffer"], expected)
    assert restored.param_groups[0]["lr"] == 0.1


def test_numpy_numbers_of_every_kind_are_read_as_python_numbers(tmp_path):
    numbers = [kind(3) for kind in (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)]
    numbers.append(np.array(3.0, ">f8")[()])
    values = raw() | {"logging": {"mean_fg_dice": numbers}, "_best_ema": np.float64(0.5)}
    torch.save(values, tmp_path / "c.pth")

    loaded = load_checkpoint(tmp_path / "c.pth")

    assert loaded.logging["mean_fg_dice"] == [3.0, 3.0, 3.0, 3, 3, 3, True, 3.0]
    assert loaded.best_ema == 0.5


def test_weights_with_one_name_per_layer_fill_a_network_with_two():
    network, given = Shared(), torch.nn.Conv3d(1, 2, 3)

    load_weights(network, {f"conv.{name}": tensor for name, tensor in given.state_dict().items()})

    assert torch.equal(network.all_modules[0].weight, given.weight)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"conv.weight": torch.zeros(2, 1, 3, 3, 3)}, "lacks the layer conv.bias"),
        ({"other": torch.zeros(1)}, "holds the layer other"),
        ({"conv.weight": torch.zeros(2, 2, 3, 3, 3)}, "should have the shape"),
    ],
)
def test_weights_that_do_not_fit_are_named(weights, sentence):
    with pytest.raises(ModelError, match=f"{sentence}.*; take the checkpoint and plans.json of one and the same model"):
        load_weights(Shared(), weights)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    save_checkpoint(checkpoint(current_epoch=1), tmp_path / "c.pth")

    with pytest.raises(StorageError):
        save_checkpoint(checkpoint(), tmp_path / "c.pth" / "below_a_file.pth")

    assert load_checkpoint(tmp_path / "c.pth").current_epoch == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]


def test_a_full_disk_is_told_by_its_name(tmp_path, monkeypatch):
    def full(values, file):
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)

    with pytest.raises(StorageError, match=r"c\.pth \(No space left on device\)"):
        save_checkpoint(checkpoint(), tmp_path / "c.pth")


def raw() -> dict:
    return {
        "network_weights": OrderedDict(a=torch.ones(3)),
        "optimizer_state": None,
        "grad_scaler_state": None,
        "logging": {},
        "_best_ema": None,
        "current_epoch": 1,
        "init_args": {"plans": {}, "configuration": "2d", "fold": 0, "dataset_json": {}, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }


class Mine:
    """Unpickling one of these leaves a file behind."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("field", [*sorted(NNUNET_KEYS), "weight", "plans", "device"])
def test_code_in_any_field_does_not_run(tmp_path, field):
    ran = tmp_path / "ran"
    values = raw()
    where = {"weight": values["network_weights"], "plans": values["init_args"], "device": values["init_args"]}
    where.get(field, values)[field] = Mine(ran)
    torch.save(values, tmp_path / "c.pth")

    with pytest.raises(ModelError, match="source you trust"):
        load_checkpoint(tmp_path / "c.pth")

    assert not ran.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_bare_pickle_does_not_run(tmp_path, protocol):
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Mine(tmp_path / "ran"), protocol))

    with pytest.raises(ModelError):
        load_checkpoint(tmp_path / "c.pth")

    assert not (tmp_path / "ran").exists()


WRONG = {
    "a list": [1],
    "no weights": raw() | {"network_weights": {}},
    "weights that are text": raw() | {"network_weights": {"a": "b"}},
    "not a number": raw() | {"network_weights": {"a": torch.tensor([1.0, float("nan")])}},
    "infinite": raw() | {"network_weights": {"a": torch.tensor([float("inf")])}},
    "a shape larger than its numbers": raw() | {"network_weights": {"a": torch.zeros(1).expand(10**6)}},
    "sparse weights": raw() | {"network_weights": {"a": torch.eye(3).to_sparse()}},
    "weights without numbers": raw() | {"network_weights": {"a": torch.empty(3, device="meta")}},
    "mirroring text": raw() | {"inference_allowed_mirroring_axes": "xyz"},
    "mirroring axis 7": raw() | {"inference_allowed_mirroring_axes": (7,)},
    "epoch text": raw() | {"current_epoch": "seven"},
    "negative epoch": raw() | {"current_epoch": -1},
    "trainer number": raw() | {"trainer_name": 3},
    "no arguments": raw() | {"init_args": None},
    "no configuration": raw() | {"init_args": {}},
    "logging list": raw() | {"logging": [1]},
}


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_content_is_refused_in_one_sentence(tmp_path, name):
    torch.save(WRONG[name], tmp_path / "c.pth")

    with pytest.raises(ModelError) as refused:
        load_checkpoint(tmp_path / "c.pth")

    assert re.fullmatch(r"[^\n]+[;,] (copy|use|get) [^\n]+\.", str(refused.value))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data.pkl", b"\0" * 10**8)


@pytest.mark.parametrize(
    "damage", [truncated, half, bomb, lambda p: p.write_bytes(b""), lambda p: p.write_text("hello"), Path.unlink]
)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, damage):
    save_checkpoint(checkpoint(), tmp_path / "c.pth")
    damage(tmp_path / "c.pth")

    with pytest.raises(ModelError) as refused:
        load_checkpoint(tmp_path / "c.pth")

    assert "\n" not in str(refused.value)


def test_nnunets_own_checkpoints_load(peer):
    paths = sorted((peer / "models").glob("*/*/fold_*/checkpoint_final.pth"))
    assert paths

    for path in paths:
        loaded = load_checkpoint(path, mapped=True)
        assert loaded.configuration == path.parts[-3].split("__")[-1]
        assert loaded.current_epoch > 0


@pytest.mark.parametrize("version", ["2.5.1", "2.5.1+cu121", "1.13.0"])
def test_weights_are_not_opened_by_a_torch_that_could_run_them(tmp_path, monkeypatch, version):
    save_checkpoint(checkpoint(), tmp_path / "c.pth")
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))

    with pytest.raises(ModelError, match=f"torch {re.escape(version)} may run code .* install torch 2.6 or newer"):
        load_checkpoint(tmp_path / "c.pth")


def test_a_file_of_endless_parts_is_not_listed(tmp_path, monkeypatch):
    save_checkpoint(checkpoint(), tmp_path / "c.pth")
    with zipfile.ZipFile(tmp_path / "c.pth", "a") as archive:
        for n in range(25_000):
            archive.writestr(f"{n:0150d}", b"")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))

    with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("version", ["2.6.0", "2.6.0a0+df5bbc09d1.nv24.12", "2.10.0+cpu"])
def test_weights_are_opened_by_versions_from_2_6_on_whoever_built_them(tmp_path, monkeypatch, version):
    save_checkpoint(checkpoint(), tmp_path / "c.pth")
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))

    assert load_checkpoint(tmp_path / "c.pth").configuration == checkpoint().configuration
