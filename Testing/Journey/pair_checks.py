"""What each command of README's table of pairs does, looked at: one check a row.

A check sets the scene before its `yield` and looks at the result after it.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_task import run

from NNSegmentLib.engine.predictor import Predictor
from NNSegmentLib.image import read_image, read_labels, write_labels
from NNSegmentLib.model import load_model

TASK, MODEL = "Dataset004_Hippocampus", "nnUNetTrainer__nnUNetPlans__3d_fullres"


@dataclass
class Session:
    """One user's folder, private to a test, with the shell standing in it."""

    command: str = ""
    said: str = ""

    @property
    def raw(self) -> Path:
        return Path("nnUNet_raw") / TASK

    @property
    def preprocessed(self) -> Path:
        return Path("nnUNet_preprocessed") / TASK

    @property
    def results(self) -> Path:
        return Path("nnUNet_results") / TASK

    @property
    def fold(self) -> Path:
        return self.results / MODEL / "fold_0"

    def forget(self, *places: Path) -> None:
        for place in places:
            shutil.rmtree(place) if place.is_dir() else place.unlink()


CHECKS: dict[str, Callable[[Session], Iterator[None]]] = {}


def check(*commands: str):
    """The function looks at what these commands do."""

    def register(function):
        CHECKS.update(dict.fromkeys(commands, function))
        return function

    return register


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def labels(path: Path | str) -> np.ndarray:
    return read_labels(Path(path)).array


def probabilities(folder: str | Path, case: str) -> np.ndarray:
    return np.load(Path(folder) / f"{case}.npz")["probabilities"]


def checkpoint(fold: Path) -> dict:
    return torch.load(fold / "checkpoint_final.pth", weights_only=True)


def kernel(stored: dict) -> torch.Tensor:
    return stored["network_weights"]["encoder.stages.1.0.convs.1.conv.weight"]


def prepared(session: Session, configuration: str) -> list[str]:
    return sorted(p.name for p in (session.preprocessed / f"nnUNetPlans_{configuration}.prepared").glob("*_seg.*"))


@check("nnsegment convert Task04_Hippocampus --id 4")
def decathlon(session):
    session.forget(session.raw, session.preprocessed, session.results)
    yield
    assert read(session.raw / "dataset.json")["labels"] == {"background": 0, "Anterior": 1, "Posterior": 2}
    for image in sorted(Path("Task04_Hippocampus/imagesTr").iterdir()):
        case = image.name.removesuffix(".nii.gz")
        copied = read_image((session.raw / "imagesTr" / f"{case}_0000.nii.gz",))
        np.testing.assert_array_equal(copied.array, read_image((image,)).array)


@check("nnsegment convert Task004_Hippocampus --id 5 --name Old")
def version_1(session):
    yield
    made = session.raw.with_name("Dataset005_Old")
    assert read(made / "dataset.json")["numTraining"] == 5
    for original in (session.raw / "labelsTr").iterdir():
        np.testing.assert_array_equal(labels(made / "labelsTr" / original.name), labels(original))


@check("nnsegment check 4")
def integrity(session):
    broken = next((session.raw / "labelsTr").glob("*_003*"))
    grid = read_labels(broken)
    odd = np.where(grid.array == 2, 7, grid.array).astype(np.uint8)
    yield
    assert read(session.preprocessed / "integrity" / "findings.json") == {"findings": []}
    write_labels(broken, odd, grid.geometry)
    with pytest.raises(AssertionError):
        run("check 4")
    assert "hippocampus_003" in str(read(session.preprocessed / "integrity" / "findings.json"))


@check("nnsegment fingerprint 4 --clean")
def fingerprint(session):
    file = session.preprocessed / "dataset_fingerprint.json"
    right = read(file)
    file.write_text(json.dumps(right | {"median_relative_size_after_cropping": 0.25}))
    yield
    assert read(file) == right


