"""Several processes that train together take the steps of one process with the whole batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from test_trainer import IDS, LABELS, QUICK, epochs_of, prepared_ball, save_balls, stopping_after, tiny_request

from NNSegmentLib.engine.augmentation import Augmentation
from NNSegmentLib.engine.cases import Cases
from NNSegmentLib.engine.checkpoints import load_checkpoint
from NNSegmentLib.engine.losses import make_loss
from NNSegmentLib.engine.rank_processes import started_ranks, train_fold_on
from NNSegmentLib.engine.ranks import ALONE, Ranks, joined_ranks
from NNSegmentLib.engine.recipe import BatchRecipe
from NNSegmentLib.engine.sampling import PatchSampling, Share
from NNSegmentLib.engine.session import Session, TrainingRequest
from NNSegmentLib.engine.trainer import opened_batches, train_fold
from NNSegmentLib.errors import NNSegmentError, RunError, SettingsError
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.preprocessing.storage import PreparedStore, save_prepared
from NNSegmentLib.run import Stopped

CPU = torch.device("cpu")
SETTINGS = replace(
    QUICK, epochs=2, iterations_per_epoch=3, batch_size=3, augmentation="default", mixed_precision=False, threads=1,
    weight_averaging=0.9, optimizer="sgd",  # AdamW makes steps of gradients that are only rounding
)  # fmt: skip
IGNORING = LabelSet((Label("background", (0,)), Label("ball", (1,)), Label("ignore", (2,))))
REGIONS = LabelSet((Label("background", (0,)), Label("whole", (1, 2)), Label("core", (2,))), (1, 2))
REGIONS_IGNORING = LabelSet((*REGIONS.labels, Label("ignore", (3,))), (1, 2))
LOSSES = tuple(product((LABELS, IGNORING, REGIONS, REGIONS_IGNORING), ("dice_ce", "dice"), (True, False)))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return save_balls(tmp_path_factory.mktemp("preprocessed"))


def request_for(prepared: Path, folder: Path, settings=SETTINGS, **changes) -> TrainingRequest:
    return tiny_request(prepared, folder, settings, **changes)


def four_steps(request: TrainingRequest, ranks: Ranks) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of the steps, and the weights after them."""
    session = Session(request, ranks)
    with opened_batches(session) as (training, _):
        losses = [session.step(next(training)).item() for _ in range(4)]
    return losses, session.network.state_dict()


def batch_of_losses(kind: int) -> tuple[LabelSet, torch.Tensor, torch.Tensor]:
    """Labels, logits (3, n_outputs, 4, 4, 4) and target of an uneven batch."""
    label_set = LOSSES[kind][0]
    random = np.random.default_rng(kind)
    logits = torch.tensor(random.normal(size=(3, label_set.n_outputs, 4, 4, 4)), dtype=torch.float32)
    highest = max((*label_set.values, label_set.ignore_value or 0))
    weights = random.random((3, highest + 1))  # samples with few and with many ignored voxels
    target = np.stack([random.choice(highest + 1, (1, 4, 4, 4), p=w / w.sum()) for w in weights])
    return label_set, logits, torch.tensor(target)


def loss_and_gradient(kind: int, ranks: Ranks) -> tuple[float, torch.Tensor]:
    label_set, logits, target = batch_of_losses(kind)
    mine = ranks.share.of(3)
    logits, target = logits[mine.start : mine.stop].requires_grad_(), target[mine.start : mine.stop]
    _, name, batch_dice = LOSSES[kind]
    loss = make_loss(label_set, kind=name, batch_dice=batch_dice, ranks=ranks)(logits, target)
    loss.backward()
    return loss.item(), logits.grad / ranks.size


def rates_by_the_clock(request: TrainingRequest, ranks: Ranks) -> list[float]:
    """Learning rates of a training with a time budget, on ranks whose own clocks differ."""
    session = Session(replace(request, settings=replace(SETTINGS, time_s=2.0)), ranks)
    session.start_clock()
    rates = []
    for step in range(3):
        time.sleep(0.02 * (ranks.rank * step))
        session.agreed_s()
        rates.append(session.learning_rate())
    return rates


