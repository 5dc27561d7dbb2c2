"""Batches as the trainer gets them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from NNSegmentLib import preflight
from NNSegmentLib.engine import batches as batches_module
from NNSegmentLib.engine import loader_processes
from NNSegmentLib.engine.batches import Batch, BatchSource, Loading, choose_loading
from NNSegmentLib.engine.devices import prepare_device
from NNSegmentLib.engine.loader_processes import LoaderProcesses
from NNSegmentLib.engine.recording import Turns
from NNSegmentLib.errors import RunError, TaskError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.planning.plan import Configuration, NetworkSpec
from NNSegmentLib.preprocessing.prepared import Placement, PreparedCase
from NNSegmentLib.preprocessing.storage import PreparedStore, save_prepared, save_previous_stage
from NNSegmentLib.run import TrainingSettings

SETTINGS = TrainingSettings(augmentation="none", loader_workers=0)
LABELS = LabelSet((Label("background", (0,)), Label("a", (1,)), Label("b", (2,))))


@dataclass
class MemoryStore:
    """Cases with a cube of label 1 holding a cube of label 2, image = label + noise."""

    ids: tuple[str, ...] = ("one", "two", "three")
    shape: tuple[int, int, int] = (20, 24, 22)
    channels: int = 1
    broken: tuple[str, ...] = field(default=())

    def open(self, case_id: str) -> PreparedCase:
        if case_id in self.broken:
            raise OSError(f"{case_id} is damaged")
        rng = np.random.default_rng(self.ids.index(case_id))
        labels = np.zeros(self.shape, np.int8)
        labels[4:14, 5:15, 6:16] = 1
        labels[8:11, 8:11, 8:11] = 2
        image = (labels + rng.normal(0, 0.1, (self.channels, *self.shape))).astype(np.float32)
        grid = Geometry(self.shape)
        place = Placement(grid, (0, 1, 2), self.shape, (0, 0, 0), self.shape, grid.spacing_mm, grid.spacing_mm)
        foreground = {(v,): np.argwhere(labels == v) for v in (1, 2)}
        return PreparedCase(case_id, image, labels, place, foreground)


def configuration(patch=(16, 16, 16), name="3d_fullres", mask=(False,)) -> Configuration:
    d = len(patch)
    network = NetworkSpec("PlainConvUNet", (4, 8), ((3,) * d,) * 2, ((1,) * d, (2,) * d), (2, 2), (2,))
    return Configuration(
        name, name, 2, patch, patch, (1.0,) * d, ("ZScoreNormalization",), mask, network, batch_dice=False
    )


def source(
    store=None, conf=None, *, training=True, settings=SETTINGS, batch_size=3, device="cpu", **more
) -> BatchSource:
    store = store or MemoryStore()
    return BatchSource(
        store,
        store.ids,
        conf or configuration(),
        LABELS,
        settings=settings,
        training=training,
        batch_size=batch_size,
        device=torch.device(device),
        **more,
    )


@pytest.fixture
def closing():
    opened = []

    def make(*args, **kwargs) -> BatchSource:
        opened.append(source(*args, **kwargs))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_a_batch_has_image_and_target_of_the_planned_size(closing):
    batch = next(closing())
    assert batch.image.shape == (3, 1, 16, 16, 16)
    assert batch.image.dtype == torch.float32
    assert batch.target.shape == (3, 1, 16, 16, 16)
    assert set(batch.target.unique().tolist()) <= {0, 1, 2}


def test_image_and_target_of_a_patch_lie_on_each_other(closing):
    batch = next(closing())
    assert (batch.image - batch.target).abs().max() < 0.6


def test_a_2d_batch_holds_slices(closing):
    batch = next(closing(conf=configuration((16, 12), "2d")))
    assert batch.image.shape == (3, 1, 16, 12)
    assert batch.target.shape == (3, 1, 16, 12)


def test_patches_larger_than_the_case_are_padded_with_zero_and_background(closing):
    batch = next(closing(MemoryStore(shape=(16, 16, 16)), configuration((32, 32, 32))))
    assert batch.image[:, :, 0].abs().max() == 0
    assert batch.target.min() == 0


def test_the_last_patch_of_every_batch_shows_foreground(closing):
    batches = closing(conf=configuration((4, 4, 4)))
    assert all((next(batches).target[-1] > 0).any() for _ in range(20))


def test_the_same_seed_gives_the_same_batches(closing):
    first, second, other = closing(seed=7), closing(seed=7), closing(seed=8)
    for _ in range(4):
        a, b, c = next(first), next(second), next(other)
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target, b.target)
        assert not torch.equal(a.image, c.image)


def test_a_case_damaged_from_the_start_is_told_at_once():
    with pytest.raises(RunError, match="one is damaged"):
        source(MemoryStore(broken=("one",)))


def test_no_cases_are_refused_at_once():
    with pytest.raises(RunError, match="at least one case"):
        source(MemoryStore(ids=()))


def test_labels_of_the_previous_stage_must_be_there(closing, tmp_path):
    with pytest.raises(TaskError, match="previous stage"):
        next(closing(previous_stage=tmp_path))


def test_labels_of_the_previous_stage_must_lie_on_the_same_grid(closing, tmp_path):
    for case_id in MemoryStore().ids:
        save_previous_stage(np.zeros((3, 3, 3), int), tmp_path, case_id)
    with pytest.raises(RunError, match="should have shape"):
        next(closing(previous_stage=tmp_path))


@pytest.mark.parametrize("training", [True, False])
def test_labels_of_the_previous_stage_are_further_channels_cut_at_the_same_place(closing, tmp_path, training):
    store = MemoryStore()
    for case_id in store.ids:
        save_previous_stage(np.where(store.open(case_id).labels == 2, 2, 0), tmp_path, case_id)
    batch = next(closing(store, previous_stage=tmp_path, training=training))
    assert batch.image.shape == (3, 3, 16, 16, 16)
    assert batch.image[:, 1].abs().max() == 0
    assert torch.equal(batch.image[:, 2], (batch.target[:, 0] == 2).float())


@pytest.mark.parametrize("kind", ["default", "light", "batchgenerators"])
@pytest.mark.parametrize("patch", [(16, 16, 16), (4, 16, 16), (16, 12)])
def test_every_augmentation_gives_finite_batches_of_the_planned_size(closing, kind, patch):
    batches = closing(conf=configuration(patch), settings=replace(SETTINGS, augmentation=kind), seed=0)
    for _ in range(5):
        batch = next(batches)
        assert batch.image.shape == (3, 1, *patch)
        assert batch.target.shape == (3, 1, *patch)
        assert torch.isfinite(batch.image).all()
        assert set(batch.target.unique().tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("kind", ["default", "batchgenerators"])
def test_augmented_images_still_show_their_targets(closing, kind):
    batches = closing(settings=replace(SETTINGS, augmentation=kind), seed=0, batch_size=8)
    batch = next(batches)
    for image, target in zip(batch.image, batch.target, strict=True):
        assert np.corrcoef(image.flatten(), target.flatten() > 0)[0, 1] > 0.6


@pytest.mark.parametrize("kind", ["default", "batchgenerators"])
def test_augmented_batches_repeat_with_their_seed_too(closing, kind):
    settings = replace(SETTINGS, augmentation=kind)
    first, second = closing(settings=settings, seed=7), closing(settings=settings, seed=7)
    for _ in range(6):
        a, b = next(first), next(second)
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target, b.target)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_later_first_batch_goes_on_in_the_same_row(closing, workers):
    settings = replace(SETTINGS, loader_workers=workers)
    whole, later = closing(settings=settings, seed=7), closing(settings=settings, seed=7, first=3)
    row = [next(whole).image for _ in range(6)]
    for batch in row[3:]:
        assert torch.equal(next(later).image, batch)
    assert not torch.equal(row[0], row[3])


def test_validation_is_never_augmented(closing):
    batch = next(closing(training=False, settings=replace(SETTINGS, augmentation="default")))
    assert (batch.image - batch.target).abs().max() < 0.6


def test_prepared_files_give_the_same_batches_from_memory_and_from_disk(closing, tmp_path, monkeypatch):
    for case_id in MemoryStore().ids:
        save_prepared(MemoryStore().open(case_id), tmp_path)
    settings, store = replace(SETTINGS, augmentation="default"), PreparedStore(tmp_path)
    kept = closing(store, settings=settings, seed=1)
    monkeypatch.setattr(batches_module, "stay_in_memory", lambda cases_gb: False)
    read = closing(store, settings=settings, seed=1)
    assert (kept.loading.cases_on, read.loading.cases_on) == (torch.device("cpu"), None)
    for _ in range(5):
        a, b = next(kept), next(read)
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target, b.target)


def test_a_closed_source_keeps_no_case(closing):
    """On a GPU the cases of one training would lie beside those of the next."""
    made = closing()
    next(made)
    image = weakref.ref(made.cases[made.cases.store.ids[0]].image)
    assert image() is not None

    made.close()

    assert image() is None


def test_the_background_thread_leaves_the_networks_threads_alone(closing):
    prepare_device(torch.device("cpu"), threads=2)
    next(closing(settings=replace(SETTINGS, augmentation="default")))
    assert torch.get_num_threads() == 2


def test_a_thread_that_sets_its_own_number_of_threads_first_leaves_the_network_its_number():
    """In a process of its own: a thread that has computed before keeps its number anyway."""
    code = (
        "import threading, torch; from NNSegmentLib.engine.devices import prepare_device;"
        "prepare_device(torch.device('cpu'), threads=2);"
        "thread = threading.Thread(target=torch.set_num_threads, args=(1,)); thread.start(); thread.join();"
        "raise SystemExit(torch.get_num_threads())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 2


def test_a_device_without_streams_is_used_by_the_callers_thread_only(closing, monkeypatch):
    """Apple's graphics, whose place a device without numbers takes here."""
    threads = []
    moved = Batch.moved

    def watched(batch: Batch, device: torch.device) -> Batch:
        threads.append(threading.current_thread())
        return moved(batch, device)

    monkeypatch.setattr(Batch, "moved", watched)
    batches = closing(device="meta")
    assert [next(batches).image.device.type for _ in range(3)] == ["meta"] * 3
    assert set(threads) == {threading.current_thread()}


