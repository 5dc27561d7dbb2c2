"""What the command line asks of a training, and what a resumed one lets itself be asked."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from NNSegmentLib.errors import SettingsError
from NNSegmentLib.planning.plan import Plan
from NNSegmentLib.run import TrainingSettings, load_settings, save_settings
from NNSegmentLib.training.budget import (
    QUICK_EPOCHS,
    apply_recipe,
    quick_settings,
    require_nothing_new,
    settings_from_arguments,
)

PLAN = Plan("Dataset900_Balls", "nnUNetPlans", (0, 1, 2), (), ())


def asked(**words):
    names = ("settings", "recipe", "time", "epochs", "device", "seed")
    return SimpleNamespace(**(dict.fromkeys(names) | {"resume": False} | words))


@pytest.fixture
def file(tmp_path):
    save_settings(TrainingSettings(epochs=7, batch_size=3), tmp_path / "settings.json")
    return tmp_path / "settings.json"


def test_a_short_time_gets_the_quick_recipe_and_a_long_one_that_of_nnunet():
    assert settings_from_arguments(asked(time=900.0), PLAN, None) == quick_settings(time_s=900.0, epochs=50)
    assert settings_from_arguments(asked(time=86400.0), PLAN, None).optimizer == "sgd"


def test_a_graphics_card_learns_mirrored_images_too(monkeypatch):
    monkeypatch.setattr("NNSegmentLib.training.budget._is_cuda", lambda device: device == "cuda")

    card = settings_from_arguments(asked(time=60.0, device="cuda"), PLAN, None)
    processor = settings_from_arguments(asked(time=60.0, device="cpu"), PLAN, None)

    assert (card.device, card.mirror_axes, card.validation_mirroring) == ("cuda", None, True)
    assert (processor.device, processor.mirror_axes, processor.validation_mirroring) == ("cpu", (), False)
    assert settings_from_arguments(asked(time=86400.0, device="cuda"), PLAN, None).optimizer == "sgd"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ({"time": 900.0, "device": "cpu"}, "default"),
        ({"time": 1800.0, "device": "cpu"}, "strong"),
        ({"time": 120.0, "device": "cuda"}, "default"),
        ({"time": 600.0, "device": "cuda"}, "strong"),
        ({"time": 86400.0, "device": "cpu"}, "default"),  # nnU-Net's own recipe
    ],
)
def test_where_patches_come_back_often_more_of_them_are_turned(monkeypatch, words, kind):
    monkeypatch.setattr("NNSegmentLib.training.budget._is_cuda", lambda device: device == "cuda")

    found = settings_from_arguments(asked(**words), PLAN, None)

    assert found.augmentation == kind
    if kind == "strong":
        assert (found.weight_decay, found.weight_averaging) == (0.05, 0.999)


@pytest.mark.parametrize(("epochs", "kind"), [(5, "default"), (None, "strong")])
def test_the_small_presets_schedule_is_a_long_one(epochs, kind):
    small = replace(PLAN, name="nnUNetSmallPlans")

    assert settings_from_arguments(asked(epochs=epochs, device="cpu"), small, None).augmentation == kind


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(SettingsError, match="no device cuda:99 on this machine"):
        settings_from_arguments(asked(time=60.0, device="cuda:99"), PLAN, None)


def test_a_seed_is_taken_and_zero_is_one(file):
    assert settings_from_arguments(asked(seed=0), PLAN, None).seed == 0
    assert settings_from_arguments(asked(settings=file, seed=3), PLAN, None).seed == 3


def test_epochs_that_are_asked_for_outweigh_the_time_of_a_file(tmp_path):
    (tmp_path / "timed.json").write_text(json.dumps({"time_s": 600.0}))
    file = tmp_path / "timed.json"

    timed = settings_from_arguments(asked(settings=file), PLAN, None)
    counted = settings_from_arguments(asked(settings=file, epochs=20), PLAN, None)

    assert (timed.time_s, counted.time_s, counted.epochs) == (600.0, None, 20)


def test_a_run_is_resumed_with_the_words_it_was_started_with(file):
    words = asked(settings=file, seed=3)
    stored = settings_from_arguments(words, PLAN, None)
    words.resume = True
    assert settings_from_arguments(words, PLAN, stored) == stored


@pytest.mark.parametrize(
    "words", [{"seed": 3}, {"recipe": "test_training_settings_asked:twice_the_rate"}, {"settings": True}]
)
def test_a_resumed_run_need_not_be_told_its_length_again(file, words):
    words = words | ({"settings": file} if "settings" in words else {})
    stored = settings_from_arguments(asked(time=600.0, **words), PLAN, None)

    assert settings_from_arguments(asked(resume=True, **words), PLAN, stored) == stored


@pytest.mark.parametrize("on_card", [True, False])
def test_a_run_with_a_recipe_is_resumed_on_another_device_with_the_same_words(monkeypatch, on_card):
    words = asked(time=600.0, recipe="test_training_settings_asked:twice_the_rate")
    monkeypatch.setattr("NNSegmentLib.training.budget._is_cuda", lambda device: on_card)
    stored = settings_from_arguments(words, PLAN, None)
    monkeypatch.setattr("NNSegmentLib.training.budget._is_cuda", lambda device: not on_card)
    words.resume = True

    assert settings_from_arguments(words, PLAN, stored) == stored


def twice_the_rate(settings):
    return replace(settings, learning_rate=2 * settings.learning_rate)


def test_a_resumed_run_may_move_to_another_device(file):
    stored = settings_from_arguments(asked(settings=file), PLAN, None)
    resumed = settings_from_arguments(asked(settings=file, resume=True, device="cpu"), PLAN, stored)
    assert resumed == replace(stored, device="cpu")


@pytest.mark.parametrize("field", ["gradient_clip", "checkpoint_minutes"])
def test_what_infinity_turns_off_may_be_infinite(tmp_path, field):
    settings = TrainingSettings(**{field: float("inf")})
    save_settings(settings, tmp_path / "s.json")

    assert load_settings(tmp_path / "s.json") == settings


@pytest.mark.parametrize("words", [{"epochs": 9}, {"time": 60.0}, {"settings": "s.json"}, {"recipe": "a:b"}])
def test_a_fold_that_nnunet_finished_has_nothing_to_resume_with_other_settings(tmp_path, words):
    with pytest.raises(SettingsError, match="come to its end.*rename checkpoint_final"):
        require_nothing_new(asked(resume=True, **words), tmp_path)

    require_nothing_new(asked(resume=True), tmp_path)


@pytest.mark.parametrize(
    ("words", "named"), [({"seed": 4}, "seed"), ({"epochs": 9}, "epochs"), ({"time": 60.0}, "time_s")]
)
def test_a_resumed_run_refuses_other_settings_by_name(file, words, named):
    stored = settings_from_arguments(asked(settings=file), PLAN, None)
    with pytest.raises(SettingsError, match=named):
        settings_from_arguments(asked(settings=file, resume=True, **words), PLAN, stored)


def broken(settings: TrainingSettings) -> TrainingSettings:
    raise ValueError("the rate is nowhere")


def test_recipes_lie_in_the_working_directory_which_is_searched_last(tmp_path, monkeypatch):
    (tmp_path / "my_own_recipe.py").write_text("def same(settings):\n    return settings\n")
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", list(before))
    monkeypatch.chdir(tmp_path)

    assert apply_recipe("my_own_recipe:same", TrainingSettings()) == TrainingSettings()
    assert sys.path == [*before, str(tmp_path)]


def test_an_error_inside_a_recipe_is_not_taken_for_a_wrong_name():
    with pytest.raises(ValueError, match="the rate is nowhere"):
        apply_recipe("test_training_settings_asked:broken", TrainingSettings())


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("epochs", "3", "a whole number"),
        ("epochs", 1.5, "a whole number"),
        ("epochs", None, "a whole number"),
        ("epochs", True, "a whole number"),
        ("time_s", "30m", "a number"),
        ("seed", "x", "a whole number"),
        ("device", None, "a text"),
        ("mirror_axes", "all", "a list"),
        ("mirror_axes", [5], "different axes of 0, 1 and 2"),
        ("validation_step", 0, "above 0 and at most 1"),
        ("threads", -5, "at least 0"),
        ("loader_workers", -2, "at least 0, or -1"),
        ("gradient_clip", -1, "a number above 0"),
        ("learning_rate", float("inf"), "a number above 0"),
        ("learning_rate", 10**400, "too large"),
        ("weight_decay", -1e-5, "a number from 0"),
        ("checkpoint_minutes", float("nan"), "a number from 0"),
        ("momentum", 2, "at least 0 and below 1"),
        ("weight_averaging", 1, "at least 0 and below 1"),
    ],
)
def test_every_training_setting_says_what_it_may_be(name, value, wanted):
    with pytest.raises(SettingsError, match=f"^{name} .*{wanted}.* found .*; correct this training setting.$"):
        TrainingSettings(**{name: value})


def test_lists_and_numpys_numbers_become_what_the_settings_declare(tmp_path):
    given = TrainingSettings(epochs=np.int64(3), mirror_axes=[0, 1], learning_rate=np.float32(0.5), time_s=60)

    save_settings(given, tmp_path / "settings.json")

    assert given == load_settings(tmp_path / "settings.json")
    assert given == TrainingSettings(epochs=3, mirror_axes=(0, 1), learning_rate=0.5, time_s=60.0)
    assert {type(given.epochs), type(given.learning_rate), type(given.time_s)} == {int, float}


def test_the_quick_recipe_has_a_quick_length_unless_told_another():
    assert quick_settings("cpu").epochs == QUICK_EPOCHS
    assert quick_settings("cpu", epochs=7).epochs == 7
    assert quick_settings("cpu", time_s=60).time_s == 60
