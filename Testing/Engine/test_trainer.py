from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import zoom

from NNSegmentLib.engine import devices
from NNSegmentLib.engine.cases import Cases
from NNSegmentLib.engine.checkpoints import LOGGED, load_checkpoint
from NNSegmentLib.engine.devices import choose_device, keep_freed_memory, memory_errors, release_memory
from NNSegmentLib.engine.losses import targets_of
from NNSegmentLib.engine.network import build_network
from NNSegmentLib.engine.online_dice import OnlineDice, mean_dice
from NNSegmentLib.engine.pretrained import load_pretrained
from NNSegmentLib.engine.session import Session, TrainingRequest
from NNSegmentLib.engine.trainer import LossRecord, ProgressPicture, opened_batches, train_fold
from NNSegmentLib.engine.validation import validate_fold
from NNSegmentLib.errors import ModelError, OutOfMemoryError, RunError, SettingsError, StorageError
from NNSegmentLib.folders import FoldFolder, ModelFolders, prepared_folder
from NNSegmentLib.folds import Fold
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_labels, write_labels
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.planning.plan import PLAIN, RESIDUAL, Configuration, NetworkSpec, Plan
from NNSegmentLib.preprocessing.prepared import Placement, PreparedCase
from NNSegmentLib.preprocessing.storage import save_prepared
from NNSegmentLib.provenance.made_of import load_made_of
from NNSegmentLib.run import EpochFinished, Failed, Finished, Message, Progressed, Run, Stopped, TrainingSettings

LABELS = LabelSet((Label("background", (0,)), Label("ball", (1,))))
SHAPE = (18, 20, 22)
IDS = tuple(f"case_{i}" for i in range(4))
QUICK = TrainingSettings(
    epochs=3, iterations_per_epoch=4, validation_iterations=2, optimizer="adamw", learning_rate=0.01, seed=7,
    augmentation="none", device="cpu", threads=1, loader_workers=0, validation_mirroring=False, mirror_axes=(),
)  # fmt: skip
SPEC = NetworkSpec(PLAIN, (4, 8, 8), ((3, 3, 3),) * 3, ((1, 1, 1), (2, 2, 2), (2, 2, 2)), (1, 1, 1), (1, 1))


def configuration(name="3d_fullres", **changes) -> Configuration:
    made = Configuration(
        name, f"Tiny_{name}", 2, (16, 16, 16), SHAPE, (1.0, 1.0, 1.0), ("ZScoreNormalization",), (False,), SPEC, True
    )
    return replace(made, **changes)


def prepared_ball(index: int, shape=SHAPE) -> PreparedCase:
    """A bright ball in noise."""
    random = np.random.default_rng(index)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    centre = np.array(shape).reshape(3, 1, 1, 1) / 2 + random.uniform(-2, 2, (3, 1, 1, 1))
    ball = (((grid - centre) ** 2).sum(0) < 25).astype(np.int8)
    image = (ball * 2.0 + random.normal(size=shape) * 0.3).astype(np.float32)[None]
    placement = Placement(Geometry(shape), (0, 1, 2), shape, (0, 0, 0), shape, (1.0,) * 3, (1.0,) * 3)
    return PreparedCase(IDS[index], image, ball, placement, {(1,): np.argwhere(ball)})


def save_balls(folder: Path) -> Path:
    """Four prepared cases below `folder`, with the references that validation wants."""
    prepared = folder / "Tiny_3d_fullres"
    for index in range(len(IDS)):
        case = prepared_ball(index)
        save_prepared(case, prepared)
        write_labels(folder / "gt_segmentations" / f"{case.id}.nii.gz", case.labels, case.placement.geometry)
    return prepared


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return save_balls(tmp_path_factory.mktemp("preprocessed"))


