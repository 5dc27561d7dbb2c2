"""Other systems' named segments become tasks: each voxel keeps its place in the world, its name and its colour."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from task_on_disk import OBLIQUE, noise, tree

from NNSegmentLib.cases import load_origin
from NNSegmentLib.cli import main
from NNSegmentLib.errors import ImageError, SettingsError, TaskError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.formats import convert
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_geometry, read_labels, write_image, write_labels
from NNSegmentLib.integrity import check_task


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(tmp_path / "workspace")


def box(shape, z=(2, 5), y=(3, 9), x=(2, 6)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[slice(*z), slice(*y), slice(*x)] = 1
    return mask


def places(mask: np.ndarray, geometry: Geometry) -> set[tuple]:
    """World positions of a mask's voxels, computed voxel by voxel from spacing, direction and origin."""
    direction, spacing = np.array(geometry.direction), np.array(geometry.spacing_mm[::-1])
    xyz = np.argwhere(mask)[:, ::-1]
    return {tuple(np.round(np.array(geometry.origin_mm) + direction @ (spacing * index), 2) + 0.0) for index in xyz}


def label_places(task, case_id: str, name: str) -> set[tuple]:
    found = read_labels(task.case(case_id).labels)
    label = next(label for label in task.labels.labels if label.name == name)
    return places(np.isin(found.array, label.values), found.geometry)


def notes(task) -> dict[str, tuple[str, ...]]:
    return {case.id: case.fixes for case in load_origin(task.folder).cases if case.fixes}


# TotalSegmentator ---------------------------------------------------------------------------------------------------


def total_segmentator(folder: Path, geometry: Geometry = OBLIQUE, image: str = "ct.nii.gz", **cases: dict) -> Path:
    """Cases as {class: mask}."""
    for n, (case_id, masks) in enumerate(cases.items()):
        write_image(folder / case_id / image, noise(n, geometry.shape), geometry)
        for name, mask in masks.items():
            write_labels(folder / case_id / "segmentations" / f"{name}.nii.gz", mask, geometry)
    return folder


def test_one_file_per_class_becomes_labels_in_alphabetical_order(tmp_path, workspace, any_geometry):
    shape = any_geometry.shape
    spleen, liver, aorta = box(shape, x=(1, 3)), box(shape, x=(3, 5)), box(shape, x=(5, 7))
    source = total_segmentator(
        tmp_path / "Totalsegmentator_dataset",
        any_geometry,
        s0001={"spleen": spleen, "liver": 255 * liver},
        s0002={"aorta": aorta, "liver": np.zeros(shape, np.uint8)},
    )
    before = tree(source)

    task = convert(source, workspace)

    assert task.labels.to_dataset_json()["labels"] == {"background": 0, "aorta": 1, "liver": 2, "spleen": 3}
    assert [channel.name for channel in task.channels] == ["CT"]
    for case_id, name, mask in [("s0001", "spleen", spleen), ("s0001", "liver", liver), ("s0002", "aorta", aorta)]:
        assert label_places(task, case_id, name) == places(mask, any_geometry)
    assert task.case("s0001").images[0].read_bytes() == (source / "s0001" / "ct.nii.gz").read_bytes()
    assert load_origin(task.folder).format == "TotalSegmentator"
    assert notes(task) == {}
    assert not [finding for finding in check_task(task) if finding.severity == "error"]
    assert tree(source) == before


def test_masks_on_another_grid_than_the_image_are_placed_by_world_coordinates(tmp_path, workspace, any_geometry):
    start, shape = (1, 2, 1), (5, 9, 6)
    liver = box(shape, z=(1, 3), y=(2, 5), x=(1, 4))
    source = total_segmentator(tmp_path / "source", any_geometry, s1={})
    cropped = any_geometry.cropped(start, shape)
    write_labels(source / "s1" / "segmentations" / "liver.nii.gz", liver, cropped)

    task = convert(source, workspace)

    assert read_geometry(task.case("s1").labels).same_grid(any_geometry)
    assert label_places(task, "s1", "liver") == places(liver, cropped)


@pytest.mark.parametrize(
    ("degrees", "spacing"), [(20, (2.6, 0.7, 0.75)), (3, OBLIQUE.spacing_mm)], ids=["turned and finer", "hardly turned"]
)
def test_masks_on_a_turned_grid_give_each_voxel_the_nearest_label(tmp_path, workspace, degrees, spacing):
    source = total_segmentator(tmp_path / "source", s1={})
    turn = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    rows = tuple(map(tuple, (about_x @ np.array(OBLIQUE.direction)).tolist()))
    other = Geometry((11, 16, 12), spacing, OBLIQUE.origin_mm, rows)
    path = source / "s1" / "segmentations" / "liver.nii.gz"
    write_labels(path, box(other.shape, z=(1, 8), y=(2, 12), x=(2, 10)), other)

    task = convert(source, workspace)

    image, mask = sitk.ReadImage(str(source / "s1" / "ct.nii.gz")), sitk.ReadImage(str(path))
    expected = sitk.GetArrayFromImage(sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0))
    assert expected.any()
    assert np.array_equal(read_labels(task.cases[0].labels).array, expected)


