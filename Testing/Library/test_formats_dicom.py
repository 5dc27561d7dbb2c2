"""DICOM series and DICOM SEG become cases: every voxel keeps its value, its segment and its place in the world."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from task_on_disk import OBLIQUE, noise, tree

pytest.importorskip("pydicom", reason="pydicom is not installed (the extra 'dicom')")
import pydicom
from dicom_on_disk import ct_series, enhanced_ct, seg

from NNSegmentLib.cases import load_origin
from NNSegmentLib.errors import ImageError, TaskError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.formats import convert
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_image, read_labels

TILT = 0.6
NAMES = {1: "liver", 2: "spleen"}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(tmp_path / "workspace")


def box(shape, z, y, x) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[slice(*z), slice(*y), slice(*x)] = 1
    return mask


def frames_of(masks: dict[int, np.ndarray]) -> list[tuple]:
    """(plane, segment number, mask) of all planes that hold something, in an order that says nothing."""
    frames = [(z, number, mask[z]) for number, mask in masks.items() for z in range(len(mask)) if mask[z].any()]
    return [frames[n] for n in np.random.default_rng(1).permutation(len(frames))]


def values_by_place(array: np.ndarray, geometry: Geometry) -> dict[tuple, int]:
    """World position of each voxel, computed from spacing, direction and origin, and its value."""
    direction, spacing = np.array(geometry.direction), np.array(geometry.spacing_mm[::-1])
    zyx = np.argwhere(np.ones(array.shape, bool))
    world = np.array(geometry.origin_mm) + (zyx[:, ::-1] * spacing) @ direction.T
    world += 0.0137  # away from the borders of rounding
    return {tuple(np.round(place, 1)): int(array[tuple(index)]) for place, index in zip(world, zyx, strict=True)}


def label_mask(task, name: str, case: int = 0) -> tuple[np.ndarray, Geometry]:
    found = read_labels(task.cases[case].labels)
    label = next(label for label in task.labels.labels if label.name == name)
    return np.isin(found.array, label.values).astype(np.uint8), found.geometry


def masks_in(shape) -> dict[int, np.ndarray]:
    """Two segments, planes apart, with a gap in the first."""
    liver = box(shape, (1, 6), (2, 7), (1, 5))
    liver[3] = 0
    return {1: liver, 2: box(shape, (4, 5), (1, 9), (6, 8))}


def notes(task) -> list[str]:
    return [fix for case in load_origin(task.folder).cases for fix in case.fixes]


def simple(folder: Path, masks=None, **series_changes) -> tuple[list, np.ndarray]:
    """A series with one segmentation beside it."""
    array = noise(3, OBLIQUE.shape)
    series = ct_series(folder / "patient" / "ct", array, OBLIQUE, **series_changes)
    seg(folder / "patient" / "seg.dcm", frames_of(masks or masks_in(OBLIQUE.shape)), OBLIQUE, series, NAMES)
    return series, array


def test_series_and_segmentation_keep_their_place_in_the_world(tmp_path, workspace, any_geometry):
    array, masks = noise(1, any_geometry.shape), masks_in(any_geometry.shape)
    series = ct_series(tmp_path / "source" / "Anna" / "series 2", array, any_geometry)
    seg(tmp_path / "source" / "drawn", frames_of(masks), any_geometry, series, NAMES)
    before = tree(tmp_path / "source")

    task = convert(tmp_path / "source", workspace)

    assert [case.id for case in task.cases] == ["Anna"]
    assert [channel.name for channel in task.channels] == ["CT"]
    image = read_image(task.cases[0].images)
    assert values_by_place(image.array[0], image.geometry) == values_by_place(array, any_geometry)
    for number, name in NAMES.items():
        assert values_by_place(*label_mask(task, name)) == values_by_place(masks[number], any_geometry)
    assert notes(task) == []
    assert tree(tmp_path / "source") == before


def test_colour_and_codes_of_segments_travel_into_the_colour_table(tmp_path, workspace):
    simple(tmp_path / "source")

    task = convert(tmp_path / "source", workspace)

    liver = (task.folder / "labels.csv").read_text().splitlines()[1]
    assert liver.startswith("1,liver,221,130,101,255,SCT,123037004,Anatomical Structure,SCT,10200004,Liver,,,,")
    assert "SCT,69536005,Head" in liver
    assert task.labels.foreground[0].color == (221, 130, 101)


def test_overlapping_segments_are_reported_or_become_regions(tmp_path, workspace):
    shape = OBLIQUE.shape
    masks = {1: box(shape, (1, 4), (2, 7), (1, 6)), 2: box(shape, (2, 3), (3, 5), (2, 4))}
    simple(tmp_path / "source", masks)

    plain = convert(tmp_path / "source", workspace, name="Plain")
    regions = convert(tmp_path / "source", workspace, name="Regions", overlaps="regions")

    assert notes(plain) == ["liver and spleen overlap in 4 voxels, of which the later label was kept."]
    for number, name in NAMES.items():
        assert values_by_place(*label_mask(regions, name)) == values_by_place(masks[number], OBLIQUE)


def test_a_tilted_gantry_is_straightened_and_said(tmp_path, workspace):
    geometry = Geometry((9, 30, 20), (3.0, 1.0, 1.0), (5.0, -7.0, 11.0), ((-1.0, 0, 0), (0, -1.0, 0), (0, 0, 1.0)))
    shear = (0.0, TILT, 0.0)
    array = np.broadcast_to(100 * np.arange(9, dtype=np.int16)[:, None, None], geometry.shape)
    liver = box(geometry.shape, (2, 7), (12, 18), (5, 15))
    series = ct_series(tmp_path / "source" / "tilted", array, geometry, shear)
    seg(tmp_path / "source" / "seg", frames_of({1: liver}), geometry, series, {1: "liver"}, shear=shear)

    task = convert(tmp_path / "source", workspace)

    assert len(notes(task)) == 1
    assert "gantry tilt" in notes(task)[0]
    mask, grid = label_mask(task, "liver")
    image = read_image(task.cases[0].images)
    found = grid.world(np.argwhere(mask))
    drawn = geometry.world(np.argwhere(liver)) + np.outer(np.argwhere(liver)[:, 0], shear)
    assert np.allclose(found.mean(axis=0), drawn.mean(axis=0), atol=0.3)
    assert abs(len(found) - len(drawn)) < 0.05 * len(drawn)
    assert set(image.array[0][mask > 0]) == {200.0, 300.0, 400.0, 500.0, 600.0}


def test_a_segmentation_on_a_grid_of_its_own_is_placed_by_world_coordinates(tmp_path, workspace):
    fine = OBLIQUE
    coarse = Geometry((8, 7, 4), (3.0, 1.6, 1.8), tuple(fine.world((0, 0.5, 0.5))[0]), fine.direction)
    series = ct_series(tmp_path / "source" / "ct", noise(1, fine.shape), fine)
    mask = box(coarse.shape, (2, 5), (1, 4), (1, 3))
    seg(tmp_path / "source" / "seg", frames_of({1: mask}), coarse, series, {1: "liver"})

    task = convert(tmp_path / "source", workspace)

    expected = np.zeros(fine.shape, np.uint8)
    expected[:, :14, :8] = mask.repeat(2, axis=1).repeat(2, axis=2)
    assert values_by_place(*label_mask(task, "liver")) == values_by_place(expected, fine)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
def test_fractional_segments_count_from_one_half_on(tmp_path, workspace, compress):
    series = ct_series(tmp_path / "source" / "ct", noise(1, OBLIQUE.shape), OBLIQUE, compress=compress)
    fractions = 100 * box(OBLIQUE.shape, (2, 4), (3, 9), (2, 6)) + 27 * box(OBLIQUE.shape, (2, 4), (9, 12), (2, 6))
    frames = frames_of({1: fractions})
    seg(
        tmp_path / "source" / "seg", frames, OBLIQUE, series, {1: "liver"}, kind="FRACTIONAL",
        MaximumFractionalValue=200, compress=compress,
    )  # fmt: skip

    task = convert(tmp_path / "source", workspace)

    expected = (fractions >= 100).astype(np.uint8)
    assert values_by_place(*label_mask(task, "liver")) == values_by_place(expected, OBLIQUE)
    image = read_image(task.cases[0].images)
    assert values_by_place(image.array[0], image.geometry) == values_by_place(noise(1, OBLIQUE.shape), OBLIQUE)


def test_segmentations_of_one_series_are_taken_together(tmp_path, workspace):
    masks = masks_in(OBLIQUE.shape)
    series = ct_series(tmp_path / "source", noise(1, OBLIQUE.shape), OBLIQUE)
    for number, name in NAMES.items():
        seg(tmp_path / "source" / f"{name}.seg", frames_of({1: masks[number]}), OBLIQUE, series, {1: name})

    task = convert(tmp_path / "source", workspace)

    assert [case.id for case in task.cases] == ["P_7"]
    for number, name in NAMES.items():
        assert values_by_place(*label_mask(task, name)) == values_by_place(masks[number], OBLIQUE)


def test_two_frames_of_one_segment_at_one_place_are_joined(tmp_path, workspace):
    series = ct_series(tmp_path / "source", noise(1, OBLIQUE.shape), OBLIQUE)
    left, right = box(OBLIQUE.shape, (2, 3), (2, 7), (1, 3)), box(OBLIQUE.shape, (2, 3), (4, 9), (5, 8))
    seg(tmp_path / "source" / "seg", [(2, 1, left[2]), (2, 1, right[2])], OBLIQUE, series, {1: "kidneys"})

    task = convert(tmp_path / "source", workspace)

    assert values_by_place(*label_mask(task, "kidneys")) == values_by_place(left + right, OBLIQUE)


def test_two_segments_of_one_name_in_two_files_are_refused(tmp_path, workspace):
    series, _ = simple(tmp_path / "source")
    seg(tmp_path / "source" / "again.dcm", frames_of(masks_in(OBLIQUE.shape)), OBLIQUE, series, {1: "Liver", 2: "x"})

    with pytest.raises(TaskError, match=r"patient has 2 segments named liver \(again.dcm, seg.dcm\)"):
        convert(tmp_path / "source", workspace)


def test_series_without_segmentation_are_left_out(tmp_path, workspace):
    simple(tmp_path / "source")
    ct_series(tmp_path / "source" / "scout", noise(4, (1, 20, 20)), OBLIQUE.cropped((0, 0, 0), (1, 20, 20)))

    assert [case.id for case in convert(tmp_path / "source", workspace).cases] == ["patient"]


def test_of_two_planes_at_one_place_the_segmented_one_counts(tmp_path, workspace):
    series, array = simple(tmp_path / "source")
    echo = ct_series(tmp_path / "source" / "echo", array + 500, OBLIQUE, SeriesInstanceUID=series[0].SeriesInstanceUID)

    task = convert(tmp_path / "source", workspace)

    assert len(echo) == len(series)
    image = read_image(task.cases[0].images)
    assert values_by_place(image.array[0], image.geometry) == values_by_place(array, OBLIQUE)


@pytest.mark.parametrize("slope", [0.0, 0.25], ids=["whole", "fractions"])
def test_every_frame_of_one_file_is_rescaled_by_its_own_numbers(tmp_path, workspace, slope):
    stored = noise(5, OBLIQUE.shape) % 500
    rescaling = [(1 + slope * z, -10 * z) for z in range(len(stored))]
    series = enhanced_ct(tmp_path / "source" / "ct", stored, OBLIQUE, np.roll(range(len(stored)), 3), rescaling)
    seg(tmp_path / "source" / "seg", frames_of(masks_in(OBLIQUE.shape)), OBLIQUE, series, NAMES)

    image = read_image(convert(tmp_path / "source", workspace).cases[0].images)

    expected = np.stack([factor * plane + summand for (factor, summand), plane in zip(rescaling, stored, strict=True)])
    assert values_by_place(4 * image.array[0], image.geometry) == values_by_place(4 * expected, OBLIQUE)


def test_copies_of_a_file_count_once(tmp_path, workspace):
    _, array = simple(tmp_path / "source")
    for path in sorted((tmp_path / "source" / "patient" / "ct").iterdir())[:3]:
        shutil.copy(path, path.with_name(f"copy of {path.name}"))

    image = read_image(convert(tmp_path / "source", workspace).cases[0].images)

    assert values_by_place(image.array[0], image.geometry) == values_by_place(array, OBLIQUE)


def test_missing_planes_are_named(tmp_path, workspace):
    simple(tmp_path / "source")
    (tmp_path / "source" / "patient" / "ct" / "021").unlink()

    with pytest.raises(TaskError, match=r"gap of 6.00 mm among gaps of 3.00 mm \(after 028\)"):
        convert(tmp_path / "source", workspace)


def test_a_segmentation_without_its_series_is_refused(tmp_path, workspace):
    simple(tmp_path / "source")
    shutil.rmtree(tmp_path / "source" / "patient" / "ct")

    with pytest.raises(TaskError, match="seg.dcm is a segmentation of the series .* not in the folder"):
        convert(tmp_path / "source", workspace)


def test_series_without_any_segmentation_are_refused(tmp_path, workspace):
    ct_series(tmp_path / "source", noise(1, OBLIQUE.shape), OBLIQUE)

    with pytest.raises(TaskError, match="holds 1 DICOM series but no DICOM SEG object"):
        convert(tmp_path / "source", workspace)


def test_a_cut_off_segmentation_is_refused(tmp_path, workspace):
    simple(tmp_path / "source")
    path = tmp_path / "source" / "patient" / "seg.dcm"
    path.write_bytes(path.read_bytes()[:-30])

    with pytest.raises(ImageError, match="frames of .*seg.dcm cannot be read"):
        convert(tmp_path / "source", workspace)
    assert not any(workspace.raw.iterdir())


def test_without_pydicom_one_sentence_says_what_to_install(tmp_path, workspace, monkeypatch):
    simple(tmp_path / "source")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pydicom" else found(name, *rest)
    )

    with pytest.raises(TaskError, match="needs the package pydicom, which is not installed; run: pip install pydicom"):
        convert(tmp_path / "source", workspace)


def copied(folder: Path, shared: Path, *names: str) -> Path:
    for name in names:
        path = shared / "dicom_seg" / name
        target = folder / path.name
        shutil.copytree(path, target) if path.is_dir() else (folder.mkdir(exist_ok=True), shutil.copy(path, target))
    return folder


@pytest.mark.parametrize(
    ("names", "reference"),
    [
        (("ct-3slice", "liver.dcm"), "liver_seg.nrrd"),
        (("23x38x3/image", "23x38x3/seg"), "23x38x3/nrrd/label.nrrd"),
        (("24x38x3/image", "24x38x3/seg"), "24x38x3/nrrd/label.nrrd"),
        (("24x38x3/multiframe", "24x38x3/seg"), "24x38x3/nrrd/label.nrrd"),
        (("24x38x3/image", "sparse-labelmap-noppv.dcm"), "sparse_labelmap_noppv_seg.nrrd"),
        (("24x38x3/image", "sparse-labelmap-ppv5.dcm"), "sparse_labelmap_ppv5_seg.nrrd"),
    ],
)
def test_real_segmentations_equal_what_another_program_reads(tmp_path, workspace, shared_data, names, reference):
    source = copied(tmp_path / "source", shared_data, *names)

    task = convert(source, workspace)

    mask, grid = label_mask(task, "Liver")
    expected = read_labels(shared_data / "dicom_seg" / reference)
    assert np.array_equal(mask, expected.array == 1)
    assert grid.same_grid(expected.geometry, 0.01)
    assert task.labels.foreground[0].color == (221, 130, 101)


def test_real_overlapping_segments_equal_what_another_program_reads(tmp_path, workspace, shared_data):
    source = copied(tmp_path / "source", shared_data, "ct-3slice", "partial_overlaps.dcm")

    task = convert(source, workspace, overlaps="regions")

    layers = [read_labels(shared_data / "dicom_seg" / f"partial_overlaps-{n}.nrrd").array for n in (1, 2, 3)]
    for number, name in enumerate(["GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE"], 1):
        expected = np.any([layer == number for layer in layers], axis=0)
        slips = 67 + 22 + 28  # voxels of overlaps below one percent, which are no regions
        assert np.count_nonzero(label_mask(task, name)[0] != expected) <= slips
        assert np.count_nonzero(expected) > 20 * slips


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(
    ("is_drawn", "keyword", "value"),
    [
        (True, "ImagePositionPatient", [0, 0, 0, 0]), (False, "ImagePositionPatient", [1e300, 0, 0]),
        (True, "PixelSpacing", 0), (False, "ImageOrientationPatient", [1, 0, 0]), (False, "Rows", None),
        (False, "SOPInstanceUID", None), (True, "SegmentNumber", None), (True, "ReferencedSOPInstanceUID", None),
        (True, "ReferencedSegmentNumber", []),
    ],
)  # fmt: skip
def test_attributes_that_are_missing_or_odd_are_told_in_a_sentence(tmp_path, workspace, is_drawn, keyword, value):
    simple(tmp_path / "source")
    files = [path for path in sorted((tmp_path / "source").rglob("*")) if path.is_file()]
    file = next(path for path in files if (path.name == "seg.dcm") == is_drawn)
    dataset = pydicom.dcmread(file)
    assert change(dataset, keyword, value)
    dataset.save_as(file)

    with pytest.raises((ImageError, TaskError)):
        convert(tmp_path / "source", workspace)


def change(dataset, keyword: str, value: object) -> bool:
    """Change or delete an attribute wherever it stands; returns whether it stood anywhere."""
    changed = keyword in dataset
    if changed and value is None:
        del dataset[keyword]
    elif changed:
        dataset[keyword] = pydicom.DataElement(dataset[keyword].tag, dataset[keyword].VR, value)
    below = [change(item, keyword, value) for element in dataset if element.VR == "SQ" for item in element.value]
    return changed or any(below)
