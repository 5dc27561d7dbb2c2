"""What the panel reads and says about runs, jobs, lengths and models: no widget, no torch."""

from __future__ import annotations

import datetime
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from task_on_disk import nnunet_v2

from NNSegmentLib.application import Application, AppliedCase, application_of, cropped, new_application_folder
from NNSegmentLib.colors import save_label_colors
from NNSegmentLib.demo import DemoOutcome
from NNSegmentLib.errors import ImageError, ModelError, SettingsError, StorageError
from NNSegmentLib.folders import FoldFolder, new_dated_folder
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.jobs.progress import JobProgress
from NNSegmentLib.labels import Label
from NNSegmentLib.machine.locks import only_one_in
from NNSegmentLib.model.card import read_card
from NNSegmentLib.run import EpochFinished, Failed, Message, Progressed, Run, append_event, read_events, recent_events
from NNSegmentLib.task import load_task
from NNSegmentLib.training.length import ENOUGH_STEPS, TrainingLength, length_words, too_few_steps
from NNSegmentLib.training.run_states import RunState, run_status


def epoch(number: int) -> EpochFinished:
    return EpochFinished(number, 8, 0.5, 0.4, (0.3,), 0.3, 0.25, 0.01, 2.0, 2.0 * (8 - number), 100.0 + number)


def test_a_run_is_none_stopped_running_failed_or_trained(tmp_path):
    run = FoldFolder(tmp_path / "fold_0")
    assert run_status(run, "2d", 0).state is RunState.NONE
    append_event(run.events, epoch(3))
    run.checkpoint_latest.touch()
    stopped = run_status(run, "2d", 0)
    assert (stopped.state, stopped.can_resume, stopped.last) == (RunState.STOPPED, True, epoch(3))
    with only_one_in(run.folder):
        assert run_status(run, "2d", 0).state is RunState.RUNNING
    append_event(run.events, Failed("No memory.", 1.0))
    assert (run_status(run, "2d", 0).state, run_status(run, "2d", 0).failure) == (RunState.FAILED, "No memory.")
    append_event(run.events, epoch(8))
    run.checkpoint_final.touch()
    assert run_status(run, "2d", 0).state is RunState.TRAINED


@pytest.mark.parametrize(
    "line",
    [
        *("", '{"event": "Mess', "3", "null", "[]", '"Message"', "{}", '{"event": ["Message"]}', "[" * 100_000),
        '{"event": "Applauded", "time": 1.0}',
        '{"event": "Message", "text": "hello"}',
        '{"event": "Message", "text": 3, "time": 1.0}',
    ],
)
def test_a_line_that_is_no_event_of_ours_is_skipped(tmp_path, line):
    path = tmp_path / "events.jsonl"
    append_event(path, Message("before", 1.0))
    with path.open("a") as file:
        file.write(line + "\n")
    append_event(path, Message("after", 2.0))

    assert list(read_events(path)) == recent_events(path) == [Message("before", 1.0), Message("after", 2.0)]


def test_a_field_of_a_newer_version_is_left_out(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "Message", "text": "hello", "time": 1.0, "loudness": 3}\n')

    assert list(read_events(path)) == [Message("hello", 1.0)]


def test_the_last_events_of_a_long_file_are_whole(tmp_path):
    path = tmp_path / "events.jsonl"
    for number in range(1, 1001):
        append_event(path, epoch(number))

    events = recent_events(path)

    assert 100 < len(events) < 1000
    assert events[-1].epoch == 1000
    assert [event.epoch for event in events] == list(range(1001 - len(events), 1001))


def test_progress_counts_the_time_left_from_the_steps_done():
    events = [Progressed(2, 10, "cases", 100.0), Progressed(4, 10, "cases", 110.0)]

    progress = JobProgress().with_events(events)

    assert (progress.fraction, progress.text) == (0.4, "cases: 4 / 10")
    assert progress.seconds_left == pytest.approx(30.0)  # two steps took 10 s, six are left
    assert progress.with_events([Progressed(4.25, 10, "cases (a: 1 of 4 tiles)", 111.0)]).text.endswith(": 4.25 / 10")
    assert progress.with_events([Progressed(0, 5, "scoring", 111.0)]).seconds_left is None


