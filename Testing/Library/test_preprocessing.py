"""One case onto the network's grid: the order of the steps, every normalisation, foreground voxels, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from NNSegmentLib.errors import ImageError, PlanError, TaskError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import Image, LabelMap, write_image, write_labels
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.planning.plan import PLAIN, Configuration, IntensityStats, NetworkSpec, Plan
from NNSegmentLib.preprocessing import foreground
from NNSegmentLib.preprocessing.normalize import normalize
from NNSegmentLib.preprocessing.prepare import prepare_case, prepare_image
from NNSegmentLib.preprocessing.prepared import ANNOTATED
from NNSegmentLib.task import Case

LABELS = LabelSet((Label("background", (0,)), Label("a", (1,)), Label("b", (2,)), Label("ignore", (3,))))
REGIONS = LabelSet((Label("background", (0,)), Label("whole", (1, 2)), Label("core", (2,))), (1, 2))
STATS = IntensityStats(mean=50, std=20, min=-100, max=300, median=40, percentile_00_5=-20, percentile_99_5=120)
NETWORK = NetworkSpec(PLAIN, (4,), ((3, 3, 3),), ((1, 1, 1),), (1,), ())


def plan(spacing_mm=(1.0, 1.0, 1.0), axes=(0, 1, 2), scheme="ZScoreNormalization", masked=False) -> Plan:
    c = Configuration(
        "3d_fullres", "id", 1, (8,) * len(spacing_mm), (8, 8, 8), spacing_mm, (scheme,), (masked,), NETWORK, False
    )
    return Plan("Dataset001_Test", "nnUNetPlans", axes, (c,), (STATS,))


def noise(shape, seed=0, offset=500.0) -> np.ndarray:
    return (offset + 100 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def image_of(array: np.ndarray, spacing_mm=(1.0, 1.0, 1.0)) -> Image:
    return Image(array, Geometry(array.shape[1:], spacing_mm))


def labels_of(array: np.ndarray, spacing_mm=(1.0, 1.0, 1.0)) -> LabelMap:
    return LabelMap(array, Geometry(array.shape, spacing_mm))


def in_air(shape=(14, 12, 16)) -> tuple[np.ndarray, np.ndarray]:
    """A body of noise in an L shape, exact 0 around it, a hole inside it, and its labels."""
    array = np.zeros((1, *shape), np.float32)
    array[0, 3:11, 2:10, 4:14] = noise((8, 8, 10))
    array[0, 3:6, 2:5] = 0
    array[0, 8, 7, 9] = 0
    labels = np.zeros(shape, np.uint8)
    labels[6:9, 5:8, 6:9] = 1
    labels[3, 2, 4] = 2
    return array, labels


def test_the_air_is_cut_off_and_what_is_left_of_it_marked_outside():
    array, labels = in_air()

    prepared = prepare_image(image_of(array), labels_of(labels), plan(), "3d_fullres", LABELS, "x")

    assert (prepared.placement.crop_start, prepared.placement.crop_shape) == ((3, 2, 4), (8, 8, 10))
    inside = array[0, 3:11, 2:10, 4:14]
    expected = labels[3:11, 2:10, 4:14].astype(int)
    expected[~ndimage.binary_fill_holes(inside != 0) & (expected == 0)] = -1
    assert np.array_equal(prepared.labels, expected)
    assert prepared.labels[0, 0, 0] == 2
    assert prepared.labels[5, 5, 5] == 0
    assert prepared.labels.dtype == np.int8


def test_axes_are_exchanged_before_everything_else():
    array, labels = noise((1, 6, 8, 10)), np.zeros((6, 8, 10), np.uint8)
    labels[1, 2, 3] = 1

    prepared = prepare_image(
        image_of(array, (3.0, 2.0, 1.0)), labels_of(labels), plan((1.0, 3.0, 2.0), (2, 0, 1)), "3d_fullres", LABELS
    )

    assert prepared.image.shape == (1, 10, 6, 8)
    assert np.argwhere(prepared.labels == 1).tolist() == [[3, 1, 2]]
    assert prepared.placement.original_spacing_mm == (1.0, 3.0, 2.0)
    assert np.allclose(prepared.image[0], (array[0].transpose(2, 0, 1) - array.mean()) / array.std(), atol=1e-5)


def test_intensities_are_normalised_before_the_grid_changes():
    from skimage.transform import resize

    array = noise((1, 10, 12, 14))

    prepared = prepare_image(image_of(array), None, plan((0.7, 1.3, 0.9)), "3d_fullres", LABELS)

    scaled = (array[0].astype(float) - array.mean(dtype=float)) / array.std(dtype=float)
    expected = resize(scaled, (14, 9, 16), 3, mode="edge", anti_aliasing=False)
    assert prepared.image.shape[1:] == expected.shape
    assert np.abs(prepared.image[0] - expected).max() < 1e-5
    assert prepared.labels is None
    assert prepared.foreground == {}


def test_slices_that_are_far_apart_count_before_those_that_will_be():
    from skimage.transform import resize

    array = noise((1, 6, 10, 12))
    thick = image_of(array, (4.0, 1.0, 1.0))

    prepared = prepare_image(thick, None, plan((1.0, 1.0, 4.0), scheme="NoNormalization"), "3d_fullres", LABELS)

    planes = [resize(plane.astype(float), (10, 3), 3, mode="edge", anti_aliasing=False) for plane in array[0]]
    assert np.abs(prepared.image[0] - np.repeat(planes, 4, axis=0)).max() < 1e-2
    assert prepared.image.shape == (1, 24, 10, 3)


def test_a_2d_configuration_keeps_the_slice_distance():
    array = noise((1, 5, 12, 14))

    prepared = prepare_image(image_of(array, (7.0, 1.0, 1.0)), None, plan((0.5, 0.5)), "3d_fullres", LABELS)

    assert prepared.image.shape == (1, 5, 24, 28)
    assert prepared.placement.spacing_mm == (7.0, 0.5, 0.5)


def test_a_single_plane_is_prepared_in_plane():
    array = noise((1, 1, 12, 14))

    prepared = prepare_image(image_of(array, (999.0, 1.0, 1.0)), None, plan((2.0, 1.0)), "3d_fullres", LABELS)

    assert prepared.image.shape == (1, 1, 6, 14)


def test_an_empty_image_keeps_its_extent_and_becomes_zero():
    prepared = prepare_image(
        image_of(np.zeros((1, 4, 5, 6), np.float32)),
        labels_of(np.zeros((4, 5, 6), np.uint8)),
        plan(),
        "3d_fullres",
        LABELS,
    )

    assert prepared.image.shape == (1, 4, 5, 6)
    assert not prepared.image.any()
    assert all(len(voxels) == 0 for region, voxels in prepared.foreground.items() if region != ANNOTATED)


def test_the_input_is_left_as_it_was():
    array, labels = in_air()
    before = array.copy(), labels.copy()

    prepare_image(image_of(array), labels_of(labels), plan(scheme="CTNormalization"), "3d_fullres", LABELS)

    assert np.array_equal(array, before[0])
    assert np.array_equal(labels, before[1])


@pytest.mark.parametrize("offset", [0.0, 5e5])
def test_a_z_score_subtracts_the_mean_and_divides_by_the_deviation(offset):
    array = noise((1, 20, 30, 40), offset=offset)

    found = normalize(array, ["ZScoreNormalization"], [False], ())

    exact = array.astype(float)
    assert np.abs(found - (exact - exact.mean()) / exact.std()).max() < 1e-4


def test_a_masked_z_score_leaves_the_outside_alone():
    array, mask = noise((1, 6, 7, 8)), np.zeros((6, 7, 8), bool)
    mask[2:5, 1:6] = True

    found = normalize(array, ["ZScoreNormalization"], [True], (), mask)[0]

    inside = array[0][mask].astype(float)
    assert np.allclose(found[mask], (inside - inside.mean()) / inside.std(), atol=1e-5)
    assert np.array_equal(found[~mask], array[0][~mask])


def test_the_mask_of_a_z_score_counts_labelled_voxels_outside_the_body():
    array, labels = in_air()

    found = prepare_image(image_of(array), labels_of(labels), plan(masked=True), "3d_fullres", LABELS)

    counted = found.labels >= 0
    inside = array[0, 3:11, 2:10, 4:14][counted].astype(float)
    assert 0 < counted.mean() < 1
    assert np.allclose(found.image[0][counted], (inside - inside.mean()) / inside.std(), atol=1e-5)
    assert not found.image[0][~counted].any()


def test_without_labels_the_mask_is_the_body():
    array, _ = in_air()

    found = prepare_image(image_of(array), None, plan(masked=True), "3d_fullres", LABELS).image[0]

    body = ndimage.binary_fill_holes(array[0, 3:11, 2:10, 4:14] != 0)
    assert abs(found[body].mean()) < 1e-5
    assert abs(found[body].std() - 1) < 1e-5


def test_ct_is_clipped_and_scaled_by_the_statistics_of_the_data_set():
    array = noise((1, 6, 7, 8), offset=50)

    found = normalize(array, ["CTNormalization"], [False], (STATS,))

    assert np.allclose(found, (np.clip(array, -20, 120) - 50) / 20, atol=1e-5)


def test_other_schemes_leave_rescale_or_divide():
    array = np.array([0, 51, 255], np.float32).reshape(1, 1, 1, 3)
    channels = np.concatenate([array, array + 10, array])
    schemes = ["NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"]

    found = normalize(channels, schemes, [False] * 3, ())

    assert np.allclose(found.reshape(3, 3), [[0, 51, 255], [0, 0.2, 1], [0, 0.2, 1]])


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "RescaleTo01Normalization"])
def test_a_constant_image_becomes_zero(scheme):
    assert not normalize(np.full((1, 3, 4, 5), 7.0, np.float32), [scheme], [False], ()).any()


@pytest.mark.parametrize("value", [-1, 256])
def test_a_picture_has_values_from_0_to_255(value):
    picture = np.array([0, 255, 7, value], np.float32).reshape(1, 1, 2, 2)

    with pytest.raises(ImageError, match="0 to 255"):
        normalize(picture, ["RGBTo01Normalization"], [False], ())


def test_foreground_voxels_carry_their_label_and_are_not_repeated():
    rng = np.random.default_rng(5)
    labels = rng.choice([-1, 0, 1, 2, 3], size=(40, 50, 60), p=[0.1, 0.2, 0.3, 0.3, 0.1]).astype(np.int8)

    found = foreground.locate(labels, LABELS)

    assert set(found) == {(1,), (2,), ANNOTATED}
    for (value,), voxels in [(k, v) for k, v in found.items() if k != ANNOTATED]:
        assert (labels[tuple(voxels.T)] == value).all()
        assert len(np.unique(voxels, axis=0)) == len(voxels) == 10_000
    assert (labels[tuple(found[ANNOTATED].T)] != 3).all()
    assert len(np.unique(found[(1,)] // [10, 10, 10], axis=0)) == 4 * 5 * 6


def test_few_voxels_are_all_kept_and_many_are_thinned_to_one_in_a_hundred(monkeypatch):
    monkeypatch.setattr(foreground, "AT_LEAST", 100)
    labels = np.zeros((40, 50, 60), np.int8)
    labels[0, 0, :60], labels[5:35] = 1, 2

    found = foreground.locate(labels, REGIONS)

    assert len(found[(1, 2)]) == 901
    assert len(found[(2,)]) == 900
    assert len(foreground.locate(np.where(labels == 1, labels, 0), REGIONS)[(1, 2)]) == 60
    assert foreground.locate(np.where(labels == 1, labels, 0), REGIONS)[(2,)].shape == (0, 3)


def test_a_case_is_read_from_its_files(tmp_path):
    array, labels = noise((2, 5, 6, 7)), np.ones((5, 6, 7), np.uint8)
    geometry = Geometry((5, 6, 7), (2.0, 1.0, 1.0))
    files = tuple(tmp_path / f"c_{i:04d}.nii.gz" for i in range(2))
    for path, channel in zip(files, array, strict=True):
        write_image(path, channel, geometry)
    write_labels(tmp_path / "c.nii.gz", labels, geometry)
    one = plan((2.0, 1.0, 1.0))
    c = replace(one.configurations[0], normalization=("NoNormalization",) * 2, use_mask_for_norm=(False,) * 2)

    prepared = prepare_case(
        Case("c", files, tmp_path / "c.nii.gz"), replace(one, configurations=(c,)), "3d_fullres", LABELS
    )

    assert prepared.id == "c"
    assert np.array_equal(prepared.image, array)
    assert np.array_equal(prepared.labels, labels)


def test_a_case_without_labels_is_its_image_alone(tmp_path):
    array = noise((1, 5, 6, 7))
    write_image(tmp_path / "c_0000.nii.gz", array[0], Geometry((5, 6, 7)))
    one = plan(scheme="NoNormalization")

    prepared = prepare_case(Case("c", (tmp_path / "c_0000.nii.gz",), None), one, "3d_fullres", LABELS)

    assert np.array_equal(prepared.image, array)
    assert prepared.labels is None and not prepared.foreground


def test_nan_is_refused_with_the_case_and_the_channel():
    array = noise((1, 4, 5, 6))
    array[0, 1, 2, 3] = np.nan

    with pytest.raises(ImageError, match="Channel 0 of case patient7 .* NaN"):
        prepare_image(image_of(array), None, plan(), "3d_fullres", LABELS, "patient7")


def test_labels_of_another_size_are_refused_with_both_sizes():
    with pytest.raises(ImageError, match=r"case x have \(4, 5, 7\) voxels .* \(4, 5, 6\)"):
        prepare_image(
            image_of(noise((1, 4, 5, 6))), labels_of(np.zeros((4, 5, 7), np.uint8)), plan(), "3d_fullres", LABELS, "x"
        )


@pytest.mark.parametrize("value", [4, 200])
def test_unknown_label_values_are_refused_by_name(value):
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[2, 3, 4] = value

    with pytest.raises(TaskError, match=rf"hold the values {value}, .* 0, 1, 2, 3"):
        prepare_image(image_of(noise((1, 4, 5, 6))), labels_of(labels), plan(), "3d_fullres", LABELS, "x")


def test_an_image_with_other_channels_than_the_plan_is_refused():
    with pytest.raises(PlanError, match="1 channels, the image has 2"):
        prepare_image(image_of(noise((2, 4, 5, 6))), None, plan(), "3d_fullres", LABELS)


@pytest.mark.parametrize(
    ("scheme", "error", "text"),
    [
        ("MyNormalization", PlanError, "supported are"),
        ("CTNormalization", PlanError, "plan the task again"),
        ("RGBTo01Normalization", ImageError, "0 to 255"),
    ],
)
def test_normalisation_that_cannot_be_done_is_explained(scheme, error, text):
    with pytest.raises(error, match=text):
        normalize(noise((1, 4, 5, 6)), [scheme], [False], ())
