"""Largest components, the search for the steps that help, and nnU-Net's files for them."""

from __future__ import annotations

import json
import math
import pickle
import pickletools
import shutil
import sys
import types

import numpy as np
import pytest
from skimage import measure as skimage_measure

from NNSegmentLib.errors import ImageError, ModelError
from NNSegmentLib.evaluation import evaluate_folder, load_scores
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_labels, write_labels
from NNSegmentLib.labels import LabelSet
from NNSegmentLib.postprocessing import (
    KeepLargest,
    PostProcessing,
    apply_postprocessing,
    apply_postprocessing_to_folder,
    determine_postprocessing,
    load_postprocessing,
    remove_all_but_largest_component,
)
from NNSegmentLib.postprocessing_rules import save_postprocessing

TWO = LabelSet.from_dataset_json({"labels": {"background": 0, "edge": 1, "core": 2}})
NESTED = LabelSet.from_dataset_json(
    {"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, "regions_class_order": [1, 2]}
)
SHAPE = (8, 16, 16)
NNUNET_MODULE = "nnunetv2.postprocessing.remove_connected_components"


def largest_with_skimage(labels, values):
    """Another library's components, corner neighbours included; ties stay."""
    mask = np.isin(labels, values)
    pieces = skimage_measure.label(mask, connectivity=3)
    sizes = {n: (pieces == n).sum() for n in range(1, pieces.max() + 1)}
    kept = np.isin(pieces, [n for n, size in sizes.items() if size == max(sizes.values())])
    return np.where(mask & ~kept, 0, labels)


def sparse_labels(seed, density=0.25, high=3, shape=SHAPE):
    rng = np.random.default_rng(seed)
    return (rng.integers(1, high, shape) * (rng.random(shape) < density)).astype(np.uint8)


@pytest.mark.parametrize("region", [(1,), (2,), (1, 2), (9,)])
@pytest.mark.parametrize("density", [0.02, 0.06, 0.25])
def test_only_the_largest_component_stays(region, density):
    labels = sparse_labels(3, density)
    before = labels.copy()

    cleaned = remove_all_but_largest_component(labels, region)

    assert np.array_equal(cleaned, largest_with_skimage(labels, region))
    assert np.array_equal(labels, before)


def test_components_of_equal_size_all_stay_and_corners_connect():
    labels = np.zeros((4, 6, 6), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    labels[3, 4:6, 5] = 1
    labels[3, 0, 5] = 1

    cleaned = remove_all_but_largest_component(labels, (1,))

    assert cleaned.sum() == 4 and cleaned[3, 0, 5] == 0


def test_an_empty_map_stays_empty():
    assert not apply_postprocessing(np.zeros((2, 3, 4), np.uint8), PostProcessing((KeepLargest(((1,),)),))).any()


def test_steps_run_in_order():
    labels = sparse_labels(5, 0.05)
    both = PostProcessing((KeepLargest(((1,), (2,))), KeepLargest(((2,),))))

    cleaned = apply_postprocessing(labels, both)

    assert np.array_equal(cleaned, largest_with_skimage(largest_with_skimage(labels, [1, 2]), [2]))


def write_cases(folder, arrays, geometry=None):
    for i, array in enumerate(arrays):
        write_labels(folder / f"case{i}.nii.gz", array, geometry or Geometry(SHAPE, (2.0, 1.0, 1.0)))


def block(value=1, z=slice(2, 6), y=slice(2, 8), x=slice(2, 8)):
    labels = np.zeros(SHAPE, np.uint8)
    labels[z, y, x] = value
    return labels


def nnunets_rule(predictions, references, targets, ignore=None):
    """The steps by the book: score every folder anew, one voxel mask after the other."""

    def dice(arrays):
        scores = []
        for values in targets:
            per_case = []
            for p, r in zip(arrays, references, strict=True):
                a, b = np.isin(p, values) & (r != ignore), np.isin(r, values) & (r != ignore)
                per_case.append(2 * (a & b).sum() / (a.sum() + b.sum()) if (a | b).any() else math.nan)
            kept = [d for d in per_case if not math.isnan(d)]
            scores.append(sum(kept) / len(kept) if kept else math.nan)
        return scores

    steps, best = [], list(predictions)
    everything = sorted({v for t in targets for v in t})
    trial = [largest_with_skimage(p, everything) for p in best]
    if np.mean(dice(trial)) > np.mean(dice(best)) and all(n >= o for n, o in zip(dice(trial), dice(best), strict=True)):
        steps, best = [list(targets)], trial
    for i, target in enumerate(targets if len(targets) > 1 else []):
        trial = [largest_with_skimage(p, target) for p in best]
        if dice(trial)[i] > dice(best)[i]:
            steps, best = [*steps, [target]], trial
    return [KeepLargest(tuple(step)) for step in steps], best


def speckled(reference, seed, density, values):
    """The reference with wrong islands, and holes so that scores are not exact."""
    rng = np.random.default_rng(seed)
    found = np.where(rng.random(reference.shape) < 0.05, 0, reference)
    islands = (rng.random(reference.shape) < density) & (reference == 0)
    return np.where(islands, rng.choice(values, reference.shape), found).astype(np.uint8)


@pytest.mark.parametrize("label_set", [TWO, NESTED], ids=["labels", "regions"])
@pytest.mark.parametrize(("density", "values"), [(0.01, [1, 2]), (0.01, [2]), (0.0, [1]), (0.3, [1])])
def test_the_search_finds_what_scoring_every_folder_anew_finds(tmp_path, label_set, density, values):
    references = [np.maximum(block(), 2 * block(1, z=slice(3, 5), y=slice(3, 6))) for _ in range(3)]
    if label_set is NESTED:
        references[0][0] = 3
    references[2] = np.where(references[2] == 2, 0, references[2])
    predictions = [speckled(np.where(r == 3, 0, r), 7 + i, density, values) for i, r in enumerate(references)]
    write_cases(tmp_path / "p", predictions)
    write_cases(tmp_path / "r", references)

    found = determine_postprocessing(tmp_path / "p", tmp_path / "r", label_set)

    steps, arrays = nnunets_rule(predictions, references, label_set.targets, label_set.ignore_value)
    assert list(found.steps) == steps
    for i, array in enumerate(arrays):
        assert np.array_equal(read_labels(tmp_path / "p" / "postprocessed" / f"case{i}.nii.gz").array, array)


def test_scattered_islands_are_found_worth_removing(tmp_path):
    references = [block(), block()]
    predictions = [r | block(z=slice(0, 1), y=slice(14, 16), x=slice(0, 3)) for r in references]
    write_cases(tmp_path / "p", predictions)
    write_cases(tmp_path / "r", references)
    one = LabelSet.from_dataset_json({"labels": {"background": 0, "organ": 1}})

    found = determine_postprocessing(tmp_path / "p", tmp_path / "r", one)

    assert found.steps == (KeepLargest(((1,),)),)
    assert load_scores(tmp_path / "p" / "postprocessed" / "summary.json").foreground_mean.dice == 1
    assert load_scores(tmp_path / "p" / "summary.json").foreground_mean.dice < 1
    assert found.describe(one) == "keep only the largest component of organ"
    written = json.loads((tmp_path / "p" / "postprocessing.json").read_text())
    assert written["input_folder"]["mean"]["1"]["Dice"] < written["postprocessed"]["mean"]["1"]["Dice"] == 1
    assert written["postprocessing_fns"] == ["remove_all_but_largest_component_from_segmentation"]


def test_two_true_pieces_are_kept(tmp_path):
    reference = block() | block(y=slice(12, 15))
    write_cases(tmp_path / "p", [reference])
    write_cases(tmp_path / "r", [reference])

    found = determine_postprocessing(tmp_path / "p", tmp_path / "r", TWO)

    assert found.steps == () and found.describe(TWO) == "nothing is removed"
    assert load_postprocessing(tmp_path / "p") == load_postprocessing(tmp_path / "p" / "postprocessing.pkl") == found


def test_a_step_that_helps_on_average_but_harms_one_class_is_not_taken_for_all(tmp_path):
    reference = block() + block(2, z=slice(6, 8)) + block(2, z=slice(7, 8), y=slice(14, 15), x=slice(13, 16))
    prediction = reference + block(z=slice(0, 2), y=slice(10, 15), x=slice(0, 10))
    write_cases(tmp_path / "p", [prediction])
    write_cases(tmp_path / "r", [reference])

    found = determine_postprocessing(tmp_path / "p", tmp_path / "r", TWO)

    assert list(found.steps) == nnunets_rule([prediction], [reference], [(1,), (2,)])[0]
    assert KeepLargest(((1,), (2,))) not in found.steps and KeepLargest(((1,),)) in found.steps


def test_each_class_is_looked_at_in_what_the_step_for_all_has_left(tmp_path):
    reference = block(x=slice(2, 4)) + block(2, x=slice(4, 8))
    large_island = block(z=slice(1, 7), y=slice(11, 15), x=slice(10, 14))
    beyond_the_second = block(x=slice(8, 9))
    prediction = reference + large_island + beyond_the_second
    write_cases(tmp_path / "p", [prediction])
    write_cases(tmp_path / "r", [reference])

    found = determine_postprocessing(tmp_path / "p", tmp_path / "r", TWO)

    assert found.steps == (KeepLargest(((1,), (2,))), KeepLargest(((1,),)))
    assert np.array_equal(read_labels(tmp_path / "p" / "postprocessed" / "case0.nii.gz").array, reference)


def test_misses_far_from_any_prediction_count(tmp_path):
    reference = block(z=slice(0, 8), y=slice(6, 16), x=slice(0, 16))
    reference[0, 0, 0:2] = 1
    prediction = np.zeros(SHAPE, np.uint8)
    prediction[0, 0, 0:2] = 1
    prediction[0, 2, 0:5] = 1
    reference[0, 2, 0:3] = 1
    prediction[0, 0, 4:6] = 1
    write_cases(tmp_path / "p", [prediction])
    write_cases(tmp_path / "r", [reference])
    one = LabelSet.from_dataset_json({"labels": {"background": 0, "organ": 1}})

    found = determine_postprocessing(tmp_path / "p", tmp_path / "r", one)

    assert list(found.steps) == nnunets_rule([prediction], [reference], [(1,)])[0] == []


def test_with_a_class_that_is_nowhere_nothing_is_done_to_all_at_once(tmp_path):
    """nnU-Net compares means that are no numbers then, and no number is larger than another."""
    write_cases(tmp_path / "p", [block() | block(y=slice(14, 15), x=slice(14, 15))])
    write_cases(tmp_path / "r", [block()])

    found = determine_postprocessing(tmp_path / "p", tmp_path / "r", TWO)

    assert found.steps == (KeepLargest(((1,),)),)


def test_a_region_of_one_value_is_called_a_region_in_the_files(tmp_path):
    nested = LabelSet.from_dataset_json(
        {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}
    )
    core = 2 * block(z=slice(3, 5))
    island = 2 * block(z=slice(0, 1), y=slice(14, 16), x=slice(0, 3))
    write_cases(tmp_path / "p", [np.maximum(block(), core) + island + block(z=slice(7, 8), y=slice(12, 15))])
    write_cases(tmp_path / "r", [np.maximum(block(z=slice(2, 8), y=slice(2, 15)), core)])

    found = determine_postprocessing(tmp_path / "p", tmp_path / "r", nested)

    written = json.loads((tmp_path / "p" / "postprocessing.json").read_text())
    assert [step.targets for step in found.steps] == [((2,),)]
    assert written["postprocessing_kwargs"] == [{"labels_or_regions": [2]}]
    assert set(written["input_folder"]["mean"]) == set(written["postprocessed"]["mean"]) == {"(1, 2)", "(2,)"}


def test_predictions_without_any_foreground_are_no_obstacle(tmp_path):
    write_cases(tmp_path / "p", [np.zeros(SHAPE, np.uint8)])
    write_cases(tmp_path / "r", [block()])

    assert determine_postprocessing(tmp_path / "p", tmp_path / "r", TWO).steps == ()
    assert load_scores(tmp_path / "p" / "postprocessed" / "summary.json").of(1).dice == 0


def test_scores_already_at_hand_are_used(tmp_path):
    write_cases(tmp_path / "p", [block()])
    write_cases(tmp_path / "r", [block()])
    scores = evaluate_folder(tmp_path / "p", tmp_path / "r", TWO, surface=False)
    (tmp_path / "p" / "summary.json").unlink()

    determine_postprocessing(tmp_path / "p", tmp_path / "r", TWO, scores=scores)

    assert not (tmp_path / "p" / "summary.json").exists()


def test_a_folder_is_post_processed_on_its_own_grid(tmp_path, any_geometry):
    labels = sparse_labels(4, 0.05, shape=any_geometry.shape)
    write_cases(tmp_path / "in", [labels], any_geometry)

    (written,) = apply_postprocessing_to_folder(
        tmp_path / "in", tmp_path / "out", PostProcessing((KeepLargest(((1,),)),))
    )

    found = read_labels(written)
    assert np.array_equal(found.array, largest_with_skimage(labels, [1]))
    assert found.geometry.same_grid(any_geometry)
    with pytest.raises(ImageError):
        apply_postprocessing_to_folder(tmp_path / "nowhere", tmp_path / "out", PostProcessing())


# --- nnU-Net's files ---


@pytest.fixture
def nnunet_function(monkeypatch):
    """A stand-in for nnU-Net, importable under its name."""
    function = types.FunctionType((lambda: None).__code__, {}, "remove_all_but_largest_component_from_segmentation")
    function.__module__, function.__qualname__ = NNUNET_MODULE, function.__name__
    parts = NNUNET_MODULE.split(".")
    for n in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:n]), types.ModuleType(".".join(parts[:n])))
    setattr(sys.modules[NNUNET_MODULE], function.__name__, function)
    return function


