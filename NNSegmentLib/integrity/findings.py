"""One result of the integrity check, and the file that keeps the last check's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import TaskError
from ..records import from_json, read_json, write_json

ERROR, WARNING = "error", "warning"
SEVERITIES = (ERROR, WARNING)
"""The worst first."""
LABEL_GRID = "label grid"
LABEL_DIRECTION = "label direction"
LABEL_VALUES = "label values"
LABEL_NUMBERS = "label numbers"
CASE_COUNT = "number of cases"


@dataclass(frozen=True)
class Finding:
    """Something wrong with a case or with the task (`case` is then empty)."""

    severity: str
    """'error' (training would fail or learn nonsense) or 'warning' (look at it)."""
    case: str
    check: str
    """What was looked at, in two or three words."""
    expected: str
    found: str
    advice: str
    """What to do about it."""
    fixable: bool = False
    """Whether `check --fix` can mend it."""
    mended: bool = False
    """Whether it was mended and is no more."""


def save_findings(findings: Sequence[Finding], path: Path) -> None:
    """Write what a check found; raises StorageError."""
    write_json(path, {"findings": list(findings)})


def load_findings(path: Path) -> list[Finding] | None:
    """What the last check found, None when there was none; raises TaskError for another file of this name."""
    if not path.is_file():
        return None
    values = read_json(path)
    try:
        return [from_json(Finding, finding) for finding in values["findings"]]
    except (TaskError, KeyError, TypeError) as wrong:
        raise TaskError(
            f"{path} should hold a list of findings, found something else; check the task again."
        ) from wrong
