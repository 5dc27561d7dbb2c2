"""Preparing all cases of a task for one configuration, so that a killed preparation goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .folders import TaskFolders
from .image import copy_image
from .memory import Say, affordable_workers, announce, unsaid
from .planning.plan import Configuration, Plan
from .preflight import preparation_gb, preparation_need
from .progress import Progress, in_parallel
from .records import read_json, to_json, write_json
from .task import Case, Task

_SIGNATURE = "prepared_for.json"


@dataclass(frozen=True)
class Preparation:
    """What was done for one configuration."""

    configuration: str
    folder: Path
    cases: int
    computed: int
    """Cases prepared now; the others were already up to date."""


def prepare_all(
    task: Task, folders: TaskFolders, plan: Plan, name: str, workers: int, progress: Progress, say: Say = unsaid
) -> Preparation:
    """Prepare every case that is missing, older than its files, or was prepared for other settings.

    As many cases at a time as memory allows; `say` hears what is needed.
    Raises ImageError naming the case that cannot be prepared, OutOfMemoryError when one case does not fit.
    """
    from .preprocessing.prepare import prepare_case
    from .preprocessing.storage import save_prepared

    configuration = plan.configuration(name)
    folder = folders.prepared(configuration.data_identifier)
    _begin(folder, _signature(task, plan, configuration))
    missing = [case for case in task.cases if not _is_current(case, folder)]
    workers = _affordable(missing, configuration, plan, workers, say)

    def prepare(case: Case) -> None:
        save_prepared(prepare_case(case, plan, name, task.labels), folder)

    in_parallel(prepare, missing, workers, progress, f"Preparing {name}")
    return Preparation(name, folder, len(task.cases), len(missing))


def keep_references(task: Task, folders: TaskFolders, workers: int, progress: Progress) -> None:
    """Copy the label files beside the prepared data, for evaluation on the original grids; current copies are kept."""

    def keep(case: Case) -> None:
        copy = folders.reference_labels / (case.id + task.file_ending)
        if case.labels and (not copy.is_file() or copy.stat().st_mtime < case.labels.stat().st_mtime):
            copy_image(case.labels, copy)

    in_parallel(keep, task.cases, workers, progress, "Keeping reference labels")


def _begin(folder: Path, signature: str) -> None:
    """Empty the folder when it was prepared for other settings; nothing else is ever deleted."""
    noted = folder / _SIGNATURE
    if noted.is_file() and read_json(noted).get("signature") != signature:
        shutil.rmtree(folder)
    if not noted.is_file():
        write_json(noted, {"signature": signature})


def _signature(task: Task, plan: Plan, c: Configuration) -> str:
    """What the prepared arrays depend on."""
    scaled = [to_json(s) for s in plan.intensities] if "CTNormalization" in c.normalization else []
    values = [plan.transpose_forward, c.spacing_mm, c.normalization, c.use_mask_for_norm, to_json(c.resampling_data),
              to_json(c.resampling_labels), scaled, task.labels.to_dataset_json(), plan.reader]  # fmt: skip
    return hashlib.sha256(json.dumps(values, default=list).encode()).hexdigest()


def _is_current(case: Case, folder: Path) -> bool:
    from .preprocessing.storage import prepared_files

    files = prepared_files(folder, case.id)
    if not all(path.is_file() for path in files):
        return False
    oldest = min(path.stat().st_mtime for path in files)
    return all(path.is_file() and path.stat().st_mtime <= oldest for path in (*case.images, case.labels) if path)


def _affordable(missing: Sequence[Case], configuration: Configuration, plan: Plan, workers: int, say: Say) -> int:
    """How many cases to prepare at a time; raises OutOfMemoryError when not even one fits."""
    if not missing:
        return 1
    each = preparation_gb(missing, configuration, plan.transpose_forward, len(configuration.normalization))
    workers = affordable_workers(min(workers, len(missing)), each, f"Preparing a case for {configuration.name}", say)
    announce(preparation_need(each, workers, configuration.name), say)
    return workers
