"""The fingerprint of tasks made on the spot, against statistics of pooled voxels."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from NNSegmentLib import fingerprint as fingerprint_module
from NNSegmentLib.errors import ImageError, TaskError
from NNSegmentLib.fingerprint import cases_path, compute_fingerprint, load_fingerprint, save_fingerprint
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import write_image, write_labels
from NNSegmentLib.labels import LabelSet
from NNSegmentLib.task import load_task, write_dataset_json

LABELS = LabelSet.from_dataset_json({"labels": {"background": 0, "organ": 1, "lesion": 2}})

SCALES = (1.0, 10.0, 300.0, 2e3, 1e4)


def make_task(folder, images, labels, spacing_mm=(2.0, 0.5, 0.75), ending=".nii.gz"):
    """A task of images (C, Z, Y, X) and label maps (Z, Y, X)."""
    folder = folder / "Dataset901_Test"
    for i, (image, label_map) in enumerate(zip(images, labels, strict=True)):
        grid = Geometry(label_map.shape, spacing_mm)
        for c, channel in enumerate(image):
            write_image(folder / "imagesTr" / f"case{i}_{c:04d}{ending}", channel, replace(grid, shape=channel.shape))
        write_labels(folder / "labelsTr" / f"case{i}{ending}", label_map, grid)
    names = tuple(f"channel {c}" for c in range(len(images[0])))
    write_dataset_json(folder, names, LABELS, len(images), ending)
    return load_task(folder)


def phantom(seed, scale=1.0, channels=2, shape=(8, 18, 20), foreground=0.3):
    """Positive noise inside a zero margin of (1, 2, 3) voxels, and labels everywhere, the margin included."""
    rng = np.random.default_rng(seed)
    image = np.zeros((channels, *shape), np.float32)
    inner = (slice(1, -1), slice(2, -2), slice(3, -3))
    image[:, *inner] = (
        rng.gamma(2.0, scale, (channels, *(n - 2 * m for n, m in zip(shape, (1, 2, 3), strict=True)))) + 1
    )
    return image, (rng.random(shape) < foreground).astype(np.uint8) * rng.integers(1, 3, shape, dtype=np.uint8)


@pytest.fixture
def task(tmp_path):
    """Five cases whose intensities differ by four orders of magnitude and whose foregrounds differ in size."""
    cases = [phantom(i, scale, foreground=0.05 + 0.15 * i) for i, scale in enumerate(SCALES)]
    return make_task(tmp_path, *zip(*cases, strict=True))


def foreground_of(seed, scale, foreground, channel):
    image, labels = phantom(seed, scale, foreground=foreground)
    inside = np.zeros(labels.shape, bool)
    inside[1:-1, 2:-2, 3:-3] = True
    return image[channel][inside & (labels > 0)]


def test_shapes_are_those_of_the_non_zero_box_and_spacings_those_of_the_file(task):
    fingerprint = compute_fingerprint(task)

    assert fingerprint.shapes_after_crop == ((6, 14, 14),) * 5
    assert fingerprint.spacings_mm == ((2.0, 0.5, 0.75),) * 5
    assert fingerprint.median_relative_size_after_cropping == 6 * 14 * 14 / (8 * 18 * 20)


@pytest.mark.parametrize("kept", [10**6, 5000])
def test_intensities_equal_those_of_samples_of_equal_size_from_every_case(task, kept, monkeypatch):
    monkeypatch.setattr(fingerprint_module, "MAX_KEPT_VALUES", kept)
    rng = np.random.default_rng(0)
    settings = [(i, scale, 0.05 + 0.15 * i) for i, scale in enumerate(SCALES)]

    intensities = compute_fingerprint(task).intensities

    for channel in range(2):
        drawn = np.concatenate([rng.choice(foreground_of(*s, channel), 400_000) for s in settings])
        expected = {
            "mean": drawn.mean(dtype=np.float64),
            "std": drawn.std(dtype=np.float64),
            "min": drawn.min(),
            "max": drawn.max(),
            "median": np.median(drawn),
            "percentile_00_5": np.percentile(drawn, 0.5),
            "percentile_99_5": np.percentile(drawn, 99.5),
        }
        assert asdict(intensities[channel]) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("below", "above"), [(1, 1), (2, 2), (1, 2)])
def test_the_median_of_cases_that_lie_apart_is_numpys(tmp_path, below, above):
    """As many draws from each case as nnU-Net takes, in equal parts; half of the cases may lie below all others."""
    ramp = np.arange(1.0, 101.0).reshape(1, 4, 5, 5)
    images = [*[ramp] * below, *[ramp + 1000] * above]
    task = make_task(tmp_path, images, [np.ones((4, 5, 5), np.uint8)] * len(images))

    (found,) = compute_fingerprint(task).intensities

    drawn = np.concatenate([np.repeat(image.ravel(), 1000) for image in images])
    expected = np.percentile(drawn, (0.5, 50, 99.5))
    assert (found.percentile_00_5, found.median, found.percentile_99_5) == pytest.approx(expected, abs=0.6)


def test_many_distinct_values_are_thinned_without_moving_the_percentiles():
    values = np.sort(np.random.default_rng(1).lognormal(0, 2, 200_000).astype(np.float32))

    few = fingerprint_module._weighted(values, 20_000)

    assert len(few.values) == 20_000
    found = fingerprint_module._weighted_percentiles([few], (0.5, 50.0, 99.5))
    np.testing.assert_allclose(found, np.percentile(values, (0.5, 50.0, 99.5)), rtol=0.01)


def test_facts_of_each_case_count_its_labels_before_cropping(task):
    facts = compute_fingerprint(task).cases[2]
    labels = phantom(2, SCALES[2], foreground=0.35)[1]

    assert facts.id == "case2"
    assert facts.shape == (8, 18, 20)
    assert dict(facts.label_voxels) == {v: int((labels == v).sum()) for v in (0, 1, 2)}
    values = foreground_of(2, SCALES[2], 0.35, 0)
    assert facts.channels[0].percentiles == tuple(
        np.percentile(values, (0.5, 5, 25, 50, 75, 95, 99.5), method="nearest").tolist()
    )


def test_threads_do_not_change_the_result_and_progress_ends_at_the_number_of_cases(task):
    steps = []

    threaded = compute_fingerprint(task, workers=3, progress=lambda done, total, what: steps.append((done, total)))

    assert threaded == compute_fingerprint(task, workers=1)
    assert steps == [(n, 5) for n in range(6)]


def test_the_file_has_nnunets_keys_in_order_and_survives_reading(task, tmp_path):
    fingerprint = compute_fingerprint(task)
    path = tmp_path / "dataset_fingerprint.json"

    save_fingerprint(fingerprint, path)

    assert load_fingerprint(path) == fingerprint
    values = json.loads(path.read_text())
    assert list(values) == [
        "foreground_intensity_properties_per_channel",
        "median_relative_size_after_cropping",
        "shapes_after_crop",
        "spacings",
    ]
    stats = values["foreground_intensity_properties_per_channel"]["1"]
    assert list(stats) == ["max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"]


def test_a_file_without_the_facts_of_the_cases_is_read_too(task, tmp_path):
    path = tmp_path / "dataset_fingerprint.json"
    save_fingerprint(compute_fingerprint(task), path)
    cases_path(path).unlink()

    assert load_fingerprint(path).cases == ()
    assert len(load_fingerprint(path).shapes_after_crop) == 5


def test_something_else_than_a_fingerprint_is_refused(tmp_path):
    (tmp_path / "dataset_fingerprint.json").write_text('{"spacings": []}')

    with pytest.raises(TaskError, match="no fingerprint"):
        load_fingerprint(tmp_path / "dataset_fingerprint.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"shapes_after_crop": []}, {"shapes_after_crop": [[4, 5]] * 5}, {"shapes_after_crop": [[10**400, 4, 5]] * 5},
        {"shapes_after_crop": [[0, 4, 5]] * 5}, {"spacings": [[1.0, 1.0, 10**400]] * 5}, {"spacings": [[1, 1, -1]] * 5},
        {"spacings": [[1, 1, float("nan")]] * 5}, {"spacings": [["1", 1, 1]] * 5}, {"spacings": [[1, 1, 1]] * 4},
        {"median_relative_size_after_cropping": 10**400},
        {"foreground_intensity_properties_per_channel": {"0": {"mean": [[]]}}},
    ],
)  # fmt: skip
def test_numbers_that_no_image_has_make_no_fingerprint(task, tmp_path, changes):
    path = tmp_path / "dataset_fingerprint.json"
    save_fingerprint(compute_fingerprint(task), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    with pytest.raises(TaskError, match=r"no fingerprint|IntensityStats"):
        load_fingerprint(path)


@pytest.mark.parametrize("content", ["3", "[3]", '{"case0": {}}', '[{"id": 7}]', '[{"name": "case0"}]'])
def test_a_damaged_list_of_measured_cases_is_named(task, tmp_path, content):
    path = tmp_path / "dataset_fingerprint.json"
    save_fingerprint(compute_fingerprint(task), path)
    cases_path(path).write_text(content)

    with pytest.raises(TaskError, match=rf"{cases_path(path).name} should list .* 'nnsegment plan --clean'\.$"):
        load_fingerprint(path)


def test_a_case_without_foreground_is_left_out_of_the_intensities(tmp_path):
    full, empty = phantom(1), phantom(2)
    with_empty = make_task(tmp_path / "a", [full[0], empty[0]], [full[1], empty[1] * 0])
    alone = make_task(tmp_path / "b", [full[0]], [full[1]])

    assert compute_fingerprint(with_empty).intensities == compute_fingerprint(alone).intensities
    assert compute_fingerprint(with_empty).cases[1].channels == ()


def test_a_plane_is_a_volume_of_one_slice(tmp_path):
    rng = np.random.default_rng(3)
    image, labels = rng.integers(1, 255, (1, 1, 30, 40), dtype=np.uint8), np.ones((1, 30, 40), np.uint8)

    fingerprint = compute_fingerprint(make_task(tmp_path, [image], [labels], ending=".png"))

    assert fingerprint.shapes_after_crop == ((1, 30, 40),)
    assert fingerprint.spacings_mm == ((999.0, 1.0, 1.0),)


def test_a_task_without_any_foreground_is_refused(tmp_path):
    image, labels = phantom(1)

    with pytest.raises(TaskError, match="labelled voxel"):
        compute_fingerprint(make_task(tmp_path, [image], [labels * 0]))


def test_a_missing_number_in_an_image_is_refused_with_the_name_of_the_case(tmp_path):
    image, labels = phantom(1)
    image[1, 3, 3, 3] = np.nan

    with pytest.raises(ImageError, match="case0.*NaN"):
        compute_fingerprint(make_task(tmp_path, [image], [labels], ending=".nrrd"))


def test_labels_of_another_size_are_refused(tmp_path):
    image, labels = phantom(1)

    with pytest.raises(ImageError, match="case0.*resample"):
        compute_fingerprint(make_task(tmp_path, [image], [labels[:-1]]))


def test_a_missing_channel_is_refused(tmp_path):
    image, labels = phantom(1)
    task = make_task(tmp_path, [image], [labels])
    task.cases[0].images[1].unlink()

    with pytest.raises(ImageError, match="1 channels, dataset.json names 2"):
        compute_fingerprint(load_task(task.folder))


def test_a_task_without_cases_is_refused(task):
    with pytest.raises(TaskError, match="no training case"):
        compute_fingerprint(replace(task, cases=()))


@pytest.mark.parametrize("value", [-1, 70_000])
def test_labels_out_of_range_are_refused(tmp_path, value):
    image, labels = phantom(1)
    task = make_task(tmp_path, [image], [labels])
    wrong = labels.astype(np.float32)
    wrong[2, 2, 2] = value
    write_image(task.cases[0].labels, wrong, Geometry(labels.shape, (2.0, 0.5, 0.75)))

    with pytest.raises(ImageError, match=f"case0 .*{value}"):
        compute_fingerprint(task)


def test_the_highest_number_of_16_bits_is_a_label(tmp_path):
    image, labels = phantom(1)
    labels = labels.astype(np.uint16)
    labels[2, 2, 2] = 65535

    facts = compute_fingerprint(make_task(tmp_path, [image], [labels])).cases[0]

    assert facts.label_voxels[-1] == (65535, 1)
