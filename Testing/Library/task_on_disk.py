"""Small data sets on disk for the tests of conversion and checking: balls in noise, any format, any defect."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import PLANE_ENDINGS, write_image, write_labels

PLAIN = Geometry((8, 10, 12), (2.0, 1.0, 1.0), (5.0, -3.0, 10.0))

_TURN = np.deg2rad(35)
OBLIQUE = Geometry(
    (8, 15, 9),
    (3.0, 0.8, 0.9),
    (-12.5, 31.0, 7.25),
    ((-np.cos(_TURN), -np.sin(_TURN), 0.0), (-np.sin(_TURN), np.cos(_TURN), 0.0), (0.0, 0.0, 1.0)),
)
"""Oblique, anisotropic and left-handed."""


def noise(seed: int, shape=PLAIN.shape) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(np.int16)


def blocks(shape=PLAIN.shape, values=(1, 2)) -> np.ndarray:
    """Foreground in the middle: the first value left of the second."""
    labels = np.zeros(shape, np.int32)
    middle = shape[2] // 2
    inner = tuple(slice(n // 4, -(n // 4) or None) for n in shape[:2])
    labels[(*inner, slice(2, middle))] = values[0]
    labels[(*inner, slice(middle, -2))] = values[-1]
    return labels


def nnunet_v2(
    folder: Path, n_cases=3, n_channels=1, geometry=PLAIN, labels=None, ending=".nii.gz", **entries: object
) -> Path:
    """A faultless data set in nnU-Net v2's layout."""
    names = labels or {"background": 0, "left": 1, "right": 2}
    values = sorted(v for v in names.values() if isinstance(v, int) and v)
    for n in range(n_cases):
        for channel in range(n_channels):
            path = folder / "imagesTr" / f"case{n}_{channel:04d}{ending}"
            voxels = noise(10 * n + channel, geometry.shape)
            write_image(path, voxels.astype(np.uint8) if ending in PLANE_ENDINGS else voxels, geometry)
        write_labels(folder / "labelsTr" / f"case{n}{ending}", blocks(geometry.shape, values[:2]), geometry)
    description = {
        "channel_names": {str(c): f"MR{c}" for c in range(n_channels)},
        "labels": names,
        "numTraining": n_cases,
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(description | entries))
    return folder


def decathlon(folder: Path, n_cases=2, n_channels=1) -> Path:
    """A Decathlon folder; several channels lie on a fourth axis. Comes with macOS's `._` twins."""
    for group, count in (("Tr", n_cases), ("Ts", 1)):
        (folder / f"images{group}").mkdir(parents=True)
        for n in range(count):
            write_volume(folder / f"images{group}" / f"ball_{group}{n}.nii.gz", four_d(n, n_channels))
            (folder / f"images{group}" / f"._ball_{group}{n}.nii.gz").write_bytes(b"Mac OS X")
    for n in range(n_cases):
        write_labels(folder / "labelsTr" / f"ball_Tr{n}.nii.gz", blocks(), PLAIN)
    (folder / "labelsTr" / "._ball_Tr0.nii.gz").write_bytes(b"Mac OS X")
    description = {
        "name": "Balls",
        "description": "balls in noise",
        "licence": "CC0",
        "tensorImageSize": "4D" if n_channels > 1 else "3D",
        "modality": {str(c): name for c, name in enumerate(["FLAIR", "T1w", "t1gd", "T2w"][:n_channels])},
        "labels": {"0": "background", "1": "left", "2": "right"},
        "numTraining": n_cases,
        "numTest": 1,
        "training": [
            {"image": f"./imagesTr/ball_Tr{n}.nii.gz", "label": f"./labelsTr/ball_Tr{n}.nii.gz"} for n in range(n_cases)
        ],
        "test": ["./imagesTs/ball_Ts0.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def four_d(seed: int, n_channels: int) -> sitk.Image:
    """A volume on the grid `PLAIN`, with a fourth axis when there is more than one channel."""
    volumes = []
    for channel in range(n_channels):
        volume = sitk.GetImageFromArray(noise(10 * seed + channel))
        spacing, origin, direction = PLAIN.to_lps()
        volume.SetSpacing(spacing), volume.SetOrigin(origin), volume.SetDirection(direction)
        volumes.append(volume)
    return volumes[0] if n_channels == 1 else sitk.JoinSeries(volumes)


def write_volume(path: Path, volume: sitk.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(volume, str(path))


def write_plane(path: Path, array: np.ndarray) -> None:
    """A 2-D picture; a third axis holds its colours."""
    write_volume(path, sitk.GetImageFromArray(array, isVector=array.ndim == 3))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its contents."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
