"""Rotation and scaling of patches: nnU-Net's draws, and the sampling of image and labels.

A patch voxel at offset o (z, y, x) from the patch centre shows the case at `centre + o @ matrix`. Only the voxels that
are needed are read; beyond the extraction window the image is 0 and the label −1, as if only the window had been read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from ..preprocessing.prepared import OUTSIDE
from .cases import LoadedCase, cut
from .sampling import PatchSampling

_PLANNED_SCALE = 0.85
"""The extraction window leaves room for this scale, although scales from 0.7 to 1.4 are drawn."""
_FLAT = 3
"""A patch whose first axis is more than this many times shorter than the longest is rotated in plane only."""
_RIM = 2
"""Voxels of −1 around a window of labels, so that places beyond it lie in cells of a single label."""
_TIE = 1e-6
"""Share of a corner's own weight that decides between labels of equal weight: the nearest voxel's label wins."""


@dataclass(frozen=True)
class SpatialRules:
    """How often and how far patches are rotated and scaled."""

    rotation_degrees: float
    """Angles are uniform in ± this, one per axis."""
    in_plane: bool
    """Rotate and scale the axes (y, x) only: slices, and patches much shorter along z than across."""
    rotation_probability: float = 0.2
    scaling_probability: float = 0.2
    scale: tuple[float, float] = (0.7, 1.4)
    """Range of the one factor for all axes; above 1 the patch shows a larger field of view."""


def spatial_rules(patch: Sequence[int]) -> SpatialRules:
    """nnU-Net's rotation range for a patch (z, y, x) or (y, x)."""
    if len(patch) == 2:
        return SpatialRules(15.0 if max(patch) / min(patch) > 1.5 else 180.0, in_plane=True)
    flat = max(patch) / patch[0] > _FLAT
    return SpatialRules(180.0 if flat else 30.0, in_plane=flat)


def extraction_size(patch: Sequence[int]) -> tuple[int, ...]:
    """Size of the window that holds the patch rotated about any one axis and shrunk to 0.85; axes as in `patch`."""
    rules, size = spatial_rules(patch), np.asarray(patch, float)
    angle = np.deg2rad(min(rules.rotation_degrees, 90.0))
    planes = [(0, 1)] if len(patch) == 2 else [(1, 2), (2, 0), (0, 1)]
    turned = [np.abs(size @ rotation(angle, plane, len(patch))) for plane in planes]
    grown = [int(n) for n in np.max([size, *turned], axis=0) / _PLANNED_SCALE]
    return (patch[0], *grown[1:]) if len(patch) == 3 and rules.in_plane else tuple(grown)


def rotation(angle: float, plane: tuple[int, int], dimensions: int = 3) -> np.ndarray:
    """Rotation matrix by `angle` (radians) in the plane of two axes."""
    i, j = plane
    matrix = np.eye(dimensions)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


def draw_matrix(rng: np.random.Generator, rules: SpatialRules) -> np.ndarray | None:
    """A rotation and scaling as a 3×3 matrix over (z, y, x); None when neither was drawn."""
    rotated, scaled = rng.random(2) < (rules.rotation_probability, rules.scaling_probability)
    limit = np.deg2rad(rules.rotation_degrees)
    angles, factor = rng.uniform(-limit, limit, 3), rng.uniform(*rules.scale)
    if not (rotated or scaled):
        return None
    matrix = np.eye(3)
    if rotated:
        planes = [(1, 2)] if rules.in_plane else [(0, 1), (2, 0), (1, 2)]
        for angle, plane in zip(angles, planes, strict=False):
            matrix = matrix @ rotation(angle, plane)
    if scaled:
        matrix[int(rules.in_plane) :, int(rules.in_plane) :] *= factor
    return matrix


