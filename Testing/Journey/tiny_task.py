"""A tiny task that goes through the whole journey, for the tests that look at what it left."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from NNSegmentLib.cli import main
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import write_image, write_labels

GRID = Geometry((16, 20, 18), (1.0, 1.0, 1.0), (5.0, -3.0, 2.0))
SETTINGS = {
    "epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1, "augmentation": "light", "loader_workers": 0,
    "validation_mirroring": False,
}  # fmt: skip


@dataclass(frozen=True)
class Tiny:
    """A folder as a user has it: the Decathlon task, new images, and nnU-Net's three roots with trained models."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {f"nnUNet_{root}": str(self.folder / f"nnUNet_{root}") for root in ("raw", "preprocessed", "results")}

    @property
    def preprocessed(self) -> Path:
        return self.folder / "nnUNet_preprocessed" / "Dataset004_Hippocampus"

    @property
    def results(self) -> Path:
        return self.folder / "nnUNet_results" / "Dataset004_Hippocampus"

    def model(self, configuration: str = "3d_fullres") -> Path:
        return self.results / f"nnUNetTrainer__nnUNetPlans__{configuration}"


def run(command: str, *more: object) -> None:
    """A command line as it stands; more arguments are appended."""
    arguments = [*shlex.split(command.removeprefix("nnsegment ")), *map(str, more), "-j", "1"]
    assert main(arguments) == 0, arguments


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A head with a body beside it, in noise."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(GRID.shape)
    distance = ((z - 8) / 5) ** 2 + ((y - 10) / 6) ** 2 + ((x - 9 - rng.integers(-1, 2)) / 5) ** 2
    labels = np.where(distance < 1, np.where(y < 10, 1, 2), 0).astype(np.uint8)
    return (rng.normal(0, 4, GRID.shape) + 40 * labels + 20).astype(np.float32), labels


def write_decathlon(folder: Path) -> Path:
    cases = [f"hippocampus_{n:03d}" for n in range(1, 6)]
    for seed, case in enumerate(cases):
        image, labels = picture(seed)
        write_image(folder / "imagesTr" / f"{case}.nii.gz", image, GRID)
        write_labels(folder / "labelsTr" / f"{case}.nii.gz", labels, GRID)
    description = {
        "name": "Hippocampus", "tensorImageSize": "3D", "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "numTraining": len(cases), "numTest": 0,
        "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in cases], "test": [],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def go_through_the_journey(folder: Path) -> Tiny:
    """Converted, planned, two configurations with two folds trained for two steps, compared, and used."""
    tiny = Tiny(folder)
    write_decathlon(tiny.folder / "Task04_Hippocampus")
    (tiny.folder / "settings.json").write_text(json.dumps(SETTINGS))
    for seed in (10, 11):
        write_image(tiny.folder / "images" / f"new_{seed}_0000.nii.gz", picture(seed)[0], GRID)
        write_labels(tiny.folder / "labels" / f"new_{seed}.nii.gz", picture(seed)[1], GRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny.folder)
        for name, value in tiny.environment.items():
            patch.setenv(name, value)
        run("convert Task04_Hippocampus")
        run("convert 4 --to v1 -o .")
        run("plan 4 -c 2d 3d_fullres")
        for configuration in ("2d", "3d_fullres"):
            for fold in (0, 1):
                run(f"train 4 {configuration} {fold} --npz --settings settings.json")
        run("best 4 -c 2d 3d_fullres -f 0 1")
        for configuration in ("2d", "3d_fullres"):
            which = f"-t 4 -c {configuration} --no-mirroring --save-probabilities"
            run(f"predict {which} -i images -o predicted_{configuration}")
    return tiny