def test_processes_give_the_batches_of_the_thread_in_the_same_order(closing):
    settings = replace(SETTINGS, augmentation="default")
    there, here = (closing(settings=replace(settings, loader_workers=n), seed=3) for n in (2, 0))
    for _ in range(7):
        a, b = next(there), next(here)
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target, b.target)
    there.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_case_ends_in_one_sentence_and_no_waiting(closing, workers):
    ids = tuple(f"case{i}" for i in range(20))
    # every second case is opened at the start, to measure the memory they need
    batches = closing(MemoryStore(ids, broken=ids[1::2]), settings=replace(SETTINGS, loader_workers=workers))
    with pytest.raises(RunError, match="case.* is damaged"):
        for _ in range(50):
            next(batches)


def test_a_killed_process_is_reported(closing):
    batches = closing(settings=replace(SETTINGS, loader_workers=2))
    next(batches)
    multiprocessing.active_children()[0].kill()
    with pytest.raises(RunError, match="ended unexpectedly"):
        for _ in range(50):
            next(batches)


class Deadly:
    """A recipe that ends its process before the first batch."""

    def make(self, seed: int, number: int) -> None:
        os._exit(1)


SCRIPT = SimpleNamespace(__file__="C:/Users/me/train.py", __spec__=None)
OUR_PROGRAM = SimpleNamespace(__file__="C:/Python/Scripts/nnsegment.exe/__main__.py", __spec__=None)
OUR_MODULE = SimpleNamespace(__file__="NNSegmentLib/__main__.py", __spec__="NNSegmentLib.__main__")
CONSOLE = SimpleNamespace(__spec__=None)


