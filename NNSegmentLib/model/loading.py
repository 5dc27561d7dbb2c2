"""Trained models on disk: nnU-Net's model folders and ours, found from wherever the user points."""

from __future__ import annotations

import atexit
import contextlib
import gc
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..errors import InputError, ModelError, StorageError
from ..folders import EARLIER, SELECTION, visible
from ..given import fold_names, path_of
from ..machine.identity import is_own
from ..machine.locks import LOCK, holder
from ..machine.processes import ProcessIdentity
from ..planning.plan import Plan, load_plan
from ..records import cannot_write, read_json, to_json, write_json
from ..task import parse_dataset_json
from .archive import unpack
from .members import LONGEST_TRAINER, Model, TrainedConfiguration, earlier_folds, members_of, require_sound
from .selected import read_selected
from .version_1 import find_v1_folders, is_v1_folder, load_v1_model

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
"""In the order of preference."""
BEST_AVAILABLE = ""
_CHECKPOINT_ENDINGS = (".pth", ".model", ".model.pkl")
_CARDS = ("dataset.json", "plans.json")
"""Files that lie in a model's folder; whoever picks one means the model, where a dialog offers no folders."""
_DEPTH = 4
"""Folders searched below the one the user picked: results root / data set / configuration, and one around them."""
_OR_COMPARE = ", pick one folder, or run 'nnsegment best'"
"""What can be done with several models of a workspace, not with those in a zip."""
_UNPACKED = "nnsegment-model-"
"""How the names of folders begin into which zips are unpacked for as long as a process lives."""
_MODEL = "model"
"""Where in such a folder the zip's content is."""
_MOST_NAMES = 5
"""Data sets that a message names."""
_VARIANTS = (
    r"_?\d+epochs?|_?NoMirroring|_?onlyMirror01|_1500ep|_?DASegOrd0|_?DA5|ord0|Segord0|_?NoDA|_?noDummy2DDA|CELoss"
    r"|DiceLoss|DiceCELoss_noSmooth|Topk10Loss|LS01|DiceTopK10Loss|_?CosAnneal|_?warmup|NoDeepSupervision"
    r"|(Vanilla)?Ad(am|an)(\d+en\d)?|_probabilisticOversampling(_\d++(?!epoch))?|Benchmark|_noDataLoading"
)
"""Each name is made of them in one way alone: else looking through all ways would take years."""
_KNOWN_TRAINER = re.compile(rf"^(nnUNetTrainer({_VARIANTS})*|nnUNet_Trainer_BS8)$")


def load_model(
    path: Path | str,
    configuration: str | None = None,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = BEST_AVAILABLE,
    postprocess: bool = True,
) -> Model:
    """Find a model from a fold, configuration, data set or results folder, a checkpoint, or a zip of any of them.

    Without `configuration`, what 'nnsegment best' (or nnU-Net) selected for the data set is taken, ensembles and
    post-processing included; else the only one there is. `folds` None takes every trained fold; those that are
    named are a cascade's earlier stage's, too. `checkpoint` is a file name; the default takes the final one, else the
    best, else the latest. Raises ModelError.
    """
    named = path_of(path).absolute()
    try:
        return _load_named(named, configuration, fold_names(folds), checkpoint, postprocess)
    except OSError as error:
        raise ModelError(
            f"{named} cannot be read ({error.strerror or error}); check its permissions, or choose another."
        ) from error


def _load_named(
    named: Path, configuration: str | None, folds: Sequence[int | str] | None, checkpoint: str, postprocess: bool
) -> Model:
    path = named
    if path.is_file() and path.suffix == ".zip":
        path = _unpacked_for_this_process(path)
    if path.is_file() and path.name.endswith(_CHECKPOINT_ENDINGS):
        path, checkpoint = path.parent, path.name.removesuffix(".pkl")
    if path.is_file() and path.name in _CARDS:
        path = path.parent
    if not path.is_dir():
        raise ModelError(f"Expected a model folder, zip or checkpoint at {path}, found nothing of that kind.")
    if _is_fold(path):
        folds = folds or (path.name.removeprefix("fold_"),)
        path = path.parent
    try:
        return _load(path, configuration, folds, checkpoint, postprocess)
    except InputError as error:
        raise ModelError(_told(error, path, named)) from error


