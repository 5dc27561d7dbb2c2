"""Tasks of thousands of cases: twice the cases take about twice the work, not four times."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from effort import growth

from NNSegmentLib.formats import pairs


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
