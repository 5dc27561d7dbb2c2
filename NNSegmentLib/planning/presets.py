"""How large a network may be: nnU-Net's presets and our small one, as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Real

from ..errors import SettingsError
from .plan import PLAIN, RESIDUAL

REFERENCE_BATCH_3D, REFERENCE_BATCH_2D = 2, 12
"""Batch sizes that the memory budgets of the presets belong to."""
MIN_BATCH = 2
PLAIN_CONVS = 2
RESIDUAL_BLOCKS = (1, 3, 4, 6)
"""Blocks of the first stages of a residual encoder; deeper stages repeat the last number."""

MOST_MEMORY_GB = 1e5
"""Beyond any graphics card; far beyond it the numbers of a plan would overflow."""

SMALL_FEATURES = 16
SMALL_MAX_FEATURES = 192
SMALL_PATCH_VOXELS_3D = 64**3
SMALL_PATCH_VOXELS_2D = 192**2
SMALL_BUDGET_3D = 40e6
SMALL_BUDGET_2D = 36e6
SMALL_BATCH_3D = 2
SMALL_BATCH_2D = 12


@dataclass(frozen=True)
class Preset:
    """A memory budget and the network that spends it."""

    name: str
    plans_name: str
    planner: str
    """The planner class that nnU-Net would name in the plans file."""
    network: str
    memory_gb: float
    """Memory the budgets stand for."""
    budget_3d: float
    """Feature-map values of one sample that fill the memory with a batch of `REFERENCE_BATCH_3D`."""
    budget_2d: float
    """The same for `REFERENCE_BATCH_2D` planes."""
    data_share: float
    """Largest share of the data set's voxels in one batch."""
    base_features: int = 32
    max_features_3d: int = 320
    max_features_2d: int = 512
    max_patch_voxels_3d: float = float("inf")
    max_patch_voxels_2d: float = float("inf")
    max_batch_3d: float = float("inf")
    max_batch_2d: float = float("inf")
    for_gpu: bool = True
    shares_data: bool = True
    """Whether 2d and 3d_fullres use the preprocessed cases of the default plan."""

    def budget(self, dimensions: int) -> float:
        return self.budget_3d if dimensions == 3 else self.budget_2d

    def max_features(self, dimensions: int) -> int:
        return self.max_features_3d if dimensions == 3 else self.max_features_2d

    def max_patch_voxels(self, dimensions: int) -> float:
        return self.max_patch_voxels_3d if dimensions == 3 else self.max_patch_voxels_2d

    def max_batch(self, dimensions: int) -> float:
        return self.max_batch_3d if dimensions == 3 else self.max_batch_2d

    def reference_batch(self, dimensions: int) -> int:
        return REFERENCE_BATCH_3D if dimensions == 3 else REFERENCE_BATCH_2D

    def largest_sample(self, dimensions: int) -> float:
        """Feature-map values of one sample at which the patch must shrink."""
        share = 1 if self.network == RESIDUAL else self.reference_batch(dimensions) / 2
        return self.budget(dimensions) * share

    def blocks(self, n_stages: int) -> tuple[int, ...]:
        """Convolutions or residual blocks of each encoder stage."""
        if self.network == PLAIN:
            return (PLAIN_CONVS,) * n_stages
        return (RESIDUAL_BLOCKS + RESIDUAL_BLOCKS[-1:] * n_stages)[:n_stages]

    def decoder_convs(self, n_stages: int) -> tuple[int, ...]:
        """Convolutions of each decoder stage."""
        return (PLAIN_CONVS if self.network == PLAIN else 1,) * (n_stages - 1)

    def for_memory(self, memory_gb: float | None) -> Preset:
        """The same preset with its budgets scaled to another graphics memory; raises SettingsError."""
        if memory_gb is None:
            return self
        if not isinstance(memory_gb, Real) or not 0 < memory_gb <= MOST_MEMORY_GB:  # also not a number
            raise SettingsError(
                f"The graphics memory should be a positive number of GB up to {MOST_MEMORY_GB:,.0f}, "
                f"found {memory_gb!r}; give that of your graphics card."
            )
        factor = memory_gb / self.memory_gb
        return replace(self, memory_gb=memory_gb, budget_3d=self.budget_3d * factor, budget_2d=self.budget_2d * factor)


def _residual(size: str, memory_gb: float, budget_3d: float, budget_2d: float) -> Preset:
    return Preset(
        name=f"resenc-{size.lower()}",
        plans_name=f"nnUNetResEncUNet{size}Plans",
        planner=f"nnUNetPlannerResEnc{size}",
        network=RESIDUAL,
        memory_gb=memory_gb,
        budget_3d=budget_3d,
        budget_2d=budget_2d,
        data_share=1.0,
    )


PRESETS = (
    Preset("default", "nnUNetPlans", "ExperimentPlanner", PLAIN, 8, 560e6, 85e6, 0.05, shares_data=False),
    _residual("M", 8, 680e6, 135e6),
    _residual("L", 24, 2.1e9, 380e6),
    _residual("XL", 40, 3.6e9, 560e6),
    Preset(
        name="small",
        plans_name="nnUNetSmallPlans",
        planner="ExperimentPlanner",
        network=PLAIN,
        memory_gb=2,
        budget_3d=SMALL_BUDGET_3D,
        budget_2d=SMALL_BUDGET_2D,
        data_share=0.05,
        base_features=SMALL_FEATURES,
        max_features_3d=SMALL_MAX_FEATURES,
        max_features_2d=SMALL_MAX_FEATURES,
        max_patch_voxels_3d=SMALL_PATCH_VOXELS_3D,
        max_patch_voxels_2d=SMALL_PATCH_VOXELS_2D,
        max_batch_3d=SMALL_BATCH_3D,
        max_batch_2d=SMALL_BATCH_2D,
        for_gpu=False,
    ),
)


def find_preset(name: str) -> Preset:
    """The preset of this name; raises SettingsError listing those there are."""
    for preset in PRESETS:
        if preset.name == name:
            return preset
    raise SettingsError(f"There is no preset {name}; choose one of {', '.join(p.name for p in PRESETS)}.")
