"""nnU-Net's own splits_final.json, reproduced from its case ids."""

from __future__ import annotations

from NNSegmentLib.folds import load_folds, make_folds


def test_the_folds_of_two_hundred_cases_are_those_of_nnunet(peer):
    theirs = load_folds(next((peer / "models" / "trained").glob("*/splits_final.json")))

    assert make_folds([case_id for fold in theirs for case_id in fold.validation]) == theirs