def tiny_request(
    prepared: Path, folder: Path, /, settings: TrainingSettings = QUICK, run: str = "fold_0", **changes
) -> TrainingRequest:
    made = TrainingRequest(
        folder=FoldFolder(folder / run),
        model_folder=ModelFolders(folder),
        plan=Plan("Dataset900_Balls", "nnUNetPlans", (0, 1, 2), (configuration(),), ()),
        configuration="3d_fullres",
        label_set=LABELS,
        n_channels=1,
        dataset_json={"labels": {"background": 0, "ball": 1}, "file_ending": ".nii.gz"},
        fold=Fold(IDS[:3], IDS[3:]),
        fold_name=0,
        prepared=prepared,
        previous_stage=None,
        settings=settings,
    )
    return replace(made, **changes)


@pytest.fixture
def request_of(prepared, tmp_path):
    return partial(tiny_request, prepared, tmp_path)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="glibc's memory is looked at")
def test_memory_that_a_fold_kept_counts_as_free_for_the_next_one():
    keep_freed_memory()
    blocks = [torch.ones(2**18) for _ in range(400)]  # 400 MB
    blocks.clear()
    kept = psutil.Process().memory_info().rss
    release_memory(torch.device("cpu"))

    assert kept - psutil.Process().memory_info().rss > 200e6


def epochs_of(run) -> list[EpochFinished]:
    return [event for event in run.events() if isinstance(event, EpochFinished)]


def stopping_after(run_folder: FoldFolder, steps: int):
    """A receiver of progress that asks for a stop, as another process would."""

    def progress(done: int, total: int, what: str) -> None:
        if done == steps:
            run_folder.stop.touch()

    return progress


def test_a_training_learns_and_leaves_a_final_model(request_of):
    settings = replace(QUICK, epochs=6, iterations_per_epoch=10, learning_rate=0.02)
    run = train_fold(request_of(settings))
    epochs = epochs_of(run)

    assert [e.epoch for e in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].train_loss < epochs[0].train_loss - 0.3
    assert epochs[-1].mean_dice > 0.8
    assert [e.steps for e in epochs] == [10, 20, 30, 40, 50, 60]
    assert run.finished
    assert run.folder.checkpoint_best.is_file()
    assert not run.folder.checkpoint_latest.exists()
    assert run.settings() == settings


def test_the_checkpoint_holds_what_nnunet_needs_to_go_on(request_of):
    run = train_fold(request_of(replace(QUICK, mirror_axes=None)))
    stored = torch.load(run.folder.checkpoint_final, weights_only=True)

    assert stored["init_args"]["configuration"] == "3d_fullres"
    assert stored["current_epoch"] == 3
    assert stored["inference_allowed_mirroring_axes"] == (0, 1, 2)
    assert {len(stored["logging"][name]) for name in LOGGED} == {3}
    assert stored["logging"]["lrs"] == [pytest.approx(0.01 * (1 - e / 3) ** 0.9) for e in range(3)]
    assert stored["_best_ema"] == max(stored["logging"]["ema_fg_dice"])


def test_a_stop_is_obeyed_within_one_step_and_leaves_a_valid_model(request_of):
    request = request_of()
    run = train_fold(request, stopping_after(request.folder, 6))
    latest = load_checkpoint(run.folder.checkpoint_latest)

    assert isinstance(run.events()[-1], Stopped)
    assert (latest.extra["steps"], latest.extra["iteration"], latest.current_epoch) == (6, 2, 1)
    assert not run.finished
    assert not run.folder.stop.exists()
    assert load_checkpoint(run.folder.checkpoint_best).network_weights


def test_a_stop_before_the_first_epoch_is_over_leaves_a_best_model_too(request_of):
    request = request_of(replace(QUICK, weight_averaging=0.9))
    train_fold(request, stopping_after(request.folder, 1))

    assert request.folder.checkpoint_best.is_file()
    assert request.folder.checkpoint_latest.is_file()


