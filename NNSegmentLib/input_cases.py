"""Which cases the files and folders hold that a model is to predict, and what is left out of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import ImageError, counted, some
from .folders import visible
from .formats.source import is_opaque, stem, stored_layout, stored_voxels, unread_pictures
from .image import FILE_ENDINGS, FLAT_ENDINGS, TIFF_ENDINGS, Image, file_ending, read_image
from .machine.memory import Say, unsaid
from .model import Model
from .task import Case
from .tiff import unused_spacing

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


def find_cases(inputs: Sequence[Path], model: Model, say: Say = unsaid) -> list[Case]:
    """The cases in folders of `CASE_0000.ending` files, in one image, or in one file per channel; raises ImageError.

    A folder may also hold `CASE.ending` files that have all channels, of several types; what is left out of it is told
    to `say`. Several files are one case when the model has as many channels, and a case each when it has one.
    """
    inputs = [Path(path) for path in inputs]
    for path in inputs:
        if not path.exists():
            raise ImageError(f"Expected an image or a folder of images at {path}, found nothing there.")
    cases = _found_in(inputs, model, say)
    _tell_unused_sizes(cases, say)
    _tell_opacity(cases, model, say)
    return cases


def _found_in(inputs: Sequence[Path], model: Model, say: Say) -> list[Case]:
    if any(path.is_dir() for path in inputs):
        return [case for path in inputs for case in (_cases_in(path, model, say) if path.is_dir() else _single([path]))]
    if len(inputs) == 1 or len(model.channels) == 1:
        return _single(inputs)
    if len(inputs) == len(model.channels):
        return [Case(_without_number(inputs[0]), tuple(inputs))]
    raise ImageError(
        f"The model expects {len(model.channels)} channels ({', '.join(model.channels)}, in this order), "
        f"found {len(inputs)} files; give one file per channel, or a folder of cases."
    )


def _single(paths: Sequence[Path]) -> list[Case]:
    """A case for each file; the number in its name goes where it is that of the only channel."""
    counts_frames = _count_frames(paths)
    return [Case(stem(path) if counts_frames else _without_number(path), (path,)) for path in paths]


def _without_number(path: Path) -> str:
    match = _CHANNEL.match(stem(path))
    return match["case"] if match else stem(path)


def _count_frames(paths: Iterable[Path]) -> bool:
    """Whether the numbers of pictures run on as those of frames do, instead of being 0000 for the first channel."""
    numbers = [_CHANNEL.match(stem(path)) for path in paths if file_ending(path) in FLAT_ENDINGS]
    return any(match and int(match["channel"]) for match in numbers)


def _cases_in(folder: Path, model: Model, say: Say) -> list[Case]:
    files = [path for path in visible(folder) if path.is_file()]
    files = [path for path in files if path.name.lower() not in _OF_SYSTEMS]
    images = [path for path in files if path.name.lower().endswith(FILE_ENDINGS)]
    others = [p.name for p in files if p not in images and p.suffix.lower() not in _BESIDE_IMAGES]
    found = _sorted_out(images, model, say)
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


def _sorted_out(images: Sequence[Path], model: Model, say: Say) -> _Found:
    """Files numbered by channel are joined to cases; all others that hold every channel are cases of their own."""
    order = dict.fromkeys((model.file_ending.lower(), *FILE_ENDINGS))
    images = sorted(images, key=lambda path: list(order).index(file_ending(path)))
    frames = _frames(images, model)
    if frames:
        say(
            "Taken as images of their own, since their numbers are not those of the model's "
            f"{counted(len(model.channels), 'channel')}: {some(sorted(path.name for path in frames))}."
        )
    groups = _by_channel(path for path in images if path not in frames)
    single = [path for path in images if path in frames or not _CHANNEL.match(stem(path))]
    incomplete = [path for path in single if not _is_whole_case(path, model)]
    cases: dict[str, Case] = {}
    for case_id, paths in [*groups, *((stem(path), [path]) for path in single if path not in incomplete)]:
        cases.setdefault(case_id, Case(case_id, tuple(paths)))
    used = {path for case in cases.values() for path in case.images}
    twice = [path for path in images if path not in used and path not in incomplete]
    return _Found(tuple(cases[case_id] for case_id in sorted(cases)), _reasons(twice, incomplete, model))


def _reasons(twice: Sequence[Path], incomplete: Sequence[Path], model: Model) -> tuple[str, ...]:
    reasons = [f"{some([p.name for p in twice])} (other files are taken for the same case)"] if twice else []
    if incomplete:
        wanted = f"{len(model.channels)} channels {', '.join(model.channels)}"
        reasons.append(f"{some([p.name for p in incomplete])} (not the {wanted} in one file)")
    return tuple(reasons)


def _by_channel(images: Iterable[Path]) -> list[tuple[str, list[Path]]]:
    """Each case with its numbered files of one type, in order."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in images:
        if match := _CHANNEL.match(stem(path)):
            groups.setdefault((match["case"], file_ending(path)), []).append(path)
    return [(case_id, paths) for (case_id, _), paths in groups.items()]


def _frames(images: Sequence[Path], model: Model) -> set[Path]:
    """The pictures whose numbers are no channels: some are not 0000, though every file has all channels.

    Volumes are left as nnU-Net takes them: a second channel of a patient is no second patient.
    """
    pictures = [path for path in images if file_ending(path) in FLAT_ENDINGS and _CHANNEL.match(stem(path))]
    is_series = _count_frames(pictures) and all(_is_whole_case(path, model) for path in pictures)
    return set(pictures) if is_series else set()


def _is_whole_case(path: Path, model: Model) -> bool:
    """Whether a single file has all channels; one that cannot be read says why when its case is predicted."""
    if len(model.channels) == 1:
        return True
    try:
        layout = stored_layout(path, planes=True)
    except ImageError:
        return True
    return len(model.channels) in (layout.channels, layout.channels - layout.has_alpha)


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


def _tell_opacity(cases: Sequence[Case], model: Model, say: Say) -> None:
    """Colours are predicted without the opacity that pictures may have, as long as it is full everywhere."""
    single = [case.images[0] for case in cases if len(case.images) == 1 and file_ending(case.images[0]) in FLAT_ENDINGS]
    names = [path.name for path in single if len(model.channels) > 1 and _has_opacity_more(path, model)]
    if names:
        say(f"The alpha channel (opacity) of {some(names)} is left out where it is full everywhere.")


def _has_opacity_more(path: Path, model: Model) -> bool:
    try:
        layout = stored_layout(path)
    except ImageError:
        return False  # what is wrong with it is said when it is predicted
    return layout.has_alpha and layout.channels == len(model.channels) + 1


def _unused_size(path: Path) -> tuple[float, float, float] | None:
    if file_ending(path) not in TIFF_ENDINGS:
        return None
    try:
        return unused_spacing(path)
    except ImageError:
        return None  # what is wrong with it is said when it is predicted
