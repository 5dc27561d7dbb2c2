"""NRRD and MetaImage files: their headers are checked as text, before SimpleITK believes them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from NNSegmentLib.errors import ImageError
from NNSegmentLib.image import copy_image, read_geometry, read_labels
from NNSegmentLib.image_files.text_headers import voxel_file

VOXELS = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
NRRD = "NRRD0005\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: {}\ndata file: {}\n"
META = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = {}\n"
ELSEWHERE = [
    "../voxels.raw", "{folder}/voxels.raw", "/dev/zero", "", ".", "..", "sub/voxels.raw", "sub\\voxels.raw", "LIST",
    "LIST\nvoxels.raw", "%n%n%s%s%s.raw 1 4 1", "voxels%d.raw 1 1 1", "voxels.raw\0",
]  # fmt: skip


def nrrd(path, name="voxels.raw", encoding="raw"):
    path.write_bytes(NRRD.format(encoding, name).encode())
    return path


def meta(path, name="voxels.raw"):
    path.write_bytes(META.format(name).encode())
    return path


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of voxels in it, beside it and below it."""
    for place in (tmp_path, tmp_path / "in", tmp_path / "in" / "sub"):
        place.mkdir(exist_ok=True)
        (place / "voxels.raw").write_bytes(VOXELS.tobytes())
    return tmp_path / "in"


@pytest.mark.parametrize("name", ["voxels.raw", "./voxels.raw"])
@pytest.mark.parametrize("write", [nrrd, meta])
def test_voxels_are_taken_from_a_file_beside_the_header(folder, write, name):
    path = write(folder / ("a.nrrd" if write is nrrd else "a.mhd"), name)

    assert np.array_equal(read_labels(path).array, VOXELS)


def test_voxels_beside_the_header_may_be_compressed_and_linked_from_elsewhere(folder):
    (folder.parent / "store").write_bytes(gzip.compress(VOXELS.tobytes()))
    (folder / "voxels.raw.gz").symlink_to(folder.parent / "store")

    assert np.array_equal(read_labels(nrrd(folder / "a.nrrd", "voxels.raw.gz", "gzip")).array, VOXELS)


def test_a_file_whose_name_itk_takes_for_a_list_is_refused_by_its_name(folder):
    for name in ("LISTER1.raw", "voxels LIST.raw"):
        (folder / name).write_bytes(VOXELS.tobytes())

    assert np.array_equal(read_labels(meta(folder / "a.mhd", "voxels LIST.raw")).array, VOXELS)
    with pytest.raises(ImageError, match="not beginning with LIST, found 'LISTER1.raw'"):
        read_labels(meta(folder / "b.mhd", "LISTER1.raw"))


def test_comments_and_keys_of_other_programs_name_nothing(folder):
    header = META.format("voxels.raw").replace("NDims", "Comment = NDims = 9, ElementDataFile = other.raw\nNDims")
    (folder / "a.mhd").write_text(header)
    (folder / "a.nrrd").write_text(NRRD.format("raw", "voxels.raw") + "dimension:=hello\ndata file:=hello\n")

    assert np.array_equal(read_labels(folder / "a.mhd").array, VOXELS)
    assert np.array_equal(read_labels(folder / "a.nrrd").array, VOXELS)


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("write", [nrrd, meta])
def test_other_files_are_not_read_as_voxels(folder, write, name):
    path = write(folder / ("a.nrrd" if write is nrrd else "a.mhd"), name.format(folder=folder.parent))

    for use in (read_geometry, read_labels, lambda path: copy_image(path, folder / "b" / path.name)):
        with pytest.raises(ImageError, match="name one file beside it"):
            use(path)


@pytest.mark.parametrize(
    "text",
    [
        META.format("LOCAL").replace("ElementDataFile", "Comment = ElementDataFile"),
        META.format("LOCAL").replace("ElementType", "  ElementDataFile = /dev/zero\nElementType"),
        META.format("LOCAL").replace("ElementDataFile", "elementdatafile"),
        "",
    ],
)
def test_the_first_naming_of_a_file_counts(folder, text):
    (folder / "a.mhd").write_text(text + "x" * 64)

    with pytest.raises(ImageError):
        voxel_file(folder / "a.mhd")


def test_old_line_ends_hide_no_file(folder):
    header = NRRD.format("raw", "/dev/zero").replace("data file", "\rdata file").replace("\n", "\r\n")
    (folder / "a.nrrd").write_bytes(header.encode())

    with pytest.raises(ImageError):
        read_labels(folder / "a.nrrd")


@pytest.mark.parametrize("axes", [1, 5, 16, "many", ""])
def test_files_of_other_than_two_to_four_axes_are_refused(folder, axes):
    nrrd(folder / "a.nrrd").write_text(NRRD.format("raw", "voxels.raw").replace("dimension: 3", f"dimension: {axes}"))
    (folder / "a.mhd").write_text(META.format("voxels.raw").replace("NDims = 3", f"NDims = {axes}"))

    for name in ("a.nrrd", "a.mhd"):
        with pytest.raises(ImageError, match="expected 2, 3 or 4"):
            read_geometry(folder / name)


def test_a_volume_of_colours_at_several_times_is_refused(folder):
    header = META.format("LOCAL").replace("NDims = 3", "NDims = 4\nElementNumberOfChannels = 3")
    (folder / "a.mha").write_bytes(header.replace("4 4 4", "4 4 2 2").encode() + bytes(64 * 3))

    for read in (read_geometry, read_labels):
        with pytest.raises(ImageError, match="has 5 axes"):
            read(folder / "a.mha")


def test_a_missing_file_of_voxels_is_named(folder):
    with pytest.raises(ImageError, match=r"the file gone\.raw beside it, found none"):
        read_geometry(meta(folder / "a.mhd", "gone.raw"))


@pytest.mark.parametrize("name", ["a.nrrd", "a.mhd"])
def test_a_header_is_copied_with_its_voxels(folder, name):
    source = (nrrd if name == "a.nrrd" else meta)(folder / name)

    copy_image(source, folder / "b" / name)

    (folder / "voxels.raw").unlink()
    assert np.array_equal(read_labels(folder / "b" / name).array, VOXELS)


def test_voxels_in_a_file_with_the_headers_ending_are_not_replaced_by_the_copied_header(folder):
    (folder / "voxels.raw").rename(folder / "voxels.nrrd")

    copy_image(nrrd(folder / "a.nrrd", "voxels.nrrd"), folder / "copy.nrrd")

    assert np.array_equal(read_labels(folder / "copy.nrrd").array, VOXELS)
