"""What work will need is said before it starts, and work that cannot fit is not begun."""

from __future__ import annotations

import ctypes
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from NNSegmentLib import pipeline, preflight
from NNSegmentLib.errors import OutOfMemoryError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import write_image
from NNSegmentLib.machine import memory
from NNSegmentLib.machine.memory import Need, affordable_workers, announce, available_gb
from NNSegmentLib.planning.plan import PLAIN, Configuration, NetworkSpec
from NNSegmentLib.preflight import largest_image, training_need, voxels_on_grid
from NNSegmentLib.run import TrainingSettings
from NNSegmentLib.sample import make_sample_task
from NNSegmentLib.task import Case

SPEC = NetworkSpec(PLAIN, (32, 64, 128, 256), ((3, 3, 3),) * 4, ((1, 1, 1), *((2, 2, 2),) * 3), (2, 2, 2, 2), (2, 2, 2))
PLANNED = Configuration(
    "3d_fullres", "Data", 2, (128, 128, 128), (180.0, 200.0, 200.0), (1.0, 1.0, 1.0), ("CTNormalization",), (False,),
    SPEC, True,
)  # fmt: skip


@pytest.fixture
def free(monkeypatch):
    """Sets how much memory is free."""

    def have(gb: float) -> None:
        monkeypatch.setattr(memory, "available_gb", lambda: gb)

    return have


def need(gb: float, **more) -> Need:
    return Need("This training", gb, advice="take a smaller batch", **more)


@pytest.mark.parametrize(
    ("gb", "have", "sentence"),
    [
        (2.94, 21.3, "This training needs about 2.9 GB of main memory; 21 GB are free."),
        (12.2, 9.96, "This training needs about 12 GB of main memory; 10.0 GB are free. "
         "If it does not fit: take a smaller batch."),
    ],
)  # fmt: skip
def test_need_and_supply_are_one_line(free, gb, have, sentence):
    free(have)
    heard = []
    announce(need(gb), heard.append)

    assert heard == [sentence]


def test_what_cannot_fit_is_refused_with_what_to_do(free):
    free(2.0)
    with pytest.raises(OutOfMemoryError) as refused:
        announce(need(12.0))

    sentence = "This training needs about 12 GB of main memory, but only 2.0 GB are free: take a smaller batch."
    assert str(refused.value) == sentence


def test_graphics_memory_counts_and_is_no_reason_to_refuse_what_makes_do_with_less(free):
    free(100.0)
    heard = []
    with pytest.raises(OutOfMemoryError, match=r"3\.0 GB of main memory and 20 GB of graphics memory"):
        announce(need(3.0, gpu_gb=20.0), heard.append, free_gpu_gb=8.0)
    announce(need(3.0, gpu_gb=20.0), heard.append, free_gpu_gb=8.0, refuse=False)

    assert heard == [
        "This training needs about 3.0 GB of main memory and 20 GB of graphics memory; 100 GB and 8.0 GB are free. "
        "If it does not fit: take a smaller batch."
    ]


def test_fewer_workers_are_said(free):
    free(10.0)
    heard = []

    assert affordable_workers(8, 2.0, "Preparing a case", heard.append) == 4
    assert affordable_workers(4, 2.0, "Preparing a case", heard.append) == 4
    assert heard == ["Preparing a case needs about 2.0 GB of memory; 4 at a time instead of 8, 10 GB are free."]


def test_a_containers_limit_counts_and_its_file_cache_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text(
        "anon 500000\ninactive_file 1100000\nactive_file 700000\nslab_reclaimable 100000\nslab 3\n"
    )
    assert available_gb() == pytest.approx(0.0024)
    assert memory.total_gb() == pytest.approx(0.003)

    (tmp_path / "memory.max").write_text("max\n")
    assert available_gb() > 0.01


class Kernel:
    """kernel32 of a Windows with 16 GB, of which 6 are free."""

    def __init__(self, tells: bool) -> None:
        self._tells = tells

    def GlobalMemoryStatusEx(self, place) -> int:
        answer = place._obj
        length = ctypes.cast(answer, ctypes.POINTER(ctypes.c_uint32))
        assert length[0] == ctypes.sizeof(answer) == 64
        length[1] = 62  # per cent in use
        answer[1], answer[2] = 16_000_000_000, 6_000_000_000
        return int(self._tells)


