"""Short numbers, compiled networks and graphics cards give what full precision on the processor gives.

Tolerances: losses of the first steps within 0.02 in short numbers, 0.005 in a graphics card's shortened full precision
(TF32) and 0.001 otherwise; logits by the same shares of their range, the label in 99.9 % of voxels. Tests of the
graphics card run where there is one.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_trainer import QUICK, SPEC, configuration, epochs_of, save_balls, tiny_request

from NNSegmentLib.engine import session as sessions
from NNSegmentLib.engine.augmentation import training_augmentation
from NNSegmentLib.engine.cases import LoadedCase
from NNSegmentLib.engine.checkpoints import load_checkpoint
from NNSegmentLib.engine.intensity import add_noise
from NNSegmentLib.engine.network import build_network
from NNSegmentLib.engine.recipe import Batch
from NNSegmentLib.engine.sampling import PatchSampling
from NNSegmentLib.engine.session import Session
from NNSegmentLib.engine.sliding_window import predict_logits
from NNSegmentLib.engine.spatial import SpatialRules, draw_matrix, warped_patches
from NNSegmentLib.engine.trainer import opened_batches, train_fold

STEPS = 8
SETTINGS = replace(QUICK, augmentation="default", mixed_precision=False, optimizer="sgd", batch_size=3)
SHORT, TF32, FULL = 0.02, 5e-3, 1e-3
GPU = torch.device("cuda")
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return save_balls(tmp_path_factory.mktemp("preprocessed"))


@pytest.fixture(scope="module")
def batches(prepared) -> list[Batch]:
    session = Session(tiny_request(prepared, prepared.parent, SETTINGS))
    with opened_batches(session) as (training, _):
        return [next(training) for _ in range(STEPS)]


@pytest.fixture(scope="module")
def expected(prepared, batches) -> list[float]:
    return losses_of(prepared, batches, SETTINGS)


def losses_of(prepared, batches: list[Batch], settings) -> list[float]:
    """Of the first steps, from the same weights and with the same batches."""
    session = Session(
        tiny_request(prepared, prepared.parent, settings), say=pytest.fail
    )  # it says that compiling failed
    weights = Session(tiny_request(prepared, prepared.parent, SETTINGS)).network.state_dict()
    session.network.load_state_dict(weights)
    return [session.step(Batch(b.image.to(session.device), b.target.to(session.device))).item() for b in batches]


def test_the_steps_learn_something(expected):
    """Else equal losses would say nothing."""
    assert expected[-1] < expected[0] - 5 * SHORT


def test_short_numbers_on_the_processor_follow_full_precision(prepared, batches, expected, monkeypatch):
    monkeypatch.setattr(sessions, "half_precision", lambda device, wanted: torch.bfloat16 if wanted else None)

    short = losses_of(prepared, batches, replace(SETTINGS, mixed_precision=True))

    assert short == pytest.approx(expected, abs=SHORT)
    assert short != pytest.approx(expected, abs=1e-6)  # they were short indeed


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for processors with g++, which is not here")
@pytest.mark.filterwarnings("ignore")  # of the compiler's own making
def test_a_compiled_network_takes_the_same_steps(prepared, batches, expected):
    compiled = losses_of(prepared, batches, replace(SETTINGS, compile=True))

    assert compiled == pytest.approx(expected, abs=FULL)


@pytest.mark.parametrize("amx", [True, False])
def test_a_compiled_network_is_not_short_where_its_gradients_would_be_wrong(prepared, monkeypatch, amx):
    monkeypatch.setattr(sessions, "has_amx", lambda: amx)
    monkeypatch.setattr(sessions, "half_precision", lambda device, wanted: torch.bfloat16 if wanted else None)
    settings = replace(SETTINGS, mixed_precision=True)

    def precision(**change):
        return Session(tiny_request(prepared, prepared.parent, replace(settings, **change))).dtype

    assert precision(compile=True) is (None if amx else torch.bfloat16)
    assert precision(compile=False) is torch.bfloat16


@pytest.mark.parametrize(("mixed", "tolerance"), [(False, TF32), (True, SHORT)])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
class TestStepsOnTheGraphicsCard:
    pytestmark = [*on_gpu, pytest.mark.filterwarnings("ignore")]  # the compiler advises against full precision

    def test_follow_those_on_the_processor(self, prepared, batches, expected, mixed, tolerance, compiled):
        settings = replace(SETTINGS, device="cuda", mixed_precision=mixed, compile=compiled)

        assert losses_of(prepared, batches, settings) == pytest.approx(expected, abs=tolerance)


class TestOnTheGraphicsCard:
    pytestmark = on_gpu

    def test_a_data_set_that_fits_lies_there(self, prepared):
        request = tiny_request(prepared, prepared.parent, replace(SETTINGS, device="cuda", loader_workers=-1))
        with opened_batches(Session(request)) as (training, _):
            assert training.loading.cases_on.type == training.loading.augment_on.type == "cuda"
            assert next(training).image.device.type == "cuda"

    @pytest.mark.parametrize("kind", ["default", "light"])
    def test_augmentation_makes_the_same_changes(self, kind):
        """But for noise, which comes from the device's own generator."""
        augmentation = training_augmentation(configuration(), replace(SETTINGS, augmentation=kind))
        drawn = augmentation.draw(np.random.default_rng(3), 12, 2)
        drawn = replace(drawn, intensities=tuple(d for d in drawn.intensities if d.transform is not add_noise))
        torch.manual_seed(0)
        image, labels = torch.randn(12, 2, 16, 16, 16), torch.randint(-1, 3, (12, 1, 16, 16, 16), dtype=torch.int16)

        here = augmentation.apply(image.clone(), labels.clone(), drawn)
        there = augmentation.apply(image.to(GPU), labels.to(GPU), drawn)

        assert torch.allclose(there[0].cpu(), here[0], atol=1e-4)
        assert torch.equal(there[1].cpu(), here[1])

    @pytest.mark.parametrize(("mixed", "tolerance"), [(False, TF32), (True, SHORT)])
    def test_prediction_gives_the_same_labels(self, mixed, tolerance):
        torch.manual_seed(1)
        network, image = build_network(SPEC, 1, 2).eval(), torch.randn(1, 40, 36, 44)
        given = {"patch_size": (16, 16, 16), "mirror_axes": (0, 1, 2)}

        here = predict_logits(network, image, **given).float()
        there = predict_logits(network.to(GPU), image, **given, device=GPU, mixed_precision=mixed).float()

        assert (there - here).abs().max() < tolerance * (here.max() - here.min())
        assert (there.argmax(0) == here.argmax(0)).float().mean() >= 0.999

    @pytest.mark.parametrize("in_plane", [False, True])
    def test_patches_are_turned_in_the_same_way(self, in_plane):
        rng, patch, extraction = np.random.default_rng(5), (12, 16, 14), (12 if in_plane else 18, 24, 21)
        matrices = [draw_matrix(rng, SpatialRules(30.0, in_plane, 1, 1)) for _ in range(3)]
        image, labels = torch.randn(2, 30, 32, 34), torch.randint(-1, 4, (30, 32, 34), dtype=torch.int16)
        corners, sampling = [(1, 2, 3), (-4, -3, -5), (20, 18, 16)], PatchSampling(patch, extraction, 3, 0.0)

        here, there = (
            warped_patches(
                [LoadedCase("a", image.to(d), (labels.to(d),), {})] * 3, sampling, corners, matrices, in_plane
            )
            for d in ("cpu", "cuda")
        )

        assert torch.allclose(there[0].cpu(), here[0], atol=1e-3)
        assert (there[1].cpu() == here[1]).float().mean() > 0.999  # equal shares within rounding

    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_steps_are_recorded_and_resumed(self, prepared, batches, tmp_path, optimizer):
        """Recorded steps before and after a resumption follow steps that are not recorded."""
        settings = replace(SETTINGS, device="cuda", mixed_precision=True, optimizer=optimizer, weight_averaging=0.9)
        moved = [b.moved(GPU) for b in (*batches, *batches)]
        plain = Session(tiny_request(prepared, tmp_path, settings))
        plain.close()  # nothing is recorded
        expected = [plain.step(batch).item() for batch in moved]

        session = Session(tiny_request(prepared, tmp_path, settings), say=pytest.fail)
        found = [session.step(batch).item() for batch in moved[:STEPS]]
        assert session._recorded._graph is not None
        session.save(tmp_path / "latest.pth")
        resumed = Session(tiny_request(prepared, tmp_path, settings), say=pytest.fail)
        resumed.restore(load_checkpoint(tmp_path / "latest.pth"))
        found += [resumed.step(batch).item() for batch in moved[STEPS:]]

        assert found == pytest.approx(expected, abs=SHORT)

    def test_steps_that_cannot_be_recorded_go_on(self, prepared, batches, tmp_path):
        said = []
        session = Session(
            tiny_request(prepared, tmp_path, replace(SETTINGS, device="cuda", mixed_precision=True)), say=said.append
        )
        loss_of = session.loss

        def asking(outputs, target):
            loss = loss_of(outputs, target)
            assert loss.item() == loss.item()  # a question to the card
            return loss

        session.loss = asking
        losses = [session.step(batch.moved(GPU)).item() for batch in batches]

        assert len(said) == 1
        assert "could not be recorded" in said[0]
        assert losses[-1] < losses[0]

    def test_a_fold_is_trained(self, prepared, tmp_path):
        run = train_fold(tiny_request(prepared, tmp_path, replace(QUICK, device="cuda", augmentation="default")))

        losses = [event.train_loss for event in epochs_of(run)]
        assert len(losses) == QUICK.epochs
        assert losses[-1] < losses[0]
        assert run.folder.checkpoint_final.is_file()