def test_texts_and_totals_that_change_are_still_the_same_work():
    events = [Progressed(0, 20, "epoch 1", 100.0), Progressed(1, 18, "epoch 2, loss 0.9", 104.0)]

    assert JobProgress().with_events(events).seconds_left == pytest.approx(4.0 * 17)


def test_the_next_fold_is_timed_anew():
    """Also when nothing is heard between two trainings."""
    one = [Progressed(2, 144, "epoch 1", 100.0), Progressed(144, 144, "epoch 20", 242.0)]
    progress = JobProgress().with_events([*one, Progressed(9, 144, "epoch 1", 260.0)])
    assert progress.seconds_left is None

    assert progress.with_events([Progressed(19, 144, "epoch 2", 270.0)]).seconds_left == pytest.approx(125.0)


def test_epochs_and_messages_are_told():
    progress = JobProgress().with_events([epoch(4)])
    assert (progress.fraction, progress.text, progress.time_left) == (0.5, "Epoch 4 / 8 · Dice 0.300", "8 s")
    assert progress.with_events([Message("Resumed.", 1.0)]).text == "Resumed."


def test_an_epoch_at_work_keeps_what_the_one_before_came_to():
    """Its steps may be seconds, and its Dice the moving average: neither belongs beside the epoch's own."""
    begun = JobProgress().with_events([Progressed(3, 300, "epoch 1", 1.0)])
    done = begun.with_events([epoch(4), Progressed(150, 300, "epoch 5, loss 0.412, Dice 0.200", 9.0)])
    next_fold = done.with_events([Progressed(1, 300, "epoch 1", 20.0)])

    assert [progress.text for progress in (begun, done, next_fold)] == [
        "Epoch 1", "Epoch 4 / 8 · Dice 0.300", "Epoch 1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("now", "runs", "expected"),
    [((22, 0), 1, "9h"), ((6, 30), 1, "30m"), ((7, 0), 1, "24h"), ((22, 0), 5, "1h48m"), ((6, 59), 4, "15s")],
)
def test_tonight_ends_at_seven_and_is_shared(now, runs, expected):
    words = length_words(TrainingLength.TONIGHT, runs=runs, now=datetime.datetime(2026, 5, 4, *now))
    assert words == ("--time", expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ()), ("30m", ("--time", "30m")), ("1 epoch", ("--epochs", "1")), ("250 Epochs", ("--epochs", "250"))],
)
def test_a_written_length_is_a_time_or_epochs(text, expected):
    assert length_words(TrainingLength.OTHER, text) == expected


@pytest.mark.parametrize("text", ["soon", "0 epochs", "30", "-5m"])
def test_any_other_length_is_refused(text):
    with pytest.raises(SettingsError, match="30m, 2h or 200 epochs"):
        length_words(TrainingLength.OTHER, text)


@pytest.fixture
def trained(tmp_path):
    """A run that took these steps, in epochs of 20 seconds each."""

    def train(fold: int, *steps: int) -> Run:
        run = Run(FoldFolder(tmp_path / f"fold_{fold}"), "2d", fold)
        for number, done in enumerate(steps, start=1):
            run.record(replace(epoch(number), steps=done, seconds=20.0))
        return run

    return train


@pytest.mark.parametrize(("steps", "time"), [((16, 32), "10m"), ((10, 20), "16m"), ((2,), "1h23m")])
def test_a_training_too_short_to_learn_is_told_with_a_time_that_suffices(trained, steps, time):
    told = too_few_steps([trained(0, 200, 400), trained(1, *steps)])

    assert told.startswith(f"Fold 1 of 2d was trained for {steps[-1]} steps only, and a few hundred are needed")
    assert f"(--time {time})" in told