def _told(error: InputError, path: Path, named: Path) -> str:
    """The sentence about a model that cannot be used; one in a zip is not told by the folder it was unpacked to."""
    sentence = str(error) if isinstance(error, ModelError) else f"The model in {path} cannot be used: {error}"
    return sentence.replace(str(path), str(named)).replace(_OR_COMPARE, "") if named.suffix == ".zip" else sentence


def require_supported_trainer(name: str, where: Path | str) -> None:
    """Raises ModelError when the trainer builds other networks than its plan says, or is unknown."""
    if len(name) > LONGEST_TRAINER or not _KNOWN_TRAINER.match(name):
        raise ModelError(
            f"{where} was trained by {name[:60]!r}, whose network is not known here; "
            "supported are nnUNetTrainer and its variants with the plan's network (epochs, loss, mirroring, optimiser)."
        )


def find_model_folders(path: Path) -> list[Path]:
    """The folders at or below `path` that hold a plan, dataset.json and trained folds, sorted."""
    return sorted(_model_folders(path, _DEPTH))


def _load(
    path: Path, configuration: str | None, folds: Sequence[int | str] | None, checkpoint: str, postprocess: bool
) -> Model:
    found = find_model_folders(path)
    version_1 = [] if found else find_v1_folders(path)
    if version_1:
        return load_v1_model(path, version_1, configuration, folds, checkpoint, postprocess)
    if not found:
        raise ModelError(
            f"{path} holds no model: expected plans.json, dataset.json and fold_X/checkpoint_final.pth in it or below, "
            "or plans.pkl and fold_X/model_final_checkpoint.model of nnU-Net v1."
        )
    dataset = _only_dataset(path, found)
    if configuration is None and path != found[0] and (dataset / SELECTION).is_file():
        return _selected(dataset, folds, checkpoint, postprocess)
    chosen = _only_configuration(path, found, configuration)
    return _model(chosen, (_trained(chosen, configuration, folds, checkpoint),))


def _model(folder: Path, parts: tuple[TrainedConfiguration, ...], postprocessing: Path | None = None) -> Model:
    channels, label_set, file_ending = parse_dataset_json(read_json(folder / "dataset.json", ModelError), folder)
    return Model(folder, parts, label_set, channels, file_ending, postprocessing)


def _trained(
    folder: Path, configuration: str | None, folds: Sequence[int | str] | None, checkpoint: str
) -> TrainedConfiguration:
    plan = load_plan(folder / "plans.json")
    name = _configuration_name(folder, plan, configuration)
    chosen = plan.configuration(name)
    require_sound(plan, chosen, folder / "plans.json")
    names = [checkpoint] if checkpoint else CHECKPOINTS
    part = TrainedConfiguration(folder, plan, chosen, members_of(folder, name, folds, names))
    previous = _previous_folder(folder, chosen.previous_stage) if chosen.previous_stage else None
    if previous is None:
        return part
    same, lacking = earlier_folds(previous, folds, CHECKPOINTS)
    earlier = _trained(previous, chosen.previous_stage, same, BEST_AVAILABLE)
    return replace(part, previous=earlier, lacking=lacking)


def _configuration_name(folder: Path, plan: Plan, wanted: str | None) -> str:
    """By the folder's name Trainer__Plans__configuration; else by the user; else the plan's only one."""
    names = [*(c.name for c in plan.configurations), *plan.unsupported]
    last = folder.name.split("__")[-1]
    if last in names:
        return last
    if wanted is None and len(names) > 1:
        raise ModelError(
            f"The folder name {folder.name} does not tell the configuration; choose one of {', '.join(names)}."
        )
    return wanted or next(iter(names), "")


def _is_fold(path: Path) -> bool:
    is_named = path.name == "all" or path.name.startswith("fold_")
    return is_named and (_is_model_folder(path.parent) or is_v1_folder(path.parent))


def _is_model_folder(folder: Path) -> bool:
    return (
        (folder / "plans.json").is_file()
        and (folder / "dataset.json").is_file()
        and any(visible(folder, "fold_*/*.pth"))
    )


def _model_folders(path: Path, depth: int) -> Iterator[Path]:
    if _is_model_folder(path):
        yield path
    elif depth > 0:
        for child in visible(path):
            with contextlib.suppress(PermissionError):  # a folder of somebody else, like lost+found
                if child.is_dir() and not child.is_symlink() and child.name != EARLIER:
                    yield from _model_folders(child, depth - 1)


