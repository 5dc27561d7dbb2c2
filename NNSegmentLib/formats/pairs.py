"""Plain folders of images and labels, paired by file name: NIfTI, NRRD, MHA/MHD, TIF, PNG, BMP, mixed as they come.

Labels may also be Slicer's segmentation files (.seg.nrrd), whose segments then give the labels their names.
nnU-Net wants one file type for images and labels. What all files share is kept; .mhd (two files a volume) becomes
.mha; mixed 2-D files become .png, or .tif when their numbers do not fit; mixed volumes become .nii.gz.
TIF volumes stay TIF with their spacing in nnU-Net's JSON file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..cases import ValueChange
from ..colors import load_label_colors
from ..errors import TaskError, counted, some
from ..file_names import composed
from ..folders import LABELS_CSV, visible
from ..given import expanded
from ..image import FLAT_ENDINGS, file_ending
from ..labels import BACKGROUND, Label, LabelSet
from ..progress import Progress, in_parallel
from . import seg_nrrd
from .facts import Facts, facts_of, image_facts, picture_facts
from .label_values import is_one_class, remarks, require_same_colours
from .segments import common_labels
from .source import (
    Source,
    SourceCase,
    image_files,
    label_stem,
    require_opaque,
    stem,
    unread_pictures,
)

_IMAGE_FOLDERS = ("imagesTr", "images", "image", "imgs", "img", "volumes", "scans")
_LABEL_FOLDERS = (
    "labelsTr", "labels", "label", "masks", "mask", "segmentations", "segmentation", "segs", "seg", "annotations", "gt"
)  # fmt: skip
_TEST_FOLDERS = ("imagesTs", "images_test", "test_images")
_LABEL_WORD = r"(?:segmentation|seg|labelmap|labels|label|masks|mask|annotation|groundtruth|gt)"
_IMAGE_WORD = r"(?:image|img|volume|vol|scan)"
_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
_COLOR_NAMES = {1: ("image",), 2: ("grey", "alpha"), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}
_OPACITY = "Pictures have an alpha channel (opacity) that is full everywhere; it is left out."


@dataclass(frozen=True)
class _Match:
    """An image file, the label file it belongs to, and its channel number."""

    case_id: str
    channel: int
    image: Path
    labels: Path


def recognises(folder: Path) -> bool:
    """Whether the folder has a folder of images and one of labels."""
    folders = (_subfolder(folder, names) for names in (_IMAGE_FOLDERS, _LABEL_FOLDERS))
    return all(path is not None and image_files(path) for path in folders)


def read(folder: Path, labels: Path | None, workers: int, progress: Progress) -> Source:
    """Describe a folder of images and labels; `labels` names the label folder unless it is found by its name.

    Raises TaskError naming every file without a partner.
    """
    image_paths, label_paths = _find_files(folder, labels)
    cases = _paired(folder, image_paths, label_paths)
    named = [path for path in label_paths if seg_nrrd.is_segmentation(path)]
    if named:
        _require_all_named(named, label_paths)
        cases = [replace(case, labels=None, segments=seg_nrrd.read(case.labels)) for case in cases]
        return describe_segmented(folder, "images and Slicer segmentations", cases, _test_cases(folder, cases))
    facts = in_parallel(facts_of, cases, workers, progress, "Reading labels")
    require_same_colours([(case.labels, f.colours) for case, f in zip(cases, facts, strict=True)])
    planes, tests = all(f.is_plane for f in facts), _test_cases(folder, cases)
    test_facts = in_parallel(partial(picture_facts, planes=planes), tests, workers, progress, "Reading test images")
    drop_alpha = _drops_alpha(facts, test_facts)
    facts = [replace(f, channels=f.channels - len(f.alphas)) for f in facts] if drop_alpha else facts
    label_set, changes, said = _labels(folder, label_paths, [f.values for f in facts])
    mixed = len({file_ending(path) for path in (*image_paths, *label_paths)}) > 1
    return Source(
        folder=folder,
        format="images and labels",
        channel_names=_channel_names(cases, facts),
        labels=label_set,
        file_ending=_common_ending([*image_paths, *label_paths], facts),
        cases=(*cases, *tests),
        values_changed=changes,
        split_colors=mixed or drop_alpha or any(f.channels_first for f in facts),
        tiff_headers=True,
        planes=planes,
        drop_alpha=drop_alpha,
        remarks=(*said, *(_OPACITY,) * drop_alpha, *_remark_on_spacing([*facts, *test_facts])),
    )


def _drops_alpha(training: Sequence[Facts], tests: Sequence[Facts]) -> bool:
    """Whether an opacity is left out, as it is full in all training cases; raises ImageError where it varies in a test."""
    if any(f.alpha_varies for f in training):
        return False
    wanted = {f.channels - len(f.alphas) for f in training}
    surplus = [f for f in tests if f.alphas and f.channels - len(f.alphas) in wanted]
    for path in (path for f in surplus if f.alpha_varies for path in f.alphas):
        require_opaque(path)
    return bool(surplus) or any(f.alphas for f in training)


def _remark_on_spacing(facts: Sequence[Facts]) -> tuple[str, ...]:
    n_told = sum(f.has_header_spacing for f in facts)
    if not n_told:
        return ()
    return (
        f"The voxel sizes of {counted(n_told, 'stack')} were taken from their headers, in µm where these name a unit.",
    )


def describe_segmented(
    folder: Path,
    format_: str,
    cases: Sequence[SourceCase],
    tests: Sequence[SourceCase] = (),
    order: Sequence[str] | None = None,
) -> Source:
    """A source whose training cases have segments, named as they first appear or in `order`; raises TaskError."""
    images = [path for case in (*cases, *tests) for path in case.images]
    facts = [image_facts(case) for case in cases]
    test_facts = [image_facts(case) for case in tests]
    return Source(
        folder=folder,
        format=format_,
        channel_names=_channel_names(cases, facts),
        labels=common_labels(cases, order),
        file_ending=_common_ending(images, facts),
        cases=(*cases, *tests),
        tiff_headers=True,
        remarks=_remark_on_spacing([*facts, *test_facts]),
    )


def _require_all_named(named: Sequence[Path], labels: Sequence[Path]) -> None:
    known = set(named)
    others = [path.name for path in labels if path not in known]
    if others:
        raise TaskError(
            f"{len(named)} label files hold named segments, but {some(others)} hold plain numbers, of which nobody knows "
            "which segment they are; convert them apart, or save them as .seg.nrrd in Slicer."
        )


def _find_files(folder: Path, labels: Path | None) -> tuple[list[Path], list[Path]]:
    if labels is not None:
        images, masks = folder, expanded(labels).absolute()
        images = _subfolder(folder, _IMAGE_FOLDERS) or images if not image_files(folder) else images
    else:
        images, masks = _subfolder(folder, _IMAGE_FOLDERS), _subfolder(folder, _LABEL_FOLDERS)
    if images is None and masks is None:
        return _split_by_name(folder)
    for path, what in ((images, "images"), (masks, "labels")):
        if path is None or not image_files(path):
            raise TaskError(
                f"{path or folder} should hold {what} ({', '.join(FLAT_ENDINGS[:3])}, .nii.gz, .nrrd, .mha, …), found "
                f"none{_unread_in(path)}; expected the two folders images and labels, or name the label folder."
            )
    return image_files(images), image_files(masks)


def _unread_in(*folders: Path | None) -> str:
    return unread_pictures(path.name for folder in folders if folder for path in visible(folder))


def _subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    present = {path.name.lower(): path for path in visible(folder) if path.is_dir()}
    return next((present[name.lower()] for name in names if name.lower() in present), None)


def _split_by_name(folder: Path) -> tuple[list[Path], list[Path]]:
    """Images and labels of one folder, told apart by a word such as _seg, _label, _mask in the labels' names."""
    files = image_files(folder)
    labels, images = [], []
    for path in files:
        (images if _key(stem(path), _LABEL_WORD) == stem(path) else labels).append(path)
    if not images or not labels:
        raise TaskError(
            f"{folder} should hold dataset.json, or two folders images and labels, or pairs like case.nii.gz and "
            f"case_seg.nii.gz; found {len(images)} images and {len(labels)} labels"
            f"{_unread_in(folder)}."
        )
    return images, labels


