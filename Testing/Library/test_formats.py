"""Conversion: every known format becomes a task with the same voxels, and the source stays as it was."""

from __future__ import annotations

import json
import shutil
import unicodedata

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from task_on_disk import PLAIN, blocks, decathlon, edit_json, nnunet_v2, noise, tree, write_plane
from test_palettes import png

from NNSegmentLib.cases import load_origin
from NNSegmentLib.colors import save_label_colors
from NNSegmentLib.conversion import describe_conversion
from NNSegmentLib.errors import ImageError, InputError, StorageError, TaskError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.formats import convert
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_array, read_geometry, read_image, read_labels, write_image, write_labels
from NNSegmentLib.integrity import check_task
from NNSegmentLib.labels import Label, LabelSet


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(tmp_path / "workspace")


@pytest.mark.parametrize("ending", [".mhd", ".tif", ".mha"])
def test_a_task_of_any_file_type_is_whole_without_its_source(tmp_path, workspace, ending):
    source = nnunet_v2(tmp_path / "Dataset006_Whole", ending=ending)

    task = convert(source, workspace)
    shutil.rmtree(source)

    assert check_task(task) == []


def test_a_decathlon_folder_becomes_a_task_and_stays_unchanged(tmp_path, workspace):
    source = decathlon(tmp_path / "Task07_Ball_With_Underscores")
    before = tree(source)

    task = convert(source, workspace)

    assert task.folder == workspace.raw / "Dataset007_Ball_With_Underscores"
    assert [case.id for case in task.cases] == ["ball_Tr0", "ball_Tr1"]
    assert task.labels.values == (0, 1, 2)
    assert [channel.name for channel in task.channels] == ["FLAIR"]
    assert task.dataset_json["licence"] == "CC0"
    assert not {"training", "test", "modality"} & set(task.dataset_json)
    assert (task.folder / "imagesTs" / "ball_Ts0_0000.nii.gz").is_file()
    assert tree(source) == before


def test_four_d_images_are_split_into_channels_on_the_same_grid(tmp_path, workspace):
    task = convert(decathlon(tmp_path / "Task01_Brain", n_channels=4), workspace)

    image = read_image(task.cases[1].images)

    assert [path.name[-11:] for path in task.cases[1].images] == [f"000{n}.nii.gz" for n in range(4)]
    assert np.array_equal(image.array, np.stack([noise(10 + channel) for channel in range(4)]))
    assert image.geometry.same_grid(PLAIN)
    assert sitk.ReadImage(str(task.cases[1].images[2])).GetPixelID() == sitk.sitkInt16
    assert check_task(task) == []


def test_version_one_folders_keep_their_channels_and_test_labels(tmp_path, workspace):
    source = nnunet_v2(tmp_path / "Task501_Old", n_channels=2)
    write_image(source / "imagesTs" / "new_0000.nii.gz", noise(1), PLAIN)
    write_image(source / "imagesTs" / "new_0001.nii.gz", noise(2), PLAIN)
    write_labels(source / "labelsTs" / "new.nii.gz", blocks(), PLAIN)
    old = {
        "modality": {"0": "T1", "1": "CT"},
        "labels": {"0": "Background", "1": "tumour", "2": "tumour"},
        "training": [{"image": f"./imagesTr/case{n}.nii.gz", "label": f"./labelsTr/case{n}.nii.gz"} for n in range(3)],
        "tensorImageSize": "3D",
    }
    (source / "dataset.json").write_text(json.dumps(old))

    task = convert(source, workspace)

    assert task.name == "Dataset501_Old"
    assert [channel.name for channel in task.channels] == ["T1", "CT"]
    assert task.labels.to_dataset_json() == {"labels": {"background": 0, "tumour": 1, "tumour (2)": 2}}
    assert np.array_equal(read_image(task.case("case2").images).array, np.stack([noise(20), noise(21)]))
    assert (task.folder / "labelsTs" / "new.nii.gz").is_file()
    assert load_origin(task.folder).format == "nnU-Net v1"


def test_version_two_folders_are_copied_with_regions_splits_and_notes(tmp_path, workspace):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    source = nnunet_v2(tmp_path / "Dataset077_Regions", labels={"background": 0, "a": 1, "b": 2}, licence="CC0")
    edit_json(source / "dataset.json", labels=labels, regions_class_order=[1, 2])
    (source / "splits_final.json").write_text("[]")

    task = convert(source, workspace)

    assert task.labels.has_regions
    assert task.dataset_json == json.loads((source / "dataset.json").read_text())
    assert (task.folder / "splits_final.json").read_text() == "[]"
    copied = {name: data for name, data in tree(task.folder).items() if name.startswith(("images", "labelsTr"))}
    assert copied == {name: data for name, data in tree(source).items() if name.startswith(("images", "labelsTr"))}


