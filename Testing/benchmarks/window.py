"""Sliding-window prediction of 192³ voxels without mirroring, with the small network of Task04 and with a large one."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from . import peer as stored
from .data import Bench
from .measure import Measured, function, seconds_of
from .results import Row, faster, share

SHAPES = {"small": (192, 192, 192), "large": (192, 192, 192)}
QUICK_SHAPES = {"small": (80, 112, 80), "large": (128, 128, 192)}
_LARGE_PATCH, _LARGE_FEATURES = (128, 128, 128), (32, 64, 128, 256, 320, 320)


def rows(bench: Bench) -> list[Row]:
    bench.make_task()
    folder = bench.folder / "window"
    if not folder.exists():
        function("window:child_plans", bench.plans, folder)
        shutil.copyfile(bench.raw / "dataset.json", folder / "dataset.json")
    return [row for name in SHAPES for row in _rows(bench, folder, name)]


def _rows(bench: Bench, folder: Path, name: str) -> list[Row]:
    shape = (QUICK_SHAPES if bench.quick else SHAPES)[name]
    plans = folder / f"{name}.json"
    ours = function("window:child_ours", plans, shape)
    bare = function("window:child_bare", plans, ours.answer["tiles"])
    stage = f"sliding window {'×'.join(map(str, shape))}, {name} network, {ours.answer['tiles']:.0f} tiles"
    seconds = stored.WINDOW_TILE_S[name] * ours.answer["tiles"]
    return [
        *stored.beside(
            stage, ours, bench.peer, lambda peer: peer.step("window", plans, folder / "dataset.json", shape),
            Measured(seconds, stored.WINDOW_PEAK_GIB[name]), faster(1.5),
        ),
        Row(stage, "s", ours.seconds, "its network's own time", ours.answer["network_s"], share(1.03)),
        Row(stage, "s", ours.seconds, "the bare network in float32, as many tiles", bare.seconds),
    ]  # fmt: skip


def child_plans(source: str, folder: str) -> None:
    """The plan of Task04 as small.json; with a large patch and network as large.json."""
    from dataclasses import replace

    from NNSegmentLib.planning.plan import load_plan, save_plan

    plan = load_plan(Path(source))
    small = plan.configuration("3d_fullres")
    deep = len(_LARGE_FEATURES)
    network = replace(
        small.network, features=_LARGE_FEATURES, kernel_sizes=((3, 3, 3),) * deep,
        strides=((1, 1, 1), *((2, 2, 2),) * (deep - 1)), blocks=(2,) * deep, decoder_convs=(2,) * (deep - 1),
    )  # fmt: skip
    large = replace(small, patch_size=_LARGE_PATCH, network=network)
    for name, configuration in (("small", small), ("large", large)):
        save_plan(replace(plan, configurations=(configuration,), reasons={}), Path(folder) / f"{name}.json")


def child_ours(plans: str, shape: list) -> dict[str, float]:
    import torch

    from NNSegmentLib.engine.sliding_window import predict_logits, tile_positions

    network, patch = _network(plans)
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    spent = time_forward(network)
    seconds = seconds_of(lambda: predict_logits(network, image, patch))
    return {"seconds": seconds, "network_s": sum(spent), "tiles": len(tile_positions(shape, patch, 0.5))}


def child_bare(plans: str, tiles: float) -> dict[str, float]:
    """As many tiles as the window has, in batches as large."""
    import torch

    from NNSegmentLib.preflight import tiles_together

    network, patch = _network(plans)
    at_once = tiles_together(patch, "cpu")
    batch = torch.randn((at_once, 1, *patch), generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def all_tiles() -> None:
        for _ in range(math.ceil(tiles / at_once)):
            network(batch)

    return {"seconds": seconds_of(all_tiles)}


def time_forward(network) -> list[float]:
    """A list that grows by the time of every forward pass from now on."""
    import time

    spent, began = [], []
    network.register_forward_pre_hook(lambda *_: began.append(time.perf_counter()))
    network.register_forward_hook(lambda *_: spent.append(time.perf_counter() - began.pop()))
    return spent


def _network(plans: str):
    """The network with the settings of memory that prediction uses, and its patch size."""
    from NNSegmentLib.engine.devices import keep_freed_memory
    from NNSegmentLib.engine.network import build_network
    from NNSegmentLib.planning.plan import load_plan

    keep_freed_memory()
    configuration = load_plan(Path(plans)).configurations[0]
    return build_network(configuration.network, 1, 3).eval(), configuration.patch_size