OVERLAPPING = {"heart": box(OBLIQUE.shape, x=(2, 6)), "lung": box(OBLIQUE.shape, x=(4, 8))}


def test_overlapping_classes_are_named_counted_and_given_to_the_later_label(tmp_path, workspace):
    source = total_segmentator(tmp_path / "source", s1=OVERLAPPING, s2={"heart": OVERLAPPING["heart"]})

    task = convert(source, workspace)

    n = int((OVERLAPPING["heart"] & OVERLAPPING["lung"]).sum())
    assert notes(task) == {"s1": (f"heart and lung overlap in {n} voxels, of which the later label was kept.",)}
    assert label_places(task, "s1", "lung") == places(OVERLAPPING["lung"], OBLIQUE)
    assert label_places(task, "s1", "heart") == places(OVERLAPPING["heart"] & ~OVERLAPPING["lung"] & 1, OBLIQUE)
    assert not task.labels.has_regions


def test_the_command_says_what_it_did_to_overlaps(tmp_path, capsys):
    source = total_segmentator(tmp_path / "source", s1=OVERLAPPING)
    command = ["convert", str(source), "--workspace", str(tmp_path / "workspace")]

    assert main([*command, "--name", "Order"]) == 0
    assert "s1: heart and lung overlap in 36 voxels, of which the later label was kept." in capsys.readouterr().out
    assert main([*command, "--name", "Regions", "--overlaps", "regions", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []
    assert main([*command, "--name", "Refused", "--overlaps", "refuse"]) == 2
    assert "heart and lung overlap in 36 voxels" in capsys.readouterr().err


def test_overlapping_classes_become_regions_when_wanted(tmp_path, workspace):
    source = total_segmentator(tmp_path / "source", s1=OVERLAPPING)

    task = convert(source, workspace, overlaps="regions")

    assert task.labels.has_regions
    for name, mask in OVERLAPPING.items():
        assert label_places(task, "s1", name) == places(mask, OBLIQUE)
    assert notes(task) == {}


def test_overlapping_classes_are_refused_by_name_when_wanted(tmp_path, workspace):
    source = total_segmentator(tmp_path / "source", s1=OVERLAPPING)

    with pytest.raises(TaskError, match="s1: the segments heart and lung overlap in"):
        convert(source, workspace, overlaps="refuse")
    with pytest.raises(SettingsError, match="order, regions, refuse, found 'mix'"):
        convert(source, workspace, overlaps="mix")
    assert not any(workspace.raw.iterdir())


def test_test_cases_of_meta_csv_and_unlabelled_cases_do_not_train(tmp_path, workspace):
    liver = {"liver": box(OBLIQUE.shape)}
    source = total_segmentator(tmp_path / "source", s1=liver, s2=liver, s3=liver, s4={}, image="mri.nii.gz")
    (source / "meta.csv").write_text("\ufeffimage_id;age;split\ns1;60;train\ns2;;val\ns3;71;test\n", encoding="utf-8")

    task = convert(source, workspace)

    assert [case.id for case in task.cases] == ["s1", "s2"]
    assert [channel.name for channel in task.channels] == ["MR"]
    tests = sorted(path.name for path in (task.folder / "imagesTs").iterdir())
    assert tests == ["s3_0000.nii.gz", "s4_0000.nii.gz"]
    assert [path.name for path in (task.folder / "labelsTs").iterdir()] == ["s3.nii.gz"]


def test_a_meta_csv_in_another_encoding_is_told_in_plain_words(tmp_path, workspace):
    source = total_segmentator(tmp_path / "source", s1={"liver": box(OBLIQUE.shape)})
    (source / "meta.csv").write_text("image_id;split\ns1;train\n", encoding="utf-16")

    with pytest.raises(TaskError, match=r"meta.csv .* cannot be read \(its text is not in UTF-8\); mend or delete it"):
        convert(source, workspace)


def test_all_cases_train_when_meta_csv_calls_all_of_them_tests(tmp_path, workspace):
    source = total_segmentator(tmp_path / "source", s1={"liver": box(OBLIQUE.shape)})
    (source / "meta.csv").write_text("image_id;split\ns1;test\n")

    assert [case.id for case in convert(source, workspace).cases] == ["s1"]


def test_masks_outside_their_image_are_refused(tmp_path, workspace):
    source = total_segmentator(tmp_path / "source", s1={})
    far = Geometry(OBLIQUE.shape, OBLIQUE.spacing_mm, (900.0, 0.0, 0.0), OBLIQUE.direction)
    write_labels(source / "s1" / "segmentations" / "liver.nii.gz", box(OBLIQUE.shape), far)

    with pytest.raises(ImageError, match="segments of s1 .* lie outside its image"):
        convert(source, workspace)


def test_masks_partly_outside_their_image_are_cut_and_reported(tmp_path, workspace):
    source = total_segmentator(tmp_path / "source", s1={})
    higher = OBLIQUE.cropped((4, 0, 0), OBLIQUE.shape)
    write_labels(source / "s1" / "segmentations" / "liver.nii.gz", box(OBLIQUE.shape, z=(2, 6)), higher)

    task = convert(source, workspace)

    assert notes(task) == {"s1": ("50.0 % of liver lies outside the image and was left out.",)}


# Slicer's .seg.nrrd -------------------------------------------------------------------------------------------------

ORGAN = "Context~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Anatomic codes~^^~^^"


def seg_nrrd(path: Path, layers, geometry: Geometry, segments, **fields) -> None:
    """Slicer's segmentation file, its header written word by word."""
    spacing, origin, direction = geometry.to_lps()
    columns = np.array(direction).reshape(3, 3) * np.array(spacing)
    vectors = [f"({','.join(map(repr, columns[:, axis].tolist()))})" for axis in range(3)]
    sizes, kinds, data = list(geometry.shape[::-1]), ["domain"] * 3, np.asarray(layers, np.uint8)
    if len(layers) > 1:
        sizes, kinds, vectors = [len(layers), *sizes], ["list", *kinds], ["none", *vectors]
        data = np.moveaxis(data, 0, -1)
    header = [
        "NRRD0004", "type: uint8", f"dimension: {len(sizes)}", "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, sizes))}", f"space directions: {' '.join(vectors)}", f"kinds: {' '.join(kinds)}",
        "encoding: raw", f"space origin: ({','.join(map(repr, origin))})",
    ]  # fmt: skip
    header += [f"{key}:={value}" for key, value in fields.items()]
    for n, segment in enumerate(segments):
        header += [f"Segment{n}_{key}:={value}" for key, value in segment.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join([*header, "", ""]).encode() + np.ascontiguousarray(data).tobytes())


def segment(name: str, value: int = 1, layer: int = 0, color: str = "0.5 0.25 1", tags: str = "") -> dict:
    return {"ID": f"id_{name}", "Name": name, "Color": color, "LabelValue": value, "Layer": layer, "Tags": tags}


def pair(folder: Path, geometry: Geometry, case: str, layers, segments, crop=None, **fields) -> Path:
    write_image(folder / "images" / f"{case}.nii.gz", noise(len(case), geometry.shape), geometry)
    own = geometry.cropped(*crop) if crop else geometry
    seg_nrrd(folder / "labels" / f"{case}.seg.nrrd", layers, own, segments, **fields)
    return folder


def test_segments_of_a_cropped_slicer_file_keep_place_name_colour_and_terminology(tmp_path, workspace, any_geometry):
    start, shape = (1, 3, 2), (4, 6, 5)
    labels = 7 * box(shape, z=(1, 3), y=(1, 4), x=(0, 2)) + 3 * box(shape, z=(1, 4), y=(0, 6), x=(3, 5))
    segments = [segment("Leber größer", 7, tags=f"Status:done|TerminologyEntry:{ORGAN}|"), segment("tumour", 3)]
    source = pair(
        tmp_path / "source", any_geometry, "a", [labels], segments, (start, shape),
        Segmentation_ReferenceImageExtentOffset="2 3 1",
    )  # fmt: skip

    task = convert(source, workspace)

    own = any_geometry.cropped(start, shape)
    assert task.labels.to_dataset_json()["labels"] == {"background": 0, "Leber größer": 1, "tumour": 2}
    assert label_places(task, "a", "Leber größer") == places(labels == 7, own)
    assert label_places(task, "a", "tumour") == places(labels == 3, own)
    liver = task.labels.foreground[0]
    assert liver.color == (128, 64, 255)
    assert "SCT^10200004^Liver" in liver.terminology
    assert "10200004,Liver" in (task.folder / "labels.csv").read_text()
    assert read_geometry(task.case("a").labels).same_grid(any_geometry)


def test_layers_of_a_slicer_file_become_regions_or_are_reported(tmp_path, workspace, any_geometry):
    shape = any_geometry.shape
    liver, tumour = box(shape, x=(1, 7)), box(shape, x=(3, 5))
    segments = [segment("liver", 1, 0), segment("tumour", 1, 1)]
    source = pair(tmp_path / "source", any_geometry, "a", [liver, tumour], segments)

    plain = convert(source, workspace, name="Plain")
    regions = convert(source, workspace, name="Regions", overlaps="regions")

    assert notes(plain)["a"] == (
        f"liver and tumour overlap in {tumour.sum()} voxels, of which the later label was kept.",
    )
    assert label_places(plain, "a", "liver") == places(liver & ~tumour & 1, any_geometry)
    assert label_places(regions, "a", "liver") == places(liver, any_geometry)
    assert label_places(regions, "a", "tumour") == places(tumour, any_geometry)


def test_a_segment_keeps_its_label_when_files_number_and_spell_it_differently(tmp_path, workspace):
    mask = box(OBLIQUE.shape)
    source = pair(tmp_path / "source", OBLIQUE, "a", [mask], [segment("Liver", 1)])
    pair(source, OBLIQUE, "bb", [5 * mask], [segment("spleen", 2), segment("liver", 5)])

    task = convert(source, workspace)

    assert task.labels.to_dataset_json()["labels"] == {"background": 0, "Liver": 1, "spleen": 2}
    assert label_places(task, "bb", "Liver") == places(mask, OBLIQUE)


def test_old_slicer_files_hold_one_binary_volume_a_segment(tmp_path, workspace):
    liver, tumour = box(OBLIQUE.shape, x=(1, 3)), box(OBLIQUE.shape, x=(4, 7))
    old = [{"ID": "Segment_1", "Name": "liver"}, {"ID": "Segment_2", "Name": "tumour", "Color": "1 0 0"}]
    source = pair(tmp_path / "source", OBLIQUE, "a", [liver, tumour], old)

    task = convert(source, workspace)

    assert label_places(task, "a", "liver") == places(liver, OBLIQUE)
    assert label_places(task, "a", "tumour") == places(tumour, OBLIQUE)


def test_a_slicer_file_without_voxels_is_a_case_of_background(tmp_path, workspace):
    mask = box(OBLIQUE.shape)
    source = pair(tmp_path / "source", OBLIQUE, "a", [mask], [segment("liver")])
    single = Geometry((1, 1, 1), origin_mm=(4e3, 0, 0))
    write_image(source / "images" / "b.nii.gz", noise(1, OBLIQUE.shape), OBLIQUE)
    seg_nrrd(source / "labels" / "b.seg.nrrd", [np.ones((1, 1, 1))], single, [segment("liver")])

    task = convert(source, workspace)

    assert label_places(task, "a", "liver") == places(mask, OBLIQUE)
    assert not read_labels(task.case("b").labels).array.any()


def test_named_and_numbered_labels_are_not_mixed(tmp_path, workspace):
    source = pair(tmp_path / "source", OBLIQUE, "a", [box(OBLIQUE.shape)], [segment("liver")])
    write_image(source / "images" / "b.nii.gz", noise(1, OBLIQUE.shape), OBLIQUE)
    write_labels(source / "labels" / "b.nii.gz", box(OBLIQUE.shape), OBLIQUE)

    with pytest.raises(TaskError, match="1 label files hold named segments, but b.nii.gz hold plain numbers"):
        convert(source, workspace)


@pytest.mark.parametrize(
    ("fields", "segments", "sentence"),
    [
        ({"Segmentation_SourceRepresentation": "Fractional labelmap"}, [segment("liver")], "fractional segments"),
        ({}, [segment("liver", value="one")], "LabelValue of segment 0 .* whole numbers, found .*'one'; save"),
        ({}, [segment("liver"), segment("Liver", 2)], "Two segments of a are named Liver"),
    ],
    ids=["fractional", "no number", "two of one name"],
)
def test_slicer_files_that_cannot_be_used_say_why(tmp_path, workspace, fields, segments, sentence):
    source = pair(tmp_path / "source", OBLIQUE, "a", [box(OBLIQUE.shape)], segments, **fields)

    with pytest.raises(TaskError, match=sentence):
        convert(source, workspace)
    assert not workspace.raw.exists() or not any(workspace.raw.iterdir())


def test_named_segments_cannot_be_used_in_place(tmp_path, workspace):
    source = pair(tmp_path / "source", OBLIQUE, "a", [box(OBLIQUE.shape)], [segment("liver")])

    with pytest.raises(TaskError, match="in place because a must be rewritten"):
        convert(source, workspace, in_place=True)


# MONAI Label --------------------------------------------------------------------------------------------------------


def monai_study(
    folder: Path, geometry: Geometry, labels: dict, infos: dict | None = None, images=("a", "b", "c")
) -> Path:
    for n, name in enumerate(images):
        write_image(folder / f"{name}.nii.gz", noise(n, geometry.shape), geometry)
    (folder / "labels" / "original").mkdir(parents=True)
    (folder / "labels" / "original" / "c.nii.gz").write_bytes(b"made by a model")
    for name, array in labels.items():
        write_labels(folder / "labels" / "final" / f"{name}.nii.gz", array, geometry)
    objects = {
        name: {"image": {"ext": ".nii.gz"}, "labels": {"final": {"ext": ".nii.gz", "info": {"label_info": info}}}}
        for name, info in (infos or {}).items()
    }
    if infos is not None:
        text = json.dumps({"name": "new-dataset", "images_dir": ".", "labels_dir": "labels", "objects": objects})
        (folder / "datastore_v2.json").write_text(text)
    return folder


def test_final_labels_of_a_monai_study_get_the_names_of_its_datastore(tmp_path, workspace, any_geometry):
    shape = any_geometry.shape
    left, right = box(shape, x=(1, 3)), box(shape, x=(4, 6))
    infos = {
        "a": [{"name": "spleen", "idx": 1, "color": [10, 20, 30]}, {"name": "liver", "idx": 4}],
        "b": [{"name": "liver", "idx": 1}],
    }
    source = monai_study(tmp_path / "study", any_geometry, {"a": left + 4 * right, "b": right}, infos)
    before = tree(source)

    task = convert(source, workspace)

    assert task.labels.to_dataset_json()["labels"] == {"background": 0, "spleen": 1, "liver": 2}
    assert task.labels.foreground[0].color == (10, 20, 30)
    assert label_places(task, "a", "spleen") == places(left, any_geometry)
    assert label_places(task, "a", "liver") == label_places(task, "b", "liver") == places(right, any_geometry)
    assert [path.name for path in (task.folder / "imagesTs").iterdir()] == ["c_0000.nii.gz"]
    assert tree(source) == before


def test_labels_of_a_monai_study_without_names_are_called_by_their_number(tmp_path, workspace):
    first, second = 2 * box(OBLIQUE.shape, x=(1, 3)), box(OBLIQUE.shape, x=(4, 6))
    source = monai_study(tmp_path / "study", OBLIQUE, {"a": first, "b": second})

    task = convert(source, workspace)

    assert task.labels.to_dataset_json()["labels"] == {"background": 0, "label 1": 1, "label 2": 2}
    assert label_places(task, "a", "label 2") == places(first, OBLIQUE)


def test_a_monai_study_may_hold_slicer_segmentations(tmp_path, workspace):
    liver, tumour = box(OBLIQUE.shape, x=(1, 7)), box(OBLIQUE.shape, x=(3, 5))
    source = monai_study(tmp_path / "study", OBLIQUE, {}, {})
    segments = [segment("liver", 1, 0), segment("tumour", 1, 1)]
    seg_nrrd(source / "labels" / "final" / "b.seg.nrrd", [liver, tumour], OBLIQUE, segments)

    task = convert(source, workspace)

    assert [case.id for case in task.cases] == ["b"]
    assert label_places(task, "b", "tumour") == places(tumour, OBLIQUE)


@pytest.mark.parametrize(
    ("labels", "images", "sentence"),
    [((), ("a",), "should hold the labels that were submitted"), (("a", "z"), ("a",), "but z.nii.gz have none")],
    ids=["nothing submitted", "label without image"],
)
def test_monai_studies_that_cannot_be_used_say_why(tmp_path, workspace, labels, images, sentence):
    arrays = {name: box(OBLIQUE.shape) for name in labels}
    source = monai_study(tmp_path / "study", OBLIQUE, arrays, {}, images)

    with pytest.raises(TaskError, match=sentence):
        convert(source, workspace)


def test_the_second_opinion_on_world_positions_agrees_with_simpleitk():
    mask = box(OBLIQUE.shape, z=(1, 2), y=(2, 3), x=(3, 4))
    image = sitk.GetImageFromArray(mask)
    spacing, origin, direction = OBLIQUE.to_lps()
    image.SetSpacing(spacing), image.SetOrigin(origin), image.SetDirection(direction)

    x, y, z = image.TransformIndexToPhysicalPoint((3, 2, 1))

    assert np.allclose(sorted(places(mask, OBLIQUE))[0], (-x, -y, z), atol=0.01)
