"""Reading a task from nnU-Net v2's layout, labels and their meaning, colours, and where cases came from."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_on_disk import edit_json, nnunet_v2

from NNSegmentLib.cases import CaseOrigin, TaskOrigin, ValueChange, load_origin, save_origin
from NNSegmentLib.colors import COLUMNS, colored, distinct_color, load_label_colors, save_label_colors, with_colors
from NNSegmentLib.errors import TaskError
from NNSegmentLib.integrity import check_task
from NNSegmentLib.labels import Label, LabelSet, parse_region_key, region_key
from NNSegmentLib.task import find_images, find_labels, load_task

REGIONS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4},
    "regions_class_order": [1, 2, 3],
}
LIVER = "Segmentation category and type~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~~^^~^^"


def test_cases_are_found_sorted_with_their_channels_and_dot_files_are_ignored(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset042_B", n_cases=11, n_channels=2)
    (folder / "imagesTr" / "._case0_0000.nii.gz").write_bytes(b"")
    (folder / "imagesTr" / "case0.nii.gz").write_bytes(b"")

    task = load_task(folder)

    assert (task.id, task.name, task.file_ending) == (42, "Dataset042_B", ".nii.gz")
    assert [case.id for case in task.cases] == sorted(f"case{n}" for n in range(11))
    assert [path.name for path in task.case("case10").images] == ["case10_0000.nii.gz", "case10_0001.nii.gz"]
    assert task.case("case3").labels == folder / "labelsTr" / "case3.nii.gz"
    with pytest.raises(TaskError, match="no case lung; it has 11 cases"):
        task.case("lung")


def test_listed_files_may_be_relative_absolute_or_hold_variables(tmp_path, monkeypatch):
    folder = nnunet_v2(tmp_path / "Dataset042_B")
    monkeypatch.setenv("WHERE_THE_IMAGES_ARE", str(tmp_path / "far"))
    listed = {"z": {"images": ["a.nrrd", "/data/b.nrrd"], "label": "$WHERE_THE_IMAGES_ARE/c.nrrd"}}
    edit_json(folder / "dataset.json", dataset=listed)

    case = load_task(folder).cases[0]

    assert [str(path) for path in case.images] == [str(folder / "a.nrrd"), "/data/b.nrrd"]
    assert case.labels == tmp_path / "far" / "c.nrrd"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": None}, "lacks labels"),
        ({"file_ending": None, "channel_names": None}, "lacks channel_names, file_ending"),
        ({"channel_names": ["CT"]}, "channel_names"),
        ({"file_ending": "/../../x.nii.gz"}, "file_ending .* should be like '.nii.gz'"),
        ({"file_ending": ".mha"}, "should hold files like CASE_0000.mha"),
        ({"labels": {"liver": 1}}, '"background": 0'),
        ({"labels": {"background": 0, "liver": "1"}}, "whole number"),
        ({"labels": {"background": 0, "liver": 1, "ignore": 5}}, "highest value plus one"),
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}}, "regions_class_order with 2 values"),
        ({"labels": REGIONS["labels"], "regions_class_order": "1, 2"}, "list of whole numbers"),
        ({"labels": REGIONS["labels"], "regions_class_order": [1, "2"]}, "list of whole numbers"),
        ({"labels": {"background": 0, "liver": 70000}}, "at most 65535"),
        ({"regions_class_order": {"liver": 1}}, "regions_class_order"),
        ({"regions_class_order": ["1", None]}, "regions_class_order"),
        ({"channel_names": {"²": "CT"}}, "channel_names"),
        ({"channel_names": {"9" * 5000: "CT"}}, "channel_names"),
        ({"dataset": {"a": "b.nrrd"}}, '"dataset"'),
        ({"numTraining": "many"}, "numTraining"),
        ({"labels": {"background": 0, "a" * 200_000: 1}}, "at most 500 letters"),
        ({"channel_names": {"0": "CT\x1b[2J"}}, "name of a channel should be one line"),
    ],
)
def test_a_wrong_dataset_json_is_answered_in_one_sentence(tmp_path, changes, sentence):
    folder = nnunet_v2(tmp_path / "Dataset042_B")
    edit_json(folder / "dataset.json", **changes)

    with pytest.raises(TaskError, match=sentence) as raised:
        load_task(folder)
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)  # a workspace has many files of this name


@pytest.mark.parametrize(("content", "found"), [("null", "nothing"), ("[]", "a list"), ("true", "true or false")])
def test_a_dataset_json_of_another_kind_is_told_in_words(tmp_path, content, found):
    folder = nnunet_v2(tmp_path / "Dataset042_B")
    (folder / "dataset.json").write_text(content)

    with pytest.raises(TaskError, match=f"should be a JSON object, found {found}; restore the file"):
        load_task(folder)


LISTED = {"images": ["a.nrrd"], "label": "b.nrrd"}


@pytest.mark.parametrize(
    "case_id",
    ["", ".", "..", "../../precious/patient", "/home/a", "a/b", "C:a", "a\\b", "a\0", "a\nb", "a\x1b[31m", "\u202eb"],
)
def test_a_listed_case_whose_name_would_lead_elsewhere_is_refused(tmp_path, case_id):
    folder = nnunet_v2(tmp_path / "Dataset042_B")
    edit_json(folder / "dataset.json", dataset={"good": LISTED, case_id: LISTED})

    with pytest.raises(TaskError, match="should name cases by what can be a file's name, found"):
        load_task(folder)


def test_a_listed_case_may_have_any_other_name(tmp_path):
    folder, ids = (
        nnunet_v2(tmp_path / "Dataset042_B"),
        ("1.2.840.113", "Müller, A. (2)", "..a..b", "脑 01", "con", "a "),
    )
    edit_json(folder / "dataset.json", dataset=dict.fromkeys(ids, LISTED))

    assert tuple(case.id for case in load_task(folder).cases) == ids


def test_a_folder_without_dataset_json_is_no_task(tmp_path):
    with pytest.raises(TaskError, match="is no task"):
        load_task(tmp_path)


def test_files_group_into_cases_only_with_four_digits(tmp_path):
    for name in ("a_0001.png", "a_0000.png", "b_b_0000.png", "c_000.png", "d_0000.tif", "e_0000.PNG"):
        (tmp_path / name).write_bytes(b"")

    found = find_images(tmp_path, ".png")

    assert {key: [path.name for path in paths] for key, paths in found.items()} == {
        "a": ["a_0000.png", "a_0001.png"],
        "b_b": ["b_b_0000.png"],
        "e": ["e_0000.PNG"],
    }


def test_of_files_that_differ_by_capitals_alone_the_exact_one_counts(tmp_path):
    for name in ("a_0000.PNG", "a_0000.png", "a_0001.Png"):
        (tmp_path / name).write_bytes(b"")

    assert [path.name for path in find_images(tmp_path, ".png")["a"]] == ["a_0000.png", "a_0001.Png"]
    assert find_labels(tmp_path, ["a_0000", "a_0001", "b"], ".png") == {
        "a_0000": tmp_path / "a_0000.png",
        "a_0001": tmp_path / "a_0001.Png",
        "b": tmp_path / "b.png",
    }


@pytest.mark.parametrize("ending", [".NRRD", ".Nrrd"])
def test_a_task_with_endings_in_capitals_has_its_labels(tmp_path, ending):
    folder = nnunet_v2(tmp_path / "Dataset006_Loud", ending=".nrrd")
    for path in [*folder.glob("*/*.nrrd")]:
        path.rename(path.with_suffix(ending))

    task = load_task(folder)

    assert len(task.cases) == 3 and check_task(task) == []


def test_the_meaning_of_regions_and_ignore_is_nnunets():
    labels = LabelSet.from_dataset_json(REGIONS)

    assert labels.has_regions
    assert (labels.values, labels.ignore_value, labels.n_outputs) == ((0, 1, 2, 3), 4, 3)
    assert labels.targets == ((1, 2, 3), (2, 3), (3,))
    assert labels.name_of((2, 3)) == "core"
    assert labels.to_dataset_json() == REGIONS


@given(st.integers(1, 6), st.booleans())
@settings(max_examples=20, deadline=None)
def test_plain_labels_survive_a_round_trip(n, ignore):
    entries = {"background": 0} | {f"l{v}": v for v in range(1, n + 1)} | ({"ignore": n + 1} if ignore else {})

    labels = LabelSet.from_dataset_json({"labels": entries})

    assert labels.to_dataset_json() == {"labels": entries}
    assert labels.n_outputs == n + 1
    assert labels.targets == tuple((v,) for v in range(1, n + 1))


def test_the_highest_output_wins_without_regions():
    labels = LabelSet.from_dataset_json({"labels": {"background": 0, "a": 1, "b": 2}})
    scores = np.random.default_rng(0).normal(size=(3, 4, 5, 6))

    decided = labels.decide(scores)

    for voxel in np.ndindex(4, 5, 6):
        assert decided[voxel] == max(range(3), key=lambda output, voxel=voxel: scores[(output, *voxel)])


@pytest.mark.parametrize("probabilities", [False, True])
def test_regions_are_painted_in_their_order(probabilities):
    labels = LabelSet.from_dataset_json(REGIONS)
    scores = np.random.default_rng(1).normal(size=(3, 4, 5, 6))
    given_scores = 1 / (1 + np.exp(-scores)) if probabilities else scores

    decided = labels.decide(given_scores, probabilities)

    for voxel in np.ndindex(4, 5, 6):
        painted = [order for order, score in zip((1, 2, 3), scores[(slice(None), *voxel)], strict=True) if score > 0]
        assert decided[voxel] == (painted[-1] if painted else 0)


@pytest.mark.parametrize("region", [(1,), (1, 2), (3, 7, 9)])
def test_region_keys_are_nnunets_and_reversible(region):
    assert parse_region_key(region_key(region)) == region
    assert region_key((1,)) == "1" and region_key((1, 2)) == "(1, 2)"


@pytest.mark.parametrize("name, values", [(None, (1,)), ("a", "1"), ("a", 1.5), ("a", (1.0,)), ("a", ()), ("a", True)])
def test_a_label_needs_a_name_and_whole_numbers(name, values):
    with pytest.raises(TaskError, match="A label has a name and the whole numbers that it covers"):
        Label(name, values)


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        ({"labels": {"background": 0, "tumour": 2, "organ": 1}}, ""),
        ({"labels": {"background": 0, "organ": 1, "tumour": 2}, "regions_class_order": [1, 2]}, ""),
        ({"labels": {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}}, ""),
        ({"labels": {"background": 0, "organ": 2, "tumour": 1}}, "organ is 2 and was 1, tumour is 1 and was 2"),
        ({"labels": {"background": 0, "organ": 1}}, "1, 2 became 1"),
    ],
)
def test_labels_mean_something_else_where_their_outputs_do(now, changed):
    was = LabelSet.from_dataset_json({"labels": {"background": 0, "organ": 1, "tumour": 2}})

    assert was.changed_meaning(LabelSet.from_dataset_json(now)) == changed


@pytest.mark.parametrize(
    ("labels", "changed"),
    [
        ({"whole": [3, 1, 2], "core": [3, 2], "enhancing": 3}, ""),
        ({"core": [2, 3], "whole": [1, 2, 3], "enhancing": 3}, "regions are painted in another order"),
    ],
)
def test_regions_mean_the_same_in_whatever_order_their_values_are_written(labels, changed):
    now = LabelSet.from_dataset_json(REGIONS | {"labels": {"background": 0, **labels}})

    assert LabelSet.from_dataset_json(REGIONS).changed_meaning(now) == changed


def test_two_names_of_one_value_are_one_output_as_in_nnunet():
    labels = LabelSet((Label("background", 0), Label("left", 1), Label("right", (1,)), Label("other", 2)))

    assert Label("left", 1) == Label("left", (1,))
    assert labels.n_outputs == 3


def test_colours_of_the_first_forty_labels_differ_visibly():
    colours = np.array([distinct_color(n) for n in range(40)], float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2) + 1000 * np.eye(40)

    assert distances.min() > 15
    assert np.array_equal(np.diag(distances[:-1, 1:]) > 100, np.ones(39, bool))


def test_a_colour_table_keeps_names_colours_and_terminology(tmp_path):
    labels = LabelSet(
        (
            Label("background", (0,)),
            Label("liver, left lobe", (1,), (10, 20, 30), LIVER),
            Label("tumour", (2,)),
            Label("ignore", (3,)),
        )
    )
    save_label_colors(tmp_path / "labels.csv", labels)

    known = load_label_colors(tmp_path / "labels.csv")
    again = with_colors(LabelSet.from_dataset_json(labels.to_dataset_json()), known)

    assert [label.values for label in known] == [(1,), (2,), (3,)]
    assert again.labels[1].color == (10, 20, 30)
    assert again.labels[1].terminology.split("~")[1:3] == LIVER.split("~")[1:3]
    assert again.labels[2].color == colored(labels).labels[2].color
    assert again.labels[0].color is None


def test_a_colour_table_has_the_columns_slicer_reads(tmp_path):
    save_label_colors(tmp_path / "labels.csv", LabelSet.from_dataset_json(REGIONS))

    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert tuple(rows[0]) == COLUMNS
    assert COLUMNS[6:9] == ("Category_CodingScheme", "Category_CodeValue", "Category_CodeMeaning")
    assert [(row["LabelValue"], row["Name"]) for row in rows] == [
        ("1", "whole"),
        ("2", "core"),
        ("3", "enhancing"),
        ("4", "ignore"),
    ]
    assert all(0 <= int(row[f"Color_{c}"]) <= 255 and row["Color_A"] == "255" for row in rows for c in "RGB")


def test_a_task_takes_its_colours_from_labels_csv_and_says_when_it_cannot(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset042_B")
    (folder / "labels.csv").write_text("LabelValue,Name,Color_R,Color_G,Color_B\n2,right,1,2,3\n")

    assert [label.color for label in load_task(folder).labels.labels] == [None, None, (1, 2, 3)]
    (folder / "labels.csv").write_text("value;name\n1;left\n")
    with pytest.raises(TaskError, match="labels.csv should be a colour table"):
        load_task(folder)


HEADER = "LabelValue,Name,Color_R,Color_G,Color_B\n"


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (b"value;name\n1;left\n", "it has no LabelValue"),
        (HEADER.encode() + b"x,right,1,2,3\n", "LabelValue should be a whole number, found 'x'"),
        (HEADER.encode() + b"2,right,1\n", "Color_G should be a whole number, found ''"),
        (HEADER.encode() + b'2,"' + b"x" * 200_000, "an entry is of another kind"),
        (HEADER.encode("utf-16"), "its text is not in UTF-8"),
    ],
    ids=["columns", "word", "short", "endless", "utf-16"],
)
def test_a_colour_table_that_cannot_be_read_is_told_in_plain_words(tmp_path, table, reason):
    path = tmp_path / "labels.csv"
    path.write_bytes(table)

    with pytest.raises(TaskError, match=rf"labels.csv should be a colour table .* \({reason}\); correct or delete it"):
        load_label_colors(path)


def test_a_dataset_json_that_cannot_be_read_is_told_in_plain_words(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset042_B")
    (folder / "dataset.json").write_text("{}", encoding="utf-16")

    with pytest.raises(TaskError, match=r"dataset.json cannot be read \(its text is not in UTF-8\); check"):
        load_task(folder)


def test_the_origin_of_cases_survives_a_round_trip(tmp_path):
    origin = TaskOrigin(
        "/data/x", "nnU-Net v1", (ValueChange(255, 1),), (CaseOrigin("a", ("/data/x/a.nii.gz",), "/data/x/l.nii.gz"),)
    )
    save_origin(origin.with_fixes((("a", "moved"), ("b", "renumbered"))), tmp_path)

    again = load_origin(tmp_path)

    assert again.cases == (
        CaseOrigin("a", ("/data/x/a.nii.gz",), "/data/x/l.nii.gz", ("moved",)),
        CaseOrigin("b", fixes=("renumbered",)),
    )
    assert again.values_changed == origin.values_changed
    assert load_origin(tmp_path / "elsewhere") == TaskOrigin()


def test_written_colour_tables_and_origins_are_plain_text(tmp_path):
    save_origin(TaskOrigin("/data/ü"), tmp_path)

    assert json.loads((tmp_path / "cases.json").read_text())["source"] == "/data/ü"
