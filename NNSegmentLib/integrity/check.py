"""The integrity check of a whole task: every case once, then what only shows when all are compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..cases import repeated
from ..errors import some
from ..folders import visible
from ..image import TIFF_ENDINGS
from ..labels import LARGEST_VALUE, LabelSet
from ..progress import Progress, in_parallel, silent
from ..task import Task, find_images
from .examine import CaseReport, examine_case
from .findings import CASE_COUNT, ERROR, LABEL_NUMBERS, LABEL_VALUES, WARNING, Finding
from .install import interrupted
from .renumbering import Renumbering, declared_values, find_renumbering

_MOST_VALUES = 12
"""Label values that a sentence lists."""


def check_task(task: Task, workers: int = 2, progress: Progress = silent) -> list[Finding]:
    """Everything wrong with a task, the whole task's findings first, then case by case; an empty list is good news.

    Every image and label file is read exactly once, `workers` at a time.
    """
    return findings_of(task, examine_task(task, workers, progress))


def examine_task(task: Task, workers: int = 2, progress: Progress = silent) -> list[CaseReport]:
    """The report of every case, in the order of the cases."""
    return in_parallel(partial(examine_case, task), task.cases, workers, progress, "Checking cases")


def findings_of(task: Task, reports: Sequence[CaseReport]) -> list[Finding]:
    """The findings of all cases and those that only show when cases are compared."""
    found, renumbering = _found_values(reports), renumbering_of(task, reports)
    return [
        *_half_mended(task),
        *_description_findings(task, renumbering),
        *_duplicate_ids(task),
        *_labels_alone(task),
        *_ignored_files(task),
        *_absent_labels(task.labels, found, renumbering),
        *_identical_images(reports),
        *(finding for report in reports for finding in _case_findings(task, report, renumbering)),
        *_incomplete_tests(task),
    ]


def renumbering_of(task: Task, reports: Sequence[CaseReport]) -> Renumbering | None:
    """How to get to the values 0, 1, 2, …; None when a label file cannot be read or it would be guessing."""
    if any(report.values is None for report in reports):
        return None
    return find_renumbering(task.labels, _found_values(reports))


def _found_values(reports: Sequence[CaseReport]) -> frozenset[int]:
    return frozenset().union(*(report.values or () for report in reports))


def _case_findings(task: Task, report: CaseReport, renumbering: Renumbering | None) -> Iterator[Finding]:
    declared, is_writable = _declared(task), _are_writable(report.values, renumbering)
    yield from (finding if is_writable or not finding.fixable else _not_yet(finding) for finding in report.findings)
    unexpected = sorted(value for value in set(report.values or ()).difference(declared) if value >= 0)
    if unexpected:
        yield Finding(
            ERROR,
            report.case_id,
            LABEL_VALUES,
            f"only {some(declared, _MOST_VALUES)}",
            f"also {some(unexpected, _MOST_VALUES)}",
            "'nnsegment check --fix' renumbers the labels in ascending order"
            if renumbering
            else "name these values in dataset.json or take them out of the label file",
            fixable=renumbering is not None,
        )


def _are_writable(values: frozenset[int] | None, renumbering: Renumbering | None) -> bool:
    """Whether a label file can hold them, as they are or renumbered."""
    return renumbering is not None or not values or (min(values) >= 0 and max(values) <= LARGEST_VALUE)


def _not_yet(finding: Finding) -> Finding:
    return replace(finding, fixable=False, advice="correct the values of this label file first, then check again")


def _half_mended(task: Task) -> Iterator[Finding]:
    for _ in interrupted(task.folder):
        yield Finding(
            ERROR,
            "",
            "mended as a whole",
            "label files and dataset.json that belong together",
            "a mending that was interrupted between them",
            "run 'nnsegment check --fix', which finishes it",
            fixable=True,
        )


def _declared(task: Task) -> list[int]:
    return sorted(declared_values(task.labels))


def _description_findings(task: Task, renumbering: Renumbering | None) -> Iterator[Finding]:
    declared = _declared(task)
    if declared != list(range(len(declared))):
        yield Finding(
            ERROR,
            "",
            LABEL_NUMBERS,
            f"the values 0 to {len(declared) - 1}",
            some(declared, _MOST_VALUES),
            "'nnsegment check --fix' renumbers the labels in dataset.json and in the files",
            fixable=renumbering is not None,
        )
    if task.declared_training_cases != len(task.cases):
        yield Finding(
            ERROR,
            "",
            CASE_COUNT,
            f"{task.declared_training_cases} training cases (numTraining in dataset.json)",
            f"{len(task.cases)}, such as {some([case.id for case in task.cases])}",
            "add the missing cases, or let 'nnsegment check --fix' correct numTraining",
            fixable=True,
        )
    if len(task.cases) < 2:
        yield Finding(
            WARNING,
            "",
            "enough cases",
            "at least 2 training cases",
            str(len(task.cases)),
            "add cases; with one there is none left to validate on",
        )


def _duplicate_ids(task: Task) -> Iterator[Finding]:
    spelled: dict[str, set[str]] = {}
    for case in task.cases:
        spelled.setdefault(case.id.lower(), set()).add(case.id)
    twice = [sorted(names) for names in spelled.values() if len(names) > 1]
    for names in [*twice, *([name] for name in _repeated_keys(task.folder / "dataset.json"))]:
        yield Finding(
            ERROR,
            names[0],
            "unique case names",
            "every case once, capitals aside",
            f"{' and '.join(names)}{' twice in dataset.json' if len(names) == 1 else ''}",
            "rename one of them; some file systems take them for the same file",
        )


def _repeated_keys(path: Path) -> list[str]:
    """Case names that occur twice under `dataset`; plain JSON reading keeps the last one without a word."""
    twice: list[str] = []

    def noticing(pairs: list) -> dict:
        twice.extend(repeated(key for key, value in pairs if isinstance(value, dict) and "images" in value))
        return dict(pairs)

    json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=noticing)
    return twice


def _labels_alone(task: Task) -> Iterator[Finding]:
    for name, path in _label_files_alone(task).items():
        yield Finding(
            ERROR,
            name,
            "channel files",
            f"{some([f'{name}_{n:04d}{task.file_ending}' for n in range(len(task.channels))])} in imagesTr",
            f"only the labels {path.name}",
            "add the image, or remove the labels",
        )


def _label_files_alone(task: Task) -> dict[str, Path]:
    """The label files of cases that have no image at all, by case name."""
    if "dataset" in task.dataset_json:
        return {}
    imaged, ending = {case.id for case in task.cases}, task.file_ending
    files = [path for path in visible(task.folder / "labelsTr") if _counts(path, task)]
    named = {p.name[: -len(ending)]: p for p in files if p.name.lower().endswith(ending.lower())}
    return {name: path for name, path in named.items() if name not in imaged}


def _ignored_files(task: Task) -> Iterator[Finding]:
    known = {path for case in task.cases for path in (*case.images, case.labels)} | {*_label_files_alone(task).values()}
    folders = [task.folder / name for name in ("imagesTr", "labelsTr")]
    for folder in folders if "dataset" not in task.dataset_json else ():
        surplus = [path.name for path in visible(folder) if _counts(path, task) and path not in known]
        if surplus:
            yield Finding(
                WARNING,
                "",
                "unused files",
                f"only files of the cases in {folder.name}",
                f"also {some(surplus)}",
                f"name images like CASE_0000{task.file_ending} and labels like CASE{task.file_ending}, or remove them",
            )


def _counts(path: Path, task: Task) -> bool:
    belongs_to = {".json": TIFF_ENDINGS, ".raw": (".mhd",), ".zraw": (".mhd",)}
    is_sidecar = task.file_ending in belongs_to.get(path.suffix, ())
    return path.is_file() and not is_sidecar


def _absent_labels(labels: LabelSet, found: frozenset[int], renumbering: Renumbering | None) -> Iterator[Finding]:
    if renumbering is not None and renumbering.files and not found <= declared_values(labels):
        return  # the values are known under other numbers
    for label in labels.foreground:
        if not set(label.values) & found:
            yield Finding(
                WARNING,
                "",
                "label occurs",
                f'voxels of "{label.name}" (value {some(label.values, _MOST_VALUES)}) in some case',
                "none in any case",
                "segment it somewhere, or take it out of dataset.json",
            )


def _identical_images(reports: Sequence[CaseReport]) -> Iterator[Finding]:
    by_digest: dict[str, list[str]] = {}
    for report in reports:
        if report.digest:
            by_digest.setdefault(report.digest, []).append(report.case_id)
    for names in by_digest.values():
        if len(names) > 1:
            yield Finding(
                WARNING,
                names[0],
                "different images",
                "an image of its own for every case",
                f"the same voxels in {some(names)}",
                "remove all but one: the same image in training and validation makes the scores too good",
            )


def _incomplete_tests(task: Task) -> Iterator[Finding]:
    for case_id, files in find_images(task.folder / "imagesTs", task.file_ending).items():
        if len(files) != len(task.channels) and task.file_ending not in (".png", ".bmp", ".tif"):
            yield Finding(
                WARNING,
                case_id,
                "test images",
                f"{len(task.channels)} files, one per channel",
                f"{len(files)} in imagesTs",
                "add the missing channel before predicting this case",
            )