def work_as_rank(rank: int, size: int, folder: Path, request: TrainingRequest) -> None:
    torch.set_num_threads(1)
    with joined_ranks(rank, size, folder / "meeting", "cpu") as ranks:
        losses, weights = four_steps(request, ranks)
        terms = [loss_and_gradient(kind, ranks) for kind in range(len(LOSSES))]
        rates = rates_by_the_clock(request, ranks)
    torch.save((losses, weights, terms, rates), folder / f"{rank}.pt")


def children() -> list[psutil.Process]:
    return [c for c in psutil.Process().children(recursive=True) if "resource_tracker" not in " ".join(c.cmdline())]


@pytest.fixture(scope="module")
def two_ranks(prepared, tmp_path_factory):
    """What both ranks and a single process found."""
    folder = tmp_path_factory.mktemp("ranks")
    request = request_for(prepared, folder)
    start = torch.multiprocessing.get_context("spawn")
    processes = [start.Process(target=work_as_rank, args=(rank, 2, folder, request)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)], four_steps(request, ALONE)


@pytest.mark.parametrize(
    ("batch", "ranks", "sizes"), [(7, 3, [3, 2, 2]), (2, 2, [1, 1]), (5, 1, [5]), (8, 3, [3, 3, 2])]
)
def test_the_first_ranks_get_one_sample_more(batch, ranks, sizes):
    shares = [Share(rank, ranks).of(batch) for rank in range(ranks)]

    assert [len(share) for share in shares] == sizes
    assert [i for share in shares for i in share] == list(range(batch))


def test_both_ranks_have_the_same_weights_at_the_end(two_ranks):
    (first, second), _ = two_ranks

    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


def test_each_step_has_the_loss_of_one_process_with_the_whole_batch(two_ranks):
    (first, second), (losses, weights) = two_ranks

    assert first[0] == pytest.approx(losses, abs=1e-5)
    assert second[0] == first[0]
    assert len(set(losses)) == len(losses)
    assert all(torch.allclose(first[1][name], weights[name], atol=1e-5) for name in weights)


def test_the_first_ranks_clock_counts_for_all(two_ranks):
    (first, second), _ = two_ranks

    assert first[3] == second[3]
    assert first[3] == sorted(set(first[3]), reverse=True)


@pytest.mark.parametrize("kind", range(len(LOSSES)))
def test_losses_and_gradients_are_those_of_the_whole_batch(two_ranks, kind):
    ranks, _ = two_ranks
    loss, gradient = loss_and_gradient(kind, ALONE)

    assert [rank[2][kind][0] for rank in ranks] == [pytest.approx(loss, abs=1e-6)] * 2
    # DistributedDataParallel adds what the ranks contribute and divides by their number
    assert torch.allclose(torch.cat([rank[2][kind][1] for rank in ranks]), gradient, atol=1e-7)


@pytest.mark.parametrize("previous", [(), (1, 2)])
@pytest.mark.parametrize("kind", ["default", "none"])
def test_shares_make_up_the_batch_of_a_single_process(tmp_path, kind, previous):
    """Also where planes are chosen for noise in several shares."""
    for index in range(2):
        case = prepared_ball(index)
        save_prepared(case, tmp_path)
        (tmp_path / "previous").mkdir(exist_ok=True)
        np.save(tmp_path / "previous" / f"{case.id}.npy", case.labels)
    rules = Augmentation((16, 16, 16), kind, (0, 1, 2), (), previous)
    sampling = PatchSampling((16,) * 3, (20,) * 3, 5, 0.33)
    cases = Cases(PreparedStore(tmp_path), tmp_path / "previous" if previous else None, None)
    recipes = [BatchRecipe(cases, IDS[:2], sampling, rules, False, CPU, Share(rank, 3)) for rank in range(3)]
    for number in range(8):
        whole = BatchRecipe(cases, IDS[:2], sampling, rules, False, CPU).make(1, number)
        parts = [recipe.make(1, number) for recipe in recipes]
        assert torch.allclose(torch.cat([part.image for part in parts]), whole.image, atol=1e-5)
        assert torch.equal(torch.cat([part.target for part in parts]), whole.target)


