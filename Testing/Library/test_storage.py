"""Prepared cases on disk: what was saved is what is opened, and damage is told in one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from NNSegmentLib.errors import StorageError, TaskError
from NNSegmentLib.preprocessing.prepared import ANNOTATED, Placement, PreparedCase
from NNSegmentLib.preprocessing.storage import (
    PreparedStore,
    load_previous_stage,
    prepared_files,
    save_prepared,
    save_previous_stage,
)


def case(geometry, case_id="c1", labelled=True) -> PreparedCase:
    rng = np.random.default_rng(0)
    where = Placement(geometry, (2, 0, 1), (9, 8, 7), (1, 0, 2), (6, 8, 5), (1.5, 1.0, 0.3), (1.0, 1.0, 1 / 3))
    labels = rng.integers(-1, 3, (9, 8, 2)).astype(np.int8)
    found = {(1,): np.argwhere(labels == 1), (1, 2): np.argwhere(labels >= 1), ANNOTATED: np.empty((0, 3), np.int32)}
    image = rng.normal(size=(2, 9, 8, 2)).astype(np.float32)
    return PreparedCase(case_id, image, labels if labelled else None, where, found if labelled else {})


def test_an_opened_case_equals_the_saved_one_and_stays_on_disk(tmp_path, any_geometry):
    saved = case(any_geometry)

    save_prepared(saved, tmp_path)
    opened = PreparedStore(tmp_path).open("c1")

    assert isinstance(opened.image, np.memmap)
    assert isinstance(opened.labels, np.memmap)
    assert np.array_equal(opened.image, saved.image)
    assert np.array_equal(opened.labels, saved.labels)
    assert opened.placement == saved.placement
    assert set(opened.foreground) == set(saved.foreground)
    assert all(np.array_equal(opened.foreground[k], saved.foreground[k]) for k in saved.foreground)
    with pytest.raises(ValueError, match="read-only"):
        opened.image[0, 0, 0, 0] = 1


def test_a_case_without_labels_has_none_when_opened(tmp_path, any_geometry):
    save_prepared(case(any_geometry, labelled=False), tmp_path)

    opened = PreparedStore(tmp_path).open("c1")

    assert opened.labels is None
    assert opened.foreground == {}


def test_ids_are_sorted_and_only_complete_cases_count(tmp_path, any_geometry):
    for case_id in ("b", "a.1", "c_seg"):
        save_prepared(case(any_geometry, case_id), tmp_path)
    np.save(tmp_path / "half.npy", np.zeros(3))
    (tmp_path / "settings.json").write_text("{}")

    assert PreparedStore(tmp_path).ids == ("a.1", "b", "c_seg")


def test_preparing_again_without_labels_forgets_the_old_labels(tmp_path, any_geometry):
    save_prepared(case(any_geometry), tmp_path)

    save_prepared(case(any_geometry, labelled=False), tmp_path)

    assert PreparedStore(tmp_path).open("c1").labels is None


@pytest.mark.parametrize("part", range(4))
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, any_geometry, part):
    save_prepared(case(any_geometry), tmp_path)
    path = prepared_files(tmp_path, "c1")[part]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(TaskError, match=f"{path.name}.*nnsegment preprocess"):
        PreparedStore(tmp_path).open("c1")


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("c1.npy", np.zeros((2, 9, 8, 2), np.int16), "an image .* of 32-bit numbers"),
        ("c1.npy", np.zeros((9, 8, 2), np.float32), "an image .* of 32-bit numbers"),
        ("c1_seg.npy", np.zeros((9, 8, 1), np.int8), "labels of 9 × 8 × 2 voxels"),
        ("c1_seg.npy", np.zeros((9, 8, 2), np.float32), "labels of 9 × 8 × 2 voxels"),
        ("c1_foreground.npz", np.zeros((5, 2), np.int32), "the places .* of foreground voxels"),
        ("c1_foreground.npz", np.zeros((5, 3), np.float32), "the places .* of foreground voxels"),
    ],
)
def test_an_array_of_another_kind_or_shape_is_named_with_what_to_do(tmp_path, any_geometry, name, array, expected):
    save_prepared(case(any_geometry), tmp_path)
    save = np.save if name.endswith(".npy") else lambda path, voxels: np.savez(path, **{"1": voxels})
    save(tmp_path / name, array)

    with pytest.raises(
        TaskError, match=f"{name} should hold {expected}, found something else; delete that file and run"
    ):
        PreparedStore(tmp_path).open("c1")


def test_zeros_in_the_middle_of_a_file_are_damage_too(tmp_path, any_geometry):
    save_prepared(case(any_geometry), tmp_path)
    path = next(path for path in prepared_files(tmp_path, "c1") if path.suffix == ".npz")
    content, told = path.read_bytes(), set()
    for start in range(0, len(content), 40):
        path.write_bytes(content[:start] + bytes(min(200, len(content) - start)) + content[start + 200 :])
        try:
            PreparedStore(tmp_path).open("c1")
        except TaskError as error:  # and nothing else
            told.add(str(error))

    assert told == {
        f"{path} should hold foreground voxels but is damaged; delete that file and run 'nnsegment preprocess' again."
    }


@pytest.mark.parametrize("part", [0, 2, 3])
def test_a_missing_file_is_named_with_what_to_do(tmp_path, any_geometry, part):
    save_prepared(case(any_geometry), tmp_path)
    path = prepared_files(tmp_path, "c1")[part]
    path.unlink()

    with pytest.raises(TaskError, match=f"{path.name}.*nnsegment preprocess"):
        PreparedStore(tmp_path).open("c1")


def test_pickled_arrays_are_never_loaded(tmp_path, any_geometry):
    save_prepared(case(any_geometry), tmp_path)
    np.save(tmp_path / "c1.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(TaskError, match="c1.npy"):
        PreparedStore(tmp_path).open("c1")


def test_a_placement_of_other_make_is_refused(tmp_path, any_geometry):
    save_prepared(case(any_geometry), tmp_path)
    path = tmp_path / "c1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"voxels": 3}))

    with pytest.raises(TaskError, match="no field voxels"):
        PreparedStore(tmp_path).open("c1")


def test_nothing_half_written_stays_behind(tmp_path, any_geometry):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")

    with pytest.raises(StorageError):
        save_prepared(case(any_geometry), blocked / "inside")

    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_previous_stage_is_kept_and_its_absence_explained(tmp_path):
    labels = np.arange(24).reshape(2, 3, 4)
    wide = labels * 100

    save_previous_stage(labels, tmp_path / "next", "a")
    save_previous_stage(wide, tmp_path / "next", "b")

    assert np.array_equal(load_previous_stage(tmp_path / "next", "a"), labels)
    assert load_previous_stage(tmp_path / "next", "a").dtype == np.uint8
    assert np.array_equal(load_previous_stage(tmp_path / "next", "b"), wide)
    with pytest.raises(TaskError, match="c.npy.*previous stage"):
        load_previous_stage(tmp_path / "next", "c")
