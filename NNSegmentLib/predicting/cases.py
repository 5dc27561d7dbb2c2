"""Which cases the files and folders hold that a model is to predict, and what is left out of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ImageError, counted, some
from ..folders import visible
from ..formats.source import Layout, is_opaque, stem, stored_layout, stored_voxels, unread_pictures
from ..image import FILE_ENDINGS, FLAT_ENDINGS, PLANE_ENDINGS, TIFF_ENDINGS, Image, file_ending, read_image
from ..image_files.tiff import unused_spacing
from ..machine.memory import Say, unsaid
from ..model import Model
from ..task import Case

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
_BESIDE_IMAGES = (".json", ".raw", ".zraw", ".csv", ".npz", ".pkl")
"""Files that belong to images or to answers: voxel sizes, voxels, the model's card, probabilities."""
_OF_SYSTEMS = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class _Found:
    """The cases of a folder and the files that are none."""

    cases: tuple[Case, ...]
    left_out: tuple[str, ...] = ()
    """Names of files with the reason."""


class _Headers:
    """What a model finds in single files; each header is read once."""

    def __init__(self, model: Model) -> None:
        self.n_channels, self._layouts = len(model.channels), {}

    def layout(self, path: Path) -> Layout | None:
        """None for a file that cannot be read, which says why when its case is predicted."""
        if path not in self._layouts:
            try:
                self._layouts[path] = stored_layout(path, planes=True)
            except ImageError:
                self._layouts[path] = None
        return self._layouts[path]

    def is_whole_case(self, path: Path) -> bool:
        """Whether a single file has all channels."""
        if self.n_channels == 1:
            return True
        layout = self.layout(path)
        return layout is None or self.n_channels in (layout.channels, layout.channels - layout.has_alpha)

    def is_picture(self, path: Path) -> bool:
        """Whether it is a plane; a stack is none, whatever its header calls its slices."""
        if file_ending(path) not in TIFF_ENDINGS:
            return file_ending(path) in PLANE_ENDINGS
        layout = self.layout(path)
        return layout is not None and layout.axes == 2 and not layout.channels_first

    def has_opacity_more(self, path: Path) -> bool:
        """Whether it is a picture with opacity besides the model's channels."""
        layout = self.layout(path) if file_ending(path) in FLAT_ENDINGS else None
        return layout is not None and layout.has_alpha and layout.channels == self.n_channels + 1


def find_cases(inputs: Sequence[Path], model: Model, say: Say = unsaid) -> list[Case]:
    """The cases in folders of `CASE_0000.ending` files, in one image, or in one file per channel; raises ImageError.

    A folder without files named so may hold `CASE.ending` files that have all channels, of several types; what is left
    out of a folder is told to `say`. Several files are one case when the model has as many channels, and a case each
    when it has one.
    """
    inputs = [Path(path) for path in inputs]
    for path in inputs:
        if not path.exists():
            raise ImageError(f"Expected an image or a folder of images at {path}, found nothing there.")
    headers = _Headers(model)
    cases = _found_in(inputs, model, headers, say)
    _tell_unused_sizes(cases, say)
    _tell_opacity(cases, headers, say)
    return cases


def _found_in(inputs: Sequence[Path], model: Model, headers: _Headers, say: Say) -> list[Case]:
    if any(path.is_dir() for path in inputs):
        files = _single([path for path in inputs if not path.is_dir()], headers)
        folders = (path for path in inputs if path.is_dir())
        return [*files, *(case for path in folders for case in _cases_in(path, model, headers, say))]
    if len(inputs) == 1 or len(model.channels) == 1:
        return _single(inputs, headers)
    if len(inputs) == len(model.channels):
        return [Case(_without_number(inputs[0]), tuple(inputs))]
    raise ImageError(
        f"The model expects {len(model.channels)} channels ({', '.join(model.channels)}, in this order), "
        f"found {len(inputs)} files; give one file per channel, or a folder of cases."
    )