def test_in_place_use_copies_no_image_and_points_at_the_source(tmp_path, workspace):
    source = nnunet_v2(tmp_path / "Dataset078_Here")
    before = tree(source)

    task = convert(source, workspace, in_place=True)

    assert sorted(path.name for path in task.folder.iterdir()) == ["cases.json", "dataset.json", "labels.csv"]
    assert task.cases[0].images == (source / "imagesTr" / "case0_0000.nii.gz",)
    assert task.cases[0].labels == source / "labelsTr" / "case0.nii.gz"
    assert check_task(task) == []
    assert tree(source) == before


def test_in_place_use_of_a_folder_in_the_workspace_changes_nothing(workspace):
    source = nnunet_v2(workspace.raw / "Dataset009_Here")
    before = tree(workspace.raw)

    assert convert(source, workspace, in_place=True).folder == source
    assert tree(workspace.raw) == before


def test_in_place_use_is_refused_where_files_must_be_rewritten(tmp_path, workspace):
    with pytest.raises(TaskError, match="in place because .*ball_Tr0"):
        convert(decathlon(tmp_path / "Task01_Brain", n_channels=2), workspace, in_place=True)
    assert not any(workspace.raw.iterdir())


def test_labels_of_test_cases_may_end_in_capitals(tmp_path, workspace):
    source = nnunet_v2(tmp_path / "Dataset006_Loud", ending=".nrrd")
    for folder, name in (("imagesTs", "new_0000"), ("labelsTs", "new")):
        write_image(source / folder / f"{name}.nrrd", blocks(), PLAIN)
        (source / folder / f"{name}.nrrd").rename(source / folder / f"{name}.NRRD")

    assert (convert(source, workspace).folder / "labelsTs" / "new.nrrd").is_file()


def test_a_task_with_listed_files_is_copied_into_the_plain_layout(tmp_path, workspace):
    source = nnunet_v2(tmp_path / "elsewhere")
    listed = {
        f"patient{n}": {"images": [f"imagesTr/case{n}_0000.nii.gz"], "label": f"labelsTr/case{n}.nii.gz"}
        for n in range(2)
    }
    edit_json(source / "dataset.json", dataset=listed, numTraining=2)

    task = convert(source, workspace, id=12, name="Listed")

    assert task.name == "Dataset012_Listed"
    assert "dataset" not in task.dataset_json
    assert [path.name for path in task.cases[1].images] == ["patient1_0000.nii.gz"]


def test_a_taken_number_is_refused_by_naming_the_folder(tmp_path, workspace):
    taken = workspace.results / "Dataset007_Lung"
    taken.mkdir(parents=True)

    with pytest.raises(TaskError, match="7 is taken by .*nnUNet_results/Dataset007_Lung.*501"):
        convert(decathlon(tmp_path / "Task07_Ball"), workspace)
    assert convert(decathlon(tmp_path / "other" / "Task07_Ball"), workspace, id=8).name == "Dataset008_Ball"


def test_a_folder_without_number_gets_the_next_free_one(tmp_path, workspace):
    (workspace.raw / "Dataset501_First").mkdir(parents=True)

    assert convert(pictures(tmp_path / "my masks & images"), workspace).name == "Dataset502_my_masks_images"


def pictures(folder, names=("a", "b"), label_name="{}", high=255):
    for n, name in enumerate(names):
        write_plane(folder / "images" / f"{name}.png", noise(n, (1, 20, 30))[0].astype(np.uint8))
        mask = (blocks((1, 20, 30), (1, 1))[0] * high).astype(np.uint8)
        write_plane(folder / "labels" / f"{label_name.format(name)}.png", mask)
    return folder


def test_masks_with_0_and_255_are_renumbered_and_it_is_written_down(tmp_path, workspace):
    task = convert(pictures(tmp_path / "cells"), workspace)

    assert task.file_ending == ".png"
    assert np.array_equal(read_labels(task.cases[0].labels).array, blocks((1, 20, 30), (1, 1)))
    assert task.labels.to_dataset_json() == {"labels": {"background": 0, "foreground": 1}}
    assert [(c.before, c.after) for c in load_origin(task.folder).values_changed] == [(255, 1)]
    assert check_task(task) == []
    values, text = describe_conversion(task)
    assert "The value 255 became 1 (foreground): " in text and "labelsTr" in text
    assert values["notes"][0] in text


def test_what_stays_as_it_is_is_not_said(tmp_path, workspace):
    assert describe_conversion(convert(pictures(tmp_path / "cells", high=1), workspace))[0]["notes"] == []


@pytest.mark.parametrize("pattern", ["{}_seg", "{}-label", "mask_{}", "{}.segmentation", "{}_GT"])
def test_labels_are_found_by_the_usual_suffixes(tmp_path, workspace, pattern):
    task = convert(pictures(tmp_path / "cells", ("img_1", "img_2"), pattern), workspace)

    assert [case.id for case in task.cases] == ["img_1", "img_2"]
    assert np.array_equal(read_image(task.cases[1].images).array[0, 0], noise(1, (1, 20, 30))[0].astype(np.uint8))