PAGES = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               61035.
Pages active:                            500000.
Pages inactive:                          183105.
Pages speculative:                         1000.
"""


def macos(pages: str):
    return lambda words, **_: SimpleNamespace(stdout=pages if words[0].endswith("vm_stat") else "17179869184\n")


def test_windows_and_macos_tell_their_memory_without_psutil():
    assert memory._told_by_windows(Kernel(tells=True)) == (6.0, 16.0)
    assert memory._told_by_windows(Kernel(tells=False)) is None
    assert memory._told_by_macos(macos(PAGES)) == pytest.approx((4.0, 17.18), abs=0.01)
    assert memory._told_by_macos(macos("")) is None


def test_without_psutil_the_system_is_asked_and_a_guess_is_the_last_resort(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    if sys.platform == "linux":
        assert 0 < available_gb() <= memory.total_gb()
    monkeypatch.setattr(memory, "_told_by_the_system", lambda: (6.0, 12.0))
    assert (available_gb(), memory.total_gb()) == (6.0, 12.0)
    monkeypatch.setattr(memory, "_told_by_the_system", lambda: None)
    assert (available_gb(), memory.total_gb()) == (8.0, 16.0)


def test_training_on_a_gpu_is_estimated_by_nnunets_rule():
    """8 GB for a batch of two whose samples have 560 million feature-map values."""
    values = preflight.feature_map_values(SPEC, PLANNED.patch_size, 3)
    estimate = training_need(
        PLANNED, TrainingSettings(loader_workers=1), n_channels=1, n_outputs=3, n_cases=30, device="cuda"
    )

    assert estimate.gpu_gb == pytest.approx(8 * values / 560e6, rel=0.05)


def test_ranks_share_the_batch_and_resident_cases_count_while_they_fit(monkeypatch):
    monkeypatch.setattr(preflight, "total_gb", lambda: 1e6)
    settings = replace(TrainingSettings(), batch_size=8)
    given = {"n_channels": 1, "n_outputs": 3, "n_cases": 1000, "device": "cuda"}
    one = training_need(PLANNED, settings, **given, gpu_memory_gb=80.0)
    four = training_need(PLANNED, settings, **given, gpu_memory_gb=80.0, ranks=4)
    resident = training_need(PLANNED, settings, **given, gpu_memory_gb=1000.0)

    assert four.gpu_gb == pytest.approx(one.gpu_gb / 4, rel=0.1)
    cases = 1000 * math.prod(PLANNED.median_shape) * 6 / 1e9
    assert resident.gpu_gb - one.gpu_gb == pytest.approx(cases + preflight.turning_gb(PLANNED.patch_size, 8))
    on_cpu = {**given, "device": "cpu"}
    assert training_need(PLANNED, settings, **on_cpu).main_gb > one.gpu_gb


@pytest.mark.parametrize(
    ("patch", "batch", "voxels"),
    [((40, 56, 40), 7, 7 * 89_600), ((40, 56, 40), 366, 2**20), ((128, 128, 128), 2, 128**3), ((512, 512), 12, 2**20)],
)
def test_patches_are_turned_in_the_memory_of_some_at_a_time(patch, batch, voxels):
    """In two threads, 420 bytes a voxel."""
    assert preflight.turning_gb(patch, batch) == pytest.approx(2 * 420 * voxels / 1e9)


def test_the_largest_image_is_found_among_damaged_ones(tmp_path):
    random = np.random.default_rng(0)
    for name, n in (("small", 4), ("large", 12)):
        write_image(tmp_path / f"{name}_0000.nii.gz", random.normal(size=(n, n, n)), Geometry((n,) * 3))
    (tmp_path / "broken_0000.nii.gz").write_bytes(b"no image" * 10_000)
    cases = [Case(path.name, (path,)) for path in tmp_path.iterdir()]

    assert largest_image(cases).shape == (12, 12, 12)
    assert largest_image([case for case in cases if "broken" in case.id]) is None


def test_voxels_are_counted_at_the_networks_spacing_and_at_least_a_patch():
    geometry = Geometry((50, 400, 300), (4.0, 0.5, 0.5))

    assert voxels_on_grid(geometry, PLANNED, (0, 1, 2)) == 200 * 200 * 150
    assert voxels_on_grid(geometry, PLANNED, (2, 0, 1)) == 150 * 200 * 200
    assert voxels_on_grid(Geometry((9, 9, 9)), PLANNED, (0, 1, 2)) == 128**3
    planes = replace(PLANNED, patch_size=(64, 64), spacing_mm=(1.0, 1.0))
    assert voxels_on_grid(geometry, planes, (0, 1, 2)) == 50 * 200 * 150


def test_fingerprint_and_preparation_say_what_they_need(tmp_path):
    source, heard = make_sample_task(tmp_path / "source", n_cases=3, n_test=0), []
    task = pipeline.convert(source, tmp_path / "w", id=3, name="S")
    pipeline.plan(task, tmp_path / "w", preset="small", spacing_mm=(6, 6, 6), say=heard.append)
    pipeline.preprocess(task, tmp_path / "w", configurations=["3d_fullres"], say=heard.append)
    pipeline.preprocess(task, tmp_path / "w", configurations=["3d_fullres"], say=heard.append)

    assert [text.split(" needs about ")[0] for text in heard] == [
        "The fingerprint",
        "Preparing the cases for 3d_fullres",
    ]


def test_a_case_that_cannot_be_prepared_in_the_memory_there_is_stops_the_work_before_it_starts(tmp_path, free):
    source = make_sample_task(tmp_path / "source", n_cases=3, n_test=0)
    task = pipeline.convert(source, tmp_path / "w", id=3, name="S")
    pipeline.plan(task, tmp_path / "w", preset="small", spacing_mm=(6, 6, 6))
    free(1e-4)
    with pytest.raises(OutOfMemoryError, match="Preparing a case for 3d_fullres needs about"):
        pipeline.preprocess(task, tmp_path / "w", configurations=["3d_fullres"])

    assert not list((tmp_path / "w").rglob("*3d_fullres/*.npy"))


def test_a_fingerprint_takes_fewer_cases_at_a_time_rather_than_refusing(tmp_path, free, monkeypatch):
    source, heard = make_sample_task(tmp_path / "source", n_cases=3, n_test=0), []
    task = pipeline.convert(source, tmp_path / "w", id=3, name="S")
    monkeypatch.setattr(pipeline, "fingerprint_gb", lambda cases, channels: 2.0)
    free(3.0)
    pipeline.extract_fingerprint(task, tmp_path / "w", workers=3, say=heard.append)

    assert heard[0] == "Reading a case needs about 2.0 GB of memory; 1 at a time instead of 3, 3.0 GB are free."
