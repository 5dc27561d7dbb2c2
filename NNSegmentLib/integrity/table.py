"""Findings as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import TaskError
from .findings import ERROR, SEVERITIES, Finding

_SHOWN_PER_CHECK = 10


def findings_table(findings: Sequence[Finding]) -> str:
    """The findings grouped by check, worst first; a check that fails for many cases names the first ten."""
    if not findings:
        return "Nothing wrong was found."
    groups: dict[tuple[bool, int, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.mended, SEVERITIES.index(finding.severity), finding.check), []).append(finding)
    blocks = [_block(group) for _, group in sorted(groups.items())]
    return "\n".join([*blocks, _closing(findings)])


def require_no_errors(findings: Sequence[Finding]) -> None:
    """Raises TaskError naming the first error when there is one that was not mended."""
    errors = [finding for finding in findings if finding.severity == ERROR and not finding.mended]
    if errors:
        first = errors[0]
        place = f" in case {first.case}" if first.case else ""
        raise TaskError(
            f"The check found {len(errors)} error{'s' * (len(errors) > 1)}; the first{place}: expected {first.expected}, "
            f"found {first.found}; {first.advice}."
        )


def _block(group: Sequence[Finding]) -> str:
    first = group[0]
    head = f"{'MENDED' if first.mended else first.severity.upper()}  {first.check} ({len(group)})"
    lines = [f"  {f.case or 'task'}: expected {f.expected}, found {f.found}" for f in group[:_SHOWN_PER_CHECK]]
    more = [f"  … and {len(group) - _SHOWN_PER_CHECK} more"] if len(group) > _SHOWN_PER_CHECK else []
    return "\n".join([head, *lines, *more, *([] if first.mended else [f"  → {first.advice}"])])


def _closing(findings: Sequence[Finding]) -> str:
    left = [f for f in findings if not f.mended]
    counts = [sum(f.severity == severity for f in left) for severity in SEVERITIES]
    words = [f"{n} {word}{'s' * (n != 1)}" for n, word in zip(counts, SEVERITIES, strict=True)]
    if len(left) < len(findings):
        words.append(f"{len(findings) - len(left)} mended")
    fixable = sum(f.fixable for f in left)
    hint = f"; {fixable} can be mended with 'nnsegment check --fix'" if fixable else ""
    return f"{', '.join(words)}{hint}."
