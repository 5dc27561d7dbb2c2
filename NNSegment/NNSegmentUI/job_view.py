"""One job as a person sees it: what it does, how far it is, how long it takes, its log, and a button that stops it."""

from __future__ import annotations

import os

import qt
from slicer.i18n import tr as _

from .widgets import open_file, plain_label, tip

_STEPS = 1000


class JobView:
    """A row of widgets inside `frame` that follows the job given to `show`; hidden while there is none."""

    def __init__(self, frame, context, prefix: str) -> None:
        self._frame, self._context, self._prefix = frame, context, prefix
        self.job = None
        self._progress = None
        self._stop_asked = False
        self._build()
        context.job_events.connect(self._on_events)
        context.job_ended.connect(self._on_ended)
        frame.setVisible(False)

    def show(self, job) -> None:
        """Follow another job, from its first event on; None hides the view."""
        from NNSegmentLib.jobs.progress import JobProgress

        self.job, self._stop_asked = job, False
        self._progress = JobProgress()
        self._frame.setVisible(job is not None)
        if job is not None:
            self._stop_asked = job.folder.stop.exists()
            self._progress = self._progress.with_events(job.events())
            self._refresh()

    def cleanup(self) -> None:
        """Follow nothing any more, and let go of the buttons, which outlive the view for a while."""
        self._context.job_events.disconnect(self._on_events)
        self._context.job_ended.disconnect(self._on_ended)
        self._stop.disconnect("clicked()", self.stop)
        self._log.disconnect("clicked()", self._open_log)

    @property
    def is_running(self) -> bool:
        """Whether the job that is shown still runs."""
        return self.job is not None and self.job.is_running()

    def stop(self) -> None:
        """Ask for a clean stop; asked again, end the processes at once."""
        from NNSegmentLib.errors import NNSegmentError

        if not self.is_running:
            return
        try:
            if self._stop_asked:
                self.job.kill()
            else:
                self.job.request_stop()
        except NNSegmentError as error:
            self._context.say(str(error), "error")
        self._stop_asked = True
        self._refresh()

    def _build(self) -> None:
        self._title = self._named(plain_label(), "JobLabel")
        self._title.wordWrap = True
        self._bar = self._named(qt.QProgressBar(), "ProgressBar")
        self._bar.maximum = _STEPS
        self._bar.setFormat("%p %")
        self._left = self._named(qt.QLabel(), "TimeLeftLabel")
        self._stop = self._named(qt.QPushButton(_("Stop")), "StopButton")
        self._log = self._named(qt.QPushButton(_("Log")), "LogButton")
        self._log.toolTip = _("Open what the job has printed.")
        self._stop.connect("clicked()", self.stop)
        self._log.connect("clicked()", self._open_log)
        row = qt.QHBoxLayout()
        row.addWidget(self._bar, 1000)
        row.addStretch(1)  # takes the place of the bar once it is hidden
        for widget in (self._left, self._stop, self._log):
            row.addWidget(widget)
        column = qt.QVBoxLayout(self._frame)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._title)
        column.addLayout(row)

    def _named(self, widget, suffix: str):
        widget.setObjectName(self._prefix + suffix)
        return widget

    def _is_shown(self, job) -> bool:
        return self.job is not None and job.folder == self.job.folder  # two workspaces may have jobs of one name

    def _on_events(self, job, events) -> None:
        if self._is_shown(job):
            self._progress = self._progress.with_events(events)
            self._refresh()

    def _on_ended(self, job, state) -> None:
        if self._is_shown(job):
            self._refresh()

    def _refresh(self) -> None:
        state = self.job.status()
        running = state == "running"
        self._title.text = f"{self.job.request.title}: {self._state_text(state)}"
        self._show_bar(state)
        self._left.text = (
            _("{time} left").format(time=self._progress.time_left) if running and self._progress.time_left else ""
        )
        self._left.setVisible(bool(self._left.text))
        self._stop.setVisible(running)
        self._stop.text = _("Stop now") if self._stop_asked else _("Stop")
        meaning = (
            _("Ends “{title}” at once with its processes; what was not saved yet is lost.")
            if self._stop_asked
            else _("Stops “{title}” after the current step; what is done is kept, and training can be resumed.")
        )
        self._stop.toolTip = tip(meaning.format(title=self.job.request.title))

    def _show_bar(self, state) -> None:
        fraction = self._progress.fraction
        self._bar.setVisible(state == "running")
        self._bar.maximum = 0 if fraction is None else _STEPS
        self._bar.value = int(_STEPS * (fraction or 0.0))

    def _state_text(self, state) -> str:
        if state == "running":
            if self._stop_asked:
                return _("stopping …")
            return (self._progress.text or _("starting …")) + self._silence()
        if state in ("failed", "lost"):
            return self.job.failure()
        return {"finished": _("done"), "stopped": _("stopped")}[str(state)]

    def _silence(self) -> str:
        """Words about a process that is there and gives no sign of life."""
        from NNSegmentLib.jobs import SILENT_S
        from NNSegmentLib.terminal import duration

        silent_s = self.job.silent_s()
        if silent_s < SILENT_S:
            return ""
        return " – " + _("no sign of life for {time}").format(time=duration(silent_s))

    def _open_log(self) -> None:
        log = self.job.folder.log
        if os.path.isfile(log):
            open_file(log)
        else:
            self._context.say(_("{file} is not there; somebody deleted the job's folder.").format(file=log), "warning")