STEPS = PostProcessing(
    (KeepLargest(((1, 2), (2,))), KeepLargest(((2,),)), KeepLargest(((2,),), is_list=True), KeepLargest(((1, 2),)))
)


def saved(tmp_path, postprocessing=STEPS):
    write_cases(tmp_path / "x", [block()])
    scores = evaluate_folder(tmp_path / "x", tmp_path / "x", TWO, surface=False)
    return save_postprocessing(postprocessing, tmp_path, scores, scores)


def test_our_pickle_is_what_nnunet_would_have_pickled(tmp_path, nnunet_function):
    path = saved(tmp_path)

    functions, arguments = pickle.loads(path.read_bytes())

    assert functions == [nnunet_function] * 4
    assert arguments == [
        {"labels_or_regions": [1, 2]},
        {"labels_or_regions": 2},
        {"labels_or_regions": (2,)},
        {"labels_or_regions": (1, 2)},
    ]


def test_our_files_are_read_back(tmp_path):
    path = saved(tmp_path)

    for written in (path, tmp_path / "postprocessing.json"):
        found = load_postprocessing(written)
        assert [step.values for step in found.steps] == [step.values for step in STEPS.steps]


@pytest.mark.parametrize("protocol", range(6))
def test_nnunets_pickle_with_numpy_integers_is_read(tmp_path, nnunet_function, protocol):
    value = (
        [nnunet_function] * 2,
        [{"labels_or_regions": [np.int64(1), np.uint8(200)]}, {"labels_or_regions": (1, 2)}],
    )
    path = tmp_path / "postprocessing.pkl"
    path.write_bytes(pickle.dumps(value, protocol))

    assert load_postprocessing(path) == PostProcessing((KeepLargest(((1,), (200,))), KeepLargest(((1, 2),))))


