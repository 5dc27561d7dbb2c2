"""Models as things to list, look at, give away and take in: nnU-Net's zip layout, relative to the results folder."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, ModelError, SettingsError, StorageError, require_choice
from .folders import LABELS_CSV, SELECTION, Workspace, visible
from .given import fold_names, path_of
from .lookup import TaskReference, WorkspaceReference, model_place, workspace_of
from .model import Model, find_model_folders, load_model
from .model.archive import opened, unpack
from .model.selected import trained_again
from .model.version_1 import find_v1_folders
from .planning.plan import load_plan
from .progress import Progress, silent, stepped
from .provenance.made_of import elsewhere
from .records import (
    cannot_write,
    move,
    patiently,
    read_json,
    remove,
    require_writable,
    to_json,
    working_folder,
    written_whole,
)
from .task import parse_dataset_json
from .terminal import table

FORMATS = ("zip", "onnx", "torchscript")
_CARD = ("plans.json", "dataset.json", "dataset_fingerprint.json", LABELS_CSV, "plans.reasons")
_MADE_OF = "made_of.json"
_FOLD_FILES = (
    "checkpoint_final.pth",
    "progress.png",
    "debug.json",
    "settings.json",
    "validation/summary.json",
    _MADE_OF,
)
_BESIDE_MODELS = ("ensembles", SELECTION)
_CROSSVALIDATION_FILES = ("summary.json", "postprocessing.json", "postprocessing.pkl")


@dataclass(frozen=True)
class ModelEntry:
    """One trained configuration in a workspace."""

    task: str
    plans: str
    configuration: str
    folds: tuple[str, ...]
    folder: Path
    dice: float | None
    """Cross-validated foreground Dice when 'nnsegment best' compared it; None where a fold was trained again since."""
    set_aside: str = ""
    """When the task began again without it, '20260131-101500'; empty for the task's present models."""

    @property
    def until(self) -> str:
        """`set_aside` for people, '2026-01-31 10:15'."""
        return re.sub(r"^(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d).*", r"\1-\2-\3 \4:\5", self.set_aside)


@dataclass(frozen=True)
class ModelPart:
    """One configuration of a model."""

    configuration: str
    folds: tuple[str, ...]
    patch_size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    network: str
    features: tuple[int, ...]
    normalization: tuple[str, ...]
    previous_stage: str
    megabytes: float


@dataclass(frozen=True)
class ModelInfo:
    """What a model is: what it takes, what it gives, what it is made of."""

    folder: Path
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    file_ending: str
    parts: tuple[ModelPart, ...]
    postprocessing: Path | None

    def text(self) -> str:
        """The description for people."""
        rows = [
            [p.configuration, ", ".join(p.folds), "×".join(map(str, p.patch_size)),
             " × ".join(f"{s:.3g}" for s in p.spacing_mm), p.network, "-".join(map(str, p.features)), f"{p.megabytes:.1f}"]
            for p in self.parts
        ]  # fmt: skip
        header = ["configuration", "folds", "patch (z,y,x)", "spacing mm", "network", "features", "MB"]
        channels = ", ".join(f"{i} = {name}" for i, name in enumerate(self.channels))
        return (
            f"{self.folder}\nchannels: {channels}\nlabels: {', '.join(self.labels)}\n"
            f"files: *{self.file_ending}\npost-processing: {self.postprocessing or 'none'}\n\n{table(rows, header)}"
        )


def list_models(workspace: WorkspaceReference = None) -> list[ModelEntry]:
    """Every trained configuration in the workspace's results, those that were set aside last."""
    place = workspace_of(workspace)
    folders = [m for root in (place.results, place.earlier) if root.is_dir() for m in find_model_folders(root)]
    return sorted((_entry(folder, place) for folder in folders), key=lambda entry: entry.set_aside)


def describe_model(
    model: TaskReference | Path, configuration: str | None = None, workspace: WorkspaceReference = None
) -> ModelInfo:
    """What the model at a folder or in a zip is, or that of the task of this number or name.

    Raises ModelError, TaskError when there is no such task, RunError when it has no trained model.
    """
    model = load_model(model_place(model, workspace), configuration)
    labels = tuple(f"{label.name} ({'+'.join(map(str, label.values))})" for label in model.label_set.foreground)
    return ModelInfo(
        model.folder, model.channels, labels, model.file_ending, tuple(_parts(model)), model.postprocessing
    )


def export_model(
    source: TaskReference | Path,
    target: Path | str | None = None,
    format: str = "zip",
    *,
    configuration: str | None = None,
    folds: Sequence[int | str] | int | str | None = None,
    workspace: WorkspaceReference = None,
    progress: Progress = silent,
) -> Path:
    """Write a trained model for use elsewhere; returns `target`, by default beside the caller and named after `source`.

    `source` is a folder of trained models, a zip for networks, or the number or name of a task.
    'zip' packs all configurations of a data set, or one model folder, as nnU-Net does. 'onnx' and 'torchscript' write
    a new folder with the networks of what `predict` would use, one file per fold with a JSON card beside it that says
    how to prepare images and read the output; a target ending in .onnx or .pt takes a single network.
    Raises ModelError when nothing fitting is trained, SettingsError for an unknown format or a missing package, TaskError
    and RunError for a task without a model, StorageError.
    """
    require_choice("format", format, FORMATS)
    source, folds = model_place(source, workspace), fold_names(folds)
    target = None if target is None else path_of(target)
    if format == "zip":
        return _zip(source, target or Path(f"{source.name}.zip"), configuration, folds, progress)
    model = load_model(source, configuration, folds)
    _require_version_2([part.folder for part in model.parts if part.configuration.is_version_1])
    return _export_networks(model, target or Path(f"{source.name.removesuffix('.zip')}_{format}"), format, progress)


