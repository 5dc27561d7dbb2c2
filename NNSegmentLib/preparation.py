"""Preparing all cases of a task for one configuration, so that a killed preparation goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .errors import InputError, RunError
from .folders import ModelFolders, TaskFolders
from .given import workers_for
from .grids.stray_channels import channels_apart_mm, tell_apart
from .image import copy_image
from .machine.locks import LOCK, one_after_another_in, require_free
from .machine.memory import Say, affordable_workers, announce, unsaid
from .planning.plan import Configuration, Plan, load_plan
from .preflight import preparation_gb, preparation_need
from .progress import Progress, in_parallel
from .provenance.file_states import FILE_CLOCK_S, are_of_one_state, stamps_of
from .provenance.made_of import preparation_note
from .records import read_json, remove, to_json, write_json, write_text
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
    signature: str
    """Of the settings that they are prepared for."""


def prepare_all(
    task: Task, folders: TaskFolders, plan: Plan, name: str, workers: int, progress: Progress, say: Say = unsaid
) -> Preparation:
    """Prepare every case that is missing, of other files than those there now, or was prepared for other settings.

    As many cases at a time as memory allows, and one process after another; `say` hears what is needed, and of channels
    that lie apart. Raises ImageError naming the case that cannot be prepared, OutOfMemoryError when one case does not
    fit, RunError when cases prepared for other settings are trained on at this moment.
    """
    configuration = plan.configuration(name)
    folder = folders.prepared(configuration.data_identifier)
    signature = _signature(task, plan, configuration)
    if not _is_for(folder, signature):
        _require_unused(folders, configuration.data_identifier)
    elif (folder / _SIGNATURE).is_file() and all(_is_current(case, folder) for case in task.cases):
        # without a lock, so that the folder may be read-only
        return Preparation(name, folder, len(task.cases), 0, signature)
    with one_after_another_in(folder, say):
        if not _is_for(folder, signature):
            _empty(folder, folders, configuration.data_identifier)
            say(
                f"The cases in {folder} are prepared anew for the plan {plan.name}: they were prepared for another "
                f"plan or other labels. A plan with a name of its own ('nnsegment plan {task.name} -p NAME') has a "
                "folder of its own."
            )
        if not _is_noted(folder, signature):
            write_json(folder / _SIGNATURE, {"signature": signature})
        missing = [case for case in task.cases if not _is_current(case, folder)]
        workers = _affordable(missing, configuration, plan, workers, say)
        prepare = partial(_prepare, task=task, plan=plan, name=name, folder=folder)
        apart_mm = in_parallel(prepare, missing, workers, progress, f"Preparing {name}")
    tell_apart({case.id: mm for case, mm in zip(missing, apart_mm, strict=True)}, say)
    return Preparation(name, folder, len(task.cases), len(missing), signature)


def require_still_prepared(folder: Path, signature: str) -> None:
    """Raises RunError when another process has prepared the cases for other settings since, or is about to."""
    if not _is_noted(folder, signature):
        raise RunError(
            f"The cases in {folder} were prepared for another plan or other labels since this run prepared them; start "
            "it again when nothing else works with them, or give one of the plans a name of its own with "
            f"'nnsegment plan {folder.parent.name} -p NAME'."
        )


def _prepare(case: Case, task: Task, plan: Plan, name: str, folder: Path) -> float:
    """How far the channels of the case lie apart in mm."""
    from .preprocessing.prepare import prepare_case
    from .preprocessing.storage import save_prepared

    noted, stamps = preparation_note(folder, case.id), stamps_of(case)
    remove(noted)
    save_prepared(prepare_case(case, plan, name, task.labels), folder)
    write_json(noted, stamps)
    return channels_apart_mm(case.images, plan.reader)


def keep_references(task: Task, folders: TaskFolders, workers: int, progress: Progress) -> None:
    """Copy the label files beside the prepared data, for evaluation on the original grids; current copies are kept."""

    def keep(case: Case) -> None:
        if case.labels is None or not case.labels.is_file():
            return  # preparing the case tells
        copy, given = folders.reference_labels / (case.id + task.file_ending), case.labels.stat()
        if not copy.is_file() or abs(copy.stat().st_mtime - given.st_mtime) > FILE_CLOCK_S:
            copy_image(case.labels, copy)
            with contextlib.suppress(OSError):  # on disks that belong to somebody else; it is copied again next time
                os.utime(copy, ns=(given.st_atime_ns, given.st_mtime_ns))

    in_parallel(keep, task.cases, workers, progress, "Keeping reference labels")


def _empty(folder: Path, folders: TaskFolders, data_identifier: str) -> None:
    """Delete cases that were prepared for other settings; nothing else is ever deleted.

    Meanwhile they are prepared for nothing: no run begins with them, and the next look goes on where this one is
    killed. Raises RunError, and leaves them, when a run uses them.
    """
    noted = folder / _SIGNATURE
    before = noted.read_text(encoding="utf-8")
    write_json(noted, {"signature": ""})
    try:
        _require_unused(folders, data_identifier)  # whoever was waited for may train on them by now
    except RunError:
        write_text(noted, before)
        raise
    for path in folder.iterdir():
        if path.name not in (LOCK, _SIGNATURE) and not path.is_dir():  # network storage lays folders beside pictures
            remove(path)


def _is_for(folder: Path, signature: str) -> bool:
    return not (folder / _SIGNATURE).is_file() or _is_noted(folder, signature)


def _is_noted(folder: Path, signature: str) -> bool:
    noted = folder / _SIGNATURE
    known = read_json(noted) if noted.is_file() else None
    return isinstance(known, dict) and known.get("signature") == signature


def _require_unused(folders: TaskFolders, data_identifier: str) -> None:
    """Raises RunError when a run trains on or validates with these cases now."""
    for model in folders.models():
        for fold in model.folds() if _data_of(model) == data_identifier else ():
            require_free(fold.folder)


def _data_of(model: ModelFolders) -> str:
    try:
        return load_plan(model.plan).configuration(model.configuration).data_identifier
    except InputError:  # nobody is at work with a model that cannot be read
        return ""


def _signature(task: Task, plan: Plan, c: Configuration) -> str:
    """What the prepared arrays depend on."""
    scaled = [to_json(s) for s in plan.intensities] if "CTNormalization" in c.normalization else []
    values = [plan.transpose_forward, c.spacing_mm, c.normalization, c.use_mask_for_norm, to_json(c.resampling_data),
              to_json(c.resampling_labels), scaled, task.labels.to_dataset_json(), plan.reader]  # fmt: skip
    return hashlib.sha256(json.dumps(values, default=list).encode()).hexdigest()


def _is_current(case: Case, folder: Path) -> bool:
    from .preprocessing.storage import prepared_files

    noted = preparation_note(folder, case.id)
    if not noted.is_file() or not all(path.is_file() for path in prepared_files(folder, case.id)):
        return False
    return are_of_one_state(read_json(noted), stamps_of(case))


def _affordable(missing: Sequence[Case], configuration: Configuration, plan: Plan, workers: int, say: Say) -> int:
    """How many cases to prepare at a time; raises OutOfMemoryError when not even one fits."""
    if not missing:
        return 1
    each = preparation_gb(missing, configuration, plan.transpose_forward, len(configuration.normalization))
    workers = workers_for(len(missing), workers)
    workers = affordable_workers(workers, each, f"Preparing a case for {configuration.name}", say)
    announce(preparation_need(each, workers, configuration.name), say)
    return workers