def _paired(folder: Path, images: Sequence[Path], labels: Sequence[Path]) -> list[SourceCase]:
    exact = {composed(label_stem(path)): path for path in labels}
    tolerant = {_key(name, _LABEL_WORD): path for name, path in exact.items()}
    if len(tolerant) < len(labels):
        raise TaskError(
            f"Some label files in {labels[0].parent} have the same name but for their ending or suffix; keep one of each."
        )
    matches = [_match(path, exact, tolerant) for path in images]
    used = {match.labels for match in matches if match}
    _require_partners(
        folder,
        [path.name for path, match in zip(images, matches, strict=True) if match is None],
        [path.name for path in labels if path not in used],
    )
    return _grouped(folder, [match for match in matches if match])


def _match(image: Path, exact: dict[str, Path], tolerant: dict[str, Path]) -> _Match | None:
    """The label of an image: the same name, the name without channel number, then both with suffixes ignored."""
    name = composed(stem(image))
    numbered = _CHANNEL.match(name)
    candidates = [(name, 0)] + ([(numbered["case"], int(numbered["channel"]))] if numbered else [])
    shorter = [(_key(text, _IMAGE_WORD), channel) for text, channel in candidates]
    for table, texts in ((exact, candidates), (tolerant, candidates), (tolerant, shorter)):
        for text, channel in texts:
            if text in table:
                return _Match(text, channel, image, table[text])
    return None