@pytest.mark.parametrize("averaging", [0.0, 0.9])
@pytest.mark.parametrize("steps", [4, 6])
def test_a_stopped_and_resumed_run_continues_the_same_curve(request_of, averaging, steps):
    """Weights and batches are those of the uninterrupted run, to the last digit."""
    settings = replace(QUICK, weight_averaging=averaging, mixed_precision=False)
    whole = train_fold(request_of(settings, "whole"))
    request = request_of(settings, "parts")
    train_fold(request, stopping_after(request.folder, steps))
    resumed = train_fold(replace(request, resume=True))

    for ours, theirs in zip(epochs_of(resumed), epochs_of(whole), strict=True):
        assert (ours.epoch, ours.steps, ours.learning_rate) == (theirs.epoch, theirs.steps, theirs.learning_rate)
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-6)
        assert ours.smoothed_dice == pytest.approx(theirs.smoothed_dice, abs=1e-6)
    assert resumed.finished
    final = [load_checkpoint(run.folder.checkpoint_final).network_weights for run in (resumed, whole)]
    assert all(torch.allclose(final[0][name], final[1][name], atol=1e-6) for name in final[0])


def test_a_damaged_latest_checkpoint_gives_way_to_the_best_one(request_of):
    request = request_of()
    train_fold(request, stopping_after(request.folder, 6))
    request.folder.checkpoint_latest.write_bytes(b"")
    left = request.folder.folder / ".writing-abc-checkpoint_latest.pth"
    left.touch()

    run = train_fold(replace(request, resume=True))

    assert run.finished
    assert not left.exists()
    told = " ".join(event.text for event in run.events() if isinstance(event, Message))
    assert "checkpoint_best.pth is taken instead" in told
    assert "Resumed from checkpoint_best.pth" in told


def test_a_run_that_is_interrupted_while_its_curves_are_drawn_is_stopped_all_the_same(request_of, monkeypatch):
    def interrupted(picture, now=False):
        raise KeyboardInterrupt

    monkeypatch.setattr(ProgressPicture, "refresh", interrupted)
    request = request_of()

    with pytest.raises(KeyboardInterrupt):
        train_fold(request)

    assert isinstance(Run(request.folder, request.configuration, request.fold_name).events()[-1], Stopped)
    assert request.folder.checkpoint_latest.is_file()


def test_what_is_stored_before_the_first_step_has_a_rate_to_go_on_with(request_of, tmp_path):
    request = request_of(replace(QUICK, epochs=10))
    train_fold(request, stopping_after(request.folder, 2 * QUICK.iterations_per_epoch + 1))
    fresh, resumed = Session(request), Session(request)
    resumed.restore(load_checkpoint(request.folder.checkpoint_latest))

    rates = []
    for name, session in (("fresh", fresh), ("resumed", resumed)):
        session.save(tmp_path / f"{name}.pth")
        rates.append(load_checkpoint(tmp_path / f"{name}.pth").optimizer_state["param_groups"][0]["lr"])

    assert rates == pytest.approx([QUICK.learning_rate, QUICK.learning_rate * 0.8**0.9])


def test_a_time_budget_is_kept_and_the_rate_ends_near_zero(request_of):
    run = train_fold(request_of(replace(QUICK, time_s=2.0, epochs=1)))
    epochs = epochs_of(run)
    spent = load_checkpoint(run.folder.checkpoint_final).extra["elapsed_s"]

    assert spent == pytest.approx(2.0, abs=1.2)
    assert epochs[-1].learning_rate < 0.25 * QUICK.learning_rate
    assert epochs[-1].seconds_left == pytest.approx(0, abs=0.1)
    assert run.finished


def test_resuming_counts_only_the_time_spent_training(request_of):
    request = request_of(replace(QUICK, time_s=60.0))
    train_fold(request, lambda done, total, what: request.folder.stop.touch())
    spent = load_checkpoint(request.folder.checkpoint_latest).extra["elapsed_s"]

    session = Session(request)
    session._since -= 60.0  # as if the checkpoint were read for so long
    session.restore(load_checkpoint(request.folder.checkpoint_latest))

    assert session.elapsed_s() == pytest.approx(spent, abs=0.2)


