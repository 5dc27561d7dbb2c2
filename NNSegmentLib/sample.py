"""A small task made on the spot: MR-like phantoms of a head with a mass, to try the whole journey without data.

Every phantom has a scalp, a skull, folded grey and white matter, two ventricles, vessels and a mass: a dark `core`
inside a bright `rim`. Nothing but the arrangement tells them from the rest: ventricles are as dark as the core,
scalp, vessels and a solid nodule are as bright as the rim. The pictures carry what real ones do: partial volume,
a bias field, Rician noise, another contrast and scale per case, varying size and spacing, and grids that lie
oblique or left-handed in the patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import SettingsError, TaskError
from .geometry import Geometry
from .given import expanded
from .image import write_image, write_labels
from .labels import BACKGROUND, Label, LabelSet
from .progress import Progress, silent, stepped
from .task import write_dataset_json

SAMPLE_LABELS = LabelSet((Label(BACKGROUND, (0,)), Label("core", (1,)), Label("rim", (2,))))
FILE_ENDING = ".nii.gz"
_TISSUES = {
    "scalp": 0.92,
    "skull": 0.10,
    "fluid": 0.25,
    "grey": 0.44,
    "white": 0.68,
    "core": 0.28,
    "rim": 0.98,
    "vessel": 0.95,
}
"""Mean intensity of each tissue before the case's own contrast, bias field and noise."""


@dataclass(frozen=True)
class Phantom:
    """One made-up head: `image` (Z, Y, X) float32 and `labels` (Z, Y, X) uint8 on the grid `geometry`."""

    image: np.ndarray
    labels: np.ndarray
    geometry: Geometry


@dataclass(frozen=True)
class Blob:
    """A bumpy ellipsoid in the patient: centre and half axes in RAS mm, turned, with waves on its surface."""

    centre_mm: np.ndarray
    axes_mm: np.ndarray
    rotation: np.ndarray
    waves: np.ndarray
    """Rows of (frequency along x, y, z, phase, height relative to the half axes)."""

    def depth_mm(self, points_mm: np.ndarray) -> np.ndarray:
        """Approximate distance to the surface, positive inside, of RAS points (..., 3)."""
        local = ((points_mm - self.centre_mm) @ self.rotation) / self.axes_mm
        radius = np.linalg.norm(local, axis=-1)
        towards = local / np.maximum(radius, 1e-6)[..., None]
        bumps = sum(height * np.cos(towards @ k + phase) for *k, phase, height in self.waves)
        return (1 + bumps - radius) * float(self.axes_mm.mean())


def make_sample_task(
    folder: Path | str,
    n_cases: int = 8,
    seed: int = 20,
    n_test: int = 2,
    coarseness: float = 1.0,
    progress: Progress = silent,
) -> Path:
    """Write `n_cases` training and `n_test` test phantoms as an nnU-Net v2 data set and return its folder.

    The labels of the test cases are kept in `labelsTs` to score predictions with. The same seed gives the same
    files. Raises SettingsError for fewer than two training cases and TaskError when the folder holds a task already.
    """
    folder = expanded(folder)
    if n_cases < 2 or n_test < 0:
        raise SettingsError(f"A sample task needs at least 2 training cases, found {n_cases} and {n_test} for testing.")
    if (folder / "dataset.json").exists():
        raise TaskError(f"{folder} should be free for the sample task, found a dataset.json in it; choose another.")
    for index in stepped(range(n_cases + n_test), progress, "Making the sample task"):
        _write_case(
            folder, "Tr" if index < n_cases else "Ts", f"head_{index + 1:03d}", make_phantom(index, seed, coarseness)
        )
    write_dataset_json(
        folder,
        ("MRI",),
        SAMPLE_LABELS,
        n_cases,
        FILE_ENDING,
        description="Phantoms: a mass with core and rim in a head",
    )
    return folder


def make_phantom(index: int, seed: int = 20, coarseness: float = 1.0) -> Phantom:
    """Phantom number `index`; number 1 lies oblique, number 2 on a left-handed grid, every fourth is anisotropic.

    `coarseness` makes voxels larger, and fewer, by this factor along each axis.
    """
    rng = np.random.default_rng((seed, index))
    geometry = _grid(rng, index, coarseness)
    points = _positions(geometry)
    voxel = float(np.mean(geometry.spacing_mm))
    core, rim = _mass(rng, geometry)
    tissues = _head(rng, geometry, points, voxel) + _distractors(rng, geometry, points, voxel, rim)
    core_depth, rim_depth = core.depth_mm(points), rim.depth_mm(points)
    tissues += [("rim", _share(rim_depth, voxel)), ("core", _share(np.minimum(core_depth, rim_depth - 2.0), voxel))]
    labels = np.where(np.minimum(core_depth, rim_depth - 2.0) > 0, 1, np.where(rim_depth > 0, 2, 0))
    return Phantom(_scanned(rng, geometry, _painted(rng, tissues)), labels.astype(np.uint8), geometry)