def _key(name: str, word: str) -> str:
    """The name without a leading or trailing word like 'mask' set off by a dot, dash, underscore or blank."""
    shorter = re.sub(rf"(?:^{word}[ ._-]+)|(?:[ ._-]+{word}$)", "", name, flags=re.IGNORECASE)
    return shorter or name


def _require_partners(folder: Path, images: list[str], labels: list[str]) -> None:
    if images or labels:
        parts = [f"{len(images)} images without labels ({some(images)})"] if images else []
        parts += [f"{len(labels)} labels without image ({some(labels)})"] if labels else []
        raise TaskError(
            f"Every image needs a label file of the same name, found {' and '.join(parts)}"
            f"{_unread_in(folder, *[_subfolder(folder, _IMAGE_FOLDERS)])}; rename them, or move them to another folder."
        )


def _grouped(folder: Path, matches: Sequence[_Match]) -> list[SourceCase]:
    by_case: dict[str, list[_Match]] = {}
    for match in matches:
        by_case.setdefault(match.case_id, []).append(match)
    expected = sorted({match.channel for match in matches})
    for case_id, files in by_case.items():
        _require_once(folder, files)
        if sorted(match.channel for match in files) != expected:
            raise TaskError(
                f"Case {case_id} in {folder} should have the channels {_numbers(expected)} like the others, found "
                f"{_numbers(sorted(match.channel for match in files))}; add the missing files or take the case away."
            )
    return [
        SourceCase(
            case_id, tuple(m.image for m in sorted(by_case[case_id], key=_by_channel)), by_case[case_id][0].labels
        )
        for case_id in sorted(by_case)
    ]


def _require_once(folder: Path, files: Sequence[_Match]) -> None:
    channels = [match.channel for match in files]
    twice = [match.image.name for match in files if channels.count(match.channel) > 1]
    if twice:
        raise TaskError(f"The same image is there twice in {folder}: {some(twice)}; keep one of them.")


def _by_channel(match: _Match) -> int:
    return match.channel


def _numbers(channels: Sequence[int]) -> str:
    return ", ".join(f"{channel:04d}" for channel in channels)


