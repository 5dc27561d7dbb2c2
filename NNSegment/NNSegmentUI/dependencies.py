"""What is missing for the work, and one button that installs it into Slicer's Python: nothing is installed unasked.

Who has a Python with PyTorch outside of Slicer can choose that instead.

PyTorch comes through the PyTorch extension, whatever the version of its interface; the rest through slicer.packaging
where this Slicer has it, else through slicer.util. Both run in a thread, so that the panel stays alive.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .context import ERROR, SUCCESS, PanelContext
from .python_choice import PythonChoice
from .widgets import breakable, set_enabled

TORCH = ">=2.6,!=2.9.*"
"""PyTorch 2.9 computes 3D convolutions with mixed precision several times slower."""
POLL_MS = 200
_SHARE_S = 0.02
"""Slicer's event loop keeps Python's lock; waiting in Python lets the thread go on."""


def missing_packages(requirements_file: Path | str) -> list[str]:
    """The requirements of the file that are not installed; versions are left to pip."""
    lines = Path(requirements_file).read_text(encoding="utf-8").splitlines()
    wanted = [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-"))]
    return [line for line in wanted if importlib.util.find_spec(re.split(r"[^\w.-]", line)[0]) is None]


def torch_is_missing() -> bool:
    """Whether PyTorch is not installed; it is not imported for that."""
    return importlib.util.find_spec("torch") is None


def unsuitable_torch() -> str:
    """The version of a PyTorch to replace, which another extension may have installed, or nothing."""
    from NNSegmentLib.doctor import torch_check

    if torch_is_missing():
        return ""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:  # not installed by pip: nobody knows before it is loaded
        return ""
    return "" if torch_check(version).ok else version


def _is_too_old(version: str) -> bool:
    """Whether this PyTorch cannot do the work at all; others that are to be replaced are slow."""
    from NNSegmentLib.packages import OLDEST_TORCH, release_of

    return release_of(version) < OLDEST_TORCH


def _fault(version: str) -> str:
    """What is wrong with a PyTorch that is to be replaced, without the full stop."""
    from NNSegmentLib.doctor import SLOW_TORCH
    from NNSegmentLib.packages import OLDEST_TORCH

    if not _is_too_old(version):
        return _("Slicer has PyTorch {version}, which computes 3D convolutions several times slower").format(
            version=version
        )
    oldest, slow = (".".join(map(str, release)) for release in (OLDEST_TORCH, SLOW_TORCH))
    text = _("Slicer has PyTorch {version}, but {oldest} or newer except {slow} is needed")
    return text.format(version=version, oldest=oldest, slow=slow)


def lacks_torch() -> bool:
    """Whether a PyTorch that does the work well is still to be installed."""
    return torch_is_missing() or bool(unsuitable_torch())


def has_no_torch() -> bool:
    """Whether no suitable PyTorch exists for this Slicer: for Intel processors of Macs it ends at 2.2."""
    return sys.platform == "darwin" and platform.machine() == "x86_64"


def without_torch(context: PanelContext) -> str:
    """Why nothing can be trained or predicted and what to do about it, or nothing; a chosen Python has PyTorch.

    A PyTorch that is only slow is no reason; the row at the top tells of it.
    """
    if context.python is not None:
        return ""
    if has_no_torch():
        return _(
            "Slicer's own Python cannot have the PyTorch that is needed: choose another Python at the top of the module "
            "NNSegment."
        )
    if torch_is_missing():
        return _("PyTorch is not installed: press Install at the top of the module NNSegment.")
    version = unsuitable_torch()
    if not version or not _is_too_old(version):
        return ""
    return _("{fault}: press Install at the top of the module NNSegment.").format(fault=_fault(version))


def has_torch_extension() -> bool:
    """Whether the PyTorch extension is there."""
    return importlib.util.find_spec("PyTorchUtils") is not None


def install_torch_extension() -> bool:
    """Fetch the PyTorch extension without dialogs; it is there after the next start. False when it did not come."""
    find = getattr(slicer.app, "extensionsManagerModel", None)  # not in every build of Slicer
    if find is None:
        return False
    model = find()
    asks, model.interactive = model.interactive, False
    try:
        return bool(model.installExtensionFromServer("PyTorch", False))
    finally:
        model.interactive = asks


def install_packages(requirements: Sequence[str]) -> None:
    """Install into Slicer's Python; raises what pip's caller raises."""
    if importlib.util.find_spec("slicer.packaging") is not None:
        importlib.import_module("slicer.packaging").pip_install(list(requirements))
    else:
        slicer.util.pip_install(" ".join(requirements))


def install_torch(without_gpu: bool = False) -> None:
    """Install PyTorch through the PyTorch extension; raises RuntimeError when it did not come."""
    logic = importlib.import_module("PyTorchUtils").PyTorchUtilsLogic()
    wanted = {
        "askConfirmation": False,
        "torchVersionRequirement": TORCH,
        "forceComputationBackend": "cpu" if without_gpu else None,
    }
    known = inspect.signature(logic.installTorch).parameters
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())
    installed = logic.installTorch(**{name: value for name, value in wanted.items() if takes_all or name in known})
    if installed is None:
        raise RuntimeError(_("The PyTorch extension did not install PyTorch."))


@dataclass
class Installation:
    """Steps that run one after the other in a thread; `error` tells why they ended early."""

    steps: Sequence[tuple[str, Callable[[], None]]]
    """(what is shown, what is done)."""
    step: str = ""
    error: str = ""
    _thread: threading.Thread | None = field(default=None, repr=False)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="NNSegment installation", daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        """Also gives the thread a moment to go on."""
        self._thread.join(_SHARE_S)
        return self._thread.is_alive()

    def _run(self) -> None:
        for step, work in self.steps:
            self.step = step
            try:
                work()
            except (subprocess.CalledProcessError, RuntimeError, OSError, ImportError, ValueError, TypeError) as error:
                self.error = _("{step} failed: {error}").format(step=self.step, error=error)
                return
        importlib.invalidate_caches()


class SetupRow:
    """The row above the sections that is seen while something is missing, or another Python does the work."""

    def __init__(self, ui, context: PanelContext, resource_path) -> None:
        self._ui, self._context = ui, context
        self._requirements = resource_path("requirements.txt")
        self._installation: Installation | None = None
        self._extension_said = ("", SUCCESS)
        """What came of fetching the PyTorch extension, and how bad it is."""
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._poll)
        self._choice = PythonChoice(ui, context, self.refresh)
        ui.installButton.connect("clicked()", self.install)
        ui.setupProgress.hide()
        self.refresh()

    def cleanup(self) -> None:
        """Forget a Python that is still looked at; an installation goes on, and nobody looks at it any more."""
        self._timer.stop()
        self._choice.cleanup()

    def refresh(self) -> None:
        """Say what is missing or where the work is done, or hide."""
        ui, packages, torch = self._ui, missing_packages(self._requirements), lacks_torch()
        chosen, cannot = self._context.python is not None, has_no_torch()
        ui.setupFrame.setVisible(bool(packages or torch or chosen or cannot or self._choice.is_looking))
        ui.cpuOnlyBox.setVisible(torch and has_torch_extension() and not chosen and not cannot)
        ui.installButton.setVisible(not chosen)
        ui.pythonPathLabel.text = _("Python:") if chosen else _("Or another Python:")
        ui.setupLabel.text = self._state(packages, torch)
        reason = _("There is no PyTorch to install for this Slicer: choose another Python below.") if cannot else ""
        names = self._names(packages, torch)
        set_enabled(ui.installButton, reason, _("Install into Slicer's Python: {what}.").format(what=names))

    def install(self) -> None:
        """Start installing what is missing; a PyTorch that is there is replaced only by one who says so."""
        packages, torch = missing_packages(self._requirements), lacks_torch()
        if torch and not has_torch_extension():
            self._install_extension()
            torch = False
        if torch and not self._may_replace_torch():
            return
        steps = []
        if packages:
            names = self._names(packages, False)
            steps.append((_("Installing {names}").format(names=names), lambda: install_packages(packages)))
        if torch:
            without_gpu = self._ui.cpuOnlyBox.checked
            steps.append((_("Installing PyTorch, which may take minutes"), lambda: install_torch(without_gpu)))
        if steps:
            self._begin(Installation(steps))

    def _may_replace_torch(self) -> bool:
        """Ask, because other extensions use the same PyTorch; there is nothing to ask where there is none."""
        version = unsuitable_torch()
        if version and "torch" in sys.modules:  # its files cannot be replaced on Windows, and must not be elsewhere
            text = _("Slicer has loaded its PyTorch {version}: restart Slicer, and press Install before anything else.")
            self._context.say(text.format(version=version), ERROR)
            return False
        text = _("{fault}. Replace it? Other extensions use the new one, too.")
        return not version or slicer.util.confirmOkCancelDisplay(text.format(fault=_fault(version)))

    def _begin(self, installation: Installation) -> None:
        self._installation = installation
        installation.start()
        self._show_running(True)
        self._timer.start()

    def _poll(self) -> None:
        if self._installation.is_running():
            self._ui.setupLabel.text = self._installation.step + " …"
            return
        self._timer.stop()
        self._show_running(False)
        self.refresh()
        self._report()
        self._context.results_changed.emit()  # the sections tell what they cannot do without PyTorch

    def _report(self) -> None:
        packages, torch = missing_packages(self._requirements), lacks_torch()
        if self._installation.error:
            advice = _('If it is about the graphics card, tick "Without GPU support" and install again.')
            text = self._installation.error
            self._context.say(f"{text} {advice}" if torch else text, ERROR)
        elif torch and not packages and not has_torch_extension():
            self._context.say(*self._extension_said)
        elif packages or torch:
            text = _("Still missing: {what}; Slicer's Python console tells what went wrong.")
            self._context.say(text.format(what=self._names(packages, torch)), ERROR)
        else:
            self._context.say(_("Everything that was missing is installed."), SUCCESS)

    def _show_running(self, running: bool) -> None:
        self._ui.setupProgress.setVisible(running)
        self._ui.installButton.setEnabled(not running)
        self._ui.cpuOnlyBox.setEnabled(not running)
        self._ui.pythonPath.setEnabled(not running)
        if running:
            self._ui.installButton.toolTip = _("The installation is running.")

    def _install_extension(self) -> None:
        comes = _("The PyTorch extension is installed; restart Slicer and press Install again."), SUCCESS
        fails = _("The PyTorch extension could not be installed; install it in the Extensions Manager."), ERROR
        self._extension_said = comes if install_torch_extension() else fails
        self._context.say(*self._extension_said)

    def _state(self, packages: Sequence[str], torch: bool) -> str:
        if self._choice.is_looking:
            return _("Looking at what this Python has …")
        if self._context.python is not None:
            return _("Training and prediction run in {python}.").format(python=breakable(self._context.python))
        return self._advice() if has_no_torch() else self._sentence(packages, torch)

    def _advice(self) -> str:
        """How to come by a Python that can have PyTorch, where Slicer's cannot."""
        from NNSegmentLib.packages import INSTALL

        return _(
            "Training and prediction need PyTorch 2.6 or newer. Slicer for macOS is a program for Intel processors, for "
            "which PyTorch ends at 2.2.2: choose another Python below. On a Mac with Apple's processor two commands in "
            "the Terminal make {path}, here with Homebrew's Python:"
        ).format(path="~/nnsegment/bin/python") + (
            f"\n/opt/homebrew/bin/python3 -m venv ~/nnsegment\n~/nnsegment/bin/{INSTALL}"
        )

    def _sentence(self, packages: Sequence[str], torch: bool) -> str:
        version, sentences = unsuitable_torch(), []
        if version:
            sentences.append(_("{fault}; Install asks you before it replaces that.").format(fault=_fault(version)))
        if torch and not has_torch_extension():
            sentences.append(
                _(
                    "Training and prediction need PyTorch, which comes with Slicer's PyTorch extension. Install fetches "
                    "that; Slicer is to be restarted then."
                )
            )
        elif packages or not version:
            text = _("Training and prediction need {what}. Nothing is installed before you ask for it.")
            sentences.append(text.format(what=self._names(packages, torch and not version)))
        return " ".join(sentences)

    def _names(self, packages: Sequence[str], torch: bool) -> str:
        names = [re.split(r"[^\w.-]", line)[0] for line in packages]
        return ", ".join([*(["PyTorch"] if torch else []), *names])