def test_the_averaged_weights_are_stored_to_predict_with(request_of):
    request = request_of(replace(QUICK, weight_averaging=0.9))
    train_fold(request, stopping_after(request.folder, 7))
    stored = load_checkpoint(request.folder.checkpoint_latest)
    session = Session(request)
    session.restore(stored)

    name = "encoder.stages.0.0.convs.0.conv.weight"
    with session.averaged.in_network():
        assert torch.equal(session.network.state_dict()[name], stored.network_weights[name])
    assert not torch.equal(session.network.state_dict()[name], stored.network_weights[name])


def test_resuming_a_finished_run_does_nothing(request_of):
    run = train_fold(request_of())
    before = run.folder.events.read_bytes()

    train_fold(request_of(resume=True))

    assert run.folder.events.read_bytes() == before


def test_starting_anew_keeps_the_earlier_run_aside(request_of):
    first = train_fold(request_of())
    weights = first.folder.checkpoint_final.read_bytes()
    run = train_fold(request_of(replace(QUICK, epochs=1)))

    assert len(epochs_of(run)) == 1
    assert (run.folder.earlier / "checkpoint_final.pth").read_bytes() == weights
    assert not run.folder.validation.exists()


def test_a_run_says_what_it_is_made_of_and_takes_that_along(request_of):
    request = request_of(replace(QUICK, epochs=1, iterations_per_epoch=1))
    run = train_fold(request)
    first = load_made_of(run.folder)

    train_fold(replace(request, fold=Fold(IDS[1:], IDS[:1])))

    assert (first.train, first.validation) == (IDS[:3], IDS[3:])
    assert load_made_of(FoldFolder(run.folder.earlier)) == first
    assert load_made_of(run.folder).train == IDS[1:]


def test_a_finished_earlier_run_is_not_given_up_for_one_that_was_stopped(request_of):
    weights = train_fold(request_of()).folder.checkpoint_final.read_bytes()
    request = request_of()
    train_fold(request, stopping_after(request.folder, 2))
    run = train_fold(request_of(replace(QUICK, epochs=1)))

    assert (run.folder.earlier / "checkpoint_final.pth").read_bytes() == weights


def test_what_a_viewer_keeps_open_of_an_older_run_does_not_stop_a_new_one(request_of, monkeypatch):
    """As on Windows, where a file that is open cannot be deleted."""
    first = train_fold(request_of())
    weights, picture = first.folder.checkpoint_final.read_bytes(), first.folder.earlier / "progress.png"
    picture.parent.mkdir()
    picture.touch()
    unlink = os.unlink

    def refused(path, *others, **options):
        if Path(path).name == picture.name and picture.exists():
            raise PermissionError(13, "The process cannot access the file", str(path))
        return unlink(path, *others, **options)

    monkeypatch.setattr(os, "unlink", refused)
    run = train_fold(request_of(replace(QUICK, epochs=1)))

    kept = run.folder.folder.with_name("earlier_fold_0_2")
    assert (kept / "checkpoint_final.pth").read_bytes() == weights
    assert picture.exists()
    assert any(str(kept) in event.text for event in run.events() if isinstance(event, Message))


def test_an_earlier_run_that_cannot_be_put_aside_is_told_in_a_sentence(request_of, monkeypatch):
    train_fold(request_of())
    replace_file = os.replace

    def refused(source, target):
        if Path(source).name == "checkpoint_final.pth":
            raise PermissionError(13, "The process cannot access the file", str(source))
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(StorageError, match="Cannot write .*fold_0 .The process cannot access the file"):
        train_fold(request_of())


