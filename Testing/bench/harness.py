"""What tests do with the bench: start it, open a module's panel, click through it, and look at it.

    from bench import harness

    harness.start()
    panel = harness.open_module("NNSegment/NNSegment.py")
    panel.click("applyButton")
    panel.wait_until(lambda: panel["statusLabel"].text == "done", timeout_s=10)
    panel.screenshot("panel.png")

The scene and the application are single objects of a process: a test that needs a fresh one runs in a process of its
own (`run_fresh`).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SYSTEM_PACKAGES = "libegl1 libgl1 libgl1-mesa-dri libxkbcommon0"
"""What Qt and the views need of a Linux that has no desktop."""
_started = None


class BenchError(Exception):
    """What a person could not have done, or a condition that did not come true in time."""


def why_not() -> str:
    """The reason that the bench cannot start on this machine, or ""."""
    import importlib
    import importlib.util

    needed = {"slicer": "slicer-core", "PySide6": "PySide6-Essentials"}
    missing = [wheel for name, wheel in needed.items() if importlib.util.find_spec(name) is None]
    if missing:
        return f"the bench needs {' and '.join(missing)}: pip install -e '.[bench]'"
    try:
        importlib.import_module("PySide6.QtWidgets")
    except ImportError as error:
        return f"Qt lacks a library of the system ({error}); on Debian: apt-get install {SYSTEM_PACKAGES}"
    return ""


def start():
    """Start the application once; later calls give back the same scene and logics."""
    global _started
    if _started is None:
        from .application import start_application

        _load_triton_first()
        _started = start_application()
        sys.excepthook = _remember_exception
        _collect_between_tests_only()
    return _started


def _load_triton_first() -> None:
    """Its compiler and the one of Mesa's graphics are two versions of one; the process ends where it comes second."""
    with contextlib.suppress(ImportError):
        importlib.import_module("triton._C.libtriton")


def _collect_between_tests_only() -> None:
    """Slicer's widgets die when C++ says so; Python's collector would delete forgotten ones in the midst of a slot."""
    gc.disable()
    gc.collect()
    gc.freeze()  # what is alive by now stays, and need not be looked through again
    atexit.register(gc.unfreeze)  # until the end, when triton complains of all that is still there


def _remember_exception(kind, error, trace) -> None:
    """VTK's observers end here when they raise."""
    from . import pythonqt

    pythonqt.slot_errors.append(("an observer", error))
    sys.__excepthook__(kind, error, trace)


def process_events() -> None:
    from PySide6 import QtCore, QtWidgets

    QtWidgets.QApplication.processEvents()
    # what `deleteLater` was asked of goes with a turn of the application's own loop, which the bench does not run
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0, what: str = "") -> object:
    """Keep the event loop alive until the condition holds; BenchError after `timeout_s` seconds."""
    end = time.monotonic() + timeout_s
    while True:
        process_events()
        value = condition()
        if value:
            check_slots()
            return value
        if time.monotonic() > end:
            raise BenchError(f"{what or 'the condition'} did not come true within {timeout_s:g} s")
        time.sleep(0.01)


def check_slots() -> None:
    """Raise what a slot raised: Slicer would have printed it to the console, where no user looks."""
    from . import pythonqt

    if pythonqt.slot_errors:
        signature, error = pythonqt.slot_errors[0]
        pythonqt.slot_errors.clear()
        raise BenchError(f"a slot of '{signature}' raised {type(error).__name__}: {error}") from error


def take_vtk_errors() -> list[str]:
    """What VTK and MRML have complained about since the last call; a clean step leaves nothing."""
    from .mrml import errors

    taken, errors[:] = list(errors), []
    return taken


def close_scene() -> None:
    """File → Close Scene: data nodes go, singletons are reset; then forgotten widgets are deleted."""
    import slicer

    slicer.mrmlScene.Clear(0)
    process_events()
    gc.collect()
    check_slots()


def _layout_manager():
    import slicer

    process_events()
    return slicer.app.layoutManager()


def slice_view_pixels(name: str = "Red", size: tuple[int, int] = (400, 400)):
    """What a slice view shows, (height, width, 3) uint8."""
    from .layout import slice_pixels

    return slice_pixels(_layout_manager(), name, size)


def three_d_pixels(size: tuple[int, int] = (400, 400)):
    """What the 3D view shows, (height, width, 3) uint8."""
    from .layout import three_d_pixels as pixels

    return pixels(_layout_manager(), size)