@pytest.mark.parametrize(
    ("way", "main", "hint"),
    [
        ("spawn", SCRIPT, True), ("fork", SCRIPT, False), ("spawn", OUR_PROGRAM, False), ("spawn", OUR_MODULE, False),
        ("spawn", CONSOLE, False),
    ],
)  # fmt: skip
def test_a_script_without_a_main_guard_is_told_what_it_lacks(monkeypatch, way, main, hint):
    """Spawned processes run the script again; what they die of is not known here, so it is one of two guesses."""
    loader = LoaderProcesses(Deadly(), 1, seed=1)
    monkeypatch.setattr(loader_processes.multiprocessing, "get_start_method", lambda: way)
    monkeypatch.setitem(sys.modules, "__main__", main)
    with pytest.raises(RunError, match="for lack of memory.*fewer loader_workers") as told:
        loader(0)
    loader.close()

    assert ('no line `if __name__ == "__main__":`' in str(told.value)) == hint
    assert "__main__" not in loader_processes._why_ended(at_the_start=False)


def test_a_process_that_dies_as_it_starts_is_told_too_and_the_others_are_ended(monkeypatch):
    start, begun = multiprocessing.Process.start, []

    def broken(process) -> None:
        if begun:
            raise BrokenPipeError(32, "Broken pipe")
        begun.append(process)
        start(process)

    monkeypatch.setattr(multiprocessing.Process, "start", broken)
    with pytest.raises(RunError, match="ended unexpectedly"):
        LoaderProcesses(Deadly(), 2, seed=1)

    assert not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="terminals hang up on POSIX")