def test_numbered_frames_are_cases_and_not_channels_when_labels_have_the_same_numbers(tmp_path, workspace):
    task = convert(pictures(tmp_path / "frames", ("f_0000", "f_0001", "f_0002")), workspace)

    assert [case.id for case in task.cases] == ["f_0000", "f_0001", "f_0002"]
    assert len(task.channels) == 1


def test_channel_numbers_are_honoured_in_plain_folders(tmp_path, workspace):
    source = nnunet_v2(tmp_path / "plain", n_channels=2)
    (source / "dataset.json").unlink()

    task = convert(source, workspace, channels=["CT", "PET"])

    assert [channel.name for channel in task.channels] == ["CT", "PET"]
    assert np.array_equal(read_image(task.case("case1").images).array, np.stack([noise(10), noise(11)]))


def test_a_case_without_one_of_the_channels_is_named(tmp_path, workspace):
    source = nnunet_v2(tmp_path / "plain", n_channels=2)
    (source / "dataset.json").unlink()
    (source / "imagesTr" / "case1_0001.nii.gz").unlink()

    with pytest.raises(TaskError, match="case1 .* 0000, 0001 like the others, found 0000"):
        convert(source, workspace)


def test_names_that_macos_and_other_systems_write_differently_are_paired(tmp_path, workspace):
    source = tmp_path / "pairs"
    for name in ("Köhler", "Müller_seg"):
        for channel in ("0000", "0001"):
            image = name.removesuffix("_seg") + f"_{channel}.nii.gz"
            write_image(source / "images" / unicodedata.normalize("NFD", image), noise(1), PLAIN)
        write_labels(source / "labels" / unicodedata.normalize("NFC", f"{name}.nii.gz"), blocks(), PLAIN)
    write_image(source / "imagesTs" / unicodedata.normalize("NFD", "Jürgen_0000.nii.gz"), noise(2), PLAIN)

    task = convert(source, workspace)

    assert [case.id for case in task.cases] == [unicodedata.normalize("NFC", name) for name in ("Köhler", "Müller")]
    assert [path.name for path in (task.folder / "imagesTs").iterdir()] == [
        unicodedata.normalize("NFC", "Jürgen_0000.nii.gz")
    ]


def test_images_and_labels_without_partner_are_told_in_one_sentence(tmp_path, workspace):
    source = pictures(tmp_path / "cells", ("a", "b", "c"))
    (source / "labels" / "a.png").unlink()
    (source / "images" / "c.png").unlink()

    with pytest.raises(TaskError, match=r"1 images without labels \(a.png\) and 1 labels without image \(c.png\)"):
        convert(source, workspace)
    assert not workspace.raw.exists() or not any(workspace.raw.iterdir())


def test_colour_pictures_stay_one_file_with_three_channels(tmp_path, workspace):
    source = pictures(tmp_path / "cells")
    for name in "ab":
        write_plane(
            source / "images" / f"{name}.png", np.dstack([noise(n, (20, 30)) for n in range(3)]).astype("uint8")
        )

    task = convert(source, workspace)

    assert [channel.name for channel in task.channels] == ["R", "G", "B"]
    assert [path.name for path in task.cases[0].images] == ["a_0000.png"]
    assert read_image(task.cases[0].images).array.shape == (3, 1, 20, 30)
    assert [f for f in check_task(task) if f.severity == "error"] == []


def test_mixed_pictures_become_png_with_one_file_per_channel(tmp_path, workspace):
    source = pictures(tmp_path / "cells")
    colours = np.dstack([noise(n, (20, 30)) for n in range(3)]).astype("uint8")
    write_plane(source / "images" / "a.png", colours)
    (source / "images" / "b.png").unlink()
    write_plane(source / "images" / "b.bmp", colours)

    task = convert(source, workspace)

    assert task.file_ending == ".png"
    assert [path.name for path in task.cases[1].images] == [f"b_000{n}.png" for n in range(3)]
    for case in task.cases:
        assert np.array_equal(read_image(case.images).array[:, 0], np.moveaxis(colours, -1, 0))


def test_mixed_volumes_become_nifti_at_the_same_place(tmp_path, workspace, any_geometry):
    folder, shape = tmp_path / "mixed", any_geometry.shape
    for ending, name in ((".nrrd", "a"), (".mhd", "b"), (".nii.gz", "c")):
        write_image(folder / "images" / f"{name}{ending}", noise(5, shape), any_geometry)
        write_labels(folder / "labels" / f"{name}_mask.mha", blocks(shape, (3, 7)), any_geometry)

    task = convert(folder, workspace)

    assert task.file_ending == ".nii.gz"
    for case in task.cases:
        assert read_image(case.images).geometry.same_grid(any_geometry)
        assert np.array_equal(read_image(case.images).array[0], noise(5, shape))
        assert np.array_equal(read_labels(case.labels).array, blocks(shape, (1, 2)))
    assert list(task.labels.to_dataset_json()["labels"]) == ["background", "label 3", "label 7"]


