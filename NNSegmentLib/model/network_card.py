"""All that another program needs to run an exported network: what goes in, what comes out, and the steps between."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import __version__
from ..folders import LABELS_CSV
from ..labels import LabelSet
from ..planning.plan import IntensityStats, Resampling
from ..postprocessing_rules import KeepLargest, load_postprocessing
from ..preprocessing.resample import spline_orders
from .card import painted
from .members import Member, Model, TrainedConfiguration

INPUT, OUTPUT = "image", "logits"
SOFTMAX, SIGMOID = "softmax", "sigmoid"
_FORMULAS = {
    "ZScoreNormalization": "subtract the mean of the cropped image and divide by its standard deviation; with "
    "uses_mask both are those of the voxels inside the non-zero mask (holes filled), and the others stay as they are",
    "CTNormalization": "clip to percentile_00_5 and percentile_99_5, subtract mean, divide by std (all of intensities)",
    "NoNormalization": "leave the values as they are",
    "RescaleTo01Normalization": "subtract the smallest value of the cropped image, divide by the then largest",
    "RGBTo01Normalization": "divide by 255",
}


@dataclass(frozen=True)
class InputChannel:
    """One image channel."""

    name: str
    normalization: str
    """Scheme by nnU-Net's class name."""
    formula: str
    uses_mask: bool
    intensities: IntensityStats | None
    """Foreground intensities of the training data; CTNormalization needs them."""


@dataclass(frozen=True)
class NetworkInput:
    """What the network takes: float32 (batch, channels, *patch)."""

    name: str
    shape: tuple[str | int, ...]
    channels: tuple[InputChannel, ...]
    previous_stage: str
    """Cascade: the model folder whose label map is an additional input; empty for none."""
    previous_stage_values: tuple[int, ...]
    """Cascade: label values that follow the image channels, one input channel of 0 and 1 each."""


@dataclass(frozen=True)
class Preprocessing:
    """From an image file to the network's grid."""

    reader: str
    """nnU-Net's reader of the training images; names ending in WithReorient turn the axes to RAS first."""
    transpose_forward: tuple[int, ...]
    """Axis of the array (z, y, x) that becomes axis 0, 1, 2."""
    transpose_backward: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    """Voxel size after the transposition; for 2d (y, x), where the distance of the slices stays."""
    resampling_image: Resampling
    resampling_labels: Resampling
    """Cascade: for the previous stage's label map."""


@dataclass(frozen=True)
class SlidingWindow:
    """How the volume is covered with patches and these are averaged."""

    patch_size: tuple[int, ...]
    step: float
    """Distance of patches as a part of the patch."""
    gaussian_sigma: float
    """Width of the weight around a patch's centre as a part of the patch."""
    mirror_axes: tuple[int, ...]
    """Patch axes along which mirrored views are averaged; empty when the network was trained without mirroring."""


@dataclass(frozen=True)
class OutputChannel:
    """One channel of the network's output."""

    name: str
    values: tuple[int, ...]
    """Label values that make it up; several for a region."""
    painted_value: int
    """The value to write into the label map."""
    color: tuple[int, int, int] | None
    """RGB, 0 to 255; None for the background."""
    terminology: str
    """Slicer's terminology entry; empty when unknown."""


@dataclass(frozen=True)
class NetworkOutput:
    """What the network gives: logits, float32 (batch, outputs, *patch)."""

    name: str
    shape: tuple[str | int, ...]
    activation: str
    """softmax: the highest output wins; sigmoid: outputs above 0 are painted in their order, later ones on top."""
    channels: tuple[OutputChannel, ...]
    resampling_probabilities: Resampling


@dataclass(frozen=True)
class Company:
    """What the network's answer is combined with."""

    folds: tuple[int | str, ...]
    """Networks of this model whose logits are averaged, this one included."""
    ensemble: tuple[str, ...]
    """Model folders whose probabilities are averaged, this one included; empty for no ensemble."""
    keep_largest: tuple[KeepLargest, ...]
    """Post-processing: of each step's labels together only the largest component stays."""


@dataclass(frozen=True)
class NetworkCard:
    """One exported network; arrays are (z, y, x), lengths in mm."""

    software: str
    task: str
    model: str
    """Name of the model's folder: trainer, plans and configuration."""
    configuration: str
    fold: int | str
    network: str
    input: NetworkInput
    preprocessing: Preprocessing
    sliding_window: SlidingWindow
    output: NetworkOutput
    company: Company
    steps: tuple[str, ...]
    """What to do from image file to label map, in order."""


def network_card(model: Model, part: TrainedConfiguration, member: Member, window: SlidingWindow) -> NetworkCard:
    """The card of one fold of one part of a model; raises ModelError when its post-processing cannot be read."""
    labels = painted(model.label_set, part.folder / LABELS_CSV)
    company = _company(model, part)
    return NetworkCard(
        software=f"NNSegment {__version__}",
        task=part.plan.dataset_name,
        model=part.folder.name,
        configuration=part.configuration.name,
        fold=member.fold,
        network=part.configuration.network.kind,
        input=_input(model.channels, part, labels),
        preprocessing=_preprocessing(part),
        sliding_window=window,
        output=_output(part, labels),
        company=company,
        steps=tuple(_steps(part, labels, company)),
    )