def _write_case(folder: Path, part: str, case_id: str, phantom: Phantom) -> None:
    image = folder / f"images{part}" / f"{case_id}_0000{FILE_ENDING}"
    write_image(image, np.rint(phantom.image).astype(np.int16), phantom.geometry)
    write_labels(folder / f"labels{part}" / f"{case_id}{FILE_ENDING}", phantom.labels, phantom.geometry)


def _grid(rng: np.random.Generator, index: int, coarseness: float) -> Geometry:
    """40 to 56 voxels an edge of 0.8 to 1.4 mm when not made coarser, the patient's origin in the middle of the head."""
    shape = np.array([rng.integers(40, 49), rng.integers(46, 57), rng.integers(43, 51)])
    spacing = np.full(3, rng.uniform(0.9, 1.15))
    if index % 4 == 3:
        spacing, shape[0] = np.array([1.4, 0.95, 0.95]) * rng.uniform(0.93, 1.0), 40
    shape, spacing = np.rint(shape / coarseness), spacing * coarseness
    turned = {1: _turn(12, -9, 7), 2: np.diag([1.0, 1.0, -1.0])}.get(index, np.eye(3))
    middle = turned @ ((shape - 1) / 2 * spacing)[::-1]
    origin = rng.uniform(-8, 8, 3) - middle
    return Geometry(
        tuple(int(n) for n in shape),
        tuple(float(round(s, 4)) for s in spacing),
        tuple(float(o) for o in origin),
        tuple(tuple(float(v) for v in row) for row in turned),
    )


def _positions(geometry: Geometry) -> np.ndarray:
    """RAS positions (Z, Y, X, 3) in mm relative to the middle of the grid."""
    indices = np.indices(geometry.shape).reshape(3, -1).T
    world = geometry.world(indices)
    return (world - world.mean(0)).reshape(*geometry.shape, 3)


def _half_widths_mm(geometry: Geometry) -> np.ndarray:
    """Half the field of view along the grid's (x, y, z)."""
    return (np.array(geometry.shape) * geometry.spacing_mm)[::-1] / 2


def _blob(rng, centre_mm, axes_mm, roughness: float = 0.06, angles=(0.0, 0.0, 0.0)) -> Blob:
    waves = np.column_stack([rng.normal(0, 2.2, (5, 3)), rng.uniform(0, 6.3, 5), rng.normal(0, roughness / 2, 5)])
    return Blob(np.asarray(centre_mm, float), np.asarray(axes_mm, float), _turn(*angles), waves)


def _mass(rng, geometry: Geometry) -> tuple[Blob, Blob]:
    """(core, rim): a mass of 6 to 10 mm half axes in one hemisphere, its core off centre."""
    half = _half_widths_mm(geometry)
    side = rng.choice([-1.0, 1.0])
    centre = half * [side * rng.uniform(0.24, 0.34), rng.uniform(-0.32, 0.32), rng.uniform(-0.25, 0.25)]
    axes = rng.uniform(7.2, 8.4) * rng.uniform(0.88, 1.14, 3)
    angles = rng.uniform(-60, 60, 3)
    shift = rng.uniform(-0.08, 0.08, 3) * axes
    return (
        _blob(rng, centre + shift, axes * rng.uniform(0.56, 0.66), 0.11, angles),
        _blob(rng, centre, axes, 0.08, angles),
    )


def _head(rng, geometry: Geometry, points: np.ndarray, voxel: float) -> list[tuple[str, np.ndarray]]:
    """Scalp, skull, fluid, grey and white matter and ventricles as (tissue, share of each voxel), outer first."""
    half = _half_widths_mm(geometry)
    axes = np.minimum(half * [0.9, 0.93, 1.12], 1.15 * half[0]) * rng.uniform(0.95, 1.0, 3)
    head = _blob(rng, (0, 0, half[2] - 1.1 * axes[2]), axes, 0.015)
    depth = head.depth_mm(points)
    folds = _texture(rng, geometry, 2.0)
    grey = depth - 5.4 + 1.3 * np.clip(folds, -1, 1)
    white = depth - 8.5 + 3.5 * np.clip(folds, -1.3, 1.3)
    layers = [("scalp", depth), ("skull", depth - 2.4), ("fluid", depth - 4.0), ("grey", grey), ("white", white)]
    layers += [("fluid", blob.depth_mm(points)) for blob in _ventricles(rng, half)]
    return [(tissue, _share(inside, voxel)) for tissue, inside in layers]