def _only_dataset(path: Path, found: Sequence[Path]) -> Path:
    datasets = sorted({folder.parent for folder in found})
    if len(datasets) > 1:
        names = ", ".join(folder.name for folder in datasets[:_MOST_NAMES])
        names += f" and {len(datasets) - _MOST_NAMES} more" if len(datasets) > _MOST_NAMES else ""
        raise ModelError(f"{path} holds models of several data sets ({names}); pick the folder of one of them.")
    return datasets[0]


def _only_configuration(path: Path, found: Sequence[Path], wanted: str | None) -> Path:
    """The model folder of the wanted configuration; without a wish the only one, or the cascade of two stages."""
    names = {folder: folder.name.split("__")[-1] for folder in found}
    named = [folder for folder in found if wanted is None or names[folder] in (wanted, folder.name)]
    named = named or [folder for folder in found if wanted and "__" not in folder.name]  # the plan tells what it is
    if wanted is None and len(named) == 2 and set(names.values()) == {"3d_lowres", "3d_cascade_fullres"}:
        named = [folder for folder in named if names[folder] == "3d_cascade_fullres"]
    if len(named) == 1:
        return named[0]
    there = ", ".join(folder.name for folder in found)
    if not named:
        raise ModelError(f"{path} has no trained configuration {wanted}; it has {there}.")
    raise ModelError(f"{path} holds several models ({there}); choose a configuration{_OR_COMPARE}.")


def _previous_folder(folder: Path, stage: str) -> Path | None:
    """The sibling folder of an earlier cascade stage: of the same trainer and plans, else of the same plans."""
    tokens = folder.name.split("__")
    same = folder.with_name("__".join([*tokens[:-1], stage]))
    plans = tokens[-2] if len(tokens) == 3 else "*"
    candidates = [same, *visible(folder.parent, f"*__{plans}__{stage}")]
    return next((candidate for candidate in candidates if _is_model_folder(candidate)), None)


def _selected(dataset: Path, folds: Sequence[int | str] | None, checkpoint: str, postprocess: bool) -> Model:
    """What inference_information.json names: models and post-processing."""
    chosen = read_selected(dataset)
    unsafe = [n for n in chosen.models if PurePosixPath(n).name != n or not _is_model_folder(dataset / n)]
    if unsafe:
        raise ModelError(
            f"{chosen.file} selects {', '.join(unsafe)}, which is not in {dataset}; run 'nnsegment best {dataset.name}' again."
        )
    parts = tuple(_trained(dataset / name, None, folds or chosen.folds, checkpoint) for name in chosen.models)
    return _model(dataset / chosen.models[0], parts, chosen.postprocessing_file() if postprocess else None)


def _unpacked_for_this_process(archive: Path) -> Path:
    _remove_leftovers()
    try:
        folder = Path(tempfile.mkdtemp(prefix=_UNPACKED))
    except OSError as error:
        raise StorageError(cannot_write(Path(tempfile.gettempdir()), error)) from error
    atexit.register(_forget, folder)
    write_json(folder / LOCK, to_json(ProcessIdentity.own()))
    unpack(archive, folder / _MODEL)
    return folder / _MODEL


def _forget(folder: Path, windows: bool = sys.platform == "win32") -> None:
    """Delete an unpacked model; what cannot be deleted keeps its lock, by which it is found as a leftover."""
    if windows:  # it keeps files that are mapped into memory, be it by an unused object that was taken for permanent
        gc.unfreeze()
        gc.collect()
    shutil.rmtree(folder / _MODEL, ignore_errors=True)
    if not (folder / _MODEL).exists():
        shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether a folder of our own is nobody's any more; raises OSError for one that cannot be looked at."""
    is_ours = is_own(folder) and not folder.is_symlink() and (folder / LOCK).is_file()
    return is_ours and holder(folder) is None


def _remove_leftovers() -> None:
    """Delete what other processes unpacked and left, gigabytes: some were killed, some Windows did not let delete it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_UNPACKED}*"):
        with contextlib.suppress(OSError):  # another user's
            if _is_left(folder):
                _forget(folder, windows=False)
