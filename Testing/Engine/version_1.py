"""nnU-Net v1's model folders, written from their description, with a banal Generic_UNet of our own beside them."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import Image

TRAINER, PLANS_ID = "nnUNetTrainerV2", "nnUNetPlansv2.1"
MOST = {2: 480, 3: 320}
GRID = Geometry((16, 16, 16), (1.0, 1.0, 1.0), (5.0, -3.0, 2.0))


def image(seed=0, grid=GRID, channels=1, mean=0.0) -> Image:
    values = np.random.default_rng(seed).normal(mean, 1, size=(channels, *grid.shape)).astype(np.float32)
    return Image(values, grid)


class Block(nn.Module):
    """Convolution, instance normalisation, leaky rectifier under version 1's names."""

    def __init__(self, inputs, outputs, kernel, stride):
        super().__init__()
        d = len(kernel)
        convolution, norm = (nn.Conv3d, nn.InstanceNorm3d) if d == 3 else (nn.Conv2d, nn.InstanceNorm2d)
        self.conv = convolution(inputs, outputs, kernel, stride, [1 if k == 3 else 0 for k in kernel])
        self.instnorm = norm(outputs, eps=1e-5, affine=True)

    def forward(self, x):
        return nn.functional.leaky_relu(self.instnorm(self.conv(x)), 0.01)


class Blocks(nn.Module):
    def __init__(self, inputs, outputs, n, kernel, stride):
        super().__init__()
        one = (1,) * len(kernel)
        self.blocks = nn.Sequential(
            *(Block(outputs if i else inputs, outputs, kernel, one if i else stride) for i in range(n))
        )

    def forward(self, x):
        return self.blocks(x)


class GenericUNet(nn.Module):
    def __init__(self, inputs, outputs, base, pools, kernels, convs=2):
        super().__init__()
        d, n = len(kernels[0]), len(pools)
        one = (1,) * d
        features = [min(base * 2**i, MOST[d]) for i in range(n + 1)]
        strides = [one, *pools]
        pointwise, up = (nn.Conv3d, nn.ConvTranspose3d) if d == 3 else (nn.Conv2d, nn.ConvTranspose2d)
        self.conv_blocks_context = nn.ModuleList(
            Blocks(inputs if i == 0 else features[i - 1], features[i], convs, kernels[i], strides[i]) for i in range(n)
        )
        self.conv_blocks_context.append(
            nn.Sequential(
                Blocks(features[n - 1], features[n], convs - 1, kernels[n], strides[n]),
                Blocks(features[n], features[n], 1, kernels[n], one),
            )
        )
        self.conv_blocks_localization, self.tu, self.seg_outputs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for u in range(n):
            low, high, kernel, pool = features[n - u], features[n - u - 1], kernels[-(u + 1)], pools[-(u + 1)]
            self.tu.append(up(low, high, pool, pool, bias=False))
            self.conv_blocks_localization.append(
                nn.Sequential(Blocks(2 * high, high, convs - 1, kernel, one), Blocks(high, high, 1, kernel, one))
            )
            self.seg_outputs.append(pointwise(high, outputs, 1, bias=False))

    def forward(self, x):
        skips = []
        for stage in self.conv_blocks_context[:-1]:
            x = stage(x)
            skips.append(x)
        x = self.conv_blocks_context[-1](x)
        for up, stage, skip in zip(self.tu, self.conv_blocks_localization, skips[::-1], strict=True):
            x = stage(torch.cat((up(x), skip), 1))
        return self.seg_outputs[-1](x)


def stage_plan(patch=(16, 16, 16), pools=None, kernels=None, spacing=(1.0, 1.0, 1.0)) -> dict:
    """One entry of plans_per_stage; lists of lists as version 1 writes them, sizes and spacings as arrays."""
    d = len(patch)
    pools = pools or [[2] * d]
    return {
        "batch_size": 2,
        "num_pool_per_axis": [sum(pool[axis] > 1 for pool in pools) for axis in range(d)],
        "patch_size": np.array(patch),
        "median_patient_size_in_voxels": np.array([16, 16, 16]),
        "current_spacing": np.array(spacing),
        "original_spacing": np.array(spacing),
        "do_dummy_2D_data_aug": False,
        "pool_op_kernel_sizes": pools,
        "conv_kernel_sizes": kernels or [[3] * d] * (len(pools) + 1),
    }