def test_resuming_a_fold_without_a_checkpoint_starts_from_the_pretrained_weights(request_of):
    source = train_fold(request_of(run="source")).folder.checkpoint_final
    standing = replace(QUICK, learning_rate=1e-12, weight_decay=0.0)
    run = train_fold(request_of(standing, "other", resume=True, pretrained=source))

    expected, found = (load_checkpoint(p).network_weights for p in (source, run.folder.checkpoint_final))
    first = "encoder.stages.0.0.convs.0.conv.weight"
    assert torch.allclose(found[first], expected[first], atol=1e-6)
    assert any("Nothing is stored to resume from" in e.text for e in run.events() if isinstance(e, Message))


def test_cases_that_are_trained_on_and_validated_on_are_loaded_once(request_of, monkeypatch):
    """All of them in a fold 'all', whose memory they would take twice."""
    loaded = []
    load = Cases._load
    monkeypatch.setattr(Cases, "_load", lambda cases, case_id: loaded.append(case_id) or load(cases, case_id))

    with opened_batches(Session(request_of(fold=Fold(IDS, IDS)))) as (training, validation):
        for _ in range(12):
            next(training), next(validation)

    assert sorted(loaded) == sorted(IDS)


def test_a_loss_that_is_no_number_ends_the_run_with_advice():
    losses = LossRecord([])
    losses.add(torch.tensor(0.5))

    with pytest.raises(RunError, match="smaller learning rate"):
        losses.add(torch.tensor(math.nan))


def test_a_diverged_run_is_recorded_and_stores_no_broken_weights(request_of, monkeypatch):
    request = request_of(replace(QUICK, checkpoint_minutes=0.0))
    original, calls = Session.step, []

    def step(self, batch):
        calls.append(1)
        return original(self, batch) * (math.nan if len(calls) == 6 else 1)

    monkeypatch.setattr(Session, "step", step)
    with pytest.raises(RunError):
        train_fold(request)

    events = [json.loads(line) for line in request.folder.events.read_text().splitlines()]
    assert events[-1]["event"] == Failed.__name__
    assert load_checkpoint(request.folder.checkpoint_latest).extra["steps"] == 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own making
def test_a_network_that_cannot_be_compiled_is_trained_as_it_is(request_of, monkeypatch):
    def no_compiler(graph, inputs):
        raise RuntimeError("No working C++ compiler found.")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=no_compiler))

    full = replace(QUICK, mixed_precision=False)

    plain = epochs_of(train_fold(request_of(full)))
    run = train_fold(request_of(replace(full, compile=True), run="fold_1"))

    told = [event.text for event in run.events() if isinstance(event, Message)]
    assert len([text for text in told if "No working C++ compiler found" in text and "going on without" in text]) == 1
    assert [e.train_loss for e in epochs_of(run)] == [e.train_loss for e in plain]


def test_lack_of_memory_is_told_in_one_sentence():
    with pytest.raises(OutOfMemoryError, match="smaller batch"), memory_errors("take a smaller batch"):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
    with pytest.raises(OutOfMemoryError, match="Main memory"), memory_errors("take a smaller batch"):
        raise RuntimeError("could not create a primitive")
    for other in ("something else", "could not create a primitive descriptor for a convolution"):
        with pytest.raises(RuntimeError, match=other), memory_errors("take a smaller batch"):
            raise RuntimeError(other)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.97 GB)."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "mps", "cudnn", "cublas"],
)
def test_lack_of_graphics_memory_is_told_whoever_notices_it(error):
    with pytest.raises(OutOfMemoryError, match="graphics memory does not suffice; wait"), memory_errors("wait"):
        raise error


def test_the_device_is_told_in_words_a_clinician_reads(monkeypatch):
    cards = {"cuda": ("Small", 8), "cuda:1": ("Large", 80)}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: cards[str(device)][0])
    memory = {name: SimpleNamespace(total_memory=gigabytes * 2**30) for name, (_, gigabytes) in cards.items()}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory[str(device)])
    monkeypatch.setattr(devices, "cores", lambda: 2)

    assert devices.in_words(torch.device("cpu"), torch.bfloat16) == "the processor (2 cores, bfloat16)"
    assert devices.in_words(torch.device("cpu")) == "the processor (2 cores)"
    assert devices.in_words(torch.device("cuda:1"), torch.float16) == "the graphics card Large (80 GB, float16)"
    assert devices.in_words(torch.device("cuda"), None, 2) == "2 graphics cards Small (8 GB)"
    assert devices.in_words(torch.device("mps")) == "Apple's graphics"


