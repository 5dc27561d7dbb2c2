"""The report of a task: one HTML page with everything in it, for reading, mailing and printing."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import some
from ..folders import TaskFolders
from ..progress import Progress, silent
from ..records import write_text
from ..scores import shown
from .contents import Contents, gather
from .data_sections import findings_section, fingerprint_section, plan_section, task_section
from .markup import Markup, element, joined, page, paragraph, section, table, tiles
from .result_sections import (
    pictures_section,
    prediction_section,
    results_section,
    selection_section,
    training_section,
)

if TYPE_CHECKING:
    from ..integrity import Finding

_PACKAGES = ("numpy", "scipy", "SimpleITK", "torch")
_MOST_NAMED = 12
"""Labels in the line below the title."""
_WHAT = "Writing the report"


def write_report(
    folders: TaskFolders,
    path: Path,
    progress: Progress = silent,
    *,
    findings: Sequence[Finding] | None = None,
    now: datetime | None = None,
) -> Path:
    """Write the report of a task, from whatever exists of it, as one self-contained HTML file and return its path.

    `findings` are the integrity check's, None when it was not run. Parts that do not exist yet say so in a line.
    Raises TaskError when there is no such task, StorageError when the file cannot be written.
    """
    contents = gather(folders)
    makers = _makers(findings, now or datetime.now().astimezone())
    progress(0, len(makers), _WHAT)
    sections = []
    for done, make in enumerate(makers, 1):
        sections.append(make(contents))
        progress(done, len(makers), _WHAT)
    body = joined([element("h1", _title(contents)), _subtitle(contents), _tiles(contents), _navigation(), *sections])
    write_text(path, page(f"{folders.name} – NNSegment", body))
    return Path(path)


def _makers(findings: Sequence[Finding] | None, now: datetime) -> tuple:
    return (
        task_section,
        lambda contents: findings_section(contents.folders.name, findings),
        fingerprint_section,
        plan_section,
        training_section,
        results_section,
        pictures_section,
        selection_section,
        prediction_section,
        lambda contents: _versions(now),
    )


_ANCHORS = (
    ("task", "Task"),
    ("findings", "Integrity"),
    ("data", "Data"),
    ("plan", "Plan"),
    ("training", "Training"),
    ("results", "Results"),
    ("pictures", "Pictures"),
    ("selection", "Selection"),
    ("predict", "Predict"),
    ("versions", "Versions"),
)


def _title(contents: Contents) -> str:
    return contents.folders.name.split("_", 1)[-1].replace("_", " ")


def _subtitle(contents: Contents) -> Markup:
    labels = some([label.name for label in contents.labels.foreground], _MOST_NAMED)
    return paragraph(f"{contents.folders.name}: finding {labels} in {', '.join(contents.channels)}.", "lead")


def _tiles(contents: Contents) -> Markup:
    best = contents.best_model
    chosen = contents.selection
    dice = chosen.mean_dice_after if chosen else best and best.scores.dice
    runs = [fold for model in contents.models for fold in model.folds]
    return tiles(
        [
            (_n_cases(contents), "training cases"),
            (len(contents.labels.foreground), "labels to find"),
            (sum(fold.state == "finished" for fold in runs), f"finished runs of {len(runs)} started"),
            (shown(dice, 3), "best mean Dice in validation"),
        ]
    )


def _n_cases(contents: Contents) -> int | str:
    if contents.task:
        return len(contents.task.cases)
    return len(contents.fingerprint.spacings_mm) if contents.fingerprint else "–"


def _navigation() -> Markup:
    return element("nav", joined(Markup(f'<a href="#{anchor}">{name}</a>') for anchor, name in _ANCHORS))


def _versions(now: datetime) -> Markup:
    rows = [
        ("NNSegment", __version__),
        ("Python", platform.python_version()),
        ("system", platform.platform(terse=True)),
    ]
    rows += [(name, version) for name in _PACKAGES if (version := _installed(name))]
    made = paragraph(f"Made on {now:%d %B %Y at %H:%M %Z}.")
    return section(
        "versions", "Versions", "What made this page.", made, table(("program", "version"), rows, numbers=False)
    )


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