def _single(paths: Sequence[Path], headers: _Headers) -> list[Case]:
    """A case for each file; the number in its name goes where it is that of the only channel."""
    groups = _by_channel(path for path in paths if _CHANNEL.match(stem(path)))
    frames = {path for _, files in groups for path in files if _are_frames(files, headers)}
    return [Case(stem(path) if path in frames else _without_number(path), (path,)) for path in paths]


def _without_number(path: Path) -> str:
    match = _CHANNEL.match(stem(path))
    return match["case"] if match else stem(path)


def _cases_in(folder: Path, model: Model, headers: _Headers, say: Say) -> list[Case]:
    files = [path for path in visible(folder) if path.is_file() and path.name.lower() not in _OF_SYSTEMS]
    images = [path for path in files if path.name.lower().endswith(FILE_ENDINGS)]
    others = [
        path.name
        for path in files
        if not path.name.lower().endswith(FILE_ENDINGS) and path.suffix.lower() not in _BESIDE_IMAGES
    ]
    found = _sorted_out(images, model, headers, say)
    if not found.cases:
        reasons = [*found.left_out, *([f"{some(others)} (no image that is read)"] if others else ())]
        raise ImageError(
            f"{folder} should hold images like CASE_0000{model.file_ending} (one file per channel), found "
            f"{'only ' + '; '.join(reasons) if reasons else 'none'}{unread_pictures(others)}; choose another folder."
        )
    _tell_left_out(folder, found.left_out, others, say)
    return list(found.cases)


def _tell_left_out(folder: Path, left_out: Sequence[str], others: Sequence[str], say: Say) -> None:
    reasons = [*left_out, *([f"{some(others)} (no image that is read)"] if others else ())]
    if reasons:
        say(f"Left out of {folder}: {'; '.join(reasons)}{unread_pictures(others)}.")


def _sorted_out(images: Sequence[Path], model: Model, headers: _Headers, say: Say) -> _Found:
    """Files numbered by channel are joined to cases; all others that hold every channel are cases of their own.

    Where cases are complete in nnU-Net's form, with the model's ending, only files of that form count, as in nnU-Net:
    what else lies beside them, a screenshot or a mask, is no patient.
    """
    order = dict.fromkeys((model.file_ending.lower(), *FILE_ENDINGS))
    images = sorted(images, key=lambda path: list(order).index(file_ending(path)))
    groups = _by_channel(path for path in images if _CHANNEL.match(stem(path)))
    own = [group for group in groups if file_ending(group[1][0]) == model.file_ending.lower()]
    if any(_is_complete(files, headers) for _, files in own):
        groups, single = own, []
    else:
        single = [path for path in images if not _CHANNEL.match(stem(path))]
    frames = [path for _, files in groups for path in files if _are_frames(files, headers)]
    _tell_frames(frames, model, say)
    single, groups = [*single, *frames], [(name, files) for name, files in groups if not {*files} & {*frames}]
    whole = {path: headers.is_whole_case(path) for path in single}
    cases: dict[str, Case] = {}
    for case_id, paths in [*groups, *((stem(path), [path]) for path in single if whole[path])]:
        cases.setdefault(case_id, Case(case_id, tuple(paths)))
    used = {path for case in cases.values() for path in case.images}
    unused = [path for path in images if path not in used]
    incomplete = [path for path in unused if not whole.get(path, True)]
    twice = [path for path in unused if whole.get(path, True) and _without_number(path) in cases]
    others = [path for path in unused if whole.get(path, True) and _without_number(path) not in cases]
    return _Found(tuple(cases[case_id] for case_id in sorted(cases)), _reasons(twice, incomplete, others, model))


