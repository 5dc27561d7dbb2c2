"""How the learning rate falls and when an epoch and the training end, by epochs or by the clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..run import TrainingSettings

POWER = 0.9
"""Exponent of nnU-Net's polynomial schedule."""
_EVENTS_PER_BUDGET, _MOST_OF_BUDGET, _SHORTEST_EPOCH_S = 50, 0.05, 15.0
_FEWEST_STEPS = 8
"""Of an epoch by the clock: after fewer, a slow machine would spend its time on validating."""
_WARMUP_SHARE = 0.2
"""Part of a time budget after which the warm-up is over, however few steps a slow machine has made."""


def decay(schedule: str, progress: float) -> float:
    """Factor on the first learning rate when the share `progress` (0 to 1) of the training is over."""
    left = 1 - min(max(progress, 0.0), 1.0)
    if schedule == "poly":
        return left**POWER
    return 0.5 * (1 + math.cos(math.pi * (1 - left))) if schedule == "cosine" else 1.0


@dataclass(frozen=True)
class Pace:
    """The plan of a training in time.

    Without a time budget the rate is constant inside an epoch, as in nnU-Net; with one it falls with every step and
    reaches zero when the time is spent.
    """

    settings: TrainingSettings

    @property
    def by_clock(self) -> bool:
        return self.settings.time_s is not None

    @property
    def epoch_s(self) -> float:
        """Aim for the length of an epoch under a time budget: 15 s or more, but not over 5 % of the budget."""
        budget = self.settings.time_s
        return min(max(budget / _EVENTS_PER_BUDGET, _SHORTEST_EPOCH_S), budget * _MOST_OF_BUDGET)

    def progress(self, epoch: int, elapsed_s: float) -> float:
        """Share of the training that is over, after `epoch` whole epochs and `elapsed_s` seconds of training."""
        return elapsed_s / self.settings.time_s if self.by_clock else epoch / self.settings.epochs

    def learning_rate(self, epoch: int, step: int, elapsed_s: float) -> float:
        """Rate of the step that comes next, `step` counted from 0 over the whole training."""
        progress = self.progress(epoch, elapsed_s)
        return self.settings.learning_rate * self._warmup(step, progress) * decay(self.settings.schedule, progress)

    def _warmup(self, step: int, progress: float) -> float:
        """Factor on the rate: a line up to 1 over the first steps."""
        reached = (step + 1) / max(1, self.settings.warmup_steps)
        return min(1.0, max(reached, progress / _WARMUP_SHARE) if self.by_clock else reached)

    def epoch_is_over(self, iteration: int, epoch_elapsed_s: float, elapsed_s: float, step_s: float) -> bool:
        """Whether an epoch ends after `iteration` steps; by the clock the next step must end nearer to its aim."""
        if iteration >= self.settings.iterations_per_epoch:
            return True
        if not self.by_clock:
            return False
        is_long = iteration >= _FEWEST_STEPS and epoch_elapsed_s + step_s / 2 > self.epoch_s
        return iteration > 0 and (is_long or self._spent(elapsed_s + step_s / 2))

    def is_over(self, epoch: int, elapsed_s: float, step_s: float) -> bool:
        """Whether no further epoch is due."""
        return self._spent(elapsed_s + step_s / 2) if self.by_clock else epoch >= self.settings.epochs

    def validation_iterations(self, iterations: int) -> int:
        """Batches of the quick validation after `iterations` steps; short epochs keep the settings' proportion."""
        whole = self.settings.validation_iterations
        if not self.by_clock or whole == 0:
            return whole
        return max(1, round(whole * min(1.0, iterations / self.settings.iterations_per_epoch)))

    def seconds_left(self, epoch: int, elapsed_s: float, epoch_seconds: float) -> float:
        """Seconds to the end of the training, when an epoch takes `epoch_seconds`."""
        if self.by_clock:
            return max(0.0, self.settings.time_s - elapsed_s)
        return max(0, self.settings.epochs - epoch) * epoch_seconds

    def epochs(self, epoch: int, elapsed_s: float, epoch_seconds: float) -> int:
        """Epochs in all; by the clock an estimate."""
        if not self.by_clock:
            return self.settings.epochs
        return epoch + round(self.seconds_left(epoch, elapsed_s, epoch_seconds) / max(epoch_seconds, 1e-3))

    def _spent(self, elapsed_s: float) -> bool:
        return elapsed_s >= self.settings.time_s
