"""Which Python trains and predicts: one that the user has already, or Slicer's own while none is chosen."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from .context import ERROR, PYTHON_KEY, SUCCESS, PanelContext
from .widgets import connect_path, resting

POLL_MS = 200
"""How often we ask whether a Python has been looked at."""


class PythonChoice:
    """The path line of the set-up row. A Python is looked at in the background, and used only when it lacks nothing."""

    def __init__(self, ui, context: PanelContext, changed: Callable[[], None]) -> None:
        from NNSegmentLib.packages import INSTALL

        self._edit, self._context, self._changed = ui.pythonPath, context, changed
        self._look = None
        self._typing, self._timer = resting(self._edit, self._begin), qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._poll)
        self._edit.toolTip = _(
            "The program python of an environment outside of Slicer, with Python 3.11 or newer and what this gives: "
            "{install}. The Enter key looks at it again. Slicer's own Python does the work while this is empty."
        ).format(install=INSTALL)
        connect_path(self._edit, self._on_path)
        if context.python:
            self._edit.currentPath = str(context.python)

    @property
    def is_looking(self) -> bool:
        """Whether it is still to be seen what the Python lacks."""
        return self._look is not None

    def cleanup(self) -> None:
        """Look no longer."""
        self._typing.stop()
        self._end_look()

    def _on_path(self, _path) -> None:
        """While a path is typed it names no program yet, so it rests a moment; an empty one counts at once."""
        self._end_look()
        if self._edit.currentPath.strip():
            self._typing.start()
            return
        self._typing.stop()
        self._context.say("")
        self._use(None)

    def _begin(self) -> None:
        from NNSegmentLib.errors import NNSegmentError
        from NNSegmentLib.other_python import Look

        self.cleanup()
        path = self._edit.currentPath.strip()
        if not path:
            return
        try:
            self._look = Look(path)
        except NNSegmentError as error:
            self._refuse(str(error))
            return
        self._timer.start()
        self._changed()

    def _poll(self) -> None:
        from NNSegmentLib.errors import NNSegmentError

        if self._look.is_running():
            return
        look = self._look
        self._end_look()
        try:
            device = look.device()
        except NNSegmentError as error:
            self._refuse(str(error))
            return
        is_new = str(look.python) != str(self._context.python)
        self._use(look.python)
        if is_new:
            self._context.say(_("The Python works; it computes on: {device}").format(device=device), SUCCESS)

    def _refuse(self, sentence: str) -> None:
        """What was in use stays so, unless it is the one that works no longer."""
        from NNSegmentLib.given import expanded

        refused = expanded(self._edit.currentPath.strip()).absolute()
        self._use(None if str(refused) == str(self._context.python) else self._context.python)
        self._context.say(sentence, ERROR)

    def _use(self, python) -> None:
        is_other = python != self._context.python
        self._context.python = python
        slicer.app.userSettings().setValue(PYTHON_KEY, str(python or ""))
        self._changed()
        if is_other:
            self._context.results_changed.emit()  # the command lines of the sections name the Python

    def _end_look(self) -> None:
        self._timer.stop()
        if self._look is not None:
            self._look.end()
            self._look = None