def _reasons(
    twice: Sequence[Path], incomplete: Sequence[Path], others: Sequence[Path], model: Model
) -> tuple[str, ...]:
    wanted = f"{len(model.channels)} channels {', '.join(model.channels)}"
    named = (
        (twice, "other files are taken for the same case"),
        (incomplete, f"not the {wanted} in one file"),
        (others, f"not named like CASE_0000{model.file_ending}, as others are"),
    )
    return tuple(f"{some([path.name for path in paths])} ({why})" for paths, why in named if paths)


def _by_channel(images: Iterable[Path]) -> list[tuple[str, list[Path]]]:
    """Each case with its numbered files of one type, in order."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in images:
        groups.setdefault((_without_number(path), file_ending(path)), []).append(path)
    return [(case_id, paths) for (case_id, _), paths in groups.items()]


def _is_complete(files: Sequence[Path], headers: _Headers) -> bool:
    """Whether a case is there as nnU-Net has it: a file for each channel, or one of colours for all."""
    numbers = [int(_CHANNEL.match(stem(path))["channel"]) for path in files]
    return numbers == list(range(headers.n_channels)) or (numbers == [0] and headers.is_whole_case(files[0]))


def _are_frames(files: Sequence[Path], headers: _Headers) -> bool:
    """Whether the numbers of pictures of one name run on as those of frames do, and are not those of the channels.

    Volumes are left as nnU-Net takes them: a second channel of a patient is no second patient.
    """
    return len(files) > 1 and all(headers.is_picture(path) and headers.is_whole_case(path) for path in files)


def _tell_frames(frames: Sequence[Path], model: Model, say: Say) -> None:
    if frames:
        say(
            "Taken as images of their own, since their numbers are not those of the model's "
            f"{counted(len(model.channels), 'channel')}: {some(sorted(path.name for path in frames))}."
        )


def read_case(case: Case, model: Model) -> Image:
    """The channels that the model wants, also from pictures that hold them in another way; raises ImageError.

    Opacity that is full everywhere is left out. What nnU-Net takes for slices are channels where the header of a TIFF
    calls them so and the model has as many.
    """
    image, path, wanted = read_image(case.images, model.plan.reader), case.images[0], len(model.channels)
    if len(image.array) == wanted or len(case.images) > 1 or file_ending(path) not in FLAT_ENDINGS:
        return image
    layout = stored_layout(path, planes=True)
    if layout.channels_first and layout.channels == wanted:
        array, geometry = stored_voxels(path, planes=True)
        return Image(np.ascontiguousarray(array, np.float32), geometry)
    if layout.has_alpha and layout.channels == wanted + 1 and is_opaque(image.array[-1]):
        return Image(image.array[:-1], image.geometry)
    return image


def _tell_unused_sizes(cases: Sequence[Case], say: Say) -> None:
    """TIFF volumes are read with the voxel size beside them, as nnU-Net does; one in the header is easily overlooked."""
    sizes = {case.id: size for case in cases if (size := _unused_size(case.images[0]))}
    if sizes:
        case_id, size = next(iter(sizes.items()))
        say(
            f"The voxel size that the header of {some(list(sizes))} tells is not read (1 × 1 × 1 is taken, as nnU-Net "
            f'does): if the model was trained with voxel sizes, write {case_id}.json with {{"spacing": {list(size)}}} '
            "beside the image."
        )


def _tell_opacity(cases: Sequence[Case], headers: _Headers, say: Say) -> None:
    """Pictures are predicted without the opacity that they may have, as long as it is full everywhere."""
    names = [
        case.images[0].name for case in cases if len(case.images) == 1 and headers.has_opacity_more(case.images[0])
    ]
    if names:
        say(f"The alpha channel (opacity) of {some(names)} is left out where it is full everywhere.")


def _unused_size(path: Path) -> tuple[float, float, float] | None:
    if file_ending(path) not in TIFF_ENDINGS:
        return None
    try:
        return unused_spacing(path)
    except ImageError:
        return None  # what is wrong with it is said when it is predicted
