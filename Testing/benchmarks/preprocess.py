"""Preprocessing Task04 for 3d_fullres: the whole command, which crops, normalises and stores (nothing is resampled)."""

from __future__ import annotations

import shutil

from . import peer as stored
from .data import N_CASES, TASK, Bench
from .measure import Measured, function, median, nnsegment
from .peer import Peer
from .results import Row, faster

STAGE = f"preprocess {N_CASES} cases for 3d_fullres"


def rows(bench: Bench) -> list[Row]:
    bench.make_task()
    ours = median(bench.runs, lambda: prepare(bench))
    found = stored.beside(
        STAGE, ours, bench.peer, lambda peer: median(bench.runs, lambda: _peers(bench, peer)), stored.PREPROCESS,
        faster(3),
    )  # fmt: skip
    limit = function("fingerprint:child_read", bench.raw)
    return [*found, Row(STAGE, "s", ours.seconds, "reading the files, one core", limit.seconds)]


def prepare(bench: Bench) -> Measured:
    """Our command, from the beginning."""
    for name in ("nnUNetPlans_3d_fullres.prepared", "gt_segmentations"):
        shutil.rmtree(bench.preprocessed / name, ignore_errors=True)
    return nnsegment("preprocess", 4, "-c", "3d_fullres", "--workspace", bench.workspace, "-j", 2)


def _peers(bench: Bench, peer: Peer) -> Measured:
    bench.make_peers_plan(peer)
    shutil.rmtree(peer.preprocessed / TASK / "nnUNetPlans_3d_fullres", ignore_errors=True)
    return peer.command("preprocess", "-d", 4, "-c", "3d_fullres", "-np", 2, "--no_pbar")
