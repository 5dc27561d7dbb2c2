"""nnU-Net v2 beside us: when the interpreter NNUNET_PYTHON has it, else what it took when we measured it.

The stored figures: nnunetv2 2.8.1 as shipped, torch 2.13 CPU build, Python 3.11, two cores of an AMD EPYC (AVX-512
with bfloat16), 23 GiB, no GPU; whole commands by median of three runs, the others measured once to three times.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .measure import Measured, command, function
from .results import Row, Target

KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "68719476736",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
}
"""Lets glibc keep freed memory; with it nnU-Net's training step took 2.64 to 2.99 s instead of 4.42 to 5.37 s."""

FINGERPRINT = Measured(10.5, 1.52)
PREPROCESS = Measured(8.1, 0.41)
VOLUME = {"1 mm": Measured(5.71, 1.00), "separate z": Measured(4.50, 1.28)}
EXPORT = {3: Measured(1.38, 0.65), 25: Measured(12.4, 1.81), 105: Measured(62.4, 6.03)}
WINDOW_TILE_S = {"small": 80.0 / 486, "large": 49.6 / 8}
WINDOW_PEAK_GIB = {"small": 0.71, "large": 2.46}
TRAINING_STEP = Measured(4.42, 2.12)
"""The faster of two runs; the other took 5.37 s."""
TRAINING_STEP_KEEPING = Measured(2.64, 2.65)
PREDICT = Measured(24.9, 0.77)
"""One worker each for reading and writing, which was the fastest; with the default three it took 36.3 s."""


@dataclass(frozen=True)
class Peer:
    """An interpreter with nnunetv2, and where it may write."""

    python: str
    version: str
    folder: Path
    raw: Path
    """nnUNet_raw with our task, which is nnU-Net's own format."""

    @property
    def environment(self) -> dict[str, str]:
        made = {f"nnUNet_{part}": str(self.folder / f"nnUNet_{part}") for part in ("preprocessed", "results")}
        return made | {"nnUNet_raw": str(self.raw), "nnUNet_compile": "f"}

    @property
    def preprocessed(self) -> Path:
        return self.folder / "nnUNet_preprocessed"

    def command(self, name: str, *arguments: object, extra: Mapping[str, str] | None = None) -> Measured:
        """One of nnU-Net's commands, named without 'nnUNetv2_'."""
        script = Path(self.python).with_name(f"nnUNetv2_{name}")
        return command([script, *arguments], self.environment | dict(extra or {}))

    def step(self, name: str, *arguments: object, extra: Mapping[str, str] | None = None) -> Measured:
        """A function of `peer_steps`."""
        environment = self.environment | dict(extra or {})
        return function(f"peer_steps:{name}", *arguments, python=self.python, environment=environment)


def find_peer(folder: Path, raw: Path) -> Peer | None:
    """nnU-Net of the interpreter NNUNET_PYTHON; None without one."""
    python = os.environ.get("NNUNET_PYTHON")
    if not python:
        return None
    code = "from importlib.metadata import version; print(version('nnunetv2'))"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return Peer(python, told.stdout.strip(), folder, raw) if told.returncode == 0 else None


def beside(
    stage: str,
    ours: Measured,
    peer: Peer | None,
    measure: Callable[[Peer], Measured],
    stored: Measured | None,
    seconds: Target,
    peak: Target | None = None,
) -> list[Row]:
    """Our time and peak beside nnU-Net's: measured now, or as stored when there is no nnU-Net here."""
    other = measure(peer) if peer else stored
    if other is None:
        return [Row(stage, "s", ours.seconds, "–"), Row(f"{stage}: peak", "GiB", ours.peak_gib, "–")]
    name = f"nnU-Net {peer.version}" if peer else "nnU-Net 2.8.1, stored"
    memory = Row(f"{stage}: peak", "GiB", ours.peak_gib, name, other.peak_gib, peak)
    return [Row(stage, "s", ours.seconds, name, other.seconds, seconds), memory]
