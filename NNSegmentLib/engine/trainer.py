"""Training one fold: the loop, its events, its checkpoints."""

from __future__ import annotations

import contextlib
import itertools
import math
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from ..errors import ModelError, NNSegmentError, RunError, StorageError, counted
from ..machine.memory import unsaid
from ..machine.stopping import stopping_cleanly
from ..preprocessing.storage import PreparedStore
from ..progress import Progress, silent
from ..provenance.made_of import MadeOf, save_made_of
from ..records import cannot_write, copy_whole, move, patiently, remove, remove_unfinished
from ..run import EpochFinished, Failed, Message, Run, Stopped, save_settings
from .batches import BatchSource
from .checkpoints import load_checkpoint
from .devices import in_words, memory_errors, prepare_device
from .online_dice import OnlineDice, mean_dice
from .ranks import ALONE, Ranks
from .session import Session, TrainingRequest, seed_of

__all__ = ["TrainingRequest", "train_fold"]
_ADVICE = "take a smaller batch, the preset 'small', or close other programs"
_PICTURE_SHARE = 0.02
"""Drawing the curves may take up to this share of the training time."""


def train_fold(request: TrainingRequest, progress: Progress = silent, ranks: Ranks = ALONE) -> Run:
    """Train one fold to its end, or until a file STOP appears in its folder; a stopped run leaves a valid model.

    Several `ranks` each call this; the first one writes, and whoever started them removes STOP before and records a
    failure.
    What is refused before the first step is no part of the run: its folder, and an earlier run in it, stay as they are.
    A time budget covers the training; the validation of full cases comes after it. Raises RunError when the loss is
    no number any more, OutOfMemoryError, ModelError for weights that do not fit, and StorageError.
    """
    run = Run(request.folder, request.configuration, request.fold_name)
    if request.resume and run.finished:
        return run
    with memory_errors(_ADVICE):
        session = resume_or_start(request, run, ranks)
    try:
        with memory_errors(_ADVICE):
            Training(session, run, progress).to_the_end()
    except NNSegmentError as error:
        if ranks.alone:
            run.record(Failed(str(error), time.time()))
        raise
    finally:
        session.close()
    return run


def resume_or_start(request: TrainingRequest, run: Run, ranks: Ranks = ALONE) -> Session:
    """A session with stored, pre-trained or fresh weights, and a folder that fits it.

    With both `resume` and `pretrained` a run that has a checkpoint goes on, and one without starts from those weights.
    """
    session = Session(request, ranks, partial(_tell, run) if ranks.first else unsaid)
    prepare_device(session.device, ranks.threads(request.settings.threads))
    if ranks.alone:
        remove(run.folder.stop)
    if ranks.first:
        remove_unfinished(run.folder.folder)
    stored = _restored(session, run, ranks) if request.resume else None
    if stored is None and request.pretrained:
        session.start_from(request.pretrained)
    ranks.wait()  # others may still read what the first one puts aside
    if ranks.first:
        _write_beginning(session, run, stored)
    ranks.wait()  # what fails from here on is a part of this run
    return session


def _write_beginning(session: Session, run: Run, stored: Path | None) -> None:
    """Settings and first words of a run, which replaces an earlier one unless it goes on from a `stored` state."""
    try:
        if stored:
            remove(run.folder.summary)  # weights to come score differently
        else:
            _put_earlier_run_aside(run)
    except OSError as error:
        raise StorageError(cannot_write(run.folder.folder, error)) from error
    if stored:
        _tell(run, f"Resumed from {stored.name} after {session.counters.steps} steps.")
    elif session.request.resume:
        _tell(run, "Nothing is stored to resume from, so this run starts at its beginning.")
    save_settings(session.settings, run.folder.settings)
    save_made_of(MadeOf.of(session.request.fold, session.request.prepared), run.folder)
    _tell(run, _introduction(session))


