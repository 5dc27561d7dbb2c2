"""Folds against the shuffling and slicing that nnU-Net's k-fold does, spelled out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from NNSegmentLib.errors import SettingsError, TaskError
from NNSegmentLib.folds import Fold, choose_fold, load_folds, make_folds, save_folds


def ids(n):
    return [f"case_{i:03d}" for i in range(n)]


def five_folds_by_hand(names):
    """Shuffle with seed 12345, deal into five consecutive parts, the first n % 5 one larger."""
    order = list(range(len(names)))
    np.random.RandomState(12345).shuffle(order)
    sizes = [len(names) // 5 + (i < len(names) % 5) for i in range(5)]
    starts = np.cumsum([0, *sizes])
    for start, stop in zip(starts[:-1], starts[1:], strict=True):
        held_out = sorted(order[start:stop])
        yield [names[i] for i in range(len(names)) if i not in held_out], [names[i] for i in held_out]


@pytest.mark.parametrize("n", [5, 6, 9, 10, 23, 200])
def test_folds_equal_a_shuffled_five_fold_division(n):
    folds = make_folds(ids(n))

    assert [(list(f.train), list(f.validation)) for f in folds] == list(five_folds_by_hand(ids(n)))


def test_ten_cases_give_the_folds_scikit_learn_gives():
    expected = [{0, 7}, {3, 9}, {4, 6}, {1, 8}, {2, 5}]

    assert [{int(c[-3:]) for c in fold.validation} for fold in make_folds(ids(10))] == expected


def test_folds_equal_scikit_learn_where_it_is_installed():
    model_selection = pytest.importorskip("sklearn.model_selection", reason="scikit-learn is not installed")
    names = np.array(ids(47))

    divided = model_selection.KFold(n_splits=5, shuffle=True, random_state=12345).split(names)

    for fold, (train, validation) in zip(make_folds(list(names)), divided, strict=True):
        assert (list(fold.train), list(fold.validation)) == (list(names[train]), list(names[validation]))


def test_the_order_of_the_ids_given_does_not_matter():
    assert make_folds(ids(12)[::-1]) == make_folds(ids(12))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_fewer_than_five_cases_are_left_out_one_at_a_time(n):
    folds = make_folds(ids(n))

    assert [fold.validation for fold in folds] == [(case_id,) for case_id in ids(n)]
    assert all(set(fold.train) == set(ids(n)) - set(fold.validation) for fold in folds)


def test_a_single_case_trains_and_validates_with_a_warning(caplog):
    assert make_folds(["only"]) == (Fold(("only",), ("only",)),)
    assert "only" in caplog.text


def test_no_case_is_an_error():
    with pytest.raises(TaskError, match="at least one case"):
        make_folds([])


def test_folds_survive_writing_and_reading(tmp_path):
    folds = make_folds(ids(11))

    save_folds(folds, tmp_path / "splits_final.json")

    assert load_folds(tmp_path / "splits_final.json") == folds
    assert json.loads((tmp_path / "splits_final.json").read_text())[0].keys() == {"train", "val"}


@pytest.mark.parametrize("content", ["{}", "[]", '[{"train": ["a"]}]', '[{"train": ["a"], "val": []}]', '[["a"]]'])
def test_a_damaged_splits_file_is_refused(tmp_path, content):
    (tmp_path / "splits_final.json").write_text(content)

    with pytest.raises(TaskError, match="train"):
        load_folds(tmp_path / "splits_final.json")


def test_overlapping_folds_are_read_with_a_warning(tmp_path, caplog):
    (tmp_path / "splits_final.json").write_text('[{"train": ["a", "b"], "val": ["b"]}]')

    assert load_folds(tmp_path / "splits_final.json") == (Fold(("a", "b"), ("b",)),)
    assert "trains and validates on b" in caplog.text


def test_all_trains_and_validates_on_every_case():
    assert choose_fold(make_folds(ids(7)), "all", ids(7)) == Fold(tuple(ids(7)), tuple(ids(7)))


def test_a_listed_fold_is_returned_as_it_is():
    folds = make_folds(ids(7))

    assert choose_fold(folds, 3, ids(7)) is folds[3]


def test_a_fold_beyond_the_list_is_a_random_division_that_depends_on_its_number():
    drawn = np.random.RandomState(12345 + 6).choice(11, 8, replace=False)

    fold = choose_fold(make_folds(ids(11)), 6, ids(11))

    assert list(fold.train) == [ids(11)[i] for i in drawn]
    assert set(fold.validation) == set(ids(11)) - set(fold.train)
    assert choose_fold(make_folds(ids(11)), 7, ids(11)) != fold


def test_the_first_number_after_the_listed_folds_is_a_random_division():
    fold = choose_fold(make_folds(ids(11)), 5, ids(11))

    assert (len(fold.train), len(fold.validation)) == (8, 3)
    assert set(fold.train) | set(fold.validation) == set(ids(11))


def test_a_single_case_cannot_be_divided_and_trains_and_validates():
    assert choose_fold(make_folds(ids(1)), 4, ids(1)) == Fold(tuple(ids(1)), tuple(ids(1)))


@pytest.mark.parametrize("fold", [-1, "al", 1.0, True])
def test_something_else_than_a_fold_number_or_all_is_refused(fold):
    with pytest.raises(SettingsError, match="from 0, or 'all'"):
        choose_fold(make_folds(ids(7)), fold, ids(7))


def test_a_fold_with_unknown_cases_is_refused():
    with pytest.raises(TaskError, match="stranger"):
        choose_fold([Fold(("case_000", "stranger"), ("case_001",))], 0, ids(7))
