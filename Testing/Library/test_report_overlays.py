"""Overlays show the right slices the right way round, in true proportions, with the outlines where the voxels are."""

from __future__ import annotations

import io

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture

from NNSegmentLib.errors import ImageError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.report.overlays import best_slice, draw_overlay, region_colors, to_patient_axes, window

LABELS = LabelSet((Label("background", (0,)), Label("a", (1,), (255, 0, 0)), Label("b", (2,), (0, 0, 255))))


def drawn(*arguments, **values) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(draw_overlay(*arguments, **values).png)).convert("RGB")).astype(int)


def pure(picture: np.ndarray, channel: int) -> np.ndarray:
    others = [c for c in range(3) if c != channel]
    return (picture[..., channel] > 200) & (picture[..., others] < 60).all(-1)


def test_volumes_are_turned_as_nibabel_turns_them(any_geometry):
    volume = np.random.default_rng(0).normal(size=any_geometry.shape).astype(np.float32)
    opinion = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.T, any_geometry.ijk_to_ras))

    assert np.array_equal(to_patient_axes(volume, any_geometry), opinion.get_fdata(dtype=np.float32).T)


def test_the_patients_right_is_at_the_pictures_left_and_the_front_on_top():
    image = np.zeros((20, 20, 20), np.float32)
    reference = np.zeros((20, 20, 20), np.uint8)
    reference[9:12, 15:18, 14:18] = 1  # right and to the front, because RAS indices grow that way

    axial = drawn(image, reference, None, Geometry((20, 20, 20)), LABELS)[:, :340]

    rows, columns = np.nonzero(pure(axial, 0))
    assert columns.mean() < 0.4 * 340 and rows.mean() < 0.4 * len(axial)


def test_proportions_are_those_of_the_patient(any_geometry):
    empty = np.zeros(any_geometry.shape, np.uint8)
    picture = drawn(np.zeros(any_geometry.shape, np.float32), empty, None, any_geometry, LABELS)

    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(empty.T, any_geometry.ijk_to_ras))
    x, y, z = np.array(turned.shape) * turned.header.get_zooms()
    assert picture.shape[1] / picture.shape[0] == pytest.approx(x / y + x / z + y / z, rel=0.02)


def test_the_slice_with_most_foreground_and_disagreement_is_shown():
    reference, prediction = np.zeros((2, 8, 10, 10), np.uint8)
    reference[2, :4, :4] = 1
    prediction[2, :4, :4] = 1
    assert best_slice(reference, prediction, 0) == 2

    prediction[5, :6, :6] = 1
    assert best_slice(reference, prediction, 0) == 5
    assert best_slice(reference, None, 0) == 2
    assert best_slice(np.zeros((9, 4, 4)), np.zeros((9, 4, 4)), 0) == 4