def _ventricles(rng, half: np.ndarray) -> list[Blob]:
    """Two bent, dark hollows beside the midline: as dark as the core of the mass."""
    size = rng.uniform(0.85, 1.25)
    return [
        _blob(
            rng,
            half * [side * 0.16, rng.uniform(-0.08, 0.08), 0.05],
            size * np.array([2.6, 9.5, 4.2]),
            0.12,
            (side * rng.uniform(6, 14), rng.uniform(-10, 10), 0),
        )
        for side in (-1, 1)
    ]


def _distractors(rng, geometry: Geometry, points, voxel: float, rim: Blob) -> list[tuple[str, np.ndarray]]:
    """Vessels and a solid nodule: as bright as the rim, but without a core; nodule opposite to the mass."""
    half = _half_widths_mm(geometry)
    centre = rim.centre_mm * [-1, rng.uniform(-1, 1), rng.uniform(-1, 1)] + rng.uniform(-2, 2, 3)
    nodule = _blob(rng, centre, rng.uniform(3.0, 4.6) * rng.uniform(0.85, 1.15, 3), 0.10)
    found = [("vessel", _share(nodule.depth_mm(points), voxel))]
    for _ in range(4):
        start = half * [rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), 0]
        path = points - start
        height = path[..., 2]
        bend = rng.normal(0, 0.25, 2)
        sway = 2.5 * np.sin(height[..., None] / rng.uniform(5, 9) + rng.uniform(0, 6, 2)) + height[..., None] * bend
        found.append(("vessel", _share(rng.uniform(0.8, 1.2) - np.linalg.norm(path[..., :2] - sway, axis=-1), voxel)))
    inside = _blob(rng, (0, 0, 0), half * 0.72, 0.02).depth_mm(points) > 0
    return [(tissue, share * inside) for tissue, share in found]


def _share(depth_mm: np.ndarray, voxel_mm: float) -> np.ndarray:
    """How much of each voxel lies inside a surface at this depth (partial volume)."""
    return np.clip(depth_mm / voxel_mm + 0.5, 0.0, 1.0)


def _painted(rng, tissues: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """Each tissue over those before it, with this case's own contrast."""
    contrast = {name: mean * rng.normal(1, 0.05) for name, mean in _TISSUES.items()}
    picture = np.zeros(tissues[0][1].shape)
    for tissue, share in tissues:
        picture += share * (contrast[tissue] - picture)
    return picture


def _scanned(rng, geometry: Geometry, picture: np.ndarray) -> np.ndarray:
    """The picture as a scanner gives it: slightly blurred, textured, shaded by the coil, noisy, in its own units."""
    from scipy import ndimage

    picture = picture * (1 + 0.05 * _texture(rng, geometry, 1.5) + 0.03 * _texture(rng, geometry, 5.0))
    picture = ndimage.gaussian_filter(picture, 0.45)
    picture *= np.exp(0.10 * np.clip(_texture(rng, geometry, 16.0), -2, 2))
    noise = rng.uniform(0.025, 0.05)
    real = picture + rng.normal(0, noise, picture.shape)
    magnitude = np.hypot(real, rng.normal(0, noise, picture.shape))
    return (magnitude * rng.uniform(250, 1400)).astype(np.float32)


def _texture(rng, geometry: Geometry, width_mm: float) -> np.ndarray:
    """Smooth random field (Z, Y, X) of mean 0 and standard deviation 1 whose features are about `width_mm` wide."""
    from scipy import ndimage

    field = ndimage.gaussian_filter(rng.normal(size=geometry.shape), width_mm / np.array(geometry.spacing_mm))
    return (field - field.mean()) / field.std()


def _turn(about_z: float, about_x: float, about_y: float) -> np.ndarray:
    """Rotation matrix (x, y, z) from three angles in degrees."""
    matrix = np.eye(3)
    for axis, degrees in ((2, about_z), (0, about_x), (1, about_y)):
        i, j = [a for a in range(3) if a != axis]
        step = np.eye(3)
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        step[i, i], step[j, j], step[i, j], step[j, i] = c, c, -s, s
        matrix = matrix @ step
    return matrix