class RunsOnLoading:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def named(module, name):
    return f"c{module}\n{name}\n".encode()


OURS = named(NNUNET_MODULE, "remove_all_but_largest_component_from_segmentation")


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(RunsOnLoading(exec, "raise SystemExit")),
        pickle.dumps(([RunsOnLoading(shutil.rmtree, "/nowhere")], [])),
        named("os", "system") + b"(S'true'\ntR.",
        named("builtins", "getattr") + b".",
        named(NNUNET_MODULE, "apply_postprocessing") + b".",
        OURS + b")R.",
        b"((l" + OURS + b"a(lt.",
        OURS + b"}S'name'\nI1\nsb.",
        OURS + b"N}S'name'\nI1\ns\x86b.",
        named("numpy", "dtype") + b"(S'O8'\ntR.",
        named("numpy", "dtype") + b"N}S'code'\nI1\ns\x86b.",
        named("numpy.core.multiarray", "scalar") + b"(I1\nI2\ntR.",
        named("_codecs", "encode") + b"(S'x'\nS'rot13'\ntR.",
        b"((lp0\n(I1\ntt.",
        b"(" * 100000 + b"t" * 100000 + b".",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"",
        b"not a pickle",
        b"\x80\x04",
        pickle.dumps(([1], [{}])),
        pickle.dumps(([], [1])),
        pickle.dumps(5),
    ],
)
def test_hostile_and_foreign_pickles_are_refused(tmp_path, data):
    path = tmp_path / "postprocessing.pkl"
    path.write_bytes(data)

    with pytest.raises(ModelError, match=r"postprocessing\.pkl"):
        load_postprocessing(path)


