"""What a new task's folder is called, whoever makes it: from the scene, or from a folder of images."""

from __future__ import annotations

import unicodedata

import pytest

from NNSegmentLib.case_files import case_name, task_folder
from NNSegmentLib.errors import TaskError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.formats.source import target_name
from NNSegmentLib.task_names import new_task_name


@pytest.fixture
def workspace(tmp_path):
    return Workspace.at(tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("Größe Straße", "Dataset501_Groesse_Strasse"),
        ("ÄÖÜ", "Dataset501_AeOeUe"),
        (unicodedata.normalize("NFD", "Niere grün"), "Dataset501_Niere_gruen"),
        ("Étude n°2", "Dataset501_Etude_n_2"),
        ("肝臓 CT", "Dataset501_CT"),
        ("Dataset007_Lung", "Dataset007_Lung"),
        ("Task04_Heart", "Dataset004_Heart"),
    ],
)
def test_a_name_is_written_in_the_letters_that_folders_are_named_in(workspace, name, folder):
    assert new_task_name(workspace, name) == folder
    assert task_folder(workspace, name) == workspace.raw / folder


@pytest.mark.parametrize("name", ["肝臓", "…", ""])
def test_a_name_without_a_letter_or_digit_is_refused(workspace, name):
    with pytest.raises(TaskError, match="needs letters a–z or digits, found"):
        new_task_name(workspace, name)


@pytest.mark.parametrize("number", [-1, 1000, 5.5, "5", True])
def test_a_number_that_no_task_can_have_is_refused(workspace, number):
    with pytest.raises(TaskError, match=f"a whole number from 0 to 999, found {number!r}"):
        task_folder(workspace, "Lung", number)


def test_a_given_number_goes_before_that_of_the_name_and_that_before_the_folders(workspace, tmp_path):
    source = tmp_path / "Task04_Heart"

    assert new_task_name(workspace, "Dataset007_Lung", 9) == "Dataset009_Lung"
    assert target_name(source, workspace, None, "Dataset007_Lung") == "Dataset007_Lung"
    assert target_name(source, workspace, None, "Lung") == "Dataset004_Lung"
    assert target_name(source, workspace, None, None) == "Dataset004_Heart"


def test_a_folder_with_a_name_in_other_letters_can_be_imported(workspace, tmp_path):
    assert target_name(tmp_path / "肝臓", workspace, None, None) == "Dataset501_Task"


def test_a_taken_number_or_name_is_refused(workspace):
    (workspace.raw / "Dataset501_Lung").mkdir(parents=True)

    with pytest.raises(TaskError, match="number 501 is taken by .*Dataset501_Lung"):
        task_folder(workspace, "Heart", 501)
    with pytest.raises(TaskError, match="Dataset501_Lung exists"):
        task_folder(workspace, "Lung")


def test_case_names_differ_by_more_than_their_capitals():
    assert case_name("ct.nii.gz", ["CT", "ct-2"]) == "ct-3"


def test_a_case_has_one_name_whether_macos_wrote_it_or_another_system():
    assert case_name(unicodedata.normalize("NFD", "Müller")) == unicodedata.normalize("NFC", "Müller")
    assert case_name("Müller", [unicodedata.normalize("NFD", "müller")]) == "Müller-2"


@pytest.mark.parametrize(
    ("given", "made"),
    [("con", "con_"), ("AUX.nii.gz", "AUX_"), ("com1.left", "com1_.left"), ("nul_", "nul_"), ("contour", "contour")],
)
def test_a_case_is_not_named_like_a_device_of_windows(given, made):
    assert case_name(given) == made
