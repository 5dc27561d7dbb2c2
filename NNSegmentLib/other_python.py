"""Another Python than ours for the work: its own `doctor` tells what it lacks, while the caller goes on.

look = Look("~/venv/bin/python")
while look.is_running():
    ...
print(look.device())
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .doctor import DEVICE, Check, lacking
from .errors import InputError, SettingsError, some
from .given import expanded
from .machine.launch import command, environment_for
from .machine.processes import WINDOWS, ProcessIdentity, detached, end_tree
from .records import from_json

PATIENCE_S = 180.0
"""Loading PyTorch for the first time takes long on a slow disk."""
_SHARE_S, _END_S = 0.02, 1.0
_LETTERS = 300


class Look:
    """One look at a Python; raises SettingsError when there is no such program."""

    def __init__(
        self, python: Path | str, environment: Mapping[str, str] | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        self.python = expanded(python).absolute()  # not resolved: a virtual environment's python is a link
        self._ends = time.monotonic() + patience_s
        self._said: tuple[bytes, bytes] | None = None
        if not os.path.isfile(self.python):  # Path's own raises for a text that is too long
            raise SettingsError(
                f"Expected a Python program such as bin/python, found none at {self.python}; choose another."
            )
        variables = environment_for(self.python, *(() if environment is None else (environment,)))
        try:
            self._process = subprocess.Popen(
                command(self.python, ("doctor", "--json")), env=variables, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **detached(WINDOWS),
            )  # fmt: skip
        except OSError as error:
            raise SettingsError(
                f"{self.python} cannot be started ({error.strerror}); choose another Python."
            ) from error

    def is_running(self) -> bool:
        """Whether the answer is still to come; a program that takes too long is ended."""
        if self._said is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._said = self._process.communicate(timeout=_SHARE_S)
        if self._said is None and time.monotonic() > self._ends:
            self.end()
        return self._said is None

    def end(self) -> None:
        """Look no longer."""
        process = ProcessIdentity.of(self._process.pid) if self._said is None else None
        if process is not None:
            end_tree(process)
        if self._said is None:
            try:
                self._said = self._process.communicate(timeout=_END_S)
            except subprocess.TimeoutExpired:  # what it started elsewhere still holds its output
                self._said = (b"", b"")

    def device(self) -> str:
        """The best device that this Python computes on; raises SettingsError with all that it lacks."""
        checks = self._checks()
        missing = lacking(checks)
        if missing:
            raise SettingsError(_sentence(self.python, missing))
        return next(check.found for check in checks if check.name == DEVICE)

    def _checks(self) -> list[Check]:
        told, complaint = (text.decode("utf-8", "replace") for text in self._said)
        try:
            return [from_json(Check, values) for values in json.loads(told)["checks"]]
        except (ValueError, LookupError, TypeError, InputError) as error:
            last = (complaint.strip().splitlines() or ["nothing"])[-1].removeprefix("nnsegment: ").rstrip(".")
            raise SettingsError(
                f"Expected a Python 3.11 or newer that can train; {self.python} said: {last[:_LETTERS]}. "
                "Choose another Python."
            ) from error


def _sentence(python: Path, missing: Sequence[Check]) -> str:
    found = some([f"{check.name}: {check.found}"[:_LETTERS] for check in missing], most=3)
    packages = " ".join(check.advice.removeprefix("pip install ") for check in missing)
    return f"{python} is not ready ({found}); run: {python} -m pip install {packages}"
