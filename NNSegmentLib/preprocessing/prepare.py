"""One case onto the network's grid: transpose, crop to non-zero, normalise, resample, locate the foreground.

Normalisation comes before resampling, so that the mask fits the voxels exactly. `restore` is the way back.
"""

from __future__ import annotations

import numpy as np

from ..errors import ImageError, TaskError
from ..image import Image, LabelMap, read_image, read_labels
from ..labels import LARGEST_VALUE, LabelSet
from ..planning.plan import Configuration, Plan, Resampling
from ..task import Case
from .crop import Box, cropped, nonzero_box, nonzero_mask
from .foreground import locate
from .normalize import normalize
from .prepared import OUTSIDE, Placement, PreparedCase
from .resample import prepared_shape, resample_labels, resample_to
from .version_1 import resampled_then_normalized, resized_previous

_COUNTED_AT_ONCE = 1 << 18


def prepare_case(case: Case, plan: Plan, configuration: str, label_set: LabelSet) -> PreparedCase:
    """Read and prepare one case, with its labels if it has a label file.

    Raises ImageError for unreadable files, values that are not finite or labels on another grid, TaskError for label
    values that dataset.json does not name, PlanError when the plan does not fit.
    """
    image = read_image(case.images, plan.reader)
    labels = read_labels(case.labels, plan.reader) if case.labels else None
    return prepare_image(image, labels, plan, configuration, label_set, case.id)


def prepare_image(
    image: Image,
    labels: LabelMap | None,
    plan: Plan,
    configuration: str,
    label_set: LabelSet,
    case_id: str = "",
    previous: np.ndarray | None = None,
) -> PreparedCase:
    """Prepare one image (C, Z, Y, X) and, if given, its labels on the same grid; errors as in `prepare_case`.

    `previous` is a cascade's earlier label map (Z, Y, X): voxels it names count inside the non-zero mask.
    """
    chosen = plan.configuration(configuration)
    _require_finite(image, case_id)
    if labels is not None:
        _require_fitting(labels, image, label_set, case_id)
    axes = plan.transpose_forward
    transposed = image.array.transpose(0, *(1 + axis for axis in axes))
    placement = _placement(image, nonzero_box(transposed), axes, chosen)
    inside = cropped(transposed, _box(placement))
    marked = None if labels is None else _marked(cropped(labels.array.transpose(axes), _box(placement)), inside)
    if chosen.is_version_1:
        array = resampled_then_normalized(inside, placement, chosen, plan.intensities)
    else:
        found = None if previous is None else cropped(previous.transpose(axes), _box(placement))
        mask = _mask(inside, marked if found is None else _marked(found, inside), chosen)
        array = normalize(inside, chosen.normalization, chosen.use_mask_for_norm, plan.intensities, mask)
        array = _resampled(resample_to, array, placement, chosen.resampling_data)
    if marked is None:
        return PreparedCase(case_id, array, None, placement)
    marked = _resampled(resample_labels, marked, placement, chosen.resampling_labels)
    return PreparedCase(case_id, array, marked, placement, locate(marked, label_set))


def prepare_previous(
    labels: np.ndarray, placement: Placement, configuration: Configuration, image: Image
) -> np.ndarray:
    """The previous stage's segmentation (Z, Y, X) on the input's grid, brought to the grid of the prepared image.

    Background outside the image's non-zero mask is `OUTSIDE`, as in nnU-Net, which lets the votes of both apart.
    Raises ImageError when it has another size than the input.
    """
    if labels.shape != placement.geometry.shape:
        raise ImageError(
            f"The previous stage's segmentation has {labels.shape} voxels (z, y, x), the image has "
            f"{placement.geometry.shape}; predict the previous stage from the same image."
        )
    if configuration.is_version_1:
        return resized_previous(labels, placement)
    axes = placement.transpose_forward
    seen = cropped(image.array.transpose(0, *(1 + axis for axis in axes)), _box(placement))
    marked = _marked(cropped(labels.transpose(axes), _box(placement)), seen)
    return np.ascontiguousarray(_resampled(resample_labels, marked, placement, configuration.resampling_labels))


def _placement(image: Image, box: Box, axes: tuple[int, int, int], configuration: Configuration) -> Placement:
    spacing = tuple(image.geometry.spacing_mm[axis] for axis in axes)
    return Placement(
        geometry=image.geometry,
        transpose_forward=axes,
        shape_before_crop=tuple(image.geometry.shape[axis] for axis in axes),
        crop_start=tuple(int(n) for n in box[0]),
        crop_shape=tuple(int(n) for n in box[1]),
        original_spacing_mm=spacing,
        spacing_mm=configuration.target_spacing_mm(spacing),
    )


def _box(placement: Placement) -> Box:
    return placement.crop_start, placement.crop_shape


def _resampled(resample, array: np.ndarray, placement: Placement, resampling: Resampling) -> np.ndarray:
    shape = prepared_shape(placement)
    return resample(array, shape, placement.original_spacing_mm, placement.spacing_mm, resampling)


def _marked(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The labels as int8 (int16 where they need it) with `OUTSIDE` on background voxels outside the non-zero mask."""
    marked = np.array(labels, np.int8 if labels.max() <= 127 else np.int16, order="C")
    mask = nonzero_mask(image)
    if not mask.all():
        marked[(marked == 0) & ~mask] = OUTSIDE
    return marked


def _mask(image: np.ndarray, marked: np.ndarray | None, configuration: Configuration) -> np.ndarray | None:
    """Voxels that count for masked normalisation: nnU-Net's rule is every voxel that is not `OUTSIDE`."""
    if not any(configuration.use_mask_for_norm):
        return None
    return nonzero_mask(image) if marked is None else marked >= 0


def _require_finite(image: Image, case_id: str) -> None:
    for channel, array in enumerate(image.array):
        if not all(np.isfinite(plane).all() for plane in array):
            raise ImageError(
                f"Channel {channel} of case {case_id or 'without a name'} should hold finite numbers, found NaN or "
                "infinity; replace those voxels (for example by 0) or leave the case out."
            )


def _require_fitting(labels: LabelMap, image: Image, label_set: LabelSet, case_id: str) -> None:
    if labels.array.shape != image.geometry.shape:
        raise ImageError(
            f"The labels of case {case_id} have {labels.array.shape} voxels (z, y, x) but its image has "
            f"{image.geometry.shape}; run 'nnsegment check --fix' or resample the labels onto the image."
        )
    ignore = () if label_set.ignore_value is None else (label_set.ignore_value,)
    unknown = sorted(_values(labels.array) - {0, *label_set.values, *ignore})
    if unknown:
        raise TaskError(
            f"The labels of case {case_id} hold the values {', '.join(map(str, unknown))}, which dataset.json does "
            f"not name (it has {', '.join(map(str, (*label_set.values, *ignore)))}); correct one of the two."
        )


def _values(labels: np.ndarray) -> set[int]:
    """The values that occur; counted, because sorting takes ten times as long, and in parts, to save memory."""
    if labels.min() < 0 or labels.max() > LARGEST_VALUE:
        return {int(value) for value in np.unique(labels)}
    flat = labels.reshape(-1)
    parts = (flat[start : start + _COUNTED_AT_ONCE] for start in range(0, flat.size, _COUNTED_AT_ONCE))
    return {int(value) for part in parts for value in np.flatnonzero(np.bincount(part))}