def test_mhd_with_its_raw_file_becomes_mha(tmp_path, workspace):
    for kind in ("images", "labels"):
        write_image(tmp_path / "two_files" / kind / "a.mhd", blocks(), PLAIN)

    task = convert(tmp_path / "two_files", workspace)

    assert [path.name for path in (task.folder / "imagesTr").iterdir()] == ["a_0000.mha"]
    assert np.array_equal(read_labels(task.cases[0].labels).array, blocks())


def test_tif_volumes_keep_their_spacing_in_the_file_beside_them(tmp_path, workspace):
    write_image(tmp_path / "stack" / "images" / "a.tif", noise(1).astype(np.uint16), PLAIN)
    write_labels(tmp_path / "stack" / "labels" / "a.tif", blocks(), PLAIN)

    task = convert(tmp_path / "stack", workspace)

    assert task.file_ending == ".tif"
    assert json.loads((task.folder / "imagesTr" / "a.json").read_text()) == {"spacing": [2.0, 1.0, 1.0]}
    assert read_geometry(task.cases[0].images[0]).spacing_mm == (2.0, 1.0, 1.0)
    assert read_geometry(task.cases[0].labels).spacing_mm == (2.0, 1.0, 1.0)


MICROSCOPE = {"imagej": True, "resolution": (4, 4), "metadata": {"axes": "ZYX", "spacing": 2.0, "unit": "um"}}


def stacks(folder, **label_options):
    for kind, array, options in (
        ("images", noise(1).astype(np.uint16), MICROSCOPE),
        ("labels", blocks(), label_options),
    ):
        (folder / kind).mkdir(parents=True)
        tifffile.imwrite(folder / kind / "a.tif", array.astype(np.uint16), **options)
    return folder


@pytest.mark.parametrize("label_options", [MICROSCOPE, {}], ids=["told by both", "told by the image"])
def test_the_voxel_size_in_the_header_of_stacks_goes_where_nnunet_reads_it(tmp_path, workspace, label_options):
    task = convert(stacks(tmp_path / "cells", **label_options), workspace)

    for folder in ("imagesTr", "labelsTr"):
        assert json.loads((task.folder / folder / "a.json").read_text()) == {"spacing": [2.0, 0.25, 0.25]}
    assert read_geometry(task.cases[0].images[0]).spacing_mm == (2.0, 0.25, 0.25)
    assert "voxel sizes of 1 stack were taken from their headers, in µm" in remarks_about(task)[0]
    assert [finding for finding in check_task(task) if "grid" in finding.check or finding.check == "voxel size"] == []


def test_a_data_set_in_nnunets_form_is_copied_as_it_is_and_checked(tmp_path, workspace):
    source = nnunet_v2(tmp_path / "Dataset007_Cells", ending=".tif", geometry=Geometry(PLAIN.shape))
    for path in [*source.glob("*/*.json")]:
        path.unlink()
    tifffile.imwrite(source / "imagesTr" / "case1_0000.tif", noise(1).astype(np.uint16), **MICROSCOPE)

    task = convert(source, workspace)

    assert not [*task.folder.glob("*/case*.json")]
    found = [finding for finding in check_task(task) if finding.check == "voxel size"]
    assert [(f.case, f.severity) for f in found] == [("case1", "warning")]
    assert "2 × 0.25 × 0.25 in its header" in found[0].found and '{"spacing": [2.0, 0.25, 0.25]}' in found[0].advice


@pytest.mark.parametrize("spacing", [(2.0, 0.25, 0.25), (1.0, 1.0, 1.0)])
def test_masks_that_say_where_they_lie_fit_stacks_that_do_not(tmp_path, workspace, spacing):
    source = stacks(tmp_path / "cells")
    (source / "labels" / "a.tif").unlink()
    write_labels(source / "labels" / "a.nii.gz", blocks(), Geometry(PLAIN.shape, spacing, (5.0, 6.0, 7.0)))

    task = convert(source, workspace)

    assert task.file_ending == ".nii.gz"
    image, labels = read_geometry(task.cases[0].images[0]), read_geometry(task.cases[0].labels)
    assert image.same_grid(labels) and image.spacing_mm == pytest.approx((2.0, 0.25, 0.25))
    assert np.array_equal(read_labels(task.cases[0].labels).array, blocks())
    assert [finding for finding in check_task(task) if "grid" in finding.check] == []


def test_masks_in_millimetres_fit_stacks_that_tell_the_same_in_millimetres(tmp_path, workspace):
    source, metadata = stacks(tmp_path / "cells"), MICROSCOPE["metadata"] | {"unit": "mm"}
    tifffile.imwrite(source / "images" / "a.tif", noise(1).astype(np.uint16), **(MICROSCOPE | {"metadata": metadata}))
    (source / "labels" / "a.tif").unlink()
    placed = Geometry(PLAIN.shape, (2.0, 0.25, 0.25), (5.0, 6.0, 7.0))
    write_labels(source / "labels" / "a.nii.gz", blocks(), placed)

    task = convert(source, workspace)

    assert read_geometry(task.cases[0].images[0]).same_grid(placed)