def _zip(
    source: Path, target: Path, configuration: str | None, folds: Sequence[int | str] | None, progress: Progress
) -> Path:
    if not source.is_dir():
        raise ModelError(
            f"Expected a folder of trained models at {source}, found none there; train one, or choose another."
        )
    models = [m for m in find_model_folders(source) if configuration in (None, m.name, m.name.split("__")[-1])]
    if not models:
        _require_version_2(find_v1_folders(source))
        wanted = f"trained model {configuration}" if configuration else "trained model"
        raise ModelError(f"{source} holds no {wanted} to export; train one first.")
    root = models[0].parent.parent
    files = [path for model in models for path in _files_of(model, folds)]
    files += _selection_files(models[0].parent, models)
    with written_whole(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in stepped(files, progress, "Packing"):
            name = path.relative_to(root).as_posix()
            if path.name == SELECTION and folds:
                archive.writestr(name, json.dumps(read_json(path) | {"folds": list(folds)}, indent=2))  # those it has
            elif path.name == _MADE_OF:
                archive.writestr(name, json.dumps(to_json(elsewhere(path)), indent=4))
            else:
                archive.write(path, name)
    return target


def _require_version_2(version_1: Sequence[Path]) -> None:
    """Raises ModelError for models of nnU-Net v1: files of version 2 cannot say how they are to be used."""
    if version_1:
        raise ModelError(
            f"{version_1[0]} is a model of nnU-Net v1, which predicts here but is not exported; give its folder away as it is."
        )


def _export_networks(model: Model, target: Path, format: str, progress: Progress) -> Path:
    """The networks in a folder that is whole or absent, or the only one as a file."""
    from .engine.export import export_networks, require_format

    ending = require_format(format)
    _require_place(model, target, target.suffix == ending)
    target.parent.mkdir(parents=True, exist_ok=True)
    with working_folder(target.parent, ".exporting-") as unfinished:
        written = export_networks(model, unfinished / "new", format, progress)
        if target.suffix == ending:
            move(written[0].with_suffix(".json"), target.with_suffix(".json"))
            move(written[0], target)
        else:
            if target.is_dir():
                patiently(target.rmdir)  # Windows renames onto no folder, not even an empty one
            move(unfinished / "new", target)
    return target


def _require_place(model: Model, target: Path, is_file: bool) -> None:
    """Raises SettingsError when several networks should go into one file, StorageError when the folder is taken."""
    several = len(model.members) > 1 or any(part.configuration.previous_stage for part in model.parts)
    if is_file and several:
        raise SettingsError(
            f"{target.name} can hold one network, the model has more; give a folder instead, or choose a fold."
        )
    if not is_file and (target.is_file() or (target.is_dir() and any(target.iterdir()))):
        raise StorageError(f"{target} exists already; remove it or choose another place with -o.")
    require_writable(target.parent)


def import_model(archive: Path | str, workspace: WorkspaceReference = None) -> list[ModelEntry]:
    """Unpack the models of a zip, their ensembles and comparison into the workspace's results, all or nothing.

    Models of the same data set that are there already stay, with their comparison instead of the zip's. Other files of
    the zip are left out. Returns the models. Raises ModelError when it holds no model or one that is already there,
    StorageError.
    """
    archive = path_of(archive)
    place = workspace_of(workspace)
    models = _models_in(archive)
    taken = [model for model in models if (place.results / model).exists()]
    if taken:
        raise ModelError(
            f"{place.results / taken[0]} exists already; rename or remove it before importing {archive.name}."
        )
    try:
        place.results.mkdir(parents=True, exist_ok=True)
        with working_folder(place.results, ".importing-") as unfinished:
            unpack(archive, unfinished)
            _require_readable(archive, [unfinished / model for model in models])
            datasets = dict.fromkeys(model.split("/")[0] for model in models)
            _move_together([pair for name in datasets for pair in _moves(unfinished / name, place.results / name)])
    except OSError as error:
        raise StorageError(cannot_write(place.results, error)) from error
    imported = {place.results / model for model in models}
    return [entry for entry in list_models(place) if entry.folder in imported]


def _require_readable(archive: Path, models: Sequence[Path]) -> None:
    """Raises ModelError for an unpacked model whose descriptions cannot be used."""
    for model in models:
        try:
            load_plan(model / "plans.json")
            parse_dataset_json(read_json(model / "dataset.json"), model)
        except InputError as error:
            sentence = str(error).replace(str(model), model.name)
            raise ModelError(f"The model {model.name} in {archive} cannot be used: {sentence}") from error


def _moves(dataset: Path, target: Path) -> list[tuple[Path, Path]]:
    """What belongs to the models of an unpacked data set, and where it goes."""
    paths = [path for path in visible(dataset) if (path / "plans.json").is_file()]
    is_first = not target.is_dir() or not find_model_folders(target)
    if is_first and not any((target / name).exists() for name in _BESIDE_MODELS):
        paths += [dataset / name for name in _BESIDE_MODELS if (dataset / name).exists()]
    return [(path, target / path.name) for path in paths]


def _move_together(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move files and folders within a disk; raises OSError when one cannot be moved, then none is."""
    made = [folder for folder in dict.fromkeys(target.parent for _, target in moves) if not folder.exists()]
    moved: list[Path] = []
    try:
        for source, target in moves:
            target.parent.mkdir(exist_ok=True)
            move(source, target)
            moved.append(target)
    except OSError:
        for path in moved:
            remove(path) if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # what somebody else put there meanwhile stays
        raise


def _entry(folder: Path, place: Workspace) -> ModelEntry:
    trainer_plans_configuration = folder.name.split("__")
    folds = tuple(p.name.removeprefix("fold_") for p in visible(folder, "fold_*") if visible(p, "*.pth"))
    plans = trainer_plans_configuration[1] if len(trainer_plans_configuration) == 3 else ""
    dated = folder.parent.parent
    return ModelEntry(
        folder.parent.name, plans, trainer_plans_configuration[-1], folds, folder, _compared_dice(folder),
        dated.name if dated.parent == place.earlier else "",
    )  # fmt: skip


def _compared_dice(folder: Path) -> float | None:
    selection = folder.parent / SELECTION
    try:
        if not selection.is_file() or trained_again(folder.parent, by_content=False):
            return None
        dice = read_json(selection, ModelError).get("all_results", {}).get(folder.name)
    except (InputError, AttributeError):
        return None
    is_number = isinstance(dice, (int, float)) and not isinstance(dice, bool)
    return float(dice) if is_number and 0 <= dice <= 1 else None  # of a zip it may be anything


def _parts(model: Model) -> Iterator[ModelPart]:
    for part in model.parts:
        c = part.configuration
        size = sum(member.checkpoint.stat().st_size for member in part.members) / 1e6
        yield ModelPart(
            c.name, tuple(str(m.fold) for m in part.members), c.patch_size, c.spacing_mm,
            "Generic_UNet (v1)" if c.is_version_1 else c.network.kind,
            c.network.features, c.normalization, c.previous_stage, size,
        )  # fmt: skip


def _files_of(model: Path, folds: Sequence[int | str] | None) -> list[Path]:
    wanted = [model / name for name in _CARD]
    for fold in _folds_of(model, folds):
        wanted += [fold / name for name in _FOLD_FILES]
        if not (fold / "checkpoint_final.pth").is_file():
            wanted.append(fold / "checkpoint_best.pth")
    for compared in visible(model, "crossval_results_folds_*"):
        wanted += [compared / name for name in _CROSSVALIDATION_FILES]
    return [path for path in wanted if path.is_file()]


def _folds_of(model: Path, wanted: Sequence[int | str] | None) -> list[Path]:
    """The folders of the wanted folds, or of all; raises ModelError when one is not trained."""
    found = {p.name.removeprefix("fold_"): p for p in visible(model, "fold_*") if visible(p, "*.pth")}
    missing = [str(fold) for fold in wanted or () if str(fold) not in found]
    if missing:
        raise ModelError(
            f"{model.name} has no trained fold {missing[0]}, it has {', '.join(found)}; train it or choose others."
        )
    return [found[str(fold)] for fold in wanted] if wanted else list(found.values())


def _selection_files(dataset: Path, models: Sequence[Path]) -> list[Path]:
    """The comparison, and the ensembles whose members are all exported."""
    names = {model.name for model in models}
    ensembles = [
        folder for folder in visible(dataset, "ensembles/ensemble___*")
        if set(folder.name.split("___")[1:3]) <= names
    ]  # fmt: skip
    wanted = [folder / name for folder in ensembles for name in (*_CROSSVALIDATION_FILES, "dataset.json", "plans.json")]
    everything = {m.name for m in find_model_folders(dataset)} == names
    return [p for p in [*wanted, *([dataset / SELECTION] if everything else [])] if p.is_file()]


def _models_in(archive: Path) -> list[str]:
    """The models that a zip holds, DATASET/MODEL; raises ModelError when it holds none."""
    with opened(archive) as zipped:
        names = zipped.namelist()
    models = {name.rpartition("/")[0] for name in names if name.count("/") == 2 and name.endswith("/plans.json")}
    if not models and any(name.endswith("/plans.pkl") for name in names):
        raise ModelError(f"{archive} holds a model of nnU-Net v1; it needs no import, predict with -m {archive.name}.")
    if not models:
        raise ModelError(f"{archive} should hold DATASET/MODEL/plans.json as model exports do, found no such file.")
    return sorted(models)