def test_a_closed_terminal_does_not_end_the_processes_before_the_trainer_stops(closing):
    batches = closing(settings=replace(SETTINGS, loader_workers=1))
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGHUP)
    for _ in range(12):
        next(batches)


CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("workers", "device", "share", "kind", "expected"),
    [
        (-1, "cpu", 0.1, "default", Loading(0, CPU, CPU)),
        (-1, "cpu", 0.9, "default", Loading(0, None, CPU)),
        (3, "cpu", 0.1, "default", Loading(3, None, CPU)),
        (-1, "cuda", 0.1, "default", Loading(0, torch.device("cuda"), torch.device("cuda"))),
        (-1, "cuda", 0.9, "default", Loading(3, None, CPU)),
        (0, "cuda", 0.9, "default", Loading(0, None, torch.device("cuda"))),
        (-1, "cuda", 0.1, "batchgenerators", Loading(3, None, CPU)),
        (2, "cuda", 0.1, "default", Loading(2, None, CPU)),
    ],
)
def test_who_prepares_batches_depends_on_device_and_memory(workers, device, share, kind, expected, monkeypatch):
    with_memory(monkeypatch, gpu_gb=16.0)
    settings = TrainingSettings(loader_workers=workers, augmentation=kind)
    assert choose_loading(settings, torch.device(device), int(share * 16e9)) == expected


def test_cases_lie_on_a_gpu_only_beside_the_network(monkeypatch):
    """nnU-Net plans networks of 8 GB; cards of 10 GB have no quarter to spare beside them."""
    with_memory(monkeypatch, gpu_gb=10.0)
    device, settings = torch.device("cuda"), TrainingSettings()
    small, large = (choose_loading(settings, device, int(2e9), network_gb) for network_gb in (2.0, 8.0))
    assert (small.cases_on, large) == (device, Loading(3, None, CPU))


def with_memory(monkeypatch, gpu_gb: float, cores: int = 4) -> None:
    """A machine with 16 GB for this process, and a GPU."""
    monkeypatch.setattr(preflight, "total_gb", lambda: 16.0)
    monkeypatch.setattr(batches_module, "gpu_memory_gb", lambda device: (gpu_gb, gpu_gb))
    monkeypatch.setattr(batches_module, "cores", lambda: cores)


def test_who_wants_to_be_alone_waits_for_the_others_and_keeps_them_waiting():
    turns, seen = Turns(), []
    both_in, may_leave = threading.Barrier(3), threading.Event()

    def share() -> None:
        with turns.together():
            both_in.wait(10)
            may_leave.wait(10)
            seen.append("together")

    def alone() -> None:
        with turns.alone():
            seen.append("alone")
            late.start()
            late.join(0.2)  # it waits for the end of this
            seen.append("still alone")

    def come_late() -> None:
        with turns.together():
            seen.append("late")

    late = threading.Thread(target=come_late)
    threads = [threading.Thread(target=work) for work in (share, share, alone)]
    for thread in threads[:2]:
        thread.start()
    both_in.wait(10)
    threads[2].start()
    threads[2].join(0.2)
    assert seen == []
    may_leave.set()
    for thread in (*threads, late):
        thread.join(10)

    assert seen == ["together", "together", "alone", "still alone", "late"]