def test_the_ignore_label_has_no_say_in_the_slice_that_is_shown():
    labels = LabelSet((*LABELS.labels, Label("ignore", (3,))))
    reference = np.zeros((24, 24, 24), np.uint8)
    reference[4:12, 8:16, 8:16] = 1
    reference[20] = 3

    picture = drawn(np.zeros(reference.shape, np.float32), reference, 0 * reference, Geometry(reference.shape), labels)

    assert pure(picture[:, : picture.shape[1] // 3], 0).any()


def test_an_outline_inside_another_stays_visible():
    reference = np.zeros((24, 24, 24), np.uint8)
    reference[6:18, 6:18, 6:18] = 2
    reference[10:14, 10:14, 10:14] = 1

    picture = drawn(np.zeros(reference.shape, np.float32), reference, None, Geometry(reference.shape), LABELS)

    assert pure(picture, 0).sum() > 100 and pure(picture, 2).sum() > 100


def test_the_labels_with_an_outline_in_some_plane_are_told():
    reference, prediction = np.zeros((2, 24, 24, 24), np.uint8)
    reference[6:18, 6:18, 6:18] = 2
    prediction[0, 0, 0] = 1  # in none of the planes shown

    told = [
        draw_overlay(reference * 1.0, reference, p, Geometry(reference.shape), LABELS).labels
        for p in (None, prediction)
    ]
    assert [[label.name for label in labels] for labels in told] == [["b"], ["b"]]
    prediction[12, 12, 12] = 1
    both = draw_overlay(reference * 1.0, reference, prediction, Geometry(reference.shape), LABELS).labels
    assert [label.name for label in both] == ["a", "b"]


def test_the_prediction_is_paler_and_dashed():
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[6:18, 6:18, 6:18] = 1
    grid, image = Geometry(labels.shape), np.zeros(labels.shape, np.float32)

    reference, both = (
        drawn(image, labels, np.zeros_like(labels), grid, LABELS),
        drawn(image, labels, labels, grid, LABELS),
    )

    assert 0.1 < pure(both, 0).sum() / pure(reference, 0).sum() < 0.9
    assert ((both[..., 0] > 200) & (both[..., 1] > 90) & (both[..., 1] < 150)).sum() > 50


def test_a_structure_that_touches_the_border_has_a_closed_outline():
    reference = np.ones((16, 16, 16), np.uint8)

    picture = drawn(np.zeros(reference.shape, np.float32), reference, None, Geometry(reference.shape), LABELS)

    assert pure(picture, 0).any(axis=1).mean() > 0.95


def test_a_single_plane_is_shown_alone():
    grid = Geometry((1, 30, 60), (999.0, 1.0, 1.0), dimension=2)

    picture = drawn(np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.uint8), None, grid, LABELS)

    assert picture.shape[1] / picture.shape[0] == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(
    ("shape", "spacing", "width_by_height"),
    [
        ((1, 128, 128), (1, 1, 1), 1),
        ((1, 128, 128), (50, 1, 1), 1),
        ((4, 256, 256), (1, 1, 1), 1),
        ((96, 1, 128), (1, 4, 1), 128 / 96),
        ((96, 128, 1), (1, 1, 4), 128 / 96),
        ((600, 100, 80), (1, 1, 1), 80 / 100 + 100 / 600),
    ],
    ids=["one slice", "one thick slice", "flat", "one coronal slice", "one sagittal slice", "long"],
)
def test_views_that_would_show_a_line_are_left_out(shape, spacing, width_by_height):
    empty = np.zeros(shape, np.uint8)

    picture = drawn(empty.astype(np.float32), empty, empty, Geometry(shape, spacing), LABELS)

    assert picture.shape[1] / picture.shape[0] == pytest.approx(width_by_height, rel=0.02)


@pytest.mark.parametrize(
    "grid",
    [
        Geometry((20, 256, 256), (2.5, 1, 1)),
        Geometry((1, 1, 5000)),
        Geometry((5000, 1, 1)),
        Geometry((1, 60, 3000), dimension=2),
        Geometry((1, 3000, 6), dimension=2),
    ],
    ids=lambda grid: str(grid.shape),
)
def test_no_picture_is_wider_than_six_times_its_usual_height(grid):
    empty = np.zeros(grid.shape, np.uint8)

    picture = drawn(empty.astype(np.float32), empty, None, grid, LABELS)

    assert 10 <= picture.shape[0] <= 341 and 10 <= picture.shape[1] <= 6 * 341


def test_a_long_title_is_broken_rather_than_cut_off():
    empty, grid = np.zeros((1, 30, 30), np.uint8), Geometry((1, 30, 30), dimension=2)
    title = "hippocampus_001 (worst) · Dice anterior 0.712 · posterior 0.653"

    short, long = (drawn(empty.astype(np.float32), empty, None, grid, LABELS, text) for text in (title[:15], title))

    assert long[:, 5:-5].max() > 200 and long[:, -5:].max() < 50
    assert long.shape[0] > short.shape[0] and long.shape[1] == short.shape[1]


def test_a_title_is_no_formula():
    empty, grid = np.zeros((1, 30, 30), np.uint8), Geometry((1, 30, 30), dimension=2)

    picture = drawn(empty.astype(np.float32), empty, None, grid, LABELS, r"$\frac{a$")

    assert picture.max() > 200


def test_the_window_ignores_outliers_and_survives_constant_images():
    image = np.random.default_rng(1).normal(100, 10, (20, 20, 20))
    image[0, 0, 0] = 1e6

    assert window(image)[1] < 150
    assert window(np.full((3, 3, 3), 7.0)) == (7.0, 8.0)


def test_regions_and_labels_without_a_colour_get_distinct_ones():
    labels = LabelSet((Label("background", (0,)), Label("whole", (1, 2)), Label("core", (2,))), (1, 2))

    assert [region for region, _ in region_colors(labels)] == [(1, 2), (2,)]
    assert len({color for _, color in region_colors(labels)}) == 2


def test_arrays_of_different_size_are_refused_in_a_sentence():
    with pytest.raises(ImageError, match=r"should have \(4, 4, 4\) voxels"):
        draw_overlay(np.zeros((4, 4, 4)), np.zeros((4, 4, 5), int), None, Geometry((4, 4, 4)), LABELS)