class Training:
    """The loop over one session."""

    def __init__(self, session: Session, run: Run, progress: Progress) -> None:
        self.session, self.run, self.progress = session, run, progress
        self.counters, self.pace = session.counters, session.pace
        self.saved_at = time.monotonic()
        self.picture = ProgressPicture(run)

    def to_the_end(self) -> None:
        """Epoch after epoch: train, validate on patches, record, store; Ctrl-C ends it after the current step."""
        batches, alone = opened_batches(self.session), self.session.ranks.alone
        signals = stopping_cleanly(self.run.folder.stop) if alone else contextlib.nullcontext()
        with batches as (training, validation), signals:
            self.session.start_clock()
            try:
                stopped = not self.run_epochs(training, validation)
            except KeyboardInterrupt:
                self.stop()
                raise
        if self.session.ranks.first:
            self.stop() if stopped else self.finish()
            self.picture.refresh(now=True)  # last: drawing may be what was interrupted

    def run_epochs(self, training: BatchSource, validation: BatchSource | None) -> bool:
        """All epochs that are left; False when a stop was asked for."""
        while not self.pace.is_over(self.counters.epoch, self.session.agreed_s(), self.session.step_s):
            started = time.time()
            if not self.train_epoch(training):
                return False
            loss, dice = self.validate(validation)
            self.finish_epoch(started, loss, dice)
        return True

    def train_epoch(self, batches: BatchSource) -> bool:
        """The steps that are left of an epoch; False when a stop was asked for."""
        losses = LossRecord(self.counters.losses)
        began = self.session.elapsed_s()
        while True:
            if self.stop_requested():
                losses.settle()
                return False
            before = self.session.agreed_s()
            losses.add(self.session.step(next(batches)))
            after = self.session.agreed_s()
            self.session.step_s = _smoothed(self.session.step_s, after - before)
            self.report(losses)
            if self.pace.epoch_is_over(self.counters.iteration, after - began, after, self.session.step_s):
                losses.settle()
                return True
            self.save_when_due(losses)

    def stop_requested(self) -> bool:
        """Whether to end now; the first rank looks for all."""
        ranks = self.session.ranks
        return bool(ranks.told(ranks.first and self.run.stop_requested())[0])

    def validate(self, batches: BatchSource | None) -> tuple[float | None, tuple[float | None, ...]]:
        """Mean loss and Dice per class on patches of the validation cases."""
        n = self.pace.validation_iterations(self.counters.iteration)
        if batches is None or n == 0:
            return None, ()
        dice, losses = OnlineDice(self.session.targets, self.session.ranks), []
        averaged = self.session.averaged
        with averaged.in_network() if averaged else contextlib.nullcontext():
            for _ in range(n):
                batch = next(batches)
                loss, logits = self.session.examine(batch)
                losses.append(loss)
                dice.add(logits, batch.target)
        return sum(loss.item() for loss in losses) / n, dice.per_class()

    def finish_epoch(self, started: float, loss: float | None, dice: tuple[float | None, ...]) -> None:
        """Record an epoch and store the weights when they are the best so far, or when it is time."""
        c = self.counters
        rate = self.session.rate
        train_loss = sum(c.losses) / len(c.losses)
        smoothed = c.smooth(mean_dice(dice))
        values = (mean_dice(dice), smoothed, list(dice), train_loss, loss, rate, started, time.time())
        for entries, value in zip(c.log.values(), values, strict=True):
            entries.append(math.nan if value is None else value)
        c.epoch, c.iteration, c.losses = c.epoch + 1, 0, []
        if not self.session.ranks.first:
            return
        self.run.record(self._event(train_loss, loss, dice, smoothed, rate, time.time() - started))
        if smoothed is not None and (c.best is None or smoothed > c.best):
            c.best = smoothed
            self.session.save(self.run.folder.checkpoint_best, resumable=False)
        self.save_when_due()
        self.picture.refresh()

    def _event(self, train_loss, loss, dice, smoothed, rate, seconds) -> EpochFinished:
        c, elapsed = self.counters, self.session.elapsed_s()
        left = self.pace.seconds_left(c.epoch, elapsed, seconds)
        epochs = self.pace.epochs(c.epoch, elapsed, seconds)
        mean, now = mean_dice(dice), time.time()
        return EpochFinished(
            c.epoch, epochs, train_loss, loss, dice, mean, smoothed, rate, seconds, left, now, steps=c.steps
        )

    def report(self, losses: LossRecord) -> None:
        """Tell the receiver of progress how far the training is."""
        c, settings = self.counters, self.session.settings
        known = c.mean_dice
        dice = "" if known is None else f", Dice {known:.3f}"
        loss = "" if losses.last is None else f", loss {losses.last:.3f}"
        what = f"epoch {c.epoch + 1}{loss}{dice}"
        if self.pace.by_clock:
            total = math.ceil(settings.time_s)
            self.progress(min(int(c.elapsed_s), total), total, what)
        else:
            per_epoch = settings.iterations_per_epoch
            self.progress(c.epoch * per_epoch + c.iteration, settings.epochs * per_epoch, what)

    def save_when_due(self, losses: LossRecord | None = None) -> None:
        """Store the latest state when the last one is old enough."""
        due = time.monotonic() - self.saved_at >= 60 * self.session.settings.checkpoint_minutes
        if due and self.session.ranks.first:
            if losses:
                losses.settle()
            self.save_latest()

    def save_latest(self) -> None:
        """Store the latest state."""
        self.session.save(self.run.folder.checkpoint_latest)
        self.saved_at = time.monotonic()

    def stop(self) -> None:
        """Leave a model to predict with and a state to resume from."""
        self.save_latest()
        if not self.run.folder.checkpoint_best.exists():
            self.session.save(self.run.folder.checkpoint_best, resumable=False)
        self.run.record(Stopped(self.counters.epoch, time.time()))
        remove(self.run.folder.stop)

    def finish(self) -> None:
        """Store the final weights."""
        folder = self.run.folder
        self.session.save(folder.checkpoint_final, resumable=False)
        if not folder.checkpoint_best.exists():
            copy_whole(folder.checkpoint_final, folder.checkpoint_best)
        remove(folder.checkpoint_latest)