@check("nnsegment plan 4 -c 3d_fullres --check")
def plan_and_preprocess(session):
    session.forget(session.preprocessed)
    yield
    assert (session.preprocessed / "integrity" / "findings.json").is_file()
    assert (session.preprocessed / "dataset_fingerprint.json").is_file()
    assert set(read(session.preprocessed / "nnUNetPlans.json")["configurations"]) == {"2d", "3d_fullres"}
    assert (len(prepared(session, "3d_fullres")), len(prepared(session, "2d"))) == (5, 0)


@check("nnsegment plan 4 --only")
def plan_without_preprocessing(session):
    session.forget(session.preprocessed)
    yield
    assert (session.preprocessed / "nnUNetPlans.json").is_file()
    assert prepared(session, "3d_fullres") == prepared(session, "2d") == []


@check("nnsegment plan 4 --only --gpu-memory 6 --spacing 2 1 1 -p Coarse")
def plan_with_other_targets(session):
    yield
    made = read(session.preprocessed / "Coarse.json")
    assert (made["plans_name"], made["configurations"]["3d_fullres"]["spacing"]) == ("Coarse", [2.0, 1.0, 1.0])
    assert "6 GB" in str(read(session.preprocessed / "Coarse.reasons"))
    assert read(session.preprocessed / "nnUNetPlans.json")["configurations"]["3d_fullres"]["spacing"] == [1.0] * 3


@check("nnsegment plan 4 --only --preset resenc-m")
def residual_planner(session):
    yield
    made = read(session.preprocessed / "nnUNetResEncUNetMPlans.json")
    assert made["experiment_planner_used"] == "nnUNetPlannerResEncM"
    name = made["configurations"]["3d_fullres"]["architecture"]["network_class_name"]
    assert name.endswith(".ResidualEncoderUNet")


@check("nnsegment preprocess 4 -c 2d 3d_fullres -j 2")
def preprocess(session):
    session.forget(*(session.preprocessed / f"nnUNetPlans_{c}.prepared" for c in ("2d", "3d_fullres")))
    yield
    assert len(prepared(session, "2d")) == len(prepared(session, "3d_fullres")) == 5


@check("nnsegment train 4 3d_fullres 0 --save-probabilities")
def train(session):
    session.forget(session.fold)
    yield
    summary = read(session.fold / "validation" / "summary.json")
    cases = read(session.preprocessed / "splits_final.json")[0]["val"]
    assert len(summary["metric_per_case"]) == len(cases)
    for case in cases:
        assert probabilities(session.fold / "validation", case).shape[0] == 3
    assert kernel(checkpoint(session.fold)).shape[:2] == (64, 64)


@check("nnsegment train 4 3d_fullres 0 --resume")
def resume(session):
    """A run of two epochs that was killed after the first."""
    (session.fold / "checkpoint_final.pth").rename(session.fold / "checkpoint_latest.pth")
    settings = session.fold / "settings.json"
    settings.write_text(json.dumps(read(settings) | {"epochs": 2}))
    before = torch.load(session.fold / "checkpoint_latest.pth", weights_only=True)
    yield
    after = checkpoint(session.fold)
    assert (before["current_epoch"], after["current_epoch"]) == (1, 2)
    assert after["logging"]["train_losses"][:1] == before["logging"]["train_losses"]
    assert not torch.equal(kernel(after), kernel(before))


@check("nnsegment train 4 2d all --epochs 5 --device cpu")
def train_on_everything(session):
    yield
    stored = checkpoint(session.results / MODEL.replace("3d_fullres", "2d") / "fold_all")
    assert (stored["current_epoch"], stored["init_args"]["fold"]) == (5, "all")
    assert stored["init_args"]["configuration"] == "2d"


@check("nnsegment train 4 3d_fullres 0 --pretrained start.pth")
def pretrained(session):
    shutil.copy(session.fold.with_name("fold_1") / "checkpoint_final.pth", "start.pth")
    untouched = kernel(checkpoint(session.fold))
    yield
    start = kernel(torch.load("start.pth", weights_only=True))
    after = kernel(checkpoint(session.fold))
    assert (after - start).norm() < 0.3 * (untouched - start).norm()
    assert not torch.equal(after, start)