def plot_pixels(size: tuple[int, int] = (400, 300)):
    """What the plot view of the layout shows, (height, width, 3) uint8."""
    from .layout import plot_pixels as pixels

    return pixels(_layout_manager(), size)


def slice_view_png(path: str | Path, name: str = "Red", size: tuple[int, int] = (400, 400)) -> Path:
    from .rendering import save_png

    return save_png(slice_view_pixels(name, size), path)


def three_d_png(path: str | Path, size: tuple[int, int] = (400, 400)) -> Path:
    from .rendering import save_png

    return save_png(three_d_pixels(size), path)


def plot_png(path: str | Path, size: tuple[int, int] = (400, 300)) -> Path:
    from .rendering import save_png

    return save_png(plot_pixels(size), path)


def set_theme(dark: bool) -> None:
    """Slicer's two styles, as palettes of Qt's Fusion style."""
    import slicer

    from .themes import palette

    process_events()
    slicer.app.setStyle("Fusion")
    slicer.app.setPalette(palette(dark))
    process_events()


class Panel:
    """A module's panel on the screen of the bench; widgets are found by their object names."""

    def __init__(self, module):
        self.module = module
        self.representation = module.widgetRepresentation()
        self.representation.resize(400, max(600, self.representation.sizeHint().height()))
        self.representation.show()
        self.representation.enter()
        process_events()
        check_slots()

    @property
    def widget(self):
        """The module's own widget object, the instance of `<Module>Widget`; another one after a reload."""
        return self.representation.self()

    def __getitem__(self, name: str):
        from PySide6 import QtCore

        found = self.representation.findChild(QtCore.QObject, name)
        if found is None:
            raise BenchError(f"the panel has no widget named '{name}'")
        return found

    def _usable(self, name: str):
        widget = self[name]
        if not widget.enabled:
            raise BenchError(f"'{name}' is disabled: {widget.toolTip or 'its tooltip does not say why'}")
        if not widget.isVisibleTo(self.representation):
            raise BenchError(f"'{name}' is hidden")
        return widget

    def click(self, name: str) -> None:
        """Click a button with the mouse, as a person does: refused when it is disabled or hidden."""
        from .hands import click

        click(self._usable(name))
        self._after()

    def choose(self, name: str, value) -> None:
        """Choose an entry of a combo box by its text, a node of a selector, a tick, a number, a tab, a path."""
        from .hands import choose

        choose(self._usable(name), value)
        self._after()

    def set_text(self, name: str, text: str) -> None:
        """Type into a line or a text field."""
        from .hands import set_text

        set_text(self._usable(name), text)
        self._after()

    def wait_until(self, condition: Callable[[], object], timeout_s: float = 10.0, what: str = "") -> object:
        return wait_until(condition, timeout_s, what)

    def screenshot(self, path: str | Path, width: int = 400, height: int | None = None) -> Path:
        """A picture of the panel at `width` pixels, as high as its content unless `height` says otherwise."""
        parent = self.representation
        parent.resize(width, height or 10)
        process_events()
        parent.resize(width, height or max(parent.layout().totalHeightForWidth(width), parent.sizeHint().height(), 100))
        process_events()
        if not parent.grab().save(str(path)):
            raise BenchError(f"the picture cannot be written to {path}")
        return Path(path)

    def overflow_px(self, width: int = 400) -> int:
        """By how many pixels the panel's smallest width exceeds `width`; 0 when it fits."""
        process_events()
        return max(0, self.representation.minimumSizeHint().width() - width)

    def close(self) -> None:
        """Leave the module, clean its widget up and delete it, as at the end of the application."""
        import shiboken6

        self.representation.exit()
        self.widget.cleanup()
        self.representation.hide()
        process_events()
        check_slots()
        shiboken6.delete(self.representation)

    def _after(self) -> None:
        process_events()
        check_slots()


def open_module(path: str | Path) -> Panel:
    """Load an unmodified scripted module and show its panel."""
    from .modules import load_scripted_module

    start()
    return Panel(load_scripted_module(path))


def run_fresh(script: str, timeout_s: float = 120.0, cwd: str | Path | None = None) -> subprocess.CompletedProcess:
    """Run Python text in a new process on which `bench` can be imported; BenchError with its output if it fails."""
    testing = str(Path(__file__).resolve().parents[1])
    environment = dict(os.environ, QT_QPA_PLATFORM="offscreen", OMP_NUM_THREADS="1")
    environment["PYTHONPATH"] = os.pathsep.join([testing, str(Path(testing).parent), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment, cwd=cwd)
    if done.returncode:
        raise BenchError(f"the process ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done