class LossRecord:
    """The losses of an epoch, read two steps late so that a graphics card never waits for the processor."""

    def __init__(self, losses: list[float]) -> None:
        self._losses: list[float] = losses
        self._pending: deque[Callable[[], float]] = deque()

    @property
    def last(self) -> float | None:
        """The last loss that is known."""
        return self._losses[-1] if self._losses else None

    def add(self, loss: torch.Tensor) -> None:
        """Take in the loss of a step; raises RunError when one of the last steps gave no number."""
        self._pending.append(_arriving(loss))
        while len(self._pending) > (2 if loss.device.type != "cpu" else 0):
            self._read()

    def settle(self) -> None:
        """Read all that is pending; raises RunError."""
        while self._pending:
            self._read()

    def _read(self) -> None:
        loss = self._pending.popleft()()
        if not math.isfinite(loss):
            raise RunError(
                "The loss became NaN or infinite, so the weights of this step are useless and were not stored; resume "
                "from the last checkpoint, or train again with a smaller learning rate or mixed_precision off."
            )
        self._losses.append(loss)


def _arriving(loss: torch.Tensor) -> Callable[[], float]:
    """Reads a loss later. On a CUDA GPU it is on its way from now on: asking later would wait for later steps too."""
    if loss.device.type != "cuda":
        return loss.item
    here, arrived = torch.empty_like(loss, device="cpu", pin_memory=True), torch.cuda.Event()
    here.copy_(loss, non_blocking=True)
    arrived.record(torch.cuda.current_stream(loss.device))

    def read() -> float:
        arrived.synchronize()
        return here.item()

    return read


class ProgressPicture:
    """progress.png, redrawn after an epoch unless drawing took too large a share of the time."""

    def __init__(self, run: Run) -> None:
        self.run, self._not_before = run, 0.0

    def refresh(self, now: bool = False) -> None:
        """Draw the curves of all epochs so far; there is no picture without matplotlib or where it cannot be written."""
        if not now and time.monotonic() < self._not_before:
            return
        try:
            from ..report.curves import draw_progress
        except ImportError:
            return
        began = time.monotonic()
        epochs = [event for event in self.run.events() if isinstance(event, EpochFinished)]
        if epochs:
            with contextlib.suppress(StorageError):  # a viewer has it open: the next epoch draws it again
                draw_progress(epochs, self.run.folder.progress_picture)
        self._not_before = time.monotonic() + (time.monotonic() - began) / _PICTURE_SHARE


