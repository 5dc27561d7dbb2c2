"""Reports of many cases and many labels stay readable, light and quick."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from effort import WatchedNumber, calls, comparisons, growth

from NNSegmentLib.fingerprint import PERCENTILES, CaseFacts, ChannelFacts
from NNSegmentLib.folders import ModelFolders
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.report.charts import axes_figure, dice_figure, intensity_figure
from NNSegmentLib.report.contents import TrainedFold, TrainedModel
from NNSegmentLib.report.data_sections import _intensity_caption, _label_rows
from NNSegmentLib.report.overlays import best_slice
from NNSegmentLib.report.page import _subtitle
from NNSegmentLib.report.plots import inline_svg
from NNSegmentLib.report.result_sections import (
    MOST_CASES,
    _case_table,
    _case_title,
    _dice_sentence,
    _outlines,
    _swatches,
)
from NNSegmentLib.scores import CaseScores, Metrics, Scores


def case(case_id: str, *dice: float) -> CaseScores:
    return CaseScores(case_id, tuple(Metrics(d, 0, 0, 0, 0, 0, 0, 0) for d in dice), Path(), Path())


def model_of(root: Path, *cases_of_folds: list[CaseScores]) -> TrainedModel:
    folders = ModelFolders(root / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    folds = [TrainedFold(folders.fold(n), (), Scores(((1,),), tuple(cases))) for n, cases in enumerate(cases_of_folds)]
    return TrainedModel(folders, tuple(folds))


def test_the_fold_of_a_case_is_found_without_going_through_the_others(tmp_path):
    def work_on(n_cases: int):
        model = model_of(tmp_path, [case(f"case{n}", n / n_cases) for n in range(n_cases)])
        return lambda: [model.fold_of(each) for each in model.scores.cases]

    assert growth(work_on) < 2.6


def test_a_case_that_two_folds_validated_is_listed_with_each(tmp_path):
    model = model_of(tmp_path, [case("a", 0.5), case("b", math.nan)], [case("a", 0.4)])

    _header, rows = _case_table(model, ["organ"])

    assert rows == [("b", "0", "–"), ("a", "1", "0.400"), ("a", "0", "0.500")]


def test_the_table_of_cases_ends_after_the_worst_and_says_where_the_others_are(tmp_path):
    model = model_of(tmp_path, [case(f"case{n:03d}", n / 1000) for n in range(MOST_CASES + 1)])

    _header, rows = _case_table(model, ["organ"])

    assert [row[0] for row in (rows[0], rows[-1])] == ["case000", f"case{MOST_CASES - 1:03d}"]
    assert _case_title(MOST_CASES + 1) == (
        "The 500 worst of 501 cases, the worst first; validation/summary.json of each fold has all"
    )
    assert _case_title(MOST_CASES) == "All 500 cases, the worst first"


def test_the_table_of_cases_names_the_lowest_of_many_classes(tmp_path):
    model = model_of(tmp_path, [case("a", *(n / 10 for n in range(2, 9)), math.nan)])

    header, rows = _case_table(model, [f"organ{n}" for n in range(8)])

    assert header == ("case", "fold", "mean Dice", "lowest classes")
    assert rows == [("a", "0", "0.500", "organ0 0.200 · organ1 0.300 · organ2 0.400")]


@pytest.mark.parametrize("n_classes", [3, 30])
def test_a_title_of_columns_or_rows_is_no_formula(n_classes):
    figure = dice_figure({f"organ{n}": [0.9] for n in range(n_classes)}, ["red"], "Dice of $x^2$")

    assert figure.axes[0].get_title(loc="left") == r"Dice of \$x^2\$"


def test_many_classes_are_rows_from_the_lowest_median_to_the_highest():
    dice = {f"organ{n}": [n / 105, n / 105, math.nan] for n in reversed(range(105))} | {"nowhere": [math.nan]}

    figure = dice_figure(dice, ["red", "blue"], "Dice")

    assert figure.get_size_inches()[0] < 9 and figure.get_size_inches()[1] > 20
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [*(f"organ{n}" for n in range(105)), "nowhere"]
    top, bottom = figure.axes[0].get_ylim()[::-1]
    assert top < 0 < bottom
    assert [line.get_color() for line in figure.axes[0].lines[:2]] == ["red", "blue"]


def test_a_dozen_classes_are_columns_in_their_own_order():
    figure = dice_figure({f"organ{n}": [0.9 - n / 100] for n in range(12)}, ["red"], "Dice")

    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [f"organ{n}" for n in range(12)]


@pytest.mark.parametrize("n_classes", [3, 30])
def test_the_dots_of_very_many_cases_are_one_picture(n_classes):
    cases = np.random.default_rng(0).uniform(0.5, 1, 1000)

    svg = inline_svg(dice_figure({f"organ{n}": cases for n in range(n_classes)}, ["red"], "Dice"), "Dice")

    assert svg.count("<image") == 1 and svg.count("<use") < 200


def test_the_dots_of_some_cases_stay_lines_that_print_sharply():
    svg = inline_svg(axes_figure([(1.0, 2.0, 3.0)] * 150, "Spacing", "mm"), "Spacing")

    assert svg.count("<image") == 0 and svg.count("<use") > 450


def facts(n: int, median: float) -> CaseFacts:
    percentiles = tuple(median + p - 50 for p in PERCENTILES)
    channel = ChannelFacts(median, 1.0, median - 50, median + 50, percentiles)
    return CaseFacts(f"case{n}", (9, 9, 9), (9, 9, 9), (1.0, 1.0, 1.0), (), (channel,))


def test_the_intensities_of_very_many_cases_share_lines_that_reach_to_the_extremes():
    drawn = intensity_figure([facts(n, float(n)) for n in range(3000)], 0, "CT")

    thin = drawn.axes[0].collections[0].get_segments()
    assert len(thin) == 150
    assert thin[0][:, 1].tolist() == [0 + 0.5 - 50, 19 + 99.5 - 50]
    assert thin[0][0, 0] == pytest.approx(10.5) and drawn.axes[0].lines[0].get_ydata()[0] == pytest.approx(9.5)
    assert _intensity_caption(3000).startswith("A line for 20 cases each.")


def test_up_to_some_hundred_cases_have_lines_of_their_own():
    drawn = intensity_figure([facts(n, float(n)) for n in range(300)], 0, "CT")

    assert len(drawn.axes[0].collections[0].get_segments()) == 300
    assert "cases each" not in _intensity_caption(300)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_slice_of_an_overlay_is_found_without_going_through_the_volume_for_every_label(axis):
    def work_on(n_labels: int):
        reference = np.random.default_rng(0).integers(0, n_labels + 1, (12, 14, 16), np.uint8)
        return partial(best_slice, reference, None, axis)

    assert calls(work_on(100)) == calls(work_on(2))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_slice_of_an_overlay_is_that_with_the_largest_shares_of_all_labels(axis):
    reference = np.random.default_rng(1).integers(0, 6, (12, 14, 16), np.uint8)
    reference[reference == 3] = 0
    planes = np.moveaxis(reference, axis, 0)
    shares = [sum((p == v).sum() / (reference == v).sum() for v in (1, 2, 4, 5)) for p in planes]

    assert best_slice(reference, None, axis) == int(np.argmax(shares))


def test_above_a_picture_a_few_classes_are_named_and_of_many_the_three_lowest():
    names = [f"organ{n}" for n in range(7)]
    many = case("a", 0.9, 0.5, math.nan, 0.1, 0.8, 0.3, 0.7)

    assert _dice_sentence(many, names) == "mean Dice 0.550 · lowest: organ3 0.100 · organ5 0.300 · organ1 0.500"
    assert _dice_sentence(case("a", 0.9, math.nan), names[:2]) == "Dice organ0 0.900 · organ1 –"
    assert _outlines(names[:2]) == "organ0, organ1" and _outlines(names) == "named below each picture"


def test_below_a_picture_of_many_classes_its_labels_are_named_beside_their_colours():
    drawn = _swatches((Label("a & b", (1,), (255, 0, 0)), Label("c", (2,), (0, 0, 255))))

    assert "rgb(255, 0, 0)" in drawn and "</span>a &amp; b, <span" in drawn and drawn.endswith("</span>c")


def test_the_volumes_of_many_labels_are_found_without_going_through_all_labels_for_each():
    labels = [Label(f"organ{n}", (n,), (0, 0, 0)) for n in range(1, 101)]
    contents = SimpleNamespace(labels=LabelSet((Label("background", (0,)), *labels)))
    measured = replace(facts(0, 1.0), label_voxels=tuple((WatchedNumber(n), 500 * n) for n in range(101)))

    assert comparisons(lambda: _label_rows(contents, [measured])) <= 200
    _header, rows = _label_rows(contents, [measured])
    assert [row[1:] for row in rows[:2]] == [("1", "1 of 1", "0.5"), ("2", "1 of 1", "1")]


def test_the_line_below_the_title_names_a_dozen_labels():
    labels = LabelSet((Label("background", (0,)), *(Label(f"organ{n}", (n,)) for n in range(1, 106))))
    contents = SimpleNamespace(labels=labels, channels=("CT",), folders=SimpleNamespace(name="Dataset900_Many"))

    assert "organ11, organ12 and 93 more in CT." in _subtitle(contents)