@pytest.mark.parametrize(
    ("axes", "shape", "sentence"), [("TYX", (4, 20, 30), "4 times"), ("ZCYX", (4, 2, 20, 30), "2 channels")]
)
def test_stacks_that_nothing_could_read_are_refused_at_once(tmp_path, workspace, axes, shape, sentence):
    source = pictures(tmp_path / "cells")
    for name in "ab":
        (source / "images" / f"{name}.png").unlink()
        array = noise(1, shape).astype(np.uint8)
        tifffile.imwrite(source / "images" / f"{name}.tif", array, imagej=True, metadata={"axes": axes})

    with pytest.raises(ImageError, match=sentence):
        convert(source, workspace)


@pytest.mark.parametrize("options", [{"imagej": True, "metadata": {"axes": "CYX"}}, {"planarconfig": "separate"}])
def test_channels_that_lead_in_a_tiff_become_files_of_their_own(tmp_path, workspace, options):
    source, planes = pictures(tmp_path / "cells"), noise(1, (3, 20, 30)).astype(np.uint8)
    for name in "ab":
        (source / "images" / f"{name}.png").unlink()
        photometric = "minisblack" if "imagej" in options else "rgb"
        tifffile.imwrite(source / "images" / f"{name}.tif", planes, photometric=photometric, **options)
        (source / "labels" / f"{name}.png").unlink()
        tifffile.imwrite(source / "labels" / f"{name}.tif", blocks((1, 20, 30), (1, 1))[0].astype(np.uint8))

    task = convert(source, workspace)

    assert [path.name for path in task.cases[0].images] == [f"a_000{n}.tif" for n in range(3)]
    assert np.array_equal(read_image(task.cases[0].images).array[:, 0], planes)
    assert [finding for finding in check_task(task) if finding.severity == "error"] == []


def test_two_channels_of_a_microscope_are_not_called_grey_and_alpha(tmp_path, workspace):
    source = pictures(tmp_path / "cells")
    for name in "ab":
        (source / "images" / f"{name}.png").unlink()
        planes = noise(1, (2, 20, 30)).astype(np.uint8)
        tifffile.imwrite(source / "images" / f"{name}.tif", planes, imagej=True, metadata={"axes": "CYX"})

    assert [c.name for c in convert(source, workspace).channels] == ["channel 0", "channel 1"]


def test_images_and_labels_may_lie_in_one_folder_or_be_named_separately(tmp_path, workspace):
    for name in ("a", "b"):
        write_image(tmp_path / "flat" / f"{name}.nrrd", noise(1), PLAIN)
        write_labels(tmp_path / "flat" / f"{name}_seg.nrrd", blocks(), PLAIN)
        write_image(tmp_path / "x" / "volumes_here" / f"{name}.nrrd", noise(1), PLAIN)
        write_labels(tmp_path / "y" / f"{name}.nrrd", blocks(), PLAIN)

    assert len(convert(tmp_path / "flat", workspace).cases) == 2
    task = convert(tmp_path / "x" / "volumes_here", workspace, labels=tmp_path / "y")
    assert [case.id for case in task.cases] == ["a", "b"]


def test_the_label_set_carries_distinct_colours_and_survives_a_second_conversion(tmp_path, workspace):
    task = convert(decathlon(tmp_path / "Task07_Ball"), workspace)
    again = convert(task.folder, Workspace.at(tmp_path / "second"))

    colours = [label.color for label in task.labels.foreground]
    assert None not in colours and len(set(colours)) == 2
    assert again.labels == task.labels


@pytest.mark.parametrize("n_workers", [1, 3])
def test_nothing_half_written_stays_when_a_file_is_damaged(tmp_path, workspace, n_workers):
    source = decathlon(tmp_path / "Task01_Brain", n_channels=2)
    whole = (source / "imagesTr" / "ball_Tr1.nii.gz").read_bytes()
    (source / "imagesTr" / "ball_Tr1.nii.gz").write_bytes(whole[:400])

    with pytest.raises(InputError, match="ball_Tr1.nii.gz is cut off"):
        convert(source, workspace, workers=n_workers)
    assert not any(workspace.raw.iterdir())


def test_missing_files_are_named_before_anything_is_written(tmp_path, workspace):
    source = decathlon(tmp_path / "Task01_Brain")
    (source / "labelsTr" / "ball_Tr1.nii.gz").unlink()

    with pytest.raises(TaskError, match="1 files .*labelsTr/ball_Tr1.nii.gz"):
        convert(source, workspace)
    assert not workspace.raw.exists()