def _input(names: tuple[str, ...], part: TrainedConfiguration, labels: LabelSet) -> NetworkInput:
    c, stats = part.configuration, part.plan.intensities
    channels = tuple(
        InputChannel(name, scheme, _FORMULAS.get(scheme, ""), masked, stats[i] if i < len(stats) else None)
        for i, (name, scheme, masked) in enumerate(zip(names, c.normalization, c.use_mask_for_norm, strict=True))
    )
    previous = part.previous.folder.name if part.previous else c.previous_stage
    values = labels.foreground_values if previous else ()
    return NetworkInput(INPUT, ("batch", len(names) + len(values), *c.patch_size), channels, previous, values)


def _preprocessing(part: TrainedConfiguration) -> Preprocessing:
    c, plan = part.configuration, part.plan
    return Preprocessing(
        plan.reader, plan.transpose_forward, plan.transpose_backward, c.spacing_mm, _as_done(c.resampling_data),
        _as_done(c.resampling_labels),
    )  # fmt: skip


def _as_done(resampling: Resampling) -> Resampling:
    """With the orders that are used, which those of nnU-Net's functions that are always linear leave out."""
    order, order_z = spline_orders(resampling)
    return replace(resampling, order=order, order_z=order_z)


def _output(part: TrainedConfiguration, labels: LabelSet) -> NetworkOutput:
    c = part.configuration
    shape = ("batch", labels.n_outputs, *c.patch_size)
    activation = SIGMOID if labels.has_regions else SOFTMAX
    return NetworkOutput(OUTPUT, shape, activation, tuple(_outputs(labels)), _as_done(c.resampling_probabilities))


def _outputs(labels: LabelSet) -> list[OutputChannel]:
    if labels.has_regions:
        pairs = list(zip(labels.foreground, labels.regions_class_order, strict=True))
    else:
        by_value = {label.values[0]: label for label in labels.labels}
        pairs = [(by_value[value], value) for value in labels.values]
    return [OutputChannel(label.name, label.values, v, label.color, label.terminology) for label, v in pairs]


def _company(model: Model, part: TrainedConfiguration) -> Company:
    """An earlier stage of a cascade is neither averaged with the model nor post-processed like it."""
    folds = tuple(member.fold for member in part.members)
    if part not in model.parts:
        return Company(folds, (), ())
    ensemble = tuple(p.folder.name for p in model.parts) if len(model.parts) > 1 else ()
    rules = load_postprocessing(model.postprocessing).steps if model.postprocessing else ()
    return Company(folds, ensemble, rules)


def _steps(part: TrainedConfiguration, labels: LabelSet, company: Company) -> list[str]:
    cascade, is_2d = part.configuration.previous_stage, part.configuration.is_2d
    steps = [
        "Read each channel as an array (z, y, x) and stack them in the order of input.channels.",
        "Transpose the axes by transpose_forward.",
        "Crop to the box around the voxels that differ from 0 in any channel.",
        "Normalise each channel by its formula; this comes before resampling.",
        f"Resample to spacing_mm{' in plane, the volume as a whole,' if is_2d else ''} by resampling_image: to round(n * old / new) voxels "
        "between the same outer edges, by a spline of that order within the range of the values, of order_z along an axis "
        "more than three times as coarse as the finest, and the plan's force_separate_z decides if it is set.",
        cascade and "Append a channel for each of previous_stage_values: where the previous stage's label map, "
        "prepared alike with resampling_labels (of the labels' shares the largest wins), has that value.",
        f"Pad with 0 to patch_size, the smaller half before, and cut {'each slice into ' if is_2d else ''}patches: along each axis evenly spread, "
        "at most step * patch_size apart, the last one flush with the end.",
        "Run the network on each patch and on its mirror images along every combination of mirror_axes, mirror the "
        "outputs back and average.",
        "Average overlapping patches, weighted by a Gaussian of gaussian_sigma * patch_size around their centre, 10 there; "
        "the sums are in half precision as nnU-Net's, whose rounding shows in the corners of a patch.",
        "Average the logits of company.folds, resample them to the shape before resampling by resampling_probabilities.",
        company.ensemble and "Apply the activation and average the probabilities of the models of company.ensemble.",
        _DECIDE[labels.has_regions],
        "Put the labels back where the volume was cropped, 0 elsewhere, and transpose by transpose_backward.",
        company.keep_largest and "Of each entry of company.keep_largest keep only the largest component.",
    ]  # fmt: skip
    return [step for step in steps if step]


_DECIDE = {
    False: "Write the painted_value of the output with the highest logit; softmax gives probabilities.",
    True: "Write the painted_value of every output whose logit is above 0 (a sigmoid above one half), in their order.",
}
