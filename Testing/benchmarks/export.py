"""From logits on 128³ voxels to labels on 200×256×256, for few and for many classes."""

from __future__ import annotations

import time

from . import peer as stored
from .data import Bench
from .measure import function
from .results import Row, at_most, faster

FASTER = {3: 3, 25: 8, 105: 10}
MOST_GIB = 2e9 / 2**30
SOURCE, TARGET = (128, 128, 128), (200, 256, 256)
SPACING_MM, TARGET_SPACING_MM = (1.0, 1.0, 1.0), (0.64, 0.5, 0.5)


def rows(bench: Bench) -> list[Row]:
    bench.make_task()
    return [row for classes in FASTER if classes < 100 or not bench.quick for row in _rows(bench, classes)]


def _rows(bench: Bench, classes: int) -> list[Row]:
    stage = f"logits 128³ to labels 200×256×256, {classes} classes"
    ours = function("export:child_ours", classes, bench.runs)
    found = stored.beside(
        stage, ours, bench.peer, lambda peer: peer.step("export", bench.plans, classes, SOURCE, TARGET,
        TARGET_SPACING_MM, 1 if classes > 100 else bench.runs), stored.EXPORT[classes], faster(FASTER[classes]),
        at_most(MOST_GIB),
    )  # fmt: skip
    if bench.peer:
        return found
    reference = function("export:child_reference", classes)
    return [*found, Row(stage, "s", ours.seconds, "skimage class by class, argmax", reference.seconds)]


def child_ours(classes: int, runs: int) -> dict[str, float]:
    from statistics import median

    from NNSegmentLib.geometry import Geometry
    from NNSegmentLib.labels import BACKGROUND, Label, LabelSet
    from NNSegmentLib.planning.plan import PLAIN, Configuration, NetworkSpec
    from NNSegmentLib.preprocessing.prepared import Placement
    from NNSegmentLib.preprocessing.restore import labels_from_logits

    label_set = LabelSet((Label(BACKGROUND, (0,)), *(Label(f"part {n}", (n,)) for n in range(1, classes))))
    eye = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    geometry = Geometry(TARGET, TARGET_SPACING_MM, (0.0, 0.0, 0.0), eye)
    placement = Placement(geometry, (0, 1, 2), TARGET, (0, 0, 0), TARGET, TARGET_SPACING_MM, SPACING_MM)
    network = NetworkSpec(PLAIN, (32,), ((3, 3, 3),), ((1, 1, 1),), (2,), ())
    grid = Configuration(
        "3d_fullres", "", 2, SOURCE, SOURCE, SPACING_MM, ("ZScoreNormalization",), (False,), network, False
    )
    times = []
    for _ in range(runs):
        logits = random_logits(classes)
        started = time.perf_counter()
        labels_from_logits(logits, placement, grid, label_set)
        times.append(time.perf_counter() - started)
        del logits
    return {"seconds": median(times)}


def child_reference(classes: int) -> dict[str, float]:
    import numpy as np
    from skimage.transform import resize

    logits = random_logits(classes)
    started = time.perf_counter()
    outputs = np.empty((classes, *TARGET), np.float32)
    for output, logit in zip(outputs, logits, strict=True):
        output[...] = resize(logit.astype(np.float32), TARGET, order=1, mode="edge", anti_aliasing=False)
    outputs.argmax(0).astype(np.uint8)
    return {"seconds": time.perf_counter() - started}


def random_logits(classes: int):
    """(classes, Z, Y, X) float16 with smooth regions, made without a float32 copy of the whole."""
    import numpy as np

    rng, logits = np.random.default_rng(0), np.empty((classes, *SOURCE), np.float16)
    for logit in logits:
        logit[...] = rng.standard_normal((16, 16, 16), np.float32).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    return logits
