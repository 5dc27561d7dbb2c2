"""How to start our command line with a given Python: the words, and an environment that this Python can live in.

Slicer's launcher sets variables that make another Python load Slicer's libraries; it also keeps a copy of every
variable as it was before (APPLAUNCHER_0_NAME), which is what a process outside of Slicer should get.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .rosetta import natively

WINDOWS = sys.platform == "win32"
JOB_VARIABLE = "NNSEGMENT_JOB"
"""Names the job's folder to the child process."""
LIBRARY_PARENT = Path(__file__).resolve().parents[2]
_SIGNS_OF_THE_PROMPT = set("&|<>^()")
_LAUNCHER = "APPLAUNCHER_"
_SAVED = "APPLAUNCHER_0_"
_OF_SLICERS_PYTHON = (
    "PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "PIP_REQUIRE_VIRTUALENV", "LD_LIBRARY_PATH", "LD_PRELOAD",
    "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH", "QT_PLUGIN_PATH", "ITK_AUTOLOAD_PATH", "TCL_LIBRARY", "TK_LIBRARY",
    "SSL_CERT_FILE",
)  # fmt: skip


def default_python(executable: str = sys.executable) -> Path:
    """The Python to start children with: the one we run in, in Slicer its launcher."""
    own = Path(executable)
    launcher = own.with_name("PythonSlicer.exe" if own.suffix.lower() == ".exe" else "PythonSlicer")
    return launcher if launcher.is_file() else own


def is_slicers(python: Path) -> bool:
    """Whether this Python is Slicer's launcher, which completes the environment itself."""
    return python.stem.lower() == "pythonslicer"


def command(python: Path, arguments: Sequence[str]) -> tuple[str, ...]:
    """The words that run `nnsegment ARGUMENTS`."""
    return (*natively(python), str(python), "-m", "NNSegmentLib", *map(str, arguments))


def as_line(words: Sequence[str], windows: bool = WINDOWS) -> str:
    """The words as one line for a terminal."""
    return " ".join(map(_for_the_command_prompt, words)) if windows else shlex.join(words)


def _for_the_command_prompt(word: str) -> str:
    """It knows double quotes only, and has signs that quote nothing for the program but mean something to it."""
    from subprocess import list2cmdline  # not when only --help is wanted

    quoted = list2cmdline([word])
    if quoted.startswith('"') or not set(word) & _SIGNS_OF_THE_PROMPT:
        return quoted
    last = word[len(word.rstrip("\\")) :]  # before a quotation mark backslashes count half
    return f'"{quoted}{last}"'


def terminal_setting(windows: bool = WINDOWS) -> str:
    """The line that tells a terminal where our library is; it comes before those that run `NNSegmentLib`."""
    if windows:
        return f'set "PYTHONPATH={LIBRARY_PARENT}"'
    return f"export PYTHONPATH={shlex.quote(str(LIBRARY_PARENT))}"


def environment_for(
    python: Path, environment: Mapping[str, str] = os.environ, windows: bool = WINDOWS
) -> dict[str, str]:
    """The variables for a child run by `python`, started from a process that has `environment`."""
    if is_slicers(python):
        return slicer_environment(environment)
    if any(name.startswith(_LAUNCHER) or name == "SLICER_HOME" for name in environment):
        variables = foreign_environment(environment)
    else:
        variables = _with_library(dict(environment))
    return _with_conda(variables, python.parent) if windows else variables


def slicer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """For PythonSlicer: as before Slicer was started, because the launcher adds its own; and our library."""
    return _with_library(before_launcher(environment))


def foreign_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """For a Python outside of Slicer: what a terminal has; without the launcher's copy, nothing of Slicer's."""
    if any(name.startswith(_SAVED) for name in environment):
        return _with_library(before_launcher(environment))
    home = environment.get("SLICER_HOME", "")
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _OF_SLICERS_PYTHON and not name.upper().startswith(("SLICER", _LAUNCHER))
    }
    if home and "PATH" in kept:
        kept["PATH"] = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if not p.startswith(home))
    return _with_library(kept)


def before_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables as they were before Slicer's launcher changed them; unchanged when there was no launcher."""
    saved = {name[len(_SAVED) :]: value for name, value in environment.items() if name.startswith(_SAVED)}
    return saved or {name: value for name, value in environment.items() if not name.startswith(_LAUNCHER)}


def _with_library(environment: dict[str, str]) -> dict[str, str]:
    others = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p and Path(p) != LIBRARY_PARENT]
    search = os.pathsep.join([str(LIBRARY_PARENT), *others])
    ours = {"PYTHONPATH": search, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    return environment | ours | {"PYTHONSAFEPATH": "1"}  # no module of the working directory, which may hold anything


def _with_conda(environment: dict[str, str], prefix: Path) -> dict[str, str]:
    """With the libraries of conda's packages, which on Windows are found through PATH once conda is activated."""
    libraries = prefix / "Library" / "bin"
    others = environment.get("PATH", "")
    if not (prefix / "conda-meta").is_dir() or str(libraries) in others.split(os.pathsep):
        return environment
    return environment | {"PATH": os.pathsep.join([str(libraries), *filter(None, [others])])}