def test_a_training_says_in_one_sentence_on_what_it_runs_and_for_how_long(request_of):
    run = train_fold(request_of(replace(QUICK, epochs=1)))

    told = [event.text for event in run.events() if isinstance(event, Message)]
    where = devices.in_words(torch.device("cpu"), devices.half_precision(torch.device("cpu"), QUICK.mixed_precision))
    assert told[0] == f"Training on {where} for 1 epoch."


def test_apples_graphics_are_used_only_when_torch_computes_3d_networks_there(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    monkeypatch.setattr(devices, "_mps_computes_networks", lambda: True)
    assert choose_device().type == choose_device("mps").type == "mps"
    monkeypatch.setattr(devices, "_mps_computes_networks", lambda: False)
    assert choose_device().type == "cpu"
    with pytest.raises(SettingsError, match="cannot compute 3-D networks on Apple's graphics; install a newer one"):
        choose_device("mps")


def test_an_absent_device_is_refused_with_those_there_are():
    with pytest.raises(SettingsError, match="cpu with"):
        choose_device("cuda:63")
    with pytest.raises(SettingsError, match="auto, cuda"):
        choose_device("abacus")
    assert choose_device("cpu").type == "cpu"


def test_memory_is_kept_without_harm():
    assert keep_freed_memory() in (True, False)
    assert torch.ones(1000, 1000).sum() == 1e6


@pytest.mark.parametrize("regions", [False, True])
def test_the_quick_dice_equals_counting_voxels(regions):
    labels = (Label("whole", (1, 2)), Label("core", (2,))) if regions else (Label("a", (1,)), Label("b", (2,)))
    label_set = LabelSet((Label("background", (0,)), *labels, Label("ignore", (3,))), (1, 2) if regions else ())
    random = np.random.default_rng(0)
    dice, seen = OnlineDice(targets_of(label_set)), []
    for _ in range(2):
        logits = torch.tensor(random.normal(size=(2, label_set.n_outputs, 5, 4, 3)))
        target = torch.tensor(random.integers(0, 4, (2, 1, 5, 4, 3)), dtype=torch.int16)
        dice.add(logits, target)
        seen.append((logits.numpy(), target.numpy()[:, 0]))
    logits, target = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    counted = target != 3
    expected = []
    for c, label in enumerate(labels):
        mine = (logits[:, c] > 0 if regions else logits.argmax(1) == c + 1) & counted
        true = np.isin(target, label.values) & counted
        expected.append(2 * (mine & true).sum() / (mine.sum() + true.sum()))

    assert dice.per_class() == pytest.approx(expected)
    assert mean_dice((None, 0.5, 0.7)) == pytest.approx(0.6)
    assert mean_dice((None,)) is None


def test_a_class_that_is_neither_there_nor_predicted_has_no_quick_dice():
    label_set = LabelSet((Label("background", (0,)), Label("a", (1,)), Label("b", (2,))))
    target = torch.tensor([0, 0, 1, 1]).view(1, 1, 1, 2, 2)
    logits = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 1]), 3).T.view(1, 3, 1, 2, 2).float()
    dice = OnlineDice(targets_of(label_set))

    assert dice.per_class() == ()
    dice.add(logits, target)
    assert dice.per_class() == (pytest.approx(2 * 2 / (3 + 2)), None)


