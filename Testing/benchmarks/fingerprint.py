"""The fingerprint of the 200 cases of Task04: the whole command, beside nnU-Net and beside reading the files."""

from __future__ import annotations

from pathlib import Path

from . import peer as stored
from .data import N_CASES, Bench
from .measure import function, median, nnsegment
from .results import Row, faster, share

STAGE = f"fingerprint of {N_CASES} cases"


def rows(bench: Bench) -> list[Row]:
    bench.make_task()
    command = ("fingerprint", 4, "--clean", "--workspace", bench.workspace, "-j", 2)
    ours = median(bench.runs, lambda: nnsegment(*command))
    theirs = ("extract_fingerprint", "-d", 4, "-np", 2, "--clean", "--no_pbar")
    found = stored.beside(
        STAGE, ours, bench.peer, lambda peer: median(bench.runs, lambda: peer.command(*theirs)), stored.FINGERPRINT,
        faster(5), share(1 / 3),
    )  # fmt: skip
    reference = function("fingerprint:child_reference", bench.raw)
    limit = function("fingerprint:child_read", bench.raw)
    return [
        *found,
        Row(STAGE, "s", ours.seconds, "SimpleITK and scipy, one core", reference.seconds),
        Row(STAGE, "s", ours.seconds, "reading the files, one core", limit.seconds),
    ]


def child_read(folder: str) -> None:
    """Every image and label file once."""
    for path in sorted(Path(folder).glob("*Tr/*.nii.gz")):
        _array(path)


def child_reference(folder: str) -> None:
    """The same statistics the plain way: 500 000 foreground voxels drawn from every case."""
    import numpy as np
    from scipy import ndimage

    rng, drawn = np.random.default_rng(0), []
    for path in sorted(Path(folder).glob("imagesTr/*.nii.gz")):
        image, labels = _array(path), _array(Path(folder) / "labelsTr" / path.name.replace("_0000", ""))
        mask = ndimage.binary_fill_holes(image != 0)
        box = ndimage.find_objects(mask.astype(np.uint8))[0]
        drawn.append(rng.choice(image[box][labels[box] > 0], 500_000))
    values = np.concatenate(drawn)
    np.percentile(values, (0.5, 50, 99.5)), values.mean(), values.std(), values.min(), values.max()


def _array(path: Path):
    import SimpleITK

    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