def warped_patch(
    case: LoadedCase, sampling: PatchSampling, corner: Sequence[int], matrix: np.ndarray, in_plane: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (C, Z, Y, X) and label maps (L, Z, Y, X) int16 of the patch seen through `matrix`.

    `corner` is that of the extraction window.
    """
    low, high = _needed_box(case.shape, sampling, corner, matrix, in_plane)
    if any(b <= a for a, b in zip(low, high, strict=True)):
        return _nothing(case, sampling.patch_size)
    size = tuple(b - a for a, b in zip(low, high, strict=True))
    image = cut(case.image, low, size, 0.0)
    labels = torch.stack([cut(labels, low, size, OUTSIDE) for labels in case.labels])
    axes = slice(int(in_plane), 3)
    centre = (np.asarray(sampling.centre(corner)) - low)[axes]
    places = coordinates(matrix[axes, axes], centre, sampling.patch_size[axes], image.device)
    # with whole slices in the leading axes, 2-d interpolation serves all of them at once
    leading = (-1, *size[1:]) if in_plane else (-1, *size)
    shape = sampling.patch_size
    return (
        interpolate(image.reshape(leading), places).view(-1, *shape),
        interpolate_labels(labels.reshape(leading), places).view(-1, *shape),
    )


def _needed_box(shape, sampling: PatchSampling, corner, matrix: np.ndarray, in_plane: bool):
    """First voxel and first voxel after the box that holds all neighbours of the patch's places."""
    corner, centre = np.asarray(corner), np.asarray(sampling.centre(corner))
    reach = (np.asarray(sampling.patch_size) - 1) / 2 @ np.abs(matrix)
    low = np.maximum(np.floor(centre - reach).astype(int), corner)
    high = np.minimum(np.floor(centre + reach).astype(int) + 2, corner + sampling.extraction_size)
    first = int(in_plane)
    low[first:] = np.maximum(low, 0)[first:]
    high[first:] = np.minimum(high, shape)[first:]
    if in_plane:
        low[0], high[0] = corner[0], corner[0] + sampling.patch_size[0]
    return tuple(low.tolist()), tuple(high.tolist())


def _nothing(case: LoadedCase, patch: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    device = case.image.device if isinstance(case.image, torch.Tensor) else "cpu"
    labels = torch.full((len(case.labels), *patch), OUTSIDE, dtype=torch.int16, device=device)
    return torch.zeros((case.image.shape[0], *patch), device=device), labels


def coordinates(
    matrix: np.ndarray, centre: Sequence[float], patch: Sequence[int], device: torch.device
) -> list[torch.Tensor]:
    """For each axis, the continuous voxel index that every patch voxel shows; tensors of the patch's shape."""
    offsets = [torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2 for n in patch]
    along = [o.view([-1 if i == axis else 1 for i in range(len(patch))]) for axis, o in enumerate(offsets)]
    return [
        sum((o * float(matrix[i, axis]) for i, o in enumerate(along)), torch.tensor(float(centre[axis])))
        for axis in range(len(patch))
    ]


def interpolate(images: torch.Tensor, places: Sequence[torch.Tensor]) -> torch.Tensor:
    """Linear interpolation of images (N, *window) at `places` (one tensor per axis); 0 beyond the window."""
    grid = torch.empty((1, *places[0].shape, len(places)), device=images.device)
    for axis, (place, n) in enumerate(zip(places, images.shape[1:], strict=True)):
        grid[0, ..., len(places) - 1 - axis] = place.mul(2 / n).add_(1 / n - 1)
    return F.grid_sample(images[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]


def interpolate_labels(labels: torch.Tensor, places: Sequence[torch.Tensor]) -> torch.Tensor:
    """The label whose linearly interpolated indicator is largest, at `places`; −1 lies beyond the window.

    `labels` (N, *window) int16 → (N, *shape of the places). Most places lie between voxels of one label and are
    copied; the weights are computed for the others only.
    """
    padded = F.pad(labels, (_RIM, _RIM) * len(places), value=OUTSIDE)
    steps = padded.stride()[1:]
    base, fractions = _cells(places, labels.shape[1:], steps)
    cells = padded.view(len(labels), -1)
    result = cells[:, base]
    rows, points = _mixed(padded).view(len(labels), -1)[:, base].nonzero(as_tuple=True)
    if len(points):
        first = rows * cells.shape[1] + base[points]
        result[rows, points] = _heaviest(padded.view(-1), first, [f[points] for f in fractions], steps)
    return result.view(len(labels), *places[0].shape)


def _cells(places, window, steps) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Flat index (P,) of the first corner of the cell around each place, in the padded labels, and the fractions in it."""
    base, fractions = 0, []
    for place, n, step in zip(places, window, steps, strict=True):
        place = place.clamp(-_RIM, n)
        lower = place.floor()
        fractions.append((place - lower).flatten())
        base = base + (lower.long() + _RIM) * step
    return base.flatten(), fractions


def _mixed(padded: torch.Tensor) -> torch.Tensor:
    """Whether the cell that starts at a voxel of (N, *window) has corners of several labels."""
    least, most = padded, padded
    for axis in range(1, padded.ndim):
        n = padded.shape[axis] - 1
        least = torch.minimum(least.narrow(axis, 0, n), least.narrow(axis, 1, n))
        most = torch.maximum(most.narrow(axis, 0, n), most.narrow(axis, 1, n))
    return F.pad(least != most, (0, 1) * (padded.ndim - 1))


def _heaviest(labels: torch.Tensor, first: torch.Tensor, fractions, steps) -> torch.Tensor:
    """The label of the largest summed corner weight in each cell (P,); `labels` is flat."""
    corners = list(product((0, 1), repeat=len(steps)))
    shifts = [sum(up * step for up, step in zip(corner, steps, strict=True)) for corner in corners]
    found = torch.stack([labels[first + shift] for shift in shifts])
    weights = torch.stack([_weight(corner, fractions) for corner in corners])
    support = weights * _TIE
    for label, weight in zip(found, weights, strict=True):
        support += torch.where(found == label, weight, 0.0)
    # several times faster than argmax along the short axis
    winner, most = found[0], support[0]
    for label, total in zip(found[1:], support[1:], strict=True):
        winner, most = torch.where(total > most, label, winner), torch.maximum(total, most)
    return winner


def _weight(corner: Sequence[int], fractions: Sequence[torch.Tensor]) -> torch.Tensor:
    weight = torch.ones_like(fractions[0])
    for up, fraction in zip(corner, fractions, strict=True):
        weight = weight * (fraction if up else 1 - fraction)
    return weight
