"""Findings as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import TaskError
from .findings import ERROR, INFO, Finding

_ORDER = ("error", "warning", "info")
_SHOWN_PER_CHECK = 10


def findings_table(findings: Sequence[Finding]) -> str:
    """The findings grouped by check, worst first; a check that fails for many cases names the first ten."""
    if not findings:
        return "Nothing wrong was found."
    groups: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((_ORDER.index(finding.severity), finding.check), []).append(finding)
    blocks = [_block(group) for _, group in sorted(groups.items())]
    return "\n".join([*blocks, _closing(findings)])


def require_no_errors(findings: Sequence[Finding]) -> None:
    """Raises TaskError naming the first error when there is one."""
    errors = [finding for finding in findings if finding.severity == ERROR]
    if errors:
        first = errors[0]
        place = f" in case {first.case}" if first.case else ""
        raise TaskError(
            f"The check found {len(errors)} error{'s' * (len(errors) > 1)}; the first{place}: expected {first.expected}, "
            f"found {first.found}; {first.advice}."
        )


def _block(group: Sequence[Finding]) -> str:
    head = f"{group[0].severity.upper()}  {group[0].check} ({len(group)})"
    lines = [f"  {f.case or 'task'}: expected {f.expected}, found {f.found}" for f in group[:_SHOWN_PER_CHECK]]
    more = [f"  … and {len(group) - _SHOWN_PER_CHECK} more"] if len(group) > _SHOWN_PER_CHECK else []
    return "\n".join([head, *lines, *more, f"  → {group[0].advice}"])


def _closing(findings: Sequence[Finding]) -> str:
    counts = [sum(f.severity == severity for f in findings) for severity in _ORDER]
    fixable = sum(f.fixable for f in findings if f.severity != INFO)
    hint = f"; {fixable} can be mended with 'nnsegment check --fix'" if fixable else ""
    return f"{counts[0]} errors, {counts[1]} warnings, {counts[2]} remarks{hint}."
