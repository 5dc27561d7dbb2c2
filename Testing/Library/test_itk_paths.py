"""Image files below folders like C:\\Users\\Müller, where ITK on Windows finds only what has a name of ASCII letters."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from task_on_disk import PLAIN, blocks, nnunet_v2, noise

from NNSegmentLib import pipeline
from NNSegmentLib.errors import StorageError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.formats import convert
from NNSegmentLib.formats.source import stored_layout
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import copy_image, read_geometry, read_image, read_labels, write_image, write_labels
from NNSegmentLib.image_files import itk_paths

ENDINGS = [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"]


def ansi(path: object) -> str:
    """What Windows makes of the UTF-8 bytes of a path."""
    return str(path).encode().decode("cp1252", "replace")


@pytest.fixture
def windows(monkeypatch):
    """SimpleITK as on Windows, on a disk without short names."""
    read, write, name = sitk.ReadImage, sitk.WriteImage, sitk.ImageFileReader.SetFileName
    monkeypatch.setattr(sitk, "ReadImage", lambda path, *a, **k: read(ansi(path), *a, **k))
    monkeypatch.setattr(sitk, "WriteImage", lambda image, path, *a, **k: write(image, ansi(path), *a, **k))
    monkeypatch.setattr(sitk.ImageFileReader, "SetFileName", lambda self, path: name(self, ansi(path)))
    monkeypatch.setattr(itk_paths, "_takes_ascii_only", lambda: True)
    monkeypatch.setattr(itk_paths, "_short_form", lambda folder: folder)


@pytest.fixture(params=["with short names", "without short names"])
def home(request, windows, monkeypatch, tmp_path) -> Path:
    """A folder Müller, whose short name is MLLER~1 where the disk has such names."""
    (tmp_path / "Müller").mkdir()
    if request.param == "with short names":
        (tmp_path / "MLLER~1").symlink_to("Müller")
        monkeypatch.setattr(itk_paths, "_short_form", lambda folder: Path(str(folder).replace("Müller", "MLLER~1")))
    return tmp_path / "Müller"


@pytest.mark.parametrize("name", ["case", "Köhler"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_images_below_any_folder_are_written_and_read(home, name, ending):
    path = home / (name + ending)

    write_image(path, noise(3), PLAIN)

    assert np.array_equal(read_image(path).array[0], noise(3))
    assert read_geometry(path).same_grid(PLAIN)
    assert stored_layout(path).axes == 3


def test_headers_and_voxels_of_two_names_that_differ_in_other_letters_stay_apart(home):
    for n, name in enumerate(("Köhler", "Kühler")):
        write_image(home / f"{name}.mhd", noise(n), PLAIN)

    copy_image(home / "Köhler.mhd", home / "Möhler.mhd")

    assert {path.name for path in home.glob("*.raw")} == {"Köhler.raw", "Kühler.raw", "Möhler.raw"}
    for n, name in enumerate(("Köhler", "Kühler", "Möhler")):
        assert np.array_equal(read_image(home / f"{name}.mhd").array[0], noise(n % 2))


def test_a_task_below_any_folder_is_checked_and_planned(home):
    nnunet_v2(home / "nnUNet_raw" / "Dataset501_Blöcke", n_cases=2)

    assert pipeline.check(501, home) == []
    assert pipeline.plan(501, home).configurations


def test_dicom_series_below_any_folder_are_read(home):
    pytest.importorskip("pydicom", reason="pydicom is not installed (the extra 'dicom')")
    from dicom_on_disk import ct_series, seg

    series = ct_series(home / "scan", noise(1), PLAIN)
    seg(home / "seg.dcm", [(4, 1, blocks()[4] > 0)], PLAIN, series, {1: "liver"})

    task = convert(home, Workspace.at(home / "workspace"))

    assert np.array_equal(read_image(task.cases[0].images).array[0], noise(1))


def test_tiff_files_below_any_folder_are_read_where_only_simpleitk_can(home):
    write_image(home / "case.tif", np.arange(64, dtype=np.uint8).reshape(1, 8, 8), Geometry((1, 8, 8), (1, 1, 1)))
    compressed = home / "compressed.tif"
    with itk_paths.path_to_write(compressed) as plain:
        writer = sitk.ImageFileWriter()
        writer.SetFileName(plain), writer.UseCompressionOn(), writer.SetCompressor("LZW")
        writer.Execute(sitk.GetImageFromArray(np.arange(64, dtype=np.uint8).reshape(8, 8)))

    assert np.array_equal(read_image(compressed).array, read_image(home / "case.tif").array)


def test_nothing_is_left_in_the_temporary_folder(windows, monkeypatch, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    write_labels(tmp_path / "Köhler.nrrd", blocks(), PLAIN)

    assert np.array_equal(read_labels(tmp_path / "Köhler.nrrd").array, blocks())
    assert list(temporary.iterdir()) == []


def test_a_folder_of_all_users_serves_where_the_users_own_has_other_letters(windows, monkeypatch, tmp_path):
    for name in ("Müller", "Public"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "Müller"))
    monkeypatch.setenv("PUBLIC", str(tmp_path / "Public"))

    write_labels(tmp_path / "Müller" / "case.nrrd", blocks(), PLAIN)

    assert np.array_equal(read_labels(tmp_path / "Müller" / "case.nrrd").array, blocks())


def test_where_no_folder_serves_it_is_told(windows, monkeypatch, tmp_path):
    (tmp_path / "Müller").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "Müller"))
    for name in ("PUBLIC", "ProgramData"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(StorageError, match="no folder with a name of English letters was found"):
        write_labels(tmp_path / "Müller" / "case.nrrd", blocks(), PLAIN)


@pytest.mark.parametrize(("system", "code_page"), [("linux", 0), ("darwin", 0), ("win32", 65001)])
def test_elsewhere_a_path_is_given_as_it_is(tmp_path, monkeypatch, system, code_page):
    kernel32 = SimpleNamespace(GetACP=lambda: code_page)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel32), raising=False)
    monkeypatch.setattr(itk_paths.sys, "platform", system)
    path = tmp_path / "Köhler.nii.gz"

    with itk_paths.path_to_read(path) as given:
        assert given == str(path)
    with itk_paths.path_to_write(path) as given:
        assert given == str(path)


def test_windows_names_a_short_form_where_its_code_page_is_another(tmp_path, monkeypatch):
    def short(folder, buffer, length):
        buffer.value = folder.replace("Müller", "MLLER~1")
        return len(buffer.value)

    kernel32 = SimpleNamespace(GetACP=lambda: 1252, GetShortPathNameW=short)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel32), raising=False)
    monkeypatch.setattr(itk_paths.sys, "platform", "win32")

    with itk_paths.path_to_read(tmp_path / "Müller" / "case.nii.gz") as given:
        assert given == str(tmp_path / "MLLER~1" / "case.nii.gz")
