"""Learning curves: every number of every epoch is in the picture, which is written whole."""

from __future__ import annotations

import numpy as np
import pytest

from NNSegmentLib.errors import SettingsError, StorageError
from NNSegmentLib.report.curves import draw_progress, latest_epochs, progress_figure
from NNSegmentLib.run import EpochFinished


def epoch(number: int, **values) -> EpochFinished:
    usual = {
        "epochs": 1000,
        "train_loss": -0.1 * number,
        "validation_loss": -0.05 * number,
        "dice_per_class": (0.5, None),
        "mean_dice": 0.5,
        "smoothed_dice": 0.4,
        "learning_rate": 0.01 / number,
        "seconds": 3.0,
        "seconds_left": 60.0,
        "time": 1e9 + number,
    }
    return EpochFinished(epoch=number, **(usual | values))


def lines(figure) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for axes in figure.axes for line in axes.lines}


def test_the_curves_are_the_events_values():
    drawn = lines(progress_figure([epoch(1), epoch(2, seconds=7.0)]))

    assert drawn["loss, training"] == [-0.1, -0.2]
    assert drawn["loss, validation"] == [-0.05, -0.1]
    assert drawn["Dice"] == [0.5, 0.5] and drawn["Dice, moving average"] == [0.4, 0.4]
    assert drawn["seconds per epoch"] == [3.0, 7.0]
    assert drawn["learning rate"] == [0.01, 0.005]


def test_an_epoch_without_validation_leaves_a_gap():
    drawn = lines(progress_figure([epoch(1), epoch(2, validation_loss=None, mean_dice=None), epoch(3)]))

    assert np.isnan(drawn["loss, validation"]).tolist() == [False, True, False]
    assert np.isnan(drawn["Dice"]).tolist() == [False, True, False]


def test_a_single_epoch_is_visible_as_a_dot():
    figure = progress_figure([epoch(1)])

    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.lines)


def test_a_resumed_run_counts_each_epoch_once_with_its_last_telling():
    told = [epoch(1), epoch(2), epoch(3, train_loss=9.0), epoch(2, train_loss=5.0), epoch(3)]

    assert [(e.epoch, e.train_loss) for e in latest_epochs(told)] == [(1, -0.1), (2, 5.0), (3, pytest.approx(-0.3))]


def test_a_run_without_an_epoch_says_so(tmp_path):
    assert draw_progress([], tmp_path / "progress.png").stat().st_size > 1000
    assert "no epoch" in progress_figure([]).axes[0].get_title(loc="left")


def test_drawing_anew_leaves_one_picture_and_nothing_else(tmp_path):
    for n in (1, 1000):
        draw_progress([epoch(k) for k in range(1, n + 1)], tmp_path / "progress.png")

    assert [p.name for p in tmp_path.iterdir()] == ["progress.png"]


def test_drawing_leaves_pyplot_alone(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw_progress([epoch(1)], tmp_path / "progress.svg")

    assert dict(matplotlib.rcParams) == before


def test_a_failed_drawing_leaves_the_old_picture(tmp_path):
    draw_progress([epoch(1)], tmp_path / "progress.png")
    before = (tmp_path / "progress.png").read_bytes()

    with pytest.raises(TypeError):
        draw_progress([epoch(1, train_loss="wrong", seconds="wrong")], tmp_path / "progress.png")
    assert (tmp_path / "progress.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unknown_picture_format_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(SettingsError, match=r"\.png, \.svg, \.pdf, found progress\.xyz"):
        draw_progress([epoch(1)], tmp_path / "progress.xyz")


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        draw_progress([epoch(1)], tmp_path / "file" / "progress.png")


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan"), 1e308])
@pytest.mark.parametrize("name", ["train_loss", "validation_loss", "mean_dice", "learning_rate", "seconds"])
def test_numbers_of_a_failed_training_leave_gaps(tmp_path, name, number):
    draw_progress([epoch(1), epoch(2, **{name: number})], tmp_path / "progress.png")

    assert (tmp_path / "progress.png").is_file()
