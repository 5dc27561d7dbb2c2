"""Predicting cases of Task04's size from the command line, without mirroring."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import peer as stored
from .data import Bench
from .measure import Measured, function, median, nnsegment, seconds_of
from .peer import Peer
from .results import Row, at_most, faster

N_CASES, QUICK_CASES = 60, 12
MOST_REST_S = 2.0
"""All but this is the network's own time."""


def rows(bench: Bench) -> list[Row]:
    bench.make_task()
    count = QUICK_CASES if bench.quick else N_CASES
    model, images = _model(bench), _images(bench, count)
    words = _words(bench, model, images)
    ours = median(bench.runs, lambda: nnsegment(*words))
    stage = f"predict {count} cases"
    timed = function("predict:child_timed", list(map(str, words)))
    rest = timed.seconds - timed.answer["network_s"]
    everything_else = f"{stage}: all but the network"
    return [
        *stored.beside(
            stage, ours, bench.peer, lambda peer: _peers(bench, peer, model, images),
            None if bench.quick else stored.PREDICT, faster(2),
        ),
        Row(everything_else, "s", rest, "the network's own time", timed.answer["network_s"], at_most(MOST_REST_S)),
        Row(everything_else, "s", rest, "importing torch in the same run", timed.answer["torch_s"]),
        *_in_half_precision(bench, stage, words, ours),
    ]  # fmt: skip


def _in_half_precision(bench: Bench, stage: str, words: tuple[object, ...], full: Measured) -> list[Row]:
    """Where the processor is faster so."""
    if not function("predict:child_has_amx").answer["has_amx"]:
        return []
    half = median(bench.runs, lambda: nnsegment(*words, "--half"))
    return [Row(f"{stage} in half precision", "s", half.seconds, "in full precision", full.seconds)]


def _words(bench: Bench, model: Path, images: Path) -> tuple[object, ...]:
    output = bench.folder / "predicted"
    return ("predict", "-i", images, "-o", output, "-m", model, "-f", 0, "--no-mirroring", "--device", "cpu")


def _peers(bench: Bench, peer: Peer, model: Path, images: Path) -> Measured:
    """With one process each for reading and writing, which is its fastest way on two cores."""
    output = bench.folder / "peer" / "predicted"
    words = ("-i", images, "-o", output, "-m", model, "-f", 0, "--disable_tta", "-npp", 1, "-nps", 1, "-device", "cpu")
    return median(bench.runs, lambda: peer.command("predict_from_modelfolder", *words))


def _images(bench: Bench, count: int) -> Path:
    folder = bench.folder / f"images_{count}"
    folder.mkdir(exist_ok=True)
    for path in sorted((bench.raw / "imagesTr").iterdir())[:count]:
        shutil.copyfile(path, folder / path.name)
    return folder


def _model(bench: Bench) -> Path:
    folder = bench.folder / "model" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    if not folder.exists():
        function("predict:child_model", bench.plans, bench.raw / "dataset.json", folder)
    return folder


def child_model(plans: str, dataset_json: str, folder: str) -> None:
    """A model folder with the plan's network and fresh weights, readable by nnU-Net too."""
    import json

    from NNSegmentLib.engine.checkpoints import Checkpoint, save_checkpoint
    from NNSegmentLib.engine.network import build_network
    from NNSegmentLib.planning.plan import load_plan

    (Path(folder) / "fold_0").mkdir(parents=True)
    for source, name in ((plans, "plans.json"), (dataset_json, "dataset.json")):
        shutil.copyfile(source, Path(folder) / name)
    network = build_network(load_plan(Path(plans)).configuration("3d_fullres").network, 1, 3)
    values, card = (json.loads(Path(path).read_text(encoding="utf-8")) for path in (plans, dataset_json))
    checkpoint = Checkpoint(network.state_dict(), "3d_fullres", 0, values, card, mirroring_axes=(0, 1, 2))
    save_checkpoint(checkpoint, Path(folder) / "fold_0" / "checkpoint_final.pth")


def child_timed(words: list[str]) -> dict[str, float]:
    """The command in this process; the network's own time, and that of importing torch."""
    import importlib
    import time

    from NNSegmentLib.cli import main

    torch_s = seconds_of(lambda: importlib.import_module("NNSegmentLib.engine"))
    from NNSegmentLib.engine.network import UNet

    spent, forward = [], UNet.forward

    def timed(network, image):
        started = time.perf_counter()
        outputs = forward(network, image)
        spent.append(time.perf_counter() - started)
        return outputs

    UNet.forward = timed
    if main(words) != 0:
        raise SystemExit(1)
    return {"network_s": sum(spent), "torch_s": torch_s}


def child_has_amx() -> dict[str, bool]:
    """Whether half precision is of use here."""
    from NNSegmentLib.engine.devices import has_amx

    return {"has_amx": has_amx()}
