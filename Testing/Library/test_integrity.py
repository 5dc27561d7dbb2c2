"""The integrity check: a faultless task gives no finding, every planted fault gives its own."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from task_on_disk import PLAIN, blocks, edit_json, four_d, nnunet_v2, noise, write_plane, write_volume
from test_palettes import png

from NNSegmentLib.errors import TaskError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import write_image, write_labels
from NNSegmentLib.integrity import Finding, check_task, load_findings, save_findings
from NNSegmentLib.integrity.examine import present_values
from NNSegmentLib.integrity.table import findings_table
from NNSegmentLib.task import load_task

PLANE = Geometry((1, 10, 12), (999.0, 1.0, 1.0), dimension=2)


@pytest.fixture
def folder(tmp_path):
    return nnunet_v2(tmp_path / "Dataset003_Blocks", n_channels=2)


def only_finding(folder) -> Finding:
    findings = check_task(load_task(folder))
    assert len(findings) == 1, findings
    return findings[0]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_faultless_task_gives_no_finding(tmp_path, any_geometry, ending):
    folder = nnunet_v2(tmp_path / "Dataset001_Good", n_channels=2, geometry=any_geometry, ending=ending)

    assert check_task(load_task(folder), workers=3) == []


def test_regions_and_ignore_are_no_fault(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset001_Regions", labels={"background": 0, "a": 1, "b": 2})
    names = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    edit_json(folder / "dataset.json", labels=names, regions_class_order=[1, 2])
    write_labels(folder / "labelsTr" / "case1.nii.gz", blocks(values=(1, 3)), PLAIN)

    assert check_task(load_task(folder)) == []


def test_masks_with_a_palette_are_checked_by_their_numbers(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset001_Cells", ending=".png", geometry=PLANE)
    for path in (folder / "labelsTr").iterdir():
        png(path, blocks(PLANE.shape)[0].astype(np.uint8))

    assert check_task(load_task(folder)) == []


def test_a_missing_channel_file_is_named(folder):
    (folder / "imagesTr" / "case1_0001.nii.gz").unlink()

    finding = only_finding(folder)

    assert (finding.severity, finding.case, finding.check) == ("error", "case1", "channel files")
    assert "case1_0001.nii.gz" in finding.found


def test_a_case_with_labels_and_no_image_is_named(folder):
    for path in folder.glob("imagesTr/case1_*"):
        path.unlink()
    edit_json(folder / "dataset.json", numTraining=len(load_task(folder).cases))

    finding = only_finding(folder)

    assert (finding.severity, finding.case, finding.found) == ("error", "case1", "only the labels case1.nii.gz")
    assert "case1_0000.nii.gz, case1_0001.nii.gz" in finding.expected


def test_several_channels_in_one_file_are_counted(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_Blocks", n_channels=1)
    write_volume(folder / "imagesTr" / "case1_0000.nii.gz", four_d(1, 2))

    finding = only_finding(folder)

    assert (finding.case, finding.check, finding.severity) == ("case1", "channels", "error")
    assert finding.found.startswith("2 in case1_0000.nii.gz")


def test_a_missing_label_file_is_found(folder):
    (folder / "labelsTr" / "case2.nii.gz").unlink()

    assert (only_finding(folder).case, only_finding(folder).check) == ("case2", "label file")


@pytest.mark.parametrize("name", ["imagesTr/case0_0001.nii.gz", "labelsTr/case0.nii.gz"])
def test_a_damaged_file_is_found_and_the_others_are_still_checked(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    write_labels(folder / "labelsTr" / "case2.nii.gz", np.zeros(PLAIN.shape, np.uint8), PLAIN)

    findings = check_task(load_task(folder))

    assert [(f.case, f.check) for f in findings] == [("case0", "readable files"), ("case2", "empty labels")]
    assert name.split("/")[1] in findings[0].found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_nan_and_infinity_in_an_image_are_errors(tmp_path, value, ending):
    folder = nnunet_v2(tmp_path / "Dataset003_Blocks", ending=ending)
    voxels = noise(1).astype(np.float32)
    voxels[2, 3, 4] = value
    write_image(folder / "imagesTr" / f"case1_0000{ending}", voxels, PLAIN)

    finding = only_finding(folder)

    assert (finding.severity, finding.case, finding.check) == ("error", "case1", "finite values")


def test_the_channel_that_is_constant_is_named_with_its_value(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset004_Colours", ending=".png", geometry=PLANE)
    edit_json(folder / "dataset.json", channel_names={"0": "R", "1": "G", "2": "B"})
    for n in range(3):
        colours = noise(n, (10, 12, 3)).astype(np.uint8)
        colours[..., 2] = 255 if n == 1 else colours[..., 2]
        write_plane(folder / "imagesTr" / f"case{n}_0000.png", colours)

    assert only_finding(folder).found == "only 255 in channel 2"


def test_a_mask_of_another_size_is_not_said_to_lie_elsewhere(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset004_Cells", ending=".png", geometry=PLANE)
    write_labels(folder / "labelsTr" / "case1.png", blocks((1, 9, 12)), Geometry((1, 9, 12), dimension=2))

    finding = only_finding(folder)

    assert finding.check == "label grid" and "their sizes differ" in finding.advice and "outside" not in finding.advice


def test_stacks_that_do_not_say_where_they_lie_blame_no_mask_that_does(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset004_Mixed", ending=".nrrd")
    listed = {
        f"case{n}": {"images": [f"imagesTr/case{n}_0000.nrrd"], "label": f"labelsTr/case{n}.nrrd"} for n in range(3)
    }
    write_image(folder / "imagesTr" / "case1_0000.tif", noise(1), Geometry(PLAIN.shape))
    listed["case1"]["images"] = ["imagesTr/case1_0000.tif"]
    edit_json(folder / "dataset.json", dataset=listed)

    assert check_task(load_task(folder)) == []


def test_a_constant_image_is_a_warning(folder):
    write_image(folder / "imagesTr" / "case1_0001.nii.gz", np.full(PLAIN.shape, 7, np.int16), PLAIN)

    finding = only_finding(folder)

    assert (finding.severity, finding.check, finding.found) == ("warning", "constant image", "only 7")


def test_empty_labels_are_a_warning_also_when_only_ignore_is_left(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B", labels={"background": 0, "left": 1, "right": 2, "ignore": 3})
    for n, value in enumerate((0, 3)):
        write_labels(folder / "labelsTr" / f"case{n}.nii.gz", np.full(PLAIN.shape, value, np.uint8), PLAIN)

    empty = [f.case for f in check_task(load_task(folder)) if f.check == "empty labels"]

    assert empty == ["case0", "case1"]


@pytest.mark.parametrize(
    ("labels", "found"),
    [(blocks() - 1, "-1"), (blocks() * 0.5, "fractions"), (blocks() + np.nan, "fractions")],
)
def test_negative_and_fractional_labels_are_errors(folder, labels, found):
    path = folder / "labelsTr" / "case1.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.float32).T, PLAIN.ijk_to_ras), path)

    findings = [f for f in check_task(load_task(folder)) if f.severity == "error"]

    assert [(f.case, f.check) for f in findings] == [("case1", "label values")]
    assert found in findings[0].found
    assert not findings[0].fixable


def test_undeclared_values_are_listed_and_not_guessed(folder):
    write_labels(folder / "labelsTr" / "case1.nii.gz", blocks(values=(1, 5)), PLAIN)

    finding = only_finding(folder)

    assert (finding.expected, finding.found, finding.fixable) == ("only 0, 1, 2", "also 5", False)


def test_values_with_gaps_in_dataset_json_are_an_error_that_can_be_mended(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B", labels={"background": 0, "left": 1, "right": 4})

    finding = only_finding(folder)

    assert (finding.severity, finding.case, finding.found) == ("error", "", "0, 1, 4")
    assert finding.fixable


def test_a_label_that_never_occurs_is_a_warning(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B")
    edit_json(folder / "dataset.json", labels={"background": 0, "left": 1, "right": 2, "third": 3})

    finding = only_finding(folder)

    assert (finding.severity, finding.check) == ("warning", "label occurs")
    assert '"third"' in finding.expected


def moved(x_mm=0.0, turn=0.0) -> Geometry:
    """The plain grid, moved along x and turned about z by a small angle (radians)."""
    rows = ((np.cos(turn), -np.sin(turn), 0.0), (np.sin(turn), np.cos(turn), 0.0), (0.0, 0.0, 1.0))
    origin = (PLAIN.origin_mm[0] + x_mm, *PLAIN.origin_mm[1:])
    return Geometry(PLAIN.shape, PLAIN.spacing_mm, origin, tuple(tuple(map(float, row)) for row in rows))


@pytest.mark.parametrize(
    ("grid", "check", "severity"),
    [
        (moved(x_mm=0.0005), None, None),
        (moved(x_mm=0.005), "label direction", "warning"),
        (moved(turn=5e-4), "label direction", "warning"),
        (moved(x_mm=1.0), "label grid", "error"),
        (moved(turn=0.02), "label grid", "error"),
        (Geometry((8, 10, 12), (2.0, 1.0, 1.1), PLAIN.origin_mm), "label grid", "error"),
    ],
)
def test_labels_elsewhere_than_their_image_are_found_from_a_thousandth_of_a_millimetre_on(
    tmp_path, grid, check, severity
):
    folder = nnunet_v2(tmp_path / "Dataset003_B", ending=".nrrd")
    write_labels(folder / "labelsTr" / "case1.nrrd", blocks(), grid)

    findings = check_task(load_task(folder))

    assert [(f.case, f.check, f.severity) for f in findings] == ([("case1", check, severity)] if check else [])
    assert all(f.fixable for f in findings)


def test_labels_of_another_size_are_an_error_with_both_sizes(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B")
    write_labels(folder / "labelsTr" / "case1.nii.gz", blocks()[:7], PLAIN.cropped((0, 0, 0), (7, 10, 12)))

    finding = only_finding(folder)

    assert finding.expected.startswith("the image's grid, 8 × 10 × 12 voxels")
    assert finding.found.startswith("7 × 10 × 12 voxels")


def test_labels_far_outside_the_image_cannot_be_mended_automatically(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B")
    write_labels(folder / "labelsTr" / "case1.nii.gz", blocks(), moved(x_mm=300.0))

    assert not only_finding(folder).fixable


def test_channels_on_different_grids_are_an_error(folder):
    write_image(folder / "imagesTr" / "case2_0001.nii.gz", noise(9), moved(x_mm=2.0))

    finding = only_finding(folder)

    assert (finding.case, finding.check, finding.severity) == ("case2", "channel grid", "error")
    assert "2 mm apart" in finding.found


def test_the_same_image_under_two_names_is_a_warning(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B")
    write_image(folder / "imagesTr" / "case2_0000.nii.gz", noise(0), PLAIN)

    finding = only_finding(folder)

    assert (finding.severity, finding.found) == ("warning", "the same voxels in case0, case2")


def test_case_names_that_occur_twice_are_errors(tmp_path):
    folder = nnunet_v2(tmp_path / "Dataset003_B")
    entries = [
        f'"{name}": {{"images": ["imagesTr/case{n}_0000.nii.gz"], "label": "labelsTr/case{n}.nii.gz"}}'
        for name, n in (("a", 0), ("a", 1), ("A", 2))
    ]
    text = (folder / "dataset.json").read_text().rstrip("}")
    (folder / "dataset.json").write_text(text.replace(": 3", ": 2") + ', "dataset": {' + ", ".join(entries) + "}}")

    findings = check_task(load_task(folder))

    assert [f.found for f in findings if f.check == "unique case names"] == ["A and a", "a twice in dataset.json"]


def test_a_wrong_number_of_cases_and_unused_files_are_found(folder):
    edit_json(folder / "dataset.json", numTraining=5)
    (folder / "imagesTr" / "case9.nii.gz").write_bytes(b"")
    (folder / "labelsTr" / "case9_old.txt").write_bytes(b"")

    findings = check_task(load_task(folder))

    assert [(f.check, f.severity) for f in findings] == [
        ("number of cases", "error"),
        ("unused files", "warning"),
        ("unused files", "warning"),
    ]
    assert findings[0].fixable


def test_test_images_without_all_channels_are_a_warning(folder):
    write_image(folder / "imagesTs" / "new_0001.nii.gz", noise(0), PLAIN)

    assert (only_finding(folder).case, only_finding(folder).check) == ("new", "test images")


def test_a_single_case_is_a_warning(tmp_path):
    assert only_finding(nnunet_v2(tmp_path / "Dataset003_B", n_cases=1)).check == "enough cases"


def test_every_file_is_read_exactly_once(folder, monkeypatch):
    read = []
    original = sitk.ReadImage
    monkeypatch.setattr(sitk, "ReadImage", lambda path, *rest: read.append(path) or original(path, *rest))

    check_task(load_task(folder), workers=1)

    assert sorted(read) == sorted(str(p) for name in ("imagesTr", "labelsTr") for p in (folder / name).iterdir())


def test_findings_can_be_written_as_json(tmp_path):
    finding = only_finding(nnunet_v2(tmp_path / "Dataset003_B", n_cases=1))

    assert set(json.loads(json.dumps(vars(finding)))) == {
        "severity", "case", "check", "expected", "found", "advice", "fixable", "mended"
    }  # fmt: skip


def test_what_a_check_found_is_read_again(tmp_path):
    path = tmp_path / "integrity" / "findings.json"
    found = [Finding("error", "a", "grid", "one", "two", "mend it", fixable=True)]

    assert load_findings(path) is None
    save_findings(found, path)
    assert load_findings(path) == found


@pytest.mark.parametrize(
    "content", ["[]", "{}", "3", '{"findings": 3}', '{"findings": ["bad"]}', '{"findings": [{"severity": 3}]}']
)
def test_a_file_that_holds_no_findings_is_named_in_a_sentence(tmp_path, content):
    (tmp_path / "findings.json").write_text(content)

    with pytest.raises(TaskError, match=r"findings\.json should hold a list of findings.*; check the task again"):
        load_findings(tmp_path / "findings.json")


def test_the_table_closes_with_the_number_of_errors_and_warnings():
    bad = Finding("error", "a", "grid", "one", "two", "mend it", fixable=True)
    odd = Finding("warning", "b", "values", "many", "few", "look at it")

    assert findings_table([bad, odd, odd]).splitlines()[-1] == (
        "1 error, 2 warnings; 1 can be mended with 'nnsegment check --fix'."
    )


@pytest.mark.parametrize("values", [(1, 2), (255, 7), (70000, 3), (-4, 9)])
def test_present_values_are_those_numpy_finds(values):
    labels = blocks(values=values)

    assert present_values(labels) == set(np.unique(labels).tolist())
