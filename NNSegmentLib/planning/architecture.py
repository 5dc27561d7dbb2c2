"""The networks that plans describe, and how nnU-Net v2 writes them down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from ..errors import PlanError

PLAIN, RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"
SLOPE = 0.01
"""Negative slope of nnU-Net's leaky rectifier, also the `a` of its He initialisation."""
_ARCHITECTURES = "dynamic_network_architectures.architectures.unet."
_OPERATIONS = ("conv_op", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin", "nonlin_kwargs")
_SIZES = ("n_stages", "features_per_stage", "kernel_sizes", "strides", "conv_bias", "n_conv_per_stage_decoder")
_ELSEWHERE = "use another configuration or model, or the nnU-Net that trained it"
_MAX_STAGES, _MAX_BLOCKS, _MAX_PATCH_VOXELS = 16, 64, 1 << 32
"""Beyond any network that could be trained; nnU-Net's largest has 8 stages of at most 6 blocks."""
_KNOWN_KEYS = {*_OPERATIONS, *_SIZES, "n_conv_per_stage", "n_blocks_per_stage", "deep_supervision"}


@dataclass(frozen=True)
class NetworkSpec:
    """A U-Net: one entry per stage, stage 0 at full resolution. Axes as in the patch."""

    kind: str
    """`PLAIN` (convolutions per stage) or `RESIDUAL` (residual blocks per stage)."""
    features: tuple[int, ...]
    """Feature maps of each stage."""
    kernel_sizes: tuple[tuple[int, ...], ...]
    """Voxels along (z, y, x), or (y, x) for 2d, of each stage's convolutions."""
    strides: tuple[tuple[int, ...], ...]
    """How much smaller each stage is than the one before, along (z, y, x), or (y, x) for 2d."""
    blocks: tuple[int, ...]
    """Convolutions (plain) or residual blocks of each encoder stage."""
    decoder_convs: tuple[int, ...]
    """Convolutions of each decoder stage, one stage fewer than the encoder."""
    conv_bias: bool = True
    norm_eps: float = 1e-5
    norm_affine: bool = True
    decoder_kernel_sizes: tuple[tuple[int, ...], ...] = ()
    """By stage, one stage fewer than the encoder; empty for those of the encoder, the only ones of nnU-Net v2."""

    @property
    def decoder_kernels(self) -> tuple[tuple[int, ...], ...]:
        """Kernel of each decoder stage, stage 0 at full resolution."""
        return self.decoder_kernel_sizes or self.kernel_sizes[:-1]

    @property
    def dimensions(self) -> int:
        return len(self.kernel_sizes[0])

    @property
    def n_stages(self) -> int:
        return len(self.features)


def supervision_weights(n: int) -> tuple[float, ...]:
    """Share of each of `n` decoder outputs in the loss, full resolution first: halved per stage, none for the coarsest.

    A single output counts fully.
    """
    raw = [0.5**i for i in range(n - 1)] + [0.0] if n > 1 else [1.0]
    return tuple(weight / sum(raw) for weight in raw)


def network_from_json(values: Mapping, dimensions: int) -> NetworkSpec:
    """The network of a configuration of a plans file, 2.0 to 2.8; raises PlanError, or what missing keys raise."""
    if "architecture" not in values:
        return _network_from_old_keys(values, dimensions)
    architecture = values["architecture"]
    kind = _known_kind(architecture["network_class_name"])
    kwargs = architecture["arch_kwargs"]
    _require_known_parts(kind, kwargs, dimensions)
    n = kwargs["n_stages"]
    if type(n) is not int or not 1 <= n <= _MAX_STAGES:
        raise PlanError(
            f"The plan asks for a network of {str(n)[:20]} stages; supported are 1 to {_MAX_STAGES}; {_ELSEWHERE}."
        )
    norm = kwargs.get("norm_op_kwargs") or {}
    return NetworkSpec(
        kind=kind,
        features=_per_stage(kwargs["features_per_stage"], n),
        kernel_sizes=_per_axis(kwargs["kernel_sizes"], n, dimensions),
        strides=_per_axis(kwargs["strides"], n, dimensions),
        blocks=_per_stage(kwargs["n_conv_per_stage" if kind == PLAIN else "n_blocks_per_stage"], n),
        decoder_convs=_per_stage(kwargs["n_conv_per_stage_decoder"], n - 1),
        conv_bias=bool(kwargs.get("conv_bias", True)),
        norm_eps=float(norm.get("eps", 1e-5)),
        norm_affine=bool(norm.get("affine", True)),
    )


def require_sound_network(spec: NetworkSpec, patch_size: tuple[int, ...], where: str) -> None:
    """Raises PlanError for numbers that no network could be built with, before anything is computed with them."""
    if spec.n_stages > _MAX_STAGES or max((*spec.blocks, *spec.decoder_convs), default=0) > _MAX_BLOCKS:
        raise PlanError(
            f"{where} has more than {_MAX_STAGES} stages or {_MAX_BLOCKS} blocks in one; it is damaged, copy it again."
        )
    lengths = [len(spec.kernel_sizes), len(spec.strides), len(spec.blocks), 1 + len(spec.decoder_convs)]
    if set(lengths) != {spec.n_stages}:
        raise PlanError(
            f"{where} has {spec.n_stages} stages of features, but {lengths[0]} of kernels, {lengths[1]} of strides, "
            f"{lengths[2]} of blocks and {lengths[3] - 1} to go up again; it is damaged, copy it again."
        )
    numbers = {"features": spec.features, "blocks": spec.blocks, "decoder convolutions": spec.decoder_convs}
    numbers |= {"kernels": chain(*spec.kernel_sizes, *spec.decoder_kernel_sizes), "strides": chain(*spec.strides)}
    small = [what for what, of_stages in numbers.items() if min(of_stages, default=1) < 1]
    if small:
        raise PlanError(f"{where} has {' and '.join(small)} below 1; it is damaged, copy it again.")
    n_axes = {len(axes) for axes in (*spec.kernel_sizes, *spec.strides, patch_size)}
    if n_axes not in ({2}, {3}) or min(patch_size) < 1 or math.prod(patch_size) > _MAX_PATCH_VOXELS:
        raise PlanError(
            f"{where} has {spec.dimensions} dimensions, which does not fit its patch of {patch_size} voxels; it is damaged, copy it again."
        )


def _network_from_old_keys(values: Mapping, dimensions: int) -> NetworkSpec:
    """Plans of nnU-Net v2.0 to v2.2 describe the network by flat keys."""
    kind = _known_kind(values["UNet_class_name"])
    blocks = _ints(values["n_conv_per_stage_encoder"])
    base, most = values["UNet_base_num_features"], values["unet_max_num_features"]
    return NetworkSpec(
        kind=kind,
        features=tuple(min(base * 2**i, most) for i in range(len(blocks))),
        kernel_sizes=_per_axis(values["conv_kernel_sizes"], len(blocks), dimensions),
        strides=_per_axis(values["pool_op_kernel_sizes"], len(blocks), dimensions),
        blocks=blocks,
        decoder_convs=_ints(values["n_conv_per_stage_decoder"]),
    )


def _known_kind(dotted: str) -> str:
    """The class without its modules, which have moved over the years; raises PlanError for another network."""
    kind = dotted.rsplit(".", 1)[-1]
    if kind not in (PLAIN, RESIDUAL):
        raise PlanError(
            f"The plan asks for the network {kind[:80]}; supported are {PLAIN} and {RESIDUAL}; {_ELSEWHERE}."
        )
    return kind


def _require_known_parts(kind: str, kwargs: Mapping, dimensions: int) -> None:
    """Raises PlanError for a network of other layers than nnU-Net's planners ask for: weights alone do not show them."""
    wanted = {
        "conv_op": f"Conv{dimensions}d",
        "norm_op": f"InstanceNorm{dimensions}d",
        "nonlin": "LeakyReLU",
        "dropout_op": "",
    }
    found = {key: str(kwargs.get(key, name) or "").rsplit(".", 1)[-1] for key, name in wanted.items()}
    slope = (kwargs.get("nonlin_kwargs") or {}).get("negative_slope", SLOPE)
    others = [key for key in sorted(set(kwargs) - _KNOWN_KEYS) if kwargs[key]]
    strange = [f"{key} {found[key] or 'none'}" for key in wanted if found[key] != wanted[key]]
    strange += [f"negative_slope {slope}"] if slope != SLOPE else []
    if strange or others:
        raise PlanError(
            f"The plan asks for a {kind} with {', '.join([*strange, *others])[:200]}; supported is the one of nnU-Net's "
            f"planners: {', '.join(name for name in wanted.values() if name)} (slope {SLOPE}), no dropout; {_ELSEWHERE}."
        )


def _per_stage(value, n: int) -> tuple[int, ...]:
    return (int(value),) * n if isinstance(value, int) else _ints(value)


def _per_axis(value, n: int, dimensions: int) -> tuple[tuple[int, ...], ...]:
    stages = [value] * n if isinstance(value, int) else value
    return tuple((int(s),) * dimensions if isinstance(s, int) else _ints(s) for s in stages)


def network_to_json(n: NetworkSpec) -> dict:
    """The entry `architecture` of a plans file."""
    d = n.dimensions
    return {
        "network_class_name": _ARCHITECTURES + n.kind,
        "arch_kwargs": {
            "n_stages": n.n_stages,
            "features_per_stage": list(n.features),
            "conv_op": f"torch.nn.modules.conv.Conv{d}d",
            "kernel_sizes": [list(k) for k in n.kernel_sizes],
            "strides": [list(s) for s in n.strides],
            "n_conv_per_stage" if n.kind == PLAIN else "n_blocks_per_stage": list(n.blocks),
            "n_conv_per_stage_decoder": list(n.decoder_convs),
            "conv_bias": n.conv_bias,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{d}d",
            "norm_op_kwargs": {"eps": n.norm_eps, "affine": n.norm_affine},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _ints(values) -> tuple[int, ...]:
    return tuple(int(v) for v in values)