def test_an_unwritable_workspace_is_said_plainly(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StorageError, match="Cannot write .*file"):
        convert(decathlon(tmp_path / "Task01_Brain"), Workspace.at(tmp_path / "file"))


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        ("{", "not valid JSON"),
        ("[]", "should be a JSON object"),
        ("{}", "should hold channel_names and file_ending"),
        ('{"modality": {"0": "MR"}, "labels": {}, "training": [{"image": "imagesTr/ball_Tr0.nii.gz"}]}', '"labels"'),
        ('{"modality": ["MR"], "labels": {"0": "a"}, "training": [{"image": "a.nii.gz"}]}', '"modality"'),
        ('{"modality": {"0": "MR"}, "labels": {"0": "a"}, "training": ["a.nii.gz"]}', '"training"'),
        ('{"modality": {"0": "MR"}, "labels": {"0": "a"}, "training": 3}', '"training" .* found 3; correct it'),
        ('{"modality": {"²": "MR"}, "labels": {"0": "a"}, "training": [{"image": "a.nii.gz"}]}', '"modality"'),
        ('{"modality": {"0": "MR"}, "labels": {"²": "a"}, "training": [{"image": "a.nii.gz"}]}', 'Label "²"'),
        ('{"modality": {"0": "MR"}, "labels": {"0": "a"}, "training": [{"image": "a", "label": null}]}', '"training"'),
    ],
)
def test_a_wrong_description_is_answered_in_one_sentence(tmp_path, workspace, description, sentence):
    source = decathlon(tmp_path / "Task01_Brain")
    (source / "dataset.json").write_text(description)

    with pytest.raises(TaskError, match=sentence) as raised:
        convert(source, workspace)
    assert "\n" not in str(raised.value)


def test_a_missing_folder_an_archive_and_an_empty_folder_are_told_apart(tmp_path, workspace):
    (tmp_path / "a.zip").write_bytes(b"")
    (tmp_path / "empty").mkdir()

    for name, sentence in (("nowhere", "found nothing there"), ("a.zip", "unpack"), ("empty", "0 images")):
        with pytest.raises(TaskError, match=sentence):
            convert(tmp_path / name, workspace)


def test_a_case_listed_twice_is_refused(tmp_path, workspace):
    source = decathlon(tmp_path / "Task01_Brain")
    listed = json.loads((source / "dataset.json").read_text())["training"]
    edit_json(source / "dataset.json", training=[*listed, listed[0]])

    with pytest.raises(TaskError, match="names ball_Tr0 more than once"):
        convert(source, workspace)


def with_masks(folder, *masks):
    """Pictures with these masks, named a, b, …"""
    pictures(folder, "abcdef"[: len(masks)])
    for name, mask in zip("abcdef", masks, strict=False):
        write_plane(folder / "labels" / f"{name}.png", mask.astype(np.uint8))
    return folder


def remarks_about(task):
    return load_origin(task.folder).remarks


def test_masks_that_mark_the_same_with_1_and_with_255_are_one_class(tmp_path, workspace):
    mask = blocks((1, 20, 30), (1, 1))[0]

    task = convert(with_masks(tmp_path / "cells", mask, mask * 255, mask * 0), workspace)

    assert task.labels.to_dataset_json() == {"labels": {"background": 0, "foreground": 1}}
    for case in task.cases[:2]:
        assert np.array_equal(read_labels(case.labels).array[0], mask)
    assert "both are taken for one class" in remarks_about(task)[0]


def test_1_and_255_in_one_mask_are_two_classes(tmp_path, workspace):
    task = convert(with_masks(tmp_path / "cells", blocks((1, 20, 30), (1, 255))[0]), workspace)

    assert task.labels.values == (0, 1, 2) and remarks_about(task) == ()


def rows_of(n, step=1):
    return np.repeat(np.arange(n)[:, None] * step, 20, axis=1)


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ((rows_of(5), rows_of(12)), True),
        ((rows_of(12, 20), rows_of(12, 20)), True),
        ((rows_of(12), rows_of(12)), False),
        ((rows_of(5), rows_of(8)), False),
    ],
    ids=["numbered objects", "soft borders", "twelve classes", "few values"],
)
def test_masks_that_look_like_no_classes_are_told(tmp_path, workspace, masks, told):
    source = with_masks(tmp_path / "cells", *masks)
    for name, mask in zip("ab", masks, strict=True):
        write_plane(source / "images" / f"{name}.png", mask.astype(np.uint8))

    task = convert(source, workspace)

    assert [("class of its own" in text) for text in remarks_about(task)] == [True] * told
    assert all(text in describe_conversion(task)[1] for text in remarks_about(task))


def test_1_and_255_are_two_classes_where_labels_csv_names_both(tmp_path, workspace):
    mask = blocks((1, 20, 30), (1, 1))[0]
    source = with_masks(tmp_path / "cells", mask, mask * 255)
    names = LabelSet((Label("background", (0,)), Label("nucleus", (1,)), Label("membrane", (255,))))
    save_label_colors(source / "labels.csv", names)

    task = convert(source, workspace)

    assert task.labels.to_dataset_json() == {"labels": {"background": 0, "nucleus": 1, "membrane": 2}}
    assert [read_labels(case.labels).array.max() for case in task.cases] == [1, 2]
    assert [(c.before, c.after) for c in load_origin(task.folder).values_changed] == [(255, 2)]
    assert remarks_about(task) == ()


