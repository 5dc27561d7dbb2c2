"""What the command line answers when work is done: plans, runs and models as text and as values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .exchange import ModelEntry
from .planning.plan import Plan
from .run import Finished, Run
from .terminal import table


def plan_text(plan: Plan, path: Path) -> str:
    """The configurations as a table, the reasons for every decision, and where the plans file is."""
    rows = [
        [c.name, "×".join(map(str, c.patch_size)), str(c.batch_size), " × ".join(f"{s:.3g}" for s in c.spacing_mm),
         str(c.network.n_stages), "-".join(map(str, c.network.features))]
        for c in plan.configurations
    ]  # fmt: skip
    reasons = "\n".join(f"  {decision}: {why}" for decision, why in plan.reasons.items())
    header = ["configuration", "patch (z,y,x)", "batch", "spacing mm", "stages", "features"]
    return f"{table(rows, header)}\n\nWhy:\n{reasons}\n\nPlan: {path}"


def run_result(run: Run) -> dict:
    """Which fold was trained, where it is, and its Dice if it was validated."""
    done = [event for event in run.events() if isinstance(event, Finished)]
    return {
        "configuration": run.configuration, "fold": run.fold, "folder": run.folder.folder,
        "mean_dice": done[-1].mean_dice if done else None,
    }  # fmt: skip


def run_text(run: Run) -> str:
    """The same in a line."""
    dice = run_result(run)["mean_dice"]
    scored = f"validation Dice {dice:.4f}" if dice is not None else "trained"
    return f"{run.configuration} fold {run.fold}: {scored}, in {run.folder.folder}"


def models_text(models: Sequence[ModelEntry]) -> str:
    """Models as a table, with the place of those that were set aside."""
    rows = [
        [m.task, m.plans, m.configuration, ", ".join(m.folds), f"{m.dice:.4f}" if m.dice is not None else "–",
         f"set aside {m.until}: {m.folder}" if m.set_aside else ""]
        for m in models
    ]  # fmt: skip
    header = ["task", "plans", "configuration", "folds", "Dice", ""]
    return table(rows, header) if rows else "No trained model yet."