@check("nnsegment validate 4 3d_fullres 0 --npz")
def validate(session):
    expected = read(session.fold / "validation" / "summary.json")["foreground_mean"]["Dice"]
    session.forget(session.fold / "validation")
    yield
    assert read(session.fold / "validation" / "summary.json")["foreground_mean"]["Dice"] == pytest.approx(expected)
    assert list((session.fold / "validation").glob("*.npz"))


@check(
    "nnsegment best 4 -c 2d 3d_fullres -f 0 1",
    "nnsegment best 4 -c 2d 3d_fullres -f 0 1 --no-ensemble",
    "nnsegment best 4 -c 3d_fullres -f 0 1",
)
def best(session):
    session.forget(session.results / "inference_information.json", session.results / "ensembles")
    session.forget(*session.results.glob("*/crossval_results_folds_0_1"))
    yield
    found = read(session.results / "inference_information.json")
    single = {MODEL.replace("3d_fullres", c) for c in ("2d", "3d_fullres") if c in session.command.split()}
    assert found["folds"] == [0, 1]
    assert {name for name in found["all_results"] if not name.startswith("ensemble")} == single
    ensembles = list((session.results / "ensembles").glob("*"))
    assert len(ensembles) == len(found["all_results"]) - len(single)
    assert len(ensembles) == (len(single) == 2 and "--no-ensemble" not in session.command)
    for folder in (*(session.results / name / "crossval_results_folds_0_1" for name in single), *ensembles):
        assert {p.name for p in folder.glob("*.nii.gz")} == {"hippocampus_001.nii.gz", "hippocampus_005.nii.gz"}
        assert (folder / "summary.json").is_file()


@check(
    "nnsegment predict -i images -o out -t 4 -c 3d_fullres -f 0 --step 0.7 --no-mirroring --save-probabilities"
)  # fmt: skip
def predict(session):
    yield
    model = load_model(session.results / MODEL, folds=[0])
    image = read_image((Path("images/new_10_0000.nii.gz"),))
    plain, mirrored = (
        Predictor(model, mirroring=mirroring, step=0.7).predict(image, want_probabilities=True)
        for mirroring in (False, True)
    )
    assert sorted(p.name for p in Path("out").glob("new*")) == [
        f"new_{n}.{e}" for n in (10, 11) for e in ("nii.gz", "npz", "pkl")
    ]
    np.testing.assert_array_equal(labels("out/new_10.nii.gz"), plain.labels)
    np.testing.assert_allclose(probabilities("out", "new_10"), plain.probabilities, atol=2e-3)
    assert np.abs(mirrored.probabilities - plain.probabilities).max() > 0.01


@check(f"nnsegment predict -i images -o out -m {MODEL} -f 0 1 --no-mirroring --keep-existing --device cpu")
def predict_from_folder(session):
    shutil.move(session.results / MODEL, MODEL)
    existing = read_labels(Path("predicted_2d/new_10.nii.gz"))
    write_labels(Path("out/new_10.nii.gz"), np.zeros_like(existing.array), existing.geometry)
    yield
    assert not labels("out/new_10.nii.gz").any()
    np.testing.assert_array_equal(labels("out/new_11.nii.gz"), labels("predicted_3d_fullres/new_11.nii.gz"))


@check("nnsegment ensemble -i predicted_2d predicted_3d_fullres -o out --save-probabilities")
def ensemble(session):
    yield
    for case in ("new_10", "new_11"):
        mean = (probabilities("predicted_2d", case) + probabilities("predicted_3d_fullres", case)) / 2
        np.testing.assert_allclose(probabilities("out", case), mean, atol=2e-3)
        assert (labels(f"out/{case}.nii.gz") == mean.argmax(0)).mean() > 0.999