def test_1_and_255_in_volumes_are_two_classes(tmp_path, workspace):
    for name, value in (("a", 1), ("b", 255)):
        write_image(tmp_path / "scans" / "images" / f"{name}.nii.gz", noise(1), PLAIN)
        write_labels(tmp_path / "scans" / "labels" / f"{name}.nii.gz", blocks(values=(value, value)), PLAIN)

    assert convert(tmp_path / "scans", workspace).labels.values == (0, 1, 2)


def test_masks_whose_palettes_differ_are_refused(tmp_path, workspace):
    source, numbers = pictures(tmp_path / "cells"), blocks((1, 20, 30), (1, 1))[0].astype(np.uint8)
    png(source / "labels" / "a.png", numbers, colours=[(0, 0, 0), (255, 0, 0)])
    png(source / "labels" / "b.png", numbers, colours=[(0, 0, 0), (0, 255, 0)])

    with pytest.raises(TaskError, match="number 1 .* #ff0000 in a.png and #00ff00 in b.png.* as grey values"):
        convert(source, workspace)


def test_colours_that_no_mask_uses_may_differ(tmp_path, workspace):
    source, numbers = pictures(tmp_path / "cells"), blocks((1, 20, 30), (1, 1))[0].astype(np.uint8)
    png(source / "labels" / "a.png", numbers, colours=[(0, 0, 0), (255, 0, 0), (9, 8, 7)])
    png(source / "labels" / "b.png", numbers, colours=[(0, 0, 0), (255, 0, 0)])

    assert convert(source, workspace).labels.values == (0, 1)


def test_masks_with_a_palette_are_not_used_in_place(tmp_path, workspace):
    source, numbers = pictures(tmp_path / "cells", high=1), blocks((1, 20, 30), (1, 1))[0].astype(np.uint8)
    for name in "ab":
        png(source / "labels" / f"{name}.png", numbers)

    with pytest.raises(TaskError, match="in place because a, b must be rewritten"):
        convert(source, workspace, in_place=True)


def test_pictures_that_are_only_copied_are_not_decoded(tmp_path, workspace, monkeypatch):
    source = convert(pictures(tmp_path / "cells", high=1), workspace).folder
    monkeypatch.setattr(sitk, "ReadImage", None)

    assert len(convert(source, Workspace.at(tmp_path / "second"), workers=1).cases) == 2


def test_masks_with_a_palette_become_masks_that_everybody_reads(tmp_path, workspace):
    source, numbers = pictures(tmp_path / "cells"), blocks((1, 20, 30))[0].astype(np.uint8)
    for name in "ab":
        png(source / "labels" / f"{name}.png", numbers)

    task = convert(source, workspace)

    assert task.labels.values == (0, 1, 2)
    assert np.array_equal(read_array(task.cases[0].labels)[0][0, 0], numbers)
    assert check_task(task) == []


@pytest.mark.parametrize("all_have_it", [True, False])
def test_opacity_that_is_full_everywhere_is_no_channel(tmp_path, workspace, all_have_it):
    source = pictures(tmp_path / "cells")
    for n, name in enumerate("ab"):
        colours = noise(n, (20, 30, 3)).astype(np.uint8)
        full = np.dstack([colours, np.full((20, 30), 255, np.uint8)])
        write_plane(source / "images" / f"{name}.png", full if all_have_it or name == "a" else colours)

    task = convert(source, workspace)

    assert [channel.name for channel in task.channels] == ["R", "G", "B"]
    assert np.array_equal(read_image(task.cases[0].images).array[:, 0], np.moveaxis(noise(0, (20, 30, 3)), -1, 0))
    assert "alpha channel" in remarks_about(task)[0]
    assert [finding for finding in check_task(task) if finding.severity == "error"] == []


def write_tiffs(source, image, **options):
    """TIFFs in place of the pictures a and b, with masks that mark the same."""
    mask = blocks((1, 20, 30), (1, 1))[0].astype(np.uint8)
    for name in "ab":
        for kind in ("images", "labels"):
            (source / kind / f"{name}.png").unlink()
        tifffile.imwrite(source / "images" / f"{name}.tif", image, **options)
        tifffile.imwrite(source / "labels" / f"{name}.tif", mask)
    return source


def test_full_opacity_beside_grey_values_is_no_channel(tmp_path, workspace):
    grey = noise(1, (20, 30)).astype(np.uint8)
    image = np.dstack([grey, np.full_like(grey, 255)])
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}

    task = convert(write_tiffs(pictures(tmp_path / "cells"), image, **options), workspace)

    assert [channel.name for channel in task.channels] == ["image"]
    assert np.array_equal(read_image(task.cases[0].images).array[:, 0], grey[None])
    assert "R, G, B" not in remarks_about(task)[0]
    assert [finding for finding in check_task(task) if finding.severity == "error"] == []