def test_pretrained_weights_are_taken_but_for_the_output_layers(request_of):
    run = train_fold(request_of(replace(QUICK, epochs=1)))
    stored = load_checkpoint(run.folder.checkpoint_final).network_weights
    network = build_network(SPEC, 1, 5)
    heads = {k: v.clone() for k, v in network.state_dict().items() if ".seg_layers." in k}

    load_pretrained(network, run.folder.folder)

    for name, weight in network.state_dict().items():
        assert torch.equal(weight, heads[name] if name in heads else stored[name])


def test_a_run_is_kept_when_the_pretrained_weights_of_the_next_cannot_be_used(request_of, tmp_path):
    run = train_fold(request_of())
    weights, events = run.folder.checkpoint_final.read_bytes(), run.folder.events.read_bytes()

    with pytest.raises(ModelError, match="found none"):
        train_fold(request_of(pretrained=tmp_path / "nowhere.pth"))

    assert run.folder.checkpoint_final.read_bytes() == weights
    assert run.folder.events.read_bytes() == events  # else the good run would be told as failed


def test_a_training_that_is_refused_leaves_nothing(request_of, tmp_path):
    request = request_of(pretrained=tmp_path / "nowhere.pth")

    with pytest.raises(ModelError, match="found none"):
        train_fold(request)

    assert not request.folder.folder.exists()


def test_pretrained_weights_of_another_plan_are_refused(request_of):
    run = train_fold(request_of(replace(QUICK, epochs=1)))

    with pytest.raises(ModelError, match="shape"):
        load_pretrained(build_network(replace(SPEC, features=(6, 8, 8)), 1, 2), run.folder.checkpoint_final)


REGIONS = LabelSet((*LABELS.labels[:1], Label("whole", (1, 2)), Label("core", (2,)), Label("ignore", (3,))), (1, 2))
RESIDUAL_SPEC = replace(SPEC, kind=RESIDUAL)
PLANE_SPEC = replace(SPEC, kernel_sizes=((3, 3),) * 3, strides=((1, 1), (2, 2), (2, 2)))


@pytest.mark.parametrize(
    ("changes", "settings", "label_set"),
    [
        ({"network": RESIDUAL_SPEC}, {"optimizer": "sgd", "loss": "dice_topk"}, LABELS),
        ({"network": PLANE_SPEC, "patch_size": (16, 16), "spacing_mm": (1.0, 1.0)}, {"loss": "ce"}, LABELS),
        ({"batch_dice": False}, {"deep_supervision": False, "schedule": "cosine", "batch_size": 3}, LABELS),
        ({}, {"augmentation": "light", "mirror_axes": None, "mixed_precision": False}, REGIONS),
        ({}, {"validation_iterations": 0}, LABELS),
    ],
    ids=["residual", "planes", "no deep supervision", "regions", "no validation"],
)
def test_every_kind_of_training_runs_and_validates(request_of, changes, settings, label_set):
    plan = Plan("Dataset900_Balls", "nnUNetPlans", (0, 1, 2), (configuration(**changes),), ())
    settings = replace(QUICK, **({"epochs": 1} | settings))
    request = request_of(settings, plan=plan, label_set=label_set)

    run = train_fold(request)

    assert run.finished
    assert math.isfinite(epochs_of(run)[0].train_loss)
    assert len(epochs_of(run)[0].dice_per_class) == (len(label_set.targets) if settings.validation_iterations else 0)
    assert validate_fold(request).cases[0].case_id == "case_3"


def test_validation_predicts_the_full_cases_and_scores_them(request_of):
    request = request_of(replace(QUICK, epochs=6, iterations_per_epoch=10, learning_rate=0.02))
    run = train_fold(request)

    told = []
    scores = validate_fold(request, save_probabilities=True, progress=lambda *step: told.append(step))

    labels = read_labels(run.folder.validation / "case_3.nii.gz")
    assert told[0] == (0, 1, "validating case_3")
    assert told[-2][:2] == (1, 1)
    assert "tiles" in told[-2][2]
    assert labels.array.shape == SHAPE
    assert scores.dice > 0.8
    assert run.folder.summary.is_file()
    probabilities = np.load(run.folder.validation / "case_3.npz")["probabilities"]
    assert np.array_equal(probabilities.argmax(0), labels.array)
    assert np.allclose(probabilities.sum(0), 1, atol=1e-5)
    assert run.events()[-1] == Finished(run.events()[-1].time, scores.dice)
    assert [e.done for e in run.events() if isinstance(e, Progressed)] == [0, 1]