def _labels(
    folder: Path, paths: Sequence[Path], per_mask: Sequence[frozenset[int]]
) -> tuple[LabelSet, tuple[ValueChange, ...], tuple[str, ...]]:
    """Labels numbered 0, 1, 2, …, the values that change by it, and what is to be said about them."""
    known = {label.values[0]: label for label in _known_labels(folder)}
    are_flat = all(file_ending(path) in FLAT_ENDINGS for path in paths)
    one_class = are_flat and is_one_class(per_mask) and not {1, 255} <= set(known)
    return *_label_set(folder, per_mask, known, one_class), remarks(per_mask, one_class, bool(known))


def _label_set(
    folder: Path, per_mask: Sequence[frozenset[int]], known: Mapping[int, Label], one_class: bool
) -> tuple[LabelSet, tuple[ValueChange, ...]]:
    """Labels numbered 0, 1, 2, …, and the values that change by it; `one_class` tells that 255 means the same as 1."""
    found = [1] if one_class else sorted(frozenset().union(*per_mask) - {0})
    if not found:
        raise TaskError(
            f"The labels in {folder} should mark something, found only the value 0; choose the folder of the segmentations."
        )
    labels = [Label(BACKGROUND, (0,))]
    for new, old in enumerate(found, start=1):
        label = known.get(old, Label("foreground" if len(found) == 1 else f"label {old}", (old,)))
        labels.append(Label(label.name, (new,), label.color, label.terminology))
    changes = tuple(ValueChange(old, new) for new, old in enumerate(found, start=1) if old != new)
    return LabelSet(tuple(labels)), (ValueChange(255, 1),) if one_class else changes


def _known_labels(folder: Path) -> tuple[Label, ...]:
    return load_label_colors(folder / LABELS_CSV) if (folder / LABELS_CSV).is_file() else ()


def _channel_names(cases: Sequence[SourceCase], facts: Sequence[Facts]) -> tuple[str, ...]:
    counts = {f.channels for f in facts}
    if len(counts) > 1:
        most = max(counts, key=[f.channels for f in facts].count)
        odd = [f"{case.id} has {f.channels}" for case, f in zip(cases, facts, strict=True) if f.channels != most]
        raise TaskError(
            f"All cases should have {counted(most, 'channel')} like most, but {some(odd)}; complete or remove them."
        )
    n_channels = counts.pop()
    is_color = len(cases[0].images) == 1 and facts[0].is_plane and (n_channels == 3 or not facts[0].channels_first)
    if n_channels in _COLOR_NAMES and (is_color or n_channels == 1):
        return _COLOR_NAMES[n_channels]
    return tuple(f"channel {n}" for n in range(n_channels))


def _common_ending(files: Sequence[Path], facts: Sequence[Facts]) -> str:
    endings = {file_ending(path) for path in files}
    planes = all(f.is_plane for f in facts) and endings <= set(FLAT_ENDINGS)
    if endings == {".mhd"}:
        return ".mha"
    if len(endings) == 1 and not (planes and endings == {".tiff"}):
        return endings.pop()
    if not planes:
        return ".nii.gz"
    return ".png" if all(f.fits_png for f in facts) and endings != {".tiff"} else ".tif"


def _test_cases(folder: Path, training: Sequence[SourceCase]) -> list[SourceCase]:
    """Images of a test folder, if there is one; channel numbers count only where the training images have them."""
    tests = _subfolder(folder, _TEST_FOLDERS)
    numbered = all(composed(case.images[0].name).startswith(f"{case.id}_0") for case in training)
    by_case: dict[str, list[Path]] = {}
    for path in image_files(tests) if tests else ():
        name = composed(stem(path))
        match = _CHANNEL.match(name) if numbered else None
        by_case.setdefault(match["case"] if match else name, []).append(path)
    return [SourceCase(case_id, tuple(paths), group="Ts") for case_id, paths in by_case.items()]
