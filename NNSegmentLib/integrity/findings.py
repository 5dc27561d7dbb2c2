"""One result of the integrity check."""

from __future__ import annotations

from dataclasses import dataclass

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
