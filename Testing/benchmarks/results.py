"""The rows that benchmarks give, as text for the terminal and as Markdown in RESULTS.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
HEADING = "## Runs of make bench"
COLUMNS = ("stage", "unit", "ours", "compared with", "its figure", "ratio", "target", "met")


@dataclass(frozen=True)
class Target:
    """What a ratio, or our figure itself, should reach."""

    bound: float
    kind: str
    """'faster': the other figure over ours, at least; 'share': ours over the other, at most; 'value': ours, at most;
    'least': ours, at least."""

    def __str__(self) -> str:
        if self.kind == "faster":
            return f"≥ {self.bound:g}×"
        if self.kind == "least":
            return f"≥ {self.bound:.3g}"
        return f"≤ {100 * self.bound:.0f} %" if self.kind == "share" else f"≤ {self.bound:.3g}"


def faster(bound: float) -> Target:
    """The other takes `bound` times as long, or more."""
    return Target(bound, "faster")


def share(bound: float) -> Target:
    """Ours is this part of the other, or less."""
    return Target(bound, "share")


def at_most(bound: float) -> Target:
    """Ours is this, or less."""
    return Target(bound, "value")


def at_least(bound: float) -> Target:
    """Ours is this, or more."""
    return Target(bound, "least")


@dataclass(frozen=True)
class Row:
    """One figure of ours beside another one."""

    stage: str
    unit: str
    """'s', 'ms', '1/s', 'GiB', or '1' for shares and Dice."""
    ours: float
    against: str
    """What the other figure is."""
    other: float | None = None
    target: Target | None = None

    @property
    def ratio(self) -> str:
        """Of the two figures, written the way the target is."""
        if not self.other:
            return "–"
        is_share = self.target is not None and self.target.kind == "share"
        return f"{100 * self.ours / self.other:.1f} %" if is_share else f"{self.other / self.ours:.2f}×"

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None when it cannot be told."""
        if self.target is None or math.isnan(self.ours):
            return None
        if self.target.kind == "value":
            return self.ours <= self.target.bound
        if self.target.kind == "least":
            return self.ours >= self.target.bound
        if not self.other:
            return None
        ratio = self.other / self.ours if self.target.kind == "faster" else self.ours / self.other
        return ratio >= self.target.bound if self.target.kind == "faster" else ratio <= self.target.bound

    def cells(self) -> list[str]:
        """One text per entry of `COLUMNS`."""
        met = {True: "yes", False: "**no**", None: "–"}[self.is_met]
        target = "–" if self.target is None else str(self.target)
        return [
            self.stage, self.unit, _number(self.ours), self.against, _number(self.other), self.ratio, target, met,
        ]  # fmt: skip


def as_text(rows: Sequence[Row]) -> str:
    """Aligned columns for a terminal."""
    lines = [list(COLUMNS), *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def as_markdown(rows: Sequence[Row]) -> str:
    """A table as RESULTS.md has them."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def append(rows: Sequence[Row], machine: str, path: Path = RESULTS) -> None:
    """Add a run to the end of RESULTS.md; what is in the file stays as it is."""
    before = path.read_text(encoding="utf-8") if path.is_file() else "# What was measured\n"
    heading = "" if HEADING in before else f"\n{HEADING}\n"
    with path.open("a" if path.is_file() else "w", encoding="utf-8") as file:
        start = "" if path.stat().st_size else before
        gap = "" if before.endswith("\n") else "\n"
        file.write(f"{start}{gap}{heading}\n### {machine}\n\n{as_markdown(rows)}\n")


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