def test_validation_of_cases_that_the_reader_turned_lies_as_the_files_do(request_of, tmp_path):
    prepared = save_balls(tmp_path / "preprocessed")
    reference = tmp_path / "preprocessed" / "gt_segmentations" / "case_3.nii.gz"
    turned = sitk.DICOMOrient(sitk.ReadImage(str(reference)), "PIR")
    sitk.WriteImage(turned, str(reference))
    plan = Plan("Dataset900_Balls", "nnUNetPlans", (0, 1, 2), (configuration(),), (), reader="SimpleITKIOWithReorient")
    request = request_of(
        replace(QUICK, epochs=6, iterations_per_epoch=10, learning_rate=0.02), prepared=prepared, plan=plan
    )
    run = train_fold(request)

    scores = validate_fold(request, save_probabilities=True)

    written = read_labels(run.folder.validation / "case_3.nii.gz")
    assert written.geometry.same_grid(read_labels(reference).geometry)
    assert scores.dice > 0.8
    probabilities = np.load(run.folder.validation / "case_3.npz")["probabilities"]
    as_read = read_labels(run.folder.validation / "case_3.nii.gz", plan.reader)
    assert np.array_equal(probabilities.argmax(0), as_read.array)


def test_validation_keeps_cases_that_are_done(request_of):
    request = request_of(replace(QUICK, epochs=1))
    run = train_fold(request)
    validate_fold(request)
    file = run.folder.validation / "case_3.nii.gz"
    before = file.stat().st_mtime_ns

    validate_fold(request)
    assert file.stat().st_mtime_ns == before
    validate_fold(request, again=True)
    assert file.stat().st_mtime_ns > before


def test_validation_of_an_untrained_fold_is_refused(request_of):
    request = request_of()
    request.folder.validation.mkdir(parents=True)

    with pytest.raises(RunError, match="train this fold first"):
        validate_fold(request, again=True)

    assert request.folder.validation.is_dir()


def test_a_stage_writes_the_next_ones_input_and_the_next_one_trains_on_it(request_of, prepared, tmp_path):
    finer = (27, 30, 33)
    low = configuration("3d_lowres", next_stage="3d_cascade_fullres")
    cascade = configuration("3d_cascade_fullres", previous_stage="3d_lowres")
    plan = Plan("Dataset900_Balls", "nnUNetPlans", (0, 1, 2), (low, cascade), ())
    for index in range(len(IDS)):
        save_prepared(prepared_ball(index, finer), prepared_folder(prepared.parent, cascade.data_identifier))
    settings = replace(QUICK, epochs=4, iterations_per_epoch=10, learning_rate=0.02)
    first = request_of(settings, plan=plan, configuration="3d_lowres", fold=Fold(IDS[:3], IDS))

    train_fold(first)
    validate_fold(first)

    folder = first.model_folder.next_stage("3d_cascade_fullres")
    previous = np.load(folder / "case_3.npy")
    assert previous.shape == finer
    coarse = read_labels(first.folder.validation / "case_3.nii.gz").array
    resized = zoom(coarse, np.array(finer) / np.array(SHAPE), order=0) == 1
    assert 2 * (resized & (previous == 1)).sum() / (resized.sum() + previous.sum()) > 0.85
    second = request_of(
        replace(QUICK, epochs=1), "cascade", plan=plan, configuration="3d_cascade_fullres",
        prepared=prepared_folder(prepared.parent, cascade.data_identifier), previous_stage=folder,
    )  # fmt: skip
    assert second.in_channels == 2
    assert train_fold(second).finished
