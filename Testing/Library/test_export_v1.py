"""A task written as an nnU-Net v1 data set comes back through the v1 reader as it was."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from task_on_disk import PLAIN, blocks, edit_json, nnunet_v2, noise, tree, write_plane

import NNSegmentLib as nns
from NNSegmentLib.cases import load_origin
from NNSegmentLib.cli import main
from NNSegmentLib.errors import SettingsError, TaskError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.formats import convert
from NNSegmentLib.image import read_image, read_labels, write_image, write_labels
from NNSegmentLib.task import load_task


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(tmp_path / "workspace")


def test_a_task_comes_back_from_version_one_as_it_was(workspace, tmp_path, any_geometry):
    source = nnunet_v2(workspace.raw / "Dataset077_Abdomen", n_channels=2, geometry=any_geometry, licence="CC0")
    write_image(source / "imagesTs" / "new_0000.nii.gz", noise(1, any_geometry.shape), any_geometry)
    write_image(source / "imagesTs" / "new_0001.nii.gz", noise(2, any_geometry.shape), any_geometry)
    write_labels(source / "labelsTs" / "new.nii.gz", blocks(any_geometry.shape), any_geometry)
    before = tree(source)

    exported = nns.export_task("77", tmp_path / "nnUNet_raw_data", workspace)
    back = convert(exported.folder, Workspace.at(tmp_path / "other"))

    assert exported.folder == tmp_path / "nnUNet_raw_data" / "Task077_Abdomen"
    assert tree(source) == before
    images_and_labels = {name: data for name, data in before.items() if name.startswith(("images", "labelsT"))}
    for folder in (exported.folder, back.folder):
        files = tree(folder)
        assert {
            name: data for name, data in files.items() if name.startswith(("images", "labelsT"))
        } == images_and_labels
    assert back.name == "Dataset077_Abdomen"
    assert back.labels.to_dataset_json() == load_task(source).labels.to_dataset_json()
    assert [channel.name for channel in back.channels] == ["MR0", "MR1"]
    assert load_origin(back.folder).format == "nnU-Net v1"
    assert back.dataset_json["licence"] == "CC0"
    assert json.loads((exported.folder / "dataset.json").read_text())["tensorImageSize"] == "4D"


def test_the_description_has_the_layout_of_version_one(workspace, tmp_path):
    source = nnunet_v2(workspace.raw / "Dataset005_Head", description="phantoms")
    write_image(source / "imagesTs" / "new_0000.nii.gz", noise(1), PLAIN)

    written = nns.export_task(source, tmp_path, workspace).folder / "dataset.json"

    assert json.loads(written.read_text()) == {
        "name": "Head",
        "description": "phantoms",
        "reference": "",
        "licence": "",
        "release": "",
        "tensorImageSize": "3D",
        "modality": {"0": "MR0"},
        "labels": {"0": "background", "1": "left", "2": "right"},
        "numTraining": 3,
        "numTest": 1,
        "training": [{"image": f"./imagesTr/case{n}.nii.gz", "label": f"./labelsTr/case{n}.nii.gz"} for n in range(3)],
        "test": ["./imagesTs/new.nii.gz"],
    }


def test_other_file_types_are_rewritten_on_the_same_grid(workspace, tmp_path, any_geometry):
    source = nnunet_v2(workspace.raw / "Dataset006_Nrrd", geometry=any_geometry, ending=".nrrd")

    folder = nns.export_task(source, tmp_path, workspace).folder

    image = nibabel.load(folder / "imagesTr" / "case1_0000.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj).T, noise(10, any_geometry.shape))
    assert np.allclose(image.affine, any_geometry.ijk_to_ras, atol=1e-4)
    labels = nibabel.load(folder / "labelsTr" / "case1.nii.gz")
    assert np.array_equal(np.asarray(labels.dataobj).T, blocks(any_geometry.shape))


def test_coloured_planes_become_volumes_of_one_slice_per_colour(workspace, tmp_path):
    source = workspace.raw / "Dataset007_Planes"
    colors = np.random.default_rng(0).integers(0, 255, (9, 7, 3)).astype(np.uint8)
    mask = (colors[..., 0] > 99).astype(np.uint8)
    write_plane(source / "imagesTr" / "a_0000.png", colors)
    write_plane(source / "labelsTr" / "a.png", mask)
    names = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "cell": 1}}
    (source / "dataset.json").write_text(json.dumps(names | {"numTraining": 1, "file_ending": ".png"}))

    folder = nns.export_task(source, tmp_path, workspace).folder

    for channel in range(3):
        image = nibabel.load(folder / "imagesTr" / f"a_000{channel}.nii.gz")
        assert image.shape == (7, 9, 1)
        assert np.array_equal(np.asarray(image.dataobj)[..., 0].T, colors[..., channel])
        assert image.header.get_zooms() == (1.0, 1.0, 999.0)
    assert np.array_equal(read_labels(folder / "labelsTr" / "a.nii.gz").array[0], mask)
    assert read_image(folder / "imagesTr" / "a_0000.nii.gz").geometry.dimension == 3


def test_regions_become_one_label_a_value_and_the_result_says_so(workspace, tmp_path):
    source = nnunet_v2(workspace.raw / "Dataset008_Regions")
    edit_json(
        source / "dataset.json", labels={"background": 0, "liver": [1, 2], "tumour": 2}, regions_class_order=[1, 2]
    )

    exported = nns.export_task(source, tmp_path, workspace)

    assert json.loads((exported.folder / "dataset.json").read_text())["labels"] == {
        "0": "background",
        "1": "liver",
        "2": "liver & tumour",
    }
    assert len(exported.notes) == 1
    assert "knows no regions" in exported.notes[0]
    assert "2 liver & tumour" in exported.notes[0]
    assert np.array_equal(read_labels(exported.folder / "labelsTr" / "case0.nii.gz").array, blocks())


def test_a_task_with_an_ignore_label_is_refused(workspace, tmp_path):
    source = nnunet_v2(workspace.raw / "Dataset009_Sparse", labels={"background": 0, "left": 1, "ignore": 2})

    with pytest.raises(TaskError, match='"ignore", which nnU-Net v1 would learn'):
        nns.export_task(source, tmp_path / "out", workspace)
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_and_another_program_are_refused(workspace, tmp_path):
    source = nnunet_v2(workspace.raw / "Dataset010_Twice")
    nns.export_task(source, tmp_path / "Task001_Mine", workspace)

    with pytest.raises(TaskError, match="Task001_Mine exists already"):
        nns.export_task(source, tmp_path / "Task001_Mine", workspace)
    with pytest.raises(SettingsError, match="\"v1\" .* found 'v3'"):
        nns.export_task(source, tmp_path, workspace, to="v3")


def test_names_colours_and_terminology_survive_the_way_through_version_one(workspace, tmp_path):
    source = nnunet_v2(workspace.raw / "Dataset011_Colours")
    header = "LabelValue,Name,Color_R,Color_G,Color_B,Color_A,Type_CodingScheme,Type_CodeValue,Type_CodeMeaning\n"
    (source / "labels.csv").write_text(header + "1,left,1,2,3,255,SCT,7771000,Left\n2,right,4,5,6,255,,,\n")

    back = convert(nns.export_task(source, tmp_path, workspace).folder, Workspace.at(tmp_path / "other"))

    assert [label.color for label in back.labels.foreground] == [(1, 2, 3), (4, 5, 6)]


def test_the_command_writes_to_where_version_one_looks(workspace, tmp_path, monkeypatch, capsys):
    nnunet_v2(workspace.raw / "Dataset012_Command")
    monkeypatch.setenv("nnUNet_raw_data_base", str(tmp_path / "base"))

    assert main(["convert", "12", "--to", "v1", "--workspace", str(tmp_path / "workspace")]) == 0

    assert (tmp_path / "base" / "nnUNet_raw_data" / "Task012_Command" / "dataset.json").is_file()
    assert "Task012_Command: 3 cases." in capsys.readouterr().out
    monkeypatch.delenv("nnUNet_raw_data_base")
    assert main(["convert", "12", "--to", "v1", "--json", "--workspace", str(tmp_path / "workspace")]) == 0
    folder = tmp_path / "workspace" / "nnUNet_raw_data" / "Task012_Command"
    assert json.loads(capsys.readouterr().out)["folder"] == str(folder)
