"""Folders of predictions scored, and nnU-Net's summary.json."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from NNSegmentLib.errors import ImageError, SettingsError, TaskError
from NNSegmentLib.evaluation import evaluate_folder, evaluate_pair, evaluate_simple, load_scores
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import LabelMap, write_labels
from NNSegmentLib.labels import LabelSet
from NNSegmentLib.lookup import label_set_beside

TWO = LabelSet.from_dataset_json({"labels": {"background": 0, "edge": 1, "core": 2}})
NESTED = LabelSet.from_dataset_json(
    {"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, "regions_class_order": [1, 2]}
)
SHAPE = (6, 10, 8)


def random_labels(seed, shape=SHAPE, high=3):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def dice_by_hand(prediction, reference, values, ignore=None):
    p = np.isin(prediction, values) & (reference != ignore)
    r = np.isin(reference, values) & (reference != ignore)
    return 2 * (p & r).sum() / (p.sum() + r.sum()) if (p | r).any() else math.nan


@pytest.fixture
def folders(tmp_path):
    """Three predicted cases and four references, one of them without prediction."""
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    for case in range(4):
        write_labels(references / f"case{case}.nii.gz", random_labels(case), Geometry(SHAPE, (2.0, 1.0, 1.0)))
    for case in range(3):
        write_labels(predictions / f"case{case}.nii.gz", random_labels(10 + case), Geometry(SHAPE, (2.0, 1.0, 1.0)))
    return predictions, references


def test_summary_has_the_layout_of_nnunet(folders):
    predictions, references = folders

    evaluate_folder(predictions, references, TWO)

    text = (predictions / "summary.json").read_text()
    summary = json.loads(text)
    assert text == json.dumps(summary, indent=4, sort_keys=True)
    assert list(summary) == ["foreground_mean", "mean", "metric_per_case"]
    assert list(summary["mean"]) == ["1", "2"]
    assert set(summary["foreground_mean"]) >= {"Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref", "HD95", "NSD"}
    entry = summary["metric_per_case"][1]
    assert set(entry) == {"metrics", "prediction_file", "reference_file"}
    assert entry["prediction_file"] == str(predictions / "case1.nii.gz")
    assert isinstance(entry["metrics"]["1"]["TP"], int)


def test_scores_are_those_computed_by_hand(folders):
    scores = evaluate_folder(*folders, TWO, workers=3)

    for case in range(3):
        for i, value in enumerate((1, 2)):
            expected = dice_by_hand(random_labels(10 + case), random_labels(case), [value])
            assert scores.cases[case].metrics[i].dice == pytest.approx(expected)
    by_label = [np.mean([c.metrics[i].dice for c in scores.cases]) for i in (0, 1)]
    assert scores.foreground_mean.dice == pytest.approx(np.mean(by_label))
    assert scores.of(2).dice == pytest.approx(by_label[1])
    assert [c.case_id for c in scores.cases] == ["case0", "case1", "case2"]


def test_voxels_are_counted_as_found_invented_missed_or_rightly_left_out(tmp_path):
    reference, prediction = np.zeros((2, 4, 5), np.uint8), np.zeros((2, 4, 5), np.uint8)
    reference[0, 0], prediction[0, 0, :3], prediction[1, 1] = 1, 1, 1

    pair = LabelMap(prediction, Geometry((2, 4, 5))), LabelMap(reference, Geometry((2, 4, 5)))
    found = evaluate_pair(*pair, TWO, surface=False)[0]

    assert (found.tp, found.fp, found.fn, found.tn) == (3, 5, 2, 30)
    assert (found.n_pred, found.n_ref) == (8, 5)
    assert (found.dice, found.iou) == (6 / 13, 3 / 10)


def test_regions_are_unions_without_the_ignored_voxels(tmp_path):
    reference, prediction = random_labels(1, high=4), random_labels(2)
    grid = Geometry(SHAPE)

    whole, core = evaluate_pair(LabelMap(prediction, grid), LabelMap(reference, grid), NESTED, surface=False)

    assert whole.dice == pytest.approx(dice_by_hand(prediction, reference, [1, 2], ignore=3))
    assert core.dice == pytest.approx(dice_by_hand(prediction, reference, [2], ignore=3))
    assert core.tp + core.fp + core.fn + core.tn == (reference != 3).sum()
    assert core.hd95_mm is None


@pytest.mark.parametrize(("core", "key"), [(2, "2"), ([2], "(2,)")], ids=["number", "list"])
def test_region_keys_are_nnunets_and_are_read_back(tmp_path, core, key):
    grid = Geometry(SHAPE)
    nested = LabelSet.from_dataset_json(
        {"labels": {"background": 0, "whole": [1, 2], "core": core, "ignore": 3}, "regions_class_order": [1, 2]}
    )
    write_labels(tmp_path / "p" / "a.nii.gz", random_labels(1), grid)
    write_labels(tmp_path / "r" / "a.nii.gz", random_labels(2, high=4), grid)

    scores = evaluate_folder(tmp_path / "p", tmp_path / "r", nested)

    loaded = load_scores(tmp_path / "p" / "summary.json")
    written = json.loads((tmp_path / "p" / "summary.json").read_text())
    assert set(written["mean"]) == set(written["metric_per_case"][0]["metrics"]) == {"(1, 2)", key}
    assert loaded.targets == ((1, 2), (2,)) and loaded.cases == scores.cases
    assert loaded.mean == scores.mean
    assert loaded.keys == scores.keys


def test_without_regions_a_list_of_one_value_is_a_plain_label(tmp_path):
    one = LabelSet.from_dataset_json({"labels": {"background": 0, "organ": [1]}})
    write_labels(tmp_path / "a.nii.gz", random_labels(1), Geometry(SHAPE))

    assert evaluate_folder(tmp_path, tmp_path, one).keys == ("1",)
    assert one.to_dataset_json() == {"labels": {"background": 0, "organ": [1]}}


def test_a_class_that_is_nowhere_makes_nnunets_mean_undefined_but_not_the_ranking(tmp_path):
    three = LabelSet.from_dataset_json({"labels": {"background": 0, "a": 1, "b": 2, "c": 3}})
    for name, seed in (("p", 1), ("r", 2)):
        write_labels(tmp_path / name / "x.nii.gz", random_labels(seed), Geometry(SHAPE))

    scores = evaluate_folder(tmp_path / "p", tmp_path / "r", three)

    assert math.isnan(scores.foreground_mean.dice)
    assert '"Dice": NaN' in (tmp_path / "p" / "summary.json").read_text()
    assert scores.dice == pytest.approx(np.mean([scores.of(1).dice, scores.of(2).dice]))
    assert "–" in scores.table()


def test_averages_leave_out_cases_without_the_class(tmp_path):
    empty = np.zeros(SHAPE, np.uint8)
    for name, arrays in (("p", (random_labels(1), empty)), ("r", (random_labels(2), empty))):
        for i, array in enumerate(arrays):
            write_labels(tmp_path / name / f"{i}.nii.gz", array, Geometry(SHAPE))

    scores = evaluate_folder(tmp_path / "p", tmp_path / "r", TWO, surface=False)

    assert scores.of(1).dice == scores.cases[0].metrics[0].dice
    assert math.isnan(scores.cases[1].mean_dice)


def test_summaries_of_nnunet_without_surface_metrics_are_read(tmp_path):
    flat = {"Dice": 0.5, "FN": 1, "FP": 2, "IoU": 1 / 3, "TN": 9, "TP": 1.5, "n_pred": 3, "n_ref": 2}
    per_case = [{"metrics": {"10": flat, "2": flat}, "prediction_file": "/a/x.nii.gz", "reference_file": "/b/x.nii.gz"}]
    summary = {
        "foreground_mean": flat,
        "mean": {"10": flat, "2": flat | {"Dice": math.nan}},
        "metric_per_case": per_case,
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))

    scores = load_scores(tmp_path / "summary.json")

    assert scores.targets == ((2,), (10,)) and scores.of(10).dice == 0.5 and scores.foreground_mean.nsd is None
    assert scores.cases[0].case_id == "x"


@pytest.mark.parametrize("text", ['{"mean": {}}', '{"mean": {"x": {}}, "metric_per_case": []}', "[1]", "no json"])
def test_a_file_that_is_no_summary_is_refused_with_a_sentence(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)

    with pytest.raises(TaskError, match="summary.json"):
        load_scores(tmp_path / "summary.json")


def test_explicit_labels_need_no_task(folders):
    scores = evaluate_simple(*folders, [1, (1, 2)], tolerance_mm=2.0)

    assert scores.targets == ((1,), (1, 2))
    assert scores.of((1, 2)).dice == pytest.approx(
        np.mean([dice_by_hand(random_labels(10 + c), random_labels(c), [1, 2]) for c in range(3)])
    )
    assert scores.foreground_mean.nsd_tolerance_mm == 2.0
    with_background = evaluate_simple(*folders, [0, 1])
    assert with_background.foreground_mean.dice == with_background.of(1).dice != with_background.of(0).dice
    without_surfaces = evaluate_simple(*folders, [1], surface=False)
    assert without_surfaces.of(1).dice == with_background.of(1).dice
    assert without_surfaces.of(1).hd95_mm is None and without_surfaces.of(1).nsd is None
    with pytest.raises(TaskError, match="Label 2 was not scored"):
        without_surfaces.of(2)
    with pytest.raises(SettingsError):
        evaluate_simple(*folders, [])
    with pytest.raises(SettingsError):
        evaluate_simple(*folders, [1], tolerance_mm=-1)


@pytest.mark.parametrize("voxel", [0.6, 0.7, 0.8, 0.9765625])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_tolerance_of_one_voxel_holds_in_every_file_type(tmp_path, ending, voxel):
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[2:6, 3:7, 3:7] = 1
    for folder, array in (("references", labels), ("predictions", np.roll(labels, 1, axis=0))):
        write_labels(tmp_path / folder / f"case{ending}", array, Geometry(labels.shape, (voxel,) * 3))

    scores = evaluate_simple(tmp_path / "predictions", tmp_path / "references", [1], tolerance_mm=voxel)

    assert scores.mean[0].nsd == 1.0


def test_geometry_of_any_kind_gives_distances_in_mm(any_geometry, tmp_path):
    reference = np.zeros(any_geometry.shape, np.uint8)
    reference[2:4, 4:8, 3:7] = 1
    for name, array in (("p", np.roll(reference, 1, axis=1)), ("r", reference)):
        write_labels(tmp_path / name / "a.nrrd", array, any_geometry)

    scores = evaluate_folder(tmp_path / "p", tmp_path / "r", TWO)

    assert scores.of(1).hd95_mm == pytest.approx(any_geometry.spacing_mm[1], rel=1e-4)


def test_distances_on_a_sheared_grid_are_those_in_the_world():
    along_z = (0.0, 0.6, 0.8)
    sheared = Geometry(
        (9, 16, 12), (2.5, 1.0, 1.0), direction=((1.0, 0, along_z[0]), (0, 1.0, along_z[1]), (0, 0, along_z[2]))
    )
    one, other = np.zeros((2, *sheared.shape), np.uint8)
    one[7, 3, 4], other[1, 12, 5] = 1, 1

    found = evaluate_pair(LabelMap(one, sheared), LabelMap(other, sheared), TWO)

    assert found[0].hd95_mm == pytest.approx(math.dist(*sheared.world([(7, 3, 4), (1, 12, 5)])))


def test_references_in_another_file_format_are_found(tmp_path):
    write_labels(tmp_path / "p" / "a.nii.gz", random_labels(1), Geometry(SHAPE))
    write_labels(tmp_path / "r" / "a.nrrd", random_labels(1), Geometry(SHAPE))

    assert evaluate_folder(tmp_path / "p", tmp_path / "r", TWO).foreground_mean.dice == 1


def test_only_files_of_the_ending_that_was_asked_for_are_scored(folders):
    predictions, references = folders
    write_labels(predictions / "case3.nrrd", random_labels(3), Geometry(SHAPE, (2.0, 1.0, 1.0)))

    by_task = evaluate_folder(predictions, references, TWO, file_ending=".nrrd")
    by_label = evaluate_simple(predictions, references, [1, 2], file_ending=".nrrd")

    assert [case.case_id for case in by_task.cases] == [case.case_id for case in by_label.cases] == ["case3"]
    assert by_task.foreground_mean.dice == by_label.foreground_mean.dice == 1
    assert len(evaluate_folder(predictions, references, TWO).cases) == 3


def test_plane_images_are_scored_in_pixels(tmp_path):
    plane = np.zeros((1, 12, 12), np.uint8)
    plane[0, 2:8, 2:8] = 1
    for name, array in (("p", np.roll(plane, 2, axis=2)), ("r", plane)):
        write_labels(tmp_path / name / "a.png", array, Geometry((1, 12, 12), (999.0, 1.0, 1.0), dimension=2))

    assert evaluate_folder(tmp_path / "p", tmp_path / "r", TWO).of(1).hd95_mm == 2


@pytest.mark.parametrize(
    "geometry",
    [Geometry((6, 10, 9)), Geometry(SHAPE, (2.0, 1.0, 1.5)), Geometry(SHAPE, (2.0, 1.0, 1.0), (5.0, 0.0, 0.0))],
)
def test_a_prediction_on_another_grid_is_refused_by_name(folders, geometry):
    predictions, references = folders
    write_labels(predictions / "case1.nii.gz", random_labels(3, geometry.shape), geometry)

    with pytest.raises(ImageError, match="case1.nii.gz"):
        evaluate_folder(predictions, references, TWO)
    assert not (predictions / "summary.json").exists()


def test_label_maps_on_different_grids_are_not_compared():
    here, there = (LabelMap(random_labels(1), Geometry(SHAPE, origin_mm=(x, 0.0, 0.0))) for x in (0.0, 3.0))

    with pytest.raises(ImageError, match="lies 3 mm away"):
        evaluate_pair(here, there, TWO)


def test_missing_files_are_named(folders, tmp_path):
    predictions, references = folders

    said = []
    evaluate_folder(predictions, references, TWO, say=said.append)
    assert len(said) == 1 and said[0].endswith("no prediction: case3.")
    (references / "case1.nii.gz").unlink()
    with pytest.raises(ImageError, match="case1.nii.gz"):
        evaluate_folder(predictions, references, TWO)
    with pytest.raises(ImageError, match="found none"):
        evaluate_folder(tmp_path / "nowhere", references, TWO)


def test_references_with_values_that_are_no_labels_are_told(tmp_path):
    one = LabelSet.from_dataset_json({"labels": {"background": 0, "cell": 1}})
    cells, said = (random_labels(1) > 0).astype(np.uint8), []
    for name, factor in (("p", 1), ("r", 255)):
        write_labels(tmp_path / name / "a.nii.gz", cells * factor, Geometry(SHAPE))

    assert evaluate_folder(tmp_path / "p", tmp_path / "r", one, say=said.append).of(1).dice == 0
    assert len(said) == 1 and said[0].startswith("1 of 1 references hold 255, which is no label of the task (0, 1)")
    evaluate_folder(tmp_path / "p", tmp_path / "p", one, say=said.append)
    evaluate_simple(tmp_path / "p", tmp_path / "r", [1], say=said.append)
    assert len(said) == 1


def test_the_ignored_value_is_no_stranger_in_references(tmp_path):
    said = []
    write_labels(tmp_path / "p" / "a.nii.gz", random_labels(1), Geometry(SHAPE))
    write_labels(tmp_path / "r" / "a.nii.gz", random_labels(2, high=4), Geometry(SHAPE))

    evaluate_folder(tmp_path / "p", tmp_path / "r", NESTED, say=said.append)

    assert said == []


def test_endings_in_capitals_are_the_same_endings(tmp_path):
    for name in ("p", "r"):
        write_labels(tmp_path / name / "a.png", random_labels(1)[:1], Geometry((1, *SHAPE[1:]), dimension=2))
    (tmp_path / "r" / "a.png").rename(tmp_path / "r" / "a.PNG")

    assert evaluate_folder(tmp_path / "p", tmp_path / "r", TWO).foreground_mean.dice == 1
    assert evaluate_folder(tmp_path / "r", tmp_path / "p", TWO).foreground_mean.dice == 1


def test_progress_counts_the_cases(folders):
    seen = []

    evaluate_folder(*folders, TWO, progress=lambda done, total, what: seen.append((done, total)))

    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_the_table_names_every_target(folders):
    table = evaluate_folder(*folders, TWO).table()

    assert [line.split("  ")[0].strip() for line in table.splitlines()[2:]] == ["edge", "core", "mean of foreground"]


def test_a_folder_that_is_missing_is_named_before_its_labels_are_looked_for(tmp_path):
    (tmp_path / "here").mkdir()

    with pytest.raises(TaskError, match="Expected a folder of label maps at .*nowhere"):
        label_set_beside(tmp_path / "here", tmp_path / "nowhere")
    with pytest.raises(TaskError, match=r"No dataset\.json in or above .*here"):
        label_set_beside(tmp_path / "here")