@check("nnsegment evaluate labels predicted_2d", "nnsegment evaluate labels predicted_2d -l 1 2")
def evaluate(session):
    yield
    scores = read(Path("predicted_2d/summary.json"))
    for value in (1, 2):
        dice = []
        for case in ("new_10", "new_11"):
            a, b = (labels(f"{folder}/{case}.nii.gz") == value for folder in ("labels", "predicted_2d"))
            dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert scores["mean"][str(value)]["Dice"] == pytest.approx(np.mean(dice))


@check("nnsegment postprocess -i predicted_2d --references labels")
def determine_postprocessing(session):
    """References with a crumb beside them are mended by keeping the largest component."""
    for case in ("new_10", "new_11"):
        reference = read_labels(Path(f"labels/{case}.nii.gz"))
        reference.array[0, 0, 0] = 1
        write_labels(Path(f"predicted_2d/{case}.nii.gz"), reference.array, reference.geometry)
    yield
    rules = read(Path("predicted_2d/postprocessing.json"))
    assert rules["postprocessing_fns"] == ["remove_all_but_largest_component_from_segmentation"]
    assert rules["postprocessing_kwargs"] == [{"labels_or_regions": [1, 2]}]
    assert Path("predicted_2d/postprocessing.pkl").is_file()


@check("nnsegment postprocess -i predicted_2d -o out --rules postprocessing.pkl")
def apply_postprocessing(session):
    Path("postprocessing.pkl").write_bytes(as_nnunet_pickles([{"labels_or_regions": [1, 2]}]))
    for case in ("new_10", "new_11"):
        reference = read_labels(Path(f"labels/{case}.nii.gz"))
        reference.array[0, 0, 0] = 1
        write_labels(Path(f"predicted_2d/{case}.nii.gz"), reference.array, reference.geometry)
    yield
    for case in ("new_10", "new_11"):
        np.testing.assert_array_equal(labels(f"out/{case}.nii.gz"), labels(f"labels/{case}.nii.gz"))


def as_nnunet_pickles(arguments: list[dict]) -> bytes:
    """A pickle that names nnU-Net's function, which is not installed here."""
    name, parents = "remove_all_but_largest_component_from_segmentation", ["nnunetv2", "nnunetv2.postprocessing"]
    home = "nnunetv2.postprocessing.remove_connected_components"
    module = types.ModuleType(home)
    function = types.FunctionType((lambda: None).__code__, {"__name__": home}, name)
    function.__qualname__ = name
    setattr(module, name, function)
    with pytest.MonkeyPatch.context() as patch:
        for parent in parents:
            patch.setitem(sys.modules, parent, types.ModuleType(parent))
        patch.setitem(sys.modules, home, module)
        return pickle.dumps(([function] * len(arguments), arguments))


@check("nnsegment model export 4 -o model.zip -c 3d_fullres -f 0 1")
def export(session):
    yield
    names = zipfile.ZipFile("model.zip").namelist()
    assert {f"{TASK}/{MODEL}/fold_{fold}/checkpoint_final.pth" for fold in (0, 1)} <= set(names)
    assert all(name.startswith(f"{TASK}/{MODEL}/") for name in names)


@check("nnsegment model import model.zip")
def install(session):
    run("model export 4 -o model.zip")
    expected = (session.fold / "checkpoint_final.pth").read_bytes()
    session.forget(session.results)
    yield
    assert (session.fold / "checkpoint_final.pth").read_bytes() == expected
    assert sorted(p.name for p in session.results.glob("*/fold_*")) == ["fold_0", "fold_0", "fold_1", "fold_1"]


@check("nnsegment model list")
def available(session):
    yield
    listed = [line.split()[:3] for line in session.said.splitlines() if TASK in line]
    assert listed == [[TASK, "nnUNetPlans", configuration] for configuration in ("2d", "3d_fullres")]


@check(f"nnsegment model info {TASK}")
def info(session):
    yield
    for word in ("0 = MRI", "Anterior", "Posterior", "3d_fullres", "PlainConvUNet", ".nii.gz"):
        assert word in session.said


@check("nnsegment report 4 -o out/report.html")
def overlays(session):
    yield
    page = Path("out/report.html").read_text()
    assert "data:image/" in page
    assert "hippocampus_001" in page