@pytest.mark.parametrize("value", ["1", 0, -1, [], True, None, [[]], [[1], "x"], 1.5])
def test_labels_that_are_no_labels_are_refused(tmp_path, value):
    steps = {
        "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
        "postprocessing_kwargs": [{"labels_or_regions": value}],
    }
    (tmp_path / "postprocessing.json").write_text(json.dumps(steps))

    with pytest.raises(ModelError, match="; find the rules anew"):
        load_postprocessing(tmp_path)


@pytest.mark.parametrize(
    "steps",
    [
        [],
        {},
        {"postprocessing_fns": ["other"], "postprocessing_kwargs": [{"labels_or_regions": 1}]},
        {"postprocessing_fns": [], "postprocessing_kwargs": [{"labels_or_regions": 1}]},
        {"postprocessing_fns": "x", "postprocessing_kwargs": "x"},
    ],
)
def test_steps_unknown_here_are_refused(tmp_path, steps):
    (tmp_path / "postprocessing.json").write_text(json.dumps(steps))

    with pytest.raises(ModelError, match="; find the rules anew"):
        load_postprocessing(tmp_path / "postprocessing.json")


def test_missing_and_oversized_files_are_refused(tmp_path):
    with pytest.raises(ModelError, match="found nothing"):
        load_postprocessing(tmp_path / "postprocessing.pkl")
    (tmp_path / "postprocessing.pkl").write_bytes(bytes(2 << 20))
    with pytest.raises(ModelError, match="too large"):
        load_postprocessing(tmp_path / "postprocessing.pkl")


def test_our_pickle_names_one_function_and_calls_nothing(tmp_path):
    opcodes = [(op.name, argument) for op, argument, _ in pickletools.genops(saved(tmp_path).read_bytes())]

    assert {argument for name, argument in opcodes if name == "GLOBAL"} == {
        f"{NNUNET_MODULE} remove_all_but_largest_component_from_segmentation"
    }
    assert not {"REDUCE", "BUILD", "NEWOBJ", "INST", "OBJ"} & {name for name, _ in opcodes}