def test_nothing_is_said_of_longer_trainings_and_those_of_nnunet(trained):
    assert too_few_steps([trained(0, ENOUGH_STEPS), trained(1)]) == ""
    assert too_few_steps([trained(2, 100, ENOUGH_STEPS)]) == ""


def test_the_demo_ends_with_the_warning():
    outcome = DemoOutcome(
        "Dataset999_Sample", 0.094, None, Path("predictions"), Path("report.html"), 60.0, "Too short."
    )

    assert outcome.text().splitlines()[1:3] == ["Done in 60 s. Dice: cross-validation 0.094.", "Too short."]
    assert len(replace(outcome, warning="").text().splitlines()) == 4


def test_a_zipped_model_tells_channels_and_colours_without_being_unpacked(tmp_path):
    task = load_task(nnunet_v2(tmp_path / "Dataset001_A", n_channels=2))
    labels = [Label("left", (1,), (10, 20, 30), "~a^b^c~d^e^f~^^~~^^~^^"), Label("right", (2,), (40, 50, 60))]
    painted = type(task.labels)((task.labels.labels[0], *labels))
    save_label_colors(tmp_path / "labels.csv", painted)
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for name, source in (("dataset.json", task.folder / "dataset.json"), ("labels.csv", tmp_path / "labels.csv")):
            archive.write(source, f"Dataset001_A/nnUNetTrainer__nnUNetPlans__2d/{name}")

    card = read_card(tmp_path / "model.zip")

    assert card.channels == ("MR0", "MR1")
    assert [(label.name, label.color) for label in card.label_set.foreground] == [
        ("left", (10, 20, 30)), ("right", (40, 50, 60)),
    ]  # fmt: skip


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name in ("broken.zip", "empty.zip", "absent"):
        with pytest.raises(ModelError):
            read_card(tmp_path / name)


def test_a_box_cuts_out_the_voxels_whose_centres_lie_in_it(any_geometry):
    grid = any_geometry
    array = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    corners = grid.world([(z, y, x) for z in (1.6, 4.2) for y in (2.0, 7.9) for x in (-3.0, 5.5)])

    (part,), found = cropped([array], grid, corners)

    assert np.array_equal(part, array[2:5, 2:8, 0:6])
    assert np.allclose(found.world((0, 0, 0)), grid.world((2, 2, 0)))
    assert found.shape == part.shape


def test_a_box_elsewhere_is_refused():
    grid = Geometry((10, 12, 14))
    with pytest.raises(ImageError, match="outside of the volume"):
        cropped([np.zeros(grid.shape)], grid, grid.world([(50, 50, 50), (60, 60, 60)]))


def test_an_application_is_found_again_by_the_words_of_its_job(tmp_path):
    folder = new_application_folder(tmp_path)
    asked = Application((AppliedCase("a", ("vtkMRMLScalarVolumeNode1",), "A"),), (Label("background", (0,)),))
    folder.save(asked)

    words = ("predict", "-i", str(folder.images), "-o", str(folder.labels), "-t", "5")

    assert application_of(words).load() == asked
    assert application_of(("predict", "-i", "x", "-o", str(tmp_path / "own"))) is None
    assert application_of(("train", "5", "2d", "0")) is None
    assert new_application_folder(tmp_path).folder != folder.folder


def test_folders_of_the_same_second_are_numbered(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "20260131-101500")

    made = [new_dated_folder(tmp_path / "jobs", "-train").name for _ in range(3)]

    assert made == ["20260131-101500-train", "20260131-101500-train-2", "20260131-101500-train-3"]


def test_a_place_that_takes_no_folders_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "jobs").write_text("in the way")
    (tmp_path / "predictions").symlink_to(tmp_path / "nowhere")

    for make in (lambda: new_dated_folder(tmp_path / "jobs"), lambda: new_application_folder(tmp_path)):
        with pytest.raises(StorageError, match="a file is where its folder should be"):
            make()
