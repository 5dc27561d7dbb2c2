"""Estimates of memory against networks that are built and trainings that are measured."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_trainer import configuration

from NNSegmentLib.engine.network import build_network
from NNSegmentLib.planning.parameters import count_parameters
from NNSegmentLib.planning.plan import PLAIN, RESIDUAL, NetworkSpec
from NNSegmentLib.preflight import training_need
from NNSegmentLib.run import TrainingSettings

ROOT = Path(__file__).resolve().parents[2]
KERNELS, STRIDES = ((3, 3, 3),) * 4, ((1, 1, 1), *((2, 2, 2),) * 3)
SPEC = NetworkSpec(PLAIN, (32, 64, 128, 256), KERNELS, STRIDES, (2, 2, 2, 2), (2, 2, 2))
WANTED = replace(configuration(), patch_size=(64, 64, 64), median_shape=(18.0, 20.0, 22.0), network=SPEC)
SETTINGS = TrainingSettings(
    batch_size=2, augmentation="none", device="cpu", threads=1, loader_workers=0, validation_iterations=0,
    iterations_per_epoch=2, epochs=1, mixed_precision=False,
)  # fmt: skip
TRAINING = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/Testing/Engine"]
from test_memory_estimates import SETTINGS, WANTED
from test_trainer import Plan, save_balls, tiny_request, train_fold
folder = Path(sys.argv[2])
plan = Plan("Dataset900_Balls", "nnUNetPlans", (0, 1, 2), (WANTED,), ())
train_fold(tiny_request(save_balls(folder), folder, SETTINGS, plan=plan))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(SPEC, kind=RESIDUAL, blocks=(1, 3, 4, 6), decoder_convs=(1, 1, 1)),
        NetworkSpec(PLAIN, (16, 32, 64), ((3, 3),) * 3, ((1, 1), (2, 2), (2, 1)), (2, 2, 2), (2, 2)),
    ],
    ids=["plain", "residual", "planes"],
)
def test_parameters_are_counted_as_the_network_has_them(spec):
    network = build_network(spec, 2, 3)

    assert count_parameters(spec, 2, 3) == sum(p.numel() for p in network.parameters())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc")
def test_the_estimate_of_a_training_is_within_half_of_what_is_measured(tmp_path):
    told = subprocess.run(
        [sys.executable, "-c", TRAINING, ROOT, tmp_path], capture_output=True, text=True, check=True
    ).stdout
    estimate = training_need(WANTED, SETTINGS, n_channels=1, n_outputs=2, n_cases=4, device="cpu").main_gb

    measured = int(told.split()[-1]) * 1024 / 1e9
    assert measured / 1.5 < estimate < measured * 1.5, measured
    assert measured > 1.0  # the network counts, not only what Python and torch bring along