@contextlib.contextmanager
def opened_batches(session: Session) -> Iterator[tuple[BatchSource, BatchSource | None]]:
    """The training batches and, where there are validation cases, theirs; closed at the end."""
    request, ranks = session.request, session.ranks
    store, done = PreparedStore(request.prepared), session.counters
    with contextlib.ExitStack() as stack:

        def source(ids, training: bool, beside: BatchSource | None = None) -> BatchSource:
            batches = BatchSource(
                store, ids, request.wanted, request.label_set,
                settings=session.settings, training=training, device=session.device,
                seed=_same_seed(ranks, seed_of(request, "training" if training else "validation")),
                share=ranks.share,
                first=done.steps if training else done.epoch * session.settings.validation_iterations,
                batch_size=session.settings.batch_size or request.wanted.batch_size,
                previous_stage=request.previous_stage, beside=beside,
            )  # fmt: skip
            stack.callback(batches.close)
            return batches

        training = source(request.fold.train, True)
        wanted = request.fold.validation and session.settings.validation_iterations
        yield training, source(request.fold.validation, False, training) if wanted else None


def _same_seed(ranks: Ranks, seed: int | None) -> int | None:
    """Ranks that work on shares of the same batches need a common seed, also where none was asked for."""
    return seed if ranks.alone or seed is not None else int(ranks.told(secrets.randbits(53))[0])


def _restored(session: Session, run: Run, ranks: Ranks) -> Path | None:
    """The checkpoint that the session goes on from, None without one; the best one where the latest is damaged.

    Raises ModelError when none of them can be read.
    """
    candidates = [p for p in (run.folder.checkpoint_latest, run.folder.checkpoint_best) if p.is_file()]
    for path in candidates:
        try:
            session.restore(load_checkpoint(path))
            return path
        except ModelError as error:
            if path == candidates[-1]:
                raise
            if ranks.first:
                _tell(run, f"{str(error).rstrip('.')}; {candidates[-1].name} is taken instead.")
    return None


def _put_earlier_run_aside(run: Run) -> None:
    """Leave nothing of an earlier run to be taken for this one's; the last one is kept, a finished one above all."""
    folder = run.folder
    others = (folder.events, folder.progress_picture, folder.settings, folder.made_of, folder.validation)
    left = [path for path in (*folder.checkpoints, *others) if path.exists()]
    if folder.is_kept_when_replaced:
        kept = _new_in_place_of(folder.earlier)
        for path in left:
            move(path, kept / path.name)
        _tell(run, f"The earlier run of this fold is kept in {kept}.")
        return
    for path in left:
        patiently(partial(shutil.rmtree, path)) if path.is_dir() else remove(path)


def _new_in_place_of(folder: Path) -> Path:
    """An empty folder of this name; of a name with a number where some program keeps a file of the old one open."""
    if folder.is_dir():
        with contextlib.suppress(OSError):
            patiently(partial(shutil.rmtree, folder))
    names = itertools.chain([folder.name], (f"{folder.name}_{n}" for n in itertools.count(2)))
    free = next(path for name in names if not (path := folder.with_name(name)).exists())
    free.mkdir()
    return free


def _tell(run: Run, text: str) -> None:
    run.record(Message(text, time.time()))


def _introduction(session: Session) -> str:
    budget = session.settings.time_s
    length = (
        counted(session.settings.epochs, "epoch")
        if budget is None
        else f"{budget / 60:g} min; the validation of full cases comes after that"
    )
    return f"Training on {in_words(session.device, session.dtype, session.ranks.size)} for {length}."


def _smoothed(before: float, new: float) -> float:
    return new if before == 0 or new < before / 2 else 0.8 * before + 0.2 * new
