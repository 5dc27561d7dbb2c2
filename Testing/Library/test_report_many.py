"""Reports of many cases and many labels stay readable, light and quick."""

from __future__ import annotations

import math
from pathlib import Path

from effort import growth

from NNSegmentLib.folders import ModelFolders
from NNSegmentLib.report.contents import TrainedFold, TrainedModel
from NNSegmentLib.report.result_sections import MOST_CASES, _case_table, _case_title
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