def plan(stages=None, modalities=("MRI",), schemes=None, masks=None, n_classes=2, **changes) -> dict:
    """The content of plans.pkl."""
    stages = stages or [stage_plan()]
    channels = range(len(modalities))
    stats = {"mean": 40.0, "sd": np.float64(20.0), "percentile_00_5": -10.0, "percentile_99_5": np.float32(90.0)}
    stats |= {"median": 38.0, "mn": -50.0, "mx": 400.0, "local_props": {"case": {"mean": np.float64(1)}}}
    return {
        "num_stages": len(stages),
        "num_modalities": len(modalities),
        "modalities": dict(enumerate(modalities)),
        "normalization_schemes": OrderedDict(enumerate(schemes or ["nonCT"] * len(modalities))),
        "dataset_properties": {
            "all_sizes": [np.array([16, 16, 16])],
            "all_spacings": [np.array([1.0, 1.0, 1.0])],
            "all_classes": list(range(1, n_classes + 1)),
            "intensityproperties": OrderedDict((c, stats) for c in channels) if "CT" in modalities else None,
            "size_reductions": OrderedDict(case=np.float64(0.9)),
        },
        "list_of_npz_files": ["case.npz"],
        "original_spacings": [np.array([1.0, 1.0, 1.0])],
        "original_sizes": [(16, 16, 16)],
        "preprocessed_data_folder": "/elsewhere/nnUNet_preprocessed/Task004_Tiny",
        "num_classes": n_classes,
        "all_classes": list(range(1, n_classes + 1)),
        "base_num_features": 4,
        "use_mask_for_norm": OrderedDict(enumerate(masks or [False] * len(modalities))),
        "keep_only_largest_region": None,
        "min_region_size_per_class": None,
        "min_size_per_class": None,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "data_identifier": "nnUNetData_plans_v2.1",
        "plans_per_stage": OrderedDict(enumerate(stages)),
        "preprocessor_name": "GenericPreprocessor",
        "conv_per_stage": 2,
    } | changes  # fmt: skip


def network(values: dict, stage: int = 0, inputs: int | None = None, outputs: int | None = None, seed: int = 0):
    """A Generic_UNet of these plans with random weights."""
    torch.manual_seed(seed)
    of_stage = values["plans_per_stage"][stage]
    made = GenericUNet(
        inputs or values["num_modalities"], outputs or values["num_classes"] + 1, values["base_num_features"],
        of_stage["pool_op_kernel_sizes"], of_stage["conv_kernel_sizes"], values["conv_per_stage"],
    )  # fmt: skip
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made.eval()


def write_fold(folder: Path, made: nn.Module, values: dict, stage: int | None = None, trainer=TRAINER, name="model_final_checkpoint", prefix="") -> None:  # fmt: skip
    """The two files of a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    state = OrderedDict((prefix + key, tensor) for key, tensor in made.state_dict().items())
    torch.save(
        {
            "epoch": 1000, "state_dict": state, "optimizer_state_dict": None, "lr_scheduler_state_dict": None,
            "plot_stuff": ([np.float64(1.0)], [np.float32(2.0)], [], [np.float64(0.5)]),
            "best_stuff": (np.float64(0.1), np.float64(0.2), np.float64(0.3)), "amp_grad_scaler": {"scale": 65536.0},
        },
        folder / f"{name}.model",
    )  # fmt: skip
    init = ("/elsewhere/plans.pkl", 0, "/elsewhere/out", "/elsewhere/in", False, stage, True, False, True)
    if "DDP" in trainer:
        init = (*init[:2], 0, *init[2:])
    about = OrderedDict(init=init, name=trainer, plans=values)
    about["class"] = f"<class 'nnunet.training.network_training.{trainer}.{trainer}'>"
    (folder / f"{name}.model.pkl").write_bytes(pickle.dumps(about))


def model_folder(results: Path, configuration="3d_fullres", task="Task004_Tiny", trainer=TRAINER) -> Path:
    return results / "nnUNet" / configuration / task / f"{trainer}__{PLANS_ID}"


def write_model(results: Path, values: dict | None = None, configuration="3d_fullres", folds=("fold_0",), trainer=TRAINER, stage=None, **of_network) -> Path:  # fmt: skip
    """A version-1 model folder below a results root; each fold has weights of its own."""
    values = values or plan()
    folder = model_folder(results, configuration, trainer=trainer)
    for seed, fold in enumerate(folds):
        write_fold(folder / fold, network(values, stage or 0, seed=seed, **of_network), values, stage, trainer)
    (folder / "plans.pkl").write_bytes(pickle.dumps(values))
    return folder
