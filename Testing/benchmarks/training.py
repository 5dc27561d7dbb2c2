"""A training step of Task04's 3d_fullres plan, beside nnU-Net and beside the bare network with its optimiser."""

from __future__ import annotations

from . import peer as stored
from .data import TASK, Bench
from .measure import Measured, function, nnsegment
from .peer import KEEP_FREED_MEMORY, Peer
from .results import Row, faster, share

STAGE = "training step of 3d_fullres"


def rows(bench: Bench) -> list[Row]:
    bench.make_task()
    nnsegment("preprocess", 4, "-c", "3d_fullres", "--workspace", bench.workspace, "-j", 2)
    steps = 4 if bench.quick else 16
    ours = function("training:child_ours", bench.workspace, steps)
    peer, step_s = bench.peer, ours.answer["mean_s"]
    found = stored.beside(
        STAGE, ours, peer, lambda peer: _peers(bench, peer, steps // 2), stored.TRAINING_STEP, faster(1.7)
    )
    keeping = _peers(bench, peer, steps // 2, KEEP_FREED_MEMORY) if peer else stored.TRAINING_STEP_KEEPING
    return [
        *found,
        Row(STAGE, "s", ours.seconds, f"{found[0].against}, keeping freed memory", keeping.seconds),
        Row(STAGE, "s", step_s, "bare forward, loss, backward and optimiser", ours.answer["bare_s"], share(1.05)),
        Row("waiting for a batch", "s", ours.answer["wait_s"], "the whole step", step_s, share(0.02)),
    ]


def _peers(bench: Bench, peer: Peer, steps: int, extra: dict[str, str] | None = None) -> Measured:
    bench.make_peers_plan(peer)
    folder = peer.preprocessed / TASK
    if not (folder / "nnUNetPlans_3d_fullres").is_dir():
        peer.command("preprocess", "-d", 4, "-c", "3d_fullres", "-np", 2)
    return peer.step("training", folder / "nnUNetPlans.json", folder / "dataset.json", steps, extra=extra)


def child_ours(workspace: str, steps: int) -> dict[str, float]:
    """Median of the steps with their batches; means of the steps, of the waits, and of bare steps before and after."""
    import statistics
    import time

    from NNSegmentLib.engine.devices import autocast, prepare_device
    from NNSegmentLib.engine.session import Session
    from NNSegmentLib.engine.trainer import opened_batches
    from NNSegmentLib.run import TrainingSettings
    from NNSegmentLib.training.setup import training_request

    session = Session(training_request("4", "3d_fullres", 0, workspace, settings=TrainingSettings(device="cpu")))
    prepare_device(session.device)

    def bare(batch) -> float:
        started = time.perf_counter()
        session.optimizer.zero_grad(set_to_none=True)
        with autocast(session.device, session.dtype):
            outputs = session.network(batch.image)
        session.loss(outputs, batch.target).backward()
        session.optimizer.step()
        return time.perf_counter() - started

    def step(batches) -> tuple[float, float]:
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        session.step(batch).item()
        return time.perf_counter() - started, waited

    with opened_batches(session) as (batches, _):
        fixed = next(batches)
        session.step(next(batches))
    before = [bare(fixed) for _ in range(steps // 2)]
    with opened_batches(session) as (batches, _):
        next(batches)  # the first one nothing could be prepared for ahead
        taken = [step(batches) for _ in range(steps)]
    after = [bare(fixed) for _ in range(steps // 2)]
    whole = [seconds for seconds, _ in taken]
    return {
        "seconds": statistics.median(whole),
        "mean_s": statistics.fmean(whole),
        "wait_s": statistics.fmean(waited for _, waited in taken),
        "bare_s": statistics.fmean(before + after),
    }