@pytest.mark.slow
def test_a_training_stopped_and_resumed_in_two_processes_equals_one_that_was_not(prepared, tmp_path):
    one = train_fold(request_for(prepared, tmp_path / "one"))
    request, seen = request_for(prepared, tmp_path / "two"), []
    two = train_fold_on(request, 2, stopping_after(request.folder, 2))
    assert isinstance(two.events()[-1], Stopped)
    assert not two.folder.stop.exists()
    steps = load_checkpoint(two.folder.checkpoint_latest).extra["steps"]
    train_fold_on(replace(request, resume=True), 2, lambda *what: seen.append(what[:2]))

    assert not children()
    assert seen == [(n, 6) for n in range(steps + 1, 7)]
    for ours, theirs in zip(epochs_of(two), epochs_of(one), strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-4)
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, abs=1e-4)
        assert ours.dice_per_class == pytest.approx(theirs.dice_per_class, abs=1e-3)
    final = [load_checkpoint(run.folder.checkpoint_final).network_weights for run in (one, two)]
    assert all(torch.allclose(final[0][name], final[1][name], atol=1e-5) for name in final[0])
    names = [sorted(p.name for p in run.folder.folder.iterdir()) for run in (one, two)]
    assert names[0] == names[1]


def test_a_damaged_case_ends_all_with_its_own_sentence(prepared, tmp_path):
    damaged = tmp_path / "data" / prepared.name
    for index in range(4):
        save_prepared(prepared_ball(index), damaged)
    for path in damaged.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:300])
    request = request_for(damaged, tmp_path)
    with pytest.raises(
        NNSegmentError, match=r"damaged or incomplete; delete that file and run 'nnsegment preprocess' again\.$"
    ):
        train_fold_on(request, 2)

    assert not children()
    run_events = (request.folder.folder / "events.jsonl").read_text().splitlines()
    assert sum('"Failed"' in line for line in run_events) == 1


@pytest.mark.slow
def test_a_training_in_two_processes_that_is_refused_leaves_an_earlier_run_as_it_was(prepared, tmp_path):
    run = train_fold(request_for(prepared, tmp_path))
    events = run.folder.events.read_bytes()

    with pytest.raises(NNSegmentError, match="found none"):
        train_fold_on(request_for(prepared, tmp_path, pretrained=tmp_path / "nowhere.pth"), 2)

    assert run.folder.events.read_bytes() == events


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others(prepared, tmp_path):
    request = request_for(prepared, tmp_path, replace(SETTINGS, epochs=1000))
    with started_ranks(request, 2) as ranks:
        threading.Timer(3.0, lambda: os.kill(ranks.processes[1].pid, signal.SIGKILL)).start()
        with pytest.raises(RunError, match="Process 2 of 2 of the training ended unexpectedly"):
            ranks.follow(lambda *_: None)

    assert not children()


ORPHANS = """
import pickle, sys
from NNSegmentLib.engine.rank_processes import train_fold_on
if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        request = pickle.load(file)
    train_fold_on(request, 2, lambda *_: print("step", flush=True))
"""


@pytest.mark.slow
def test_no_process_outlives_the_one_that_started_it(prepared, tmp_path):
    import pickle

    request = request_for(prepared, tmp_path, replace(SETTINGS, epochs=1000, loader_workers=1))
    (tmp_path / "request").write_bytes(pickle.dumps(request))
    (tmp_path / "main.py").write_text(ORPHANS)
    root = str(Path(__file__).resolve().parents[2])
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "main.py", tmp_path / "request"], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    with parent:
        assert parent.stdout.readline() == b"step\n"
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) >= 4
        parent.kill()
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        process.kill()
    assert not alive


@pytest.mark.parametrize(
    ("changes", "gpus", "sentence"),
    [
        ({"batch_size": 2}, 3, "A batch of 2 cannot be divided among 3 GPUs"),
        ({"device": "cuda:1"}, 2, "CUDA_VISIBLE_DEVICES"),
        ({"device": "cuda"}, 64, "Expected 64 CUDA GPUs, found"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_anything_starts(prepared, tmp_path, changes, gpus, sentence):
    settings = replace(SETTINGS, **({"batch_size": 64} | changes))
    with pytest.raises(SettingsError, match=sentence):
        train_fold_on(request_for(prepared, tmp_path, settings), gpus)

    assert not (tmp_path / "fold_0").exists()
