"""Whether a task's files can be trained on: what was expected, what was found, how to mend it, and mending it."""

from .check import check_task
from .findings import Finding, load_findings, save_findings
from .fix import fix_task

__all__ = ["Finding", "check_task", "fix_task", "load_findings", "save_findings"]