def test_a_fourth_channel_that_tifffile_calls_opacity_stays_where_it_varies(tmp_path, workspace):
    image = noise(1, (20, 30, 4)).astype(np.uint8)

    task = convert(write_tiffs(pictures(tmp_path / "cells"), image), workspace)

    assert len(task.channels) == 4 and remarks_about(task) == ()
    assert np.array_equal(read_image(task.cases[0].images).array[:, 0], np.moveaxis(image, -1, 0))


def test_opacity_of_test_images_is_left_out_as_well(tmp_path, workspace):
    source, colours = pictures(tmp_path / "cells"), noise(1, (20, 30, 3)).astype(np.uint8)
    for name in "ab":
        write_plane(source / "images" / f"{name}.png", colours)
    write_plane(source / "imagesTs" / "new.png", np.dstack([colours, np.full((20, 30), 255, np.uint8)]))

    task = convert(source, workspace)

    tests = sorted((task.folder / "imagesTs").iterdir())
    assert np.array_equal(read_image(tests).array[:, 0], np.moveaxis(colours, -1, 0))


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_opacity_that_varies_in_a_test_image_is_refused(tmp_path, workspace, ending):
    source, colours = pictures(tmp_path / "cells"), noise(1, (20, 30, 3)).astype(np.uint8)
    for name in "ab":
        write_plane(source / "images" / f"{name}.png", np.dstack([colours, np.full((20, 30), 255, np.uint8)]))
    (source / "imagesTs").mkdir()
    test = np.dstack([colours, noise(2, (20, 30)).astype(np.uint8)])
    if ending == ".png":
        write_plane(source / "imagesTs" / "new.png", test)
    else:
        tifffile.imwrite(source / "imagesTs" / "new.tif", test)

    with pytest.raises(ImageError, match=f"new{ending} has an alpha channel"):
        convert(source, workspace)


def test_films_among_the_test_images_are_refused(tmp_path, workspace):
    source = stacks(tmp_path / "cells")
    (source / "imagesTs").mkdir()
    film = noise(1).astype(np.uint16)
    tifffile.imwrite(source / "imagesTs" / "new.tif", film, imagej=True, metadata={"axes": "TYX"})

    with pytest.raises(ImageError, match="new.tif should hold one volume of one time"):
        convert(source, workspace)


def test_opacity_that_varies_is_refused(tmp_path, workspace):
    source = pictures(tmp_path / "cells")
    write_plane(source / "images" / "b.png", noise(1, (20, 30, 4)).astype(np.uint8))

    with pytest.raises(ImageError, match="b.png has an alpha channel .* save the picture without alpha"):
        convert(source, workspace)


def test_cases_with_another_number_of_channels_are_named_with_it(tmp_path, workspace):
    source = pictures(tmp_path / "cells", "abc")
    write_plane(source / "images" / "b.png", noise(1, (20, 30, 3)).astype(np.uint8))

    with pytest.raises(TaskError, match="should have 1 channel like most, but b has 3"):
        convert(source, workspace)


def test_an_image_that_is_there_in_two_types_is_told_so(tmp_path, workspace):
    source = pictures(tmp_path / "cells")
    write_plane(source / "images" / "a.bmp", noise(0, (20, 30)).astype(np.uint8))

    with pytest.raises(TaskError, match="there twice in .*: a.bmp, a.png; keep one"):
        convert(source, workspace)


@pytest.mark.parametrize("how_many", ["all", "one"])
def test_photographs_are_told_apart_from_missing_images(tmp_path, workspace, how_many):
    source = pictures(tmp_path / "cells")
    for path in sorted((source / "images").iterdir())[: None if how_many == "all" else 1]:
        path.rename(path.with_suffix(".jpg"))

    with pytest.raises(TaskError, match=r"\.jpg files are not read: save them as \.png"):
        convert(source, workspace)


def test_smoothed_and_coloured_masks_are_refused(tmp_path, workspace):
    source = pictures(tmp_path / "cells")
    write_plane(source / "labels" / "a.png", np.arange(600, dtype=np.uint8).reshape(20, 30))
    with pytest.raises(TaskError, match="a few label values, found 256"):
        convert(source, workspace)
    write_plane(source / "labels" / "a.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(TaskError, match="3 channels"):
        convert(source, workspace)


def test_progress_runs_to_its_end(tmp_path, workspace):
    seen = []

    convert(decathlon(tmp_path / "Task01_Brain"), workspace, progress=lambda *step: seen.append(step))

    assert seen[0][:2] == (0, 3) and seen[-1][:2] == (3, 3)


@pytest.mark.parametrize(
    ("name", "n_cases"),
    [
        ("Task04_Hippocampus", 200),
        ("Dataset510_SarcomaMRCTPET", 10),
        ("Dataset520_CardiacCine", 40),
        ("membranes_2d", 30),
    ],
)
def test_real_data_sets_convert_and_pass_the_check(shared_data, workspace, name, n_cases):
    task = convert(shared_data / name, workspace)

    assert len(task.cases) == n_cases
    assert check_task(task) == []
