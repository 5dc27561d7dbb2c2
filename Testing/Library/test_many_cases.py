"""Tasks of thousands of cases: twice the cases take about twice the work, not four times."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from effort import Watched, comparisons, growth

from NNSegmentLib.cases import case_names
from NNSegmentLib.formats import pairs
from NNSegmentLib.formats.source import Source, SourceCase
from NNSegmentLib.integrity import check
from NNSegmentLib.labels import Label, LabelSet


def test_images_and_labels_of_one_folder_are_told_apart_in_one_go(tmp_path):
    def work_on(n_cases: int):
        folder = tmp_path / str(n_cases)
        folder.mkdir()
        for n in range(n_cases):
            (folder / f"case{n}.png").touch()
            (folder / f"case{n}_mask.png").touch()
        return partial(pairs._split_by_name, folder)

    assert growth(work_on) < 2.6
    images, labels = pairs._split_by_name(tmp_path / "100")
    assert [path.name for path in images[:2]] == ["case0.png", "case1.png"] and len(images) == 100
    assert [path.name for path in labels[:2]] == ["case0_mask.png", "case10_mask.png"] and len(labels) == 100


def test_named_segments_are_told_from_numbers_in_one_go():
    def work_on(n_cases: int):
        names = [f"case{n}.seg.nrrd" for n in range(n_cases)]
        return partial(pairs._require_all_named, list(map(Path, names)), list(map(Path, names)))

    assert growth(work_on) < 2.6


def names(n_cases: int) -> list[str]:
    return [Watched(f"case{n:03d}") for n in range(n_cases)]


def test_case_names_of_a_source_are_not_compared_with_each_other():
    cases, labels = [SourceCase(name, ()) for name in names(100)], LabelSet((Label("background", (0,)),))

    assert comparisons(lambda: Source(Path(), "x", ("a",), labels, ".png", tuple(cases))) == 0


def test_case_names_of_a_dataset_json_are_not_compared_with_each_other(tmp_path, monkeypatch):
    def loads(text: str, object_pairs_hook):
        return json.JSONDecoder(
            object_pairs_hook=lambda pairs: object_pairs_hook([(Watched(key), value) for key, value in pairs])
        ).decode(text)

    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"dataset": {name: {"images": [], "label": ""} for name in names(100)}}))
    monkeypatch.setattr(check.json, "loads", loads)

    assert comparisons(lambda: check._repeated_keys(path)) < 1000


def test_cases_are_named_without_going_through_the_names_before():
    assert case_names(["CT", "ct.nii.gz", "MR", "ct"]) == ["CT", "ct-2", "MR", "ct-3"]
    assert growth(lambda n_cases: partial(case_names, map(str, range(n_cases)))) < 2.6
