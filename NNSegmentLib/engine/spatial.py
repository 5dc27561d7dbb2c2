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
from .cases import LoadedCase, cut, empty_like
from .devices import sent
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


def warped_patches(
    cases: Sequence[LoadedCase],
    sampling: PatchSampling,
    corners: Sequence[Sequence[int]],
    matrices: Sequence[np.ndarray],
    in_plane: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, C, Z, Y, X) and label maps (B, L, Z, Y, X) int16 of patches seen through `matrices`, one of each case.

    `corners` are those of the extraction windows. All patches together take hardly more operations than one does.
    """
    places = zip(cases, corners, matrices, strict=True)
    boxes = [_needed_box(case.shape, sampling, corner, matrix, in_plane) for case, corner, matrix in places]
    size = tuple(
        max(1, *sides) for sides in zip(*(np.subtract(high, low).tolist() for low, high in boxes), strict=True)
    )
    images = torch.stack([_window(case.image, box, size, 0.0) for case, box in zip(cases, boxes, strict=True)])
    labels = torch.stack(
        [
            torch.stack([_window(labels, box, size, OUTSIDE) for labels in case.labels])
            for case, box in zip(cases, boxes, strict=True)
        ]
    )
    axes, patch = slice(int(in_plane), 3), sampling.patch_size
    centres = [np.subtract(sampling.centre(corner), low)[axes] for corner, (low, _) in zip(corners, boxes, strict=True)]
    at = coordinates([matrix[axes, axes] for matrix in matrices], centres, patch[axes], images.device)
    # with whole slices in the leading axes, 2-d interpolation serves all of them at once
    leading = (len(cases), -1, *size[axes])
    return (
        interpolate(images.reshape(leading), at).view(len(cases), -1, *patch),
        interpolate_labels(labels.reshape(leading), at).view(len(cases), -1, *patch),
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


def _window(array: np.ndarray | torch.Tensor, box, size: Sequence[int], outside: float) -> torch.Tensor:
    """The voxels of a box (low, high) at the beginning of a window of `size`, which is `outside` elsewhere."""
    low, high = box
    inside = tuple(max(0, b - a) for a, b in zip(low, high, strict=True))
    if inside == tuple(size):
        return cut(array, low, size, outside)
    window = empty_like(array, size).fill_(outside)
    if all(inside):
        window[(..., *map(slice, inside))] = cut(array, low, inside, outside)
    return window


def coordinates(
    matrices: Sequence[np.ndarray], centres: Sequence[Sequence[float]], patch: Sequence[int], device: torch.device
) -> torch.Tensor:
    """The continuous voxel indices that the voxels of patches show: (B, *patch, axes) for matrices and centres."""
    axes = len(patch)
    rows = np.concatenate([np.stack(matrices), np.stack(centres)[:, None]], axis=1)  # (B, axes + 1, axes)
    rows = sent(torch.from_numpy(rows.astype(np.float32)), device).view(len(matrices), axes + 1, *(1,) * axes, axes)
    at = rows[:, axes]
    for axis, n in enumerate(patch):
        offsets = torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2
        at = at + offsets.view([-1 if i == axis else 1 for i in range(axes + 1)]) * rows[:, axis]
    return at


def interpolate(images: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Linear interpolation of images (B, N, *window) at places (B, *patch, axes) → (B, N, *patch); 0 beyond them."""
    size = torch.tensor(images.shape[2:], dtype=torch.float32)
    scale, shift = sent(torch.stack([2 / size, 1 / size - 1]), images.device)
    grid = (at * scale + shift).flip(-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def interpolate_labels(labels: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """The label whose linearly interpolated indicator is largest at places (B, *patch, axes); −1 lies beyond windows.

    `labels` (B, N, *window) int16 → (B, N, *patch). Most places lie between voxels of one label. On the processor they
    are copied, and the weights are computed for the others only; a graphics card would have to be waited for to learn
    how many those are.
    """
    axes = at.shape[-1]
    padded = F.pad(labels, (_RIM, _RIM) * axes, value=OUTSIDE)
    steps = padded.stride()[2:]
    base, fractions = _cells(at.flatten(1, -2), labels.shape[2:], steps)
    maps = sent(torch.arange(labels.shape[0] * labels.shape[1]) * padded.stride(1), labels.device)
    first = maps.view(*labels.shape[:2], 1) + base[:, None]  # (B, N, P)
    if labels.device.type == "cpu":
        result = _heaviest_between(padded, first, fractions, steps)
    else:
        result = _heaviest(padded.view(-1), first, fractions[:, None], steps)
    return result.view(*labels.shape[:2], *at.shape[1:-1])


def _heaviest_between(padded: torch.Tensor, first: torch.Tensor, fractions: torch.Tensor, steps) -> torch.Tensor:
    """Labels for cells (B, N, P), weighed only where the corners differ."""
    flat = padded.view(-1)
    result = flat[first]
    between = _mixed(padded).view(-1)[first].nonzero(as_tuple=True)
    if len(between[0]):
        image, _, point = between
        result[between] = _heaviest(flat, first[between], fractions[image, point], steps)
    return result


def _cells(at: torch.Tensor, window, steps) -> tuple[torch.Tensor, torch.Tensor]:
    """For places (B, P, axes), the offset (B, P) of the cell around each in padded labels, and the fractions in it."""
    at = torch.minimum(at.clamp(min=-_RIM), sent(torch.tensor(window, dtype=torch.float32), at.device))
    lower = at.floor()
    offsets = (lower.long() + _RIM) * sent(torch.tensor(steps), at.device)
    return offsets.sum(-1), at - lower


def _mixed(padded: torch.Tensor) -> torch.Tensor:
    """Whether the cell that starts at a voxel of (B, N, *window) has corners of several labels."""
    least, most = padded, padded
    for axis in range(2, padded.ndim):
        n = padded.shape[axis] - 1
        least = torch.minimum(least.narrow(axis, 0, n), least.narrow(axis, 1, n))
        most = torch.maximum(most.narrow(axis, 0, n), most.narrow(axis, 1, n))
    return F.pad(least != most, (0, 1) * (padded.ndim - 2))


def _heaviest(labels: torch.Tensor, first: torch.Tensor, fractions: torch.Tensor, steps: Sequence[int]) -> torch.Tensor:
    """The label of the largest summed corner weight in each cell, which begins at `first`; `labels` is flat.

    `fractions` (…, axes) say where in its cell a place lies, and are spread over the shape of `first`.
    """
    corners = torch.tensor(list(product((0, 1), repeat=len(steps))))
    shifts = sent(corners @ torch.tensor(steps), labels.device)
    found = labels[first + shifts.view(-1, *(1,) * first.ndim)]
    shares = [torch.stack((1 - fraction, fraction)) for fraction in fractions.unbind(-1)]
    weights = shares[0]
    for share in shares[1:]:
        weights = (weights[:, None] * share).flatten(0, 1)
    support = torch.zeros_like(found, dtype=weights.dtype).add_(weights, alpha=_TIE)
    for label, weight in zip(found, weights, strict=True):
        support += torch.where(found == label, weight, 0.0)
    return _winner_by_turns(found, support) if first.device.type == "cpu" else _winner_at_once(found, support)


def _winner_by_turns(found: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Along the first axis, the first label with most support; on a CPU several times faster than `_winner_at_once`."""
    winner, most = found[0], support[0]
    for label, total in zip(found[1:], support[1:], strict=True):
        winner, most = torch.where(total > most, label, winner), torch.maximum(total, most)
    return winner


def _winner_at_once(found: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """The same in two operations, each of which takes a thread longer to start than a GPU to do."""
    return found.gather(0, support.argmax(0, keepdim=True))[0]
