"""nnU-Net's own models, run here, give nnU-Net's own label maps and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from NNSegmentLib.engine.devices import has_amx
from NNSegmentLib.engine.predictor import Predictor
from NNSegmentLib.image import read_geometry, read_labels
from NNSegmentLib.model import load_model
from NNSegmentLib.predicting.files import FileRequest, predict_files
from NNSegmentLib.probability_files import load_probabilities
from NNSegmentLib.task import Case, find_images

AGREEING = 0.9999
PROBABILITY = 2e-3
FOLDERS = {
    **{f"hippocampus_{n:03d}": "Task04_Hippocampus" for n in (1, 3, 4, 6)},
    **{"patient001_frame01": "Dataset520_CardiacCine", "STS_001": "Dataset510_SarcomaMRCTPET"},
}


@dataclass(frozen=True)
class Stored:
    """A model, one of nnU-Net's predictions with it, and how it was made."""

    model: str
    case: str
    mirroring: bool = True

    @property
    def folder(self) -> str:
        return "pred" if self.mirroring or self.model in ("anisotropic", "three_channels") else "pred_no_mirroring"


QUICK = [
    Stored("trained", "hippocampus_003"),
    Stored("trained", "hippocampus_001", mirroring=False),
    Stored("plain_2d", "hippocampus_001"),
    Stored("plain_two_folds", "hippocampus_001"),
    Stored("plain_two_folds", "hippocampus_003", mirroring=False),
    Stored("regions", "hippocampus_001"),
    Stored("residual_encoder", "hippocampus_001"),
    Stored("anisotropic", "patient001_frame01", mirroring=False),
]
THOROUGH = [
    Stored("three_channels", "STS_001", mirroring=False),
    *(Stored("trained", f"hippocampus_{n:03d}", mirroring) for n in (1, 4, 6) for mirroring in (True, False)),
    *(Stored(m, "hippocampus_003") for m in ("plain_2d", "plain_two_folds", "regions", "residual_encoder")),
    Stored("plain_two_folds", "hippocampus_001", mirroring=False),
]


def images_of(case: str, shared_data: Path) -> tuple[Path, ...]:
    folder = shared_data / FOLDERS[case]
    numbered = [
        found for sub in ("imagesTr", "imagesTs") for found in (find_images(folder / sub, ".nii.gz"),) if case in found
    ]
    if numbered:
        return numbered[0][case]
    return (next(p for p in sorted(folder.glob(f"images*/{case}.nii*")) if not p.name.startswith(".")),)


def require_equal(written: Path, stored: Path, n_outputs: int) -> None:
    expected, found = read_labels(stored), read_labels(written)
    assert np.mean(expected.array == found.array) >= AGREEING
    assert read_geometry(written).same_grid(read_geometry(stored))
    npz = stored.with_name(stored.name.replace(".nii.gz", ".npz"))
    if npz.is_file():
        ours = load_probabilities(written.with_name(npz.name), n_outputs)
        assert np.abs(ours - load_probabilities(npz, n_outputs)).max() <= PROBABILITY


def compare(stored: Stored, shared_data: Path, peer: Path, tmp_path: Path) -> None:
    model = load_model(peer / "models" / stored.model)
    case = Case(stored.case, images_of(stored.case, shared_data))

    predictor = Predictor(model, mirroring=stored.mirroring)
    predict_files(predictor.model, lambda: predictor, [case], FileRequest(tmp_path, save_probabilities=True))

    require_equal(
        tmp_path / f"{case.id}.nii.gz", model.folder / stored.folder / f"{case.id}.nii.gz", model.label_set.n_outputs
    )


@pytest.mark.parametrize("stored", QUICK, ids=str)
def test_predictions_are_those_of_nnunet(stored, shared_data, peer, tmp_path):
    compare(stored, shared_data, peer, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stored", THOROUGH, ids=str)
def test_all_stored_predictions_are_those_of_nnunet(stored, shared_data, peer, tmp_path):
    compare(stored, shared_data, peer, tmp_path)


@pytest.mark.skipif(not has_amx(), reason="this processor has no AMX; half precision is not followed here")
def test_half_precision_hardly_changes_nnunets_labels(shared_data, peer, tmp_path):
    model = load_model(peer / "models" / "trained")
    case = Case("hippocampus_003", images_of("hippocampus_003", shared_data))

    predict_files(model, lambda: Predictor(model, device="cpu", half=True), [case], FileRequest(tmp_path))

    expected = read_labels(model.folder / "pred" / "hippocampus_003.nii.gz").array
    found = read_labels(tmp_path / "hippocampus_003.nii.gz").array
    assert np.sum(found != expected) <= 0.005 * np.sum(expected > 0)


@pytest.mark.parametrize("case", ["hippocampus_001", pytest.param("hippocampus_003", marks=pytest.mark.slow)])
def test_a_cascade_continues_from_nnunets_low_resolution_labels(case, shared_data, peer, tmp_path):
    model = load_model(peer / "models" / "cascade", "3d_cascade_fullres")
    lowres = model.parts[0].previous.folder / "pred"
    images = images_of(case, shared_data)

    request = FileRequest(tmp_path, save_probabilities=True, previous=lowres)
    predict_files(model, lambda: Predictor(model), [Case(case, images)], request)

    require_equal(tmp_path / f"{case}.nii.gz", model.folder / "pred" / f"{case}.nii.gz", 3)


def test_a_cascade_runs_its_first_stage_by_itself(shared_data, peer, tmp_path):
    model = load_model(peer / "models" / "cascade")
    case = Case("hippocampus_001", images_of("hippocampus_001", shared_data))

    predict_files(model, lambda: Predictor(model), [case], FileRequest(tmp_path))

    expected = read_labels(model.folder / "pred" / "hippocampus_001.nii.gz")
    assert np.mean(read_labels(tmp_path / "hippocampus_001.nii.gz").array == expected.array) >= AGREEING


def test_the_first_stage_of_a_cascade_predicts_alone(shared_data, peer, tmp_path):
    model = load_model(peer / "models" / "cascade", "3d_lowres")
    case = Case("hippocampus_001", images_of("hippocampus_001", shared_data))

    predict_files(model, lambda: Predictor(model), [case], FileRequest(tmp_path))

    require_equal(tmp_path / "hippocampus_001.nii.gz", model.folder / "pred" / "hippocampus_001.nii.gz", 3)
