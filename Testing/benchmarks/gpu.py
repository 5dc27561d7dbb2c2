"""Training of Task04's 3d_fullres plan on a graphics card: steps, epochs, how busy it is, its memory, Dice by minutes.

There are no rows on machines without one. The Dice needs the real Task04, see `data.find_source`.
"""

from __future__ import annotations

from .data import Bench, find_source
from .machine import watched_card
from .measure import function, nnsegment
from .results import Row, at_least, at_most, share

STAGE = "training on a GPU"
DICE_AFTER_MINUTES = {1: 0.88, 10: 0.89}


def rows(bench: Bench) -> list[Row]:
    if not function("gpu:child_cards").answer["cards"]:
        return []
    bench.make_task()
    nnsegment("preprocess", 4, "-c", "3d_fullres", "--workspace", bench.workspace, "-j", 2)
    step = function("gpu:child_steps", bench.workspace, "cuda", 100 if bench.quick else 1000).answer
    epoch_s = function("gpu:child_epoch", bench.workspace, "cuda", 2 if bench.quick else 5).answer["epoch_s"]
    return [
        Row(f"{STAGE}: a step", "ms", step["step_ms"], "–", None, at_most(8)),
        Row(f"{STAGE}: a step", "ms", step["step_ms"], "bare forward, loss, backward, optimiser", step["bare_ms"],
            share(1.05)),
        Row(f"{STAGE}: a step", "ms", step["step_ms"], "the same batch over and over", step["same_ms"], share(1.02)),
        Row(f"{STAGE}: steps", "1/s", 1e3 / step["step_ms"], "–"),
        Row(f"{STAGE}: share of the time it computes", "1", step["busy"], "–", None, at_least(0.9)),
        Row(f"{STAGE}: peak of its memory", "GiB", step["peak_gib"], "estimated beforehand", step["expected_gib"]),
        Row(f"{STAGE}: an epoch of 250 and 50 steps", "s", epoch_s, "–", None, at_most(2.5)),
        *([] if bench.quick or find_source() is None else _dice_rows(bench)),
    ]  # fmt: skip


def _dice_rows(bench: Bench) -> list[Row]:
    """Full validation of fold 0 after trainings of some length, as `nnsegment train --time` gives them."""
    return [
        Row(f"{STAGE}: mean Dice of fold 0 after {minutes} min", "1",
            function("gpu:child_dice", bench.workspace, "cuda", minutes).answer["dice"], "–", None, at_least(wanted))
        for minutes, wanted in DICE_AFTER_MINUTES.items()
    ]  # fmt: skip


def child_cards() -> dict[str, int]:
    import torch

    return {"cards": torch.cuda.device_count()}


def child_steps(workspace: str, device: str, steps: int) -> dict[str, float]:
    """Means over `steps` of nnU-Net's own recipe after a start that loads the cases and tunes the convolutions."""
    import time

    import torch

    from NNSegmentLib.engine.devices import autocast, prepare_device
    from NNSegmentLib.engine.session import Session
    from NNSegmentLib.engine.trainer import opened_batches

    session = Session(_request(workspace, device))
    prepare_device(session.device)
    on_card = session.device.type == "cuda"

    def step() -> None:
        session.step(next(batches))

    def bare() -> None:
        session.optimizer.zero_grad(set_to_none=True)
        with autocast(session.device, session.dtype):
            outputs = session.network(fixed.image)
        session.loss(outputs, fixed.target).backward()
        session.optimizer.step()

    def mean_ms(work) -> float:
        if on_card:
            torch.cuda.synchronize(session.device)
        started = time.perf_counter()
        for _ in range(steps):
            work()
        if on_card:
            torch.cuda.synchronize(session.device)
        return 1e3 * (time.perf_counter() - started) / steps

    with opened_batches(session) as (batches, _):
        for _ in range(max(1, steps // 2)):
            step()
        with watched_card(session.device.index or 0) as busy:
            step_ms = mean_ms(step)
        fixed = next(batches)
        same_ms = mean_ms(lambda: session.step(fixed))
        bare()
        bare_ms = mean_ms(bare)
    return {
        "step_ms": step_ms,
        "bare_ms": bare_ms,
        "same_ms": same_ms,
        "busy": sum(busy) / len(busy) if busy else float("nan"),
        "peak_gib": torch.cuda.max_memory_allocated(session.device) / 2**30 if on_card else float("nan"),
        "expected_gib": _expected_gib(session.request),
    }


def child_epoch(workspace: str, device: str, epochs: int) -> dict[str, float]:
    """Median time of the epochs after the first one, with their validation, records and checkpoints."""
    import statistics

    from NNSegmentLib.engine.trainer import train_fold
    from NNSegmentLib.run import EpochFinished

    run = train_fold(_request(workspace, device, epochs=epochs))
    seconds = [event.seconds for event in run.events() if isinstance(event, EpochFinished)]
    return {"epoch_s": statistics.median(seconds[1:])}


def child_dice(workspace: str, device: str, minutes: float) -> dict[str, float]:
    from NNSegmentLib import pipeline
    from NNSegmentLib.run import Finished
    from NNSegmentLib.training.budget import default_settings

    plan = pipeline.plan_of(pipeline.folders_of("4", workspace))
    settings = default_settings(plan, time_s=60 * minutes, device=device)
    run = pipeline.train("4", "3d_fullres", 0, workspace, settings=settings)
    return {"dice": [event for event in run.events() if isinstance(event, Finished)][-1].mean_dice}


def _request(workspace: str, device: str, **settings):
    from NNSegmentLib.run import TrainingSettings
    from NNSegmentLib.training.setup import training_request

    return training_request("4", "3d_fullres", 0, workspace, settings=TrainingSettings(device=device, **settings))


def _expected_gib(request) -> float:
    """What is announced before such a training starts, without the cases."""
    from NNSegmentLib.preflight import training_gpu_gb, turning_gb

    wanted, outputs = request.wanted, request.label_set.n_outputs
    network = training_gpu_gb(wanted, request.settings, request.in_channels, outputs, wanted.batch_size)
    return (network + turning_gb(wanted.patch_size, wanted.batch_size)) * 1e9 / 2**30
