"""Every path we ever form: the workspace with nnU-Net's three roots, and the folders of one task in it."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import StorageError, TaskError
from .given import expanded, is_digits, path_of
from .records import cannot_write

DATASET_NAME = re.compile(r"^Dataset(\d{3,})_(.+)$")
TRAINER = "nnUNetTrainer"
REFERENCE_LABELS = "gt_segmentations"
SELECTION = "inference_information.json"
LABELS_CSV = "labels.csv"
RAW = "nnUNet_raw"
EARLIER = "earlier"
"""Beside the data sets' results: what was trained before a task began again."""
DEFAULT_WORKSPACE = Path("~/NNSegment")


@dataclass(frozen=True)
class Workspace:
    """nnU-Net's three root folders and ours for jobs; they need not exist yet."""

    raw: Path
    preprocessed: Path
    results: Path
    jobs: Path

    @property
    def earlier(self) -> Path:
        """Models that were set aside when their task began again, DATE/DATASET/MODEL."""
        return self.results / EARLIER

    @classmethod
    def at(cls, root: Path | str) -> Workspace:
        """A workspace below one folder; raises SettingsError for something that names none."""
        root = path_of(root).absolute()
        return cls(root / RAW, root / "nnUNet_preprocessed", root / "nnUNet_results", root / "jobs")

    @classmethod
    def find(cls, root: Path | str | None = None, environment: Mapping[str, str] = os.environ) -> Workspace:
        """The given folder; else nnU-Net's environment variables where set; else ~/NNSegment."""
        if root is not None:
            return cls.at(root)
        home = cls.at(DEFAULT_WORKSPACE)
        named = {
            key: expanded(environment[f"nnUNet_{key}"]).absolute()
            for key in ("raw", "preprocessed", "results")
            if environment.get(f"nnUNet_{key}")
        }
        return cls(
            **({"raw": home.raw, "preprocessed": home.preprocessed, "results": home.results, "jobs": home.jobs} | named)
        )

    @classmethod
    def around(cls, raw: Path, environment: Mapping[str, str] = os.environ) -> Workspace:
        """The workspace whose folder nnUNet_raw this is; the other roots are those that the environment names, if any."""
        named, beside = cls.find(None, environment), cls.at(raw.parent)
        if raw.resolve() == named.raw.resolve():
            return named
        return cls(
            raw=beside.raw,
            preprocessed=named.preprocessed if environment.get("nnUNet_preprocessed") else beside.preprocessed,
            results=named.results if environment.get("nnUNet_results") else beside.results,
            jobs=beside.jobs,
        )

    def task_names(self) -> tuple[str, ...]:
        """The data sets found below any of the three roots, sorted."""
        roots = [root for root in (self.raw, self.preprocessed, self.results) if root.is_dir()]
        return tuple(
            sorted({p.name for root in roots for p in root.iterdir() if p.is_dir() and DATASET_NAME.match(p.name)})
        )

    def task(self, reference: str | int | Path) -> TaskFolders:
        """The folders of a task given by number ('4'), name ('Dataset004_Hippocampus', 'Hippocampus') or raw folder.

        Raises TaskError when there is none or more than one.
        """
        text = str(reference)
        as_path = expanded(text)
        if (as_path / "dataset.json").is_file() and DATASET_NAME.match(as_path.absolute().name):
            return TaskFolders(self, as_path.absolute().name, as_path.absolute())
        names = self.task_names()
        found = _called(text, names)
        if len(found) == 1:
            return TaskFolders(self, found[0], self.raw / found[0])
        if found:
            raise TaskError(f"Expected one task {text}, found {', '.join(found)}; give the whole name.")
        known = ", ".join(names) if names else "no task yet"
        raise TaskError(
            f"There is no task {text} in {self.raw.parent} (found {known}); make one with 'nnsegment convert'."
        )

    def free_id(self, start: int = 501) -> int:
        """The first data set number from `start` that is not taken."""
        taken = {int(DATASET_NAME.match(name).group(1)) for name in self.task_names()}
        return next(n for n in range(start, 10**6) if n not in taken)


def _called(text: str, names: Sequence[str]) -> list[str]:
    """The data sets that have this whole name, else those of this number, else those of this name without a number."""
    if text in names:
        return [text]
    parts = {name: DATASET_NAME.match(name).groups() for name in names}
    numbered = [name for name, (number, _) in parts.items() if is_digits(text) and int(number) == int(text)]
    return numbered or [name for name, (_, short) in parts.items() if short == text]


@dataclass(frozen=True)
class TaskFolders:
    """All folders and files of one task."""

    workspace: Workspace
    name: str
    raw: Path

    @property
    def preprocessed(self) -> Path:
        return self.workspace.preprocessed / self.name

    @property
    def results(self) -> Path:
        return self.workspace.results / self.name

    @property
    def fingerprint(self) -> Path:
        return self.preprocessed / "dataset_fingerprint.json"

    @property
    def findings(self) -> Path:
        """What the last integrity check found."""
        return self.preprocessed / "integrity" / "findings.json"

    @property
    def splits(self) -> Path:
        return self.preprocessed / "splits_final.json"

    @property
    def reference_labels(self) -> Path:
        """Copies of the label files on their original grids, for evaluation after the raw data are gone."""
        return self.preprocessed / REFERENCE_LABELS

    @property
    def ensembles(self) -> Path:
        return self.results / "ensembles"

    @property
    def selection(self) -> Path:
        return self.results / SELECTION

    def plan(self, plans_name: str) -> Path:
        return self.preprocessed / f"{plans_name}.json"

    def prepared(self, data_identifier: str) -> Path:
        """The folder of preprocessed cases of one configuration."""
        return prepared_folder(self.preprocessed, data_identifier)

    def model(self, plans_name: str, configuration: str) -> ModelFolders:
        return ModelFolders(self.results / f"{TRAINER}__{plans_name}__{configuration}")

    def models(self) -> tuple[ModelFolders, ...]:
        """The model folders that exist, sorted by name."""
        return tuple(ModelFolders(p) for p in visible(self.results, "*__*__*") if (p / "plans.json").is_file())


def prepared_folder(preprocessed: Path, data_identifier: str) -> Path:
    """Beside nnU-Net's folder of that name, which nnU-Net takes to hold files of a single format and may empty."""
    return preprocessed / f"{data_identifier}.prepared"


@dataclass(frozen=True)
class ModelFolders:
    """One trained configuration: plans, dataset.json and a folder per fold."""

    folder: Path

    @property
    def configuration(self) -> str:
        return self.folder.name.split("__")[-1]

    @property
    def trainer(self) -> str:
        """The class of nnU-Net that trained the model, ours among them."""
        return self.folder.name.split("__")[0]

    @property
    def plans_name(self) -> str:
        return self.folder.name.split("__")[-2]

    @property
    def plan(self) -> Path:
        return self.folder / "plans.json"

    @property
    def dataset_json(self) -> Path:
        return self.folder / "dataset.json"

    @property
    def labels_csv(self) -> Path:
        return self.folder / LABELS_CSV

    def command(self, verb: str, folds: int | str) -> str:
        """The command line that trains or validates its folds, with the plan that need not be the one made last."""
        return f"nnsegment {verb} {self.folder.parent.name} {self.configuration} {folds} -p {self.plans_name}"

    def fold(self, fold: int | str) -> FoldFolder:
        return FoldFolder(self.folder / f"fold_{fold}")

    def folds(self) -> tuple[FoldFolder, ...]:
        """The folds that were begun, sorted by name."""
        return tuple(FoldFolder(path) for path in visible(self.folder, "fold_*") if path.is_dir())

    def crossvalidation(self, folds: tuple[int | str, ...]) -> Path:
        return self.folder / ("crossval_results_folds_" + "_".join(str(f) for f in folds))

    def next_stage(self, configuration: str) -> Path:
        """Predictions that the cascade's next stage takes as input."""
        return self.folder / "predicted_next_stage" / configuration


@dataclass(frozen=True)
class FoldFolder:
    """One run: checkpoints, events, validation."""

    folder: Path

    @property
    def checkpoint_final(self) -> Path:
        return self.folder / "checkpoint_final.pth"

    @property
    def checkpoint_best(self) -> Path:
        return self.folder / "checkpoint_best.pth"

    @property
    def checkpoint_latest(self) -> Path:
        return self.folder / "checkpoint_latest.pth"

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """Where weights may be, the ones to prefer first: final, best, latest."""
        return self.checkpoint_final, self.checkpoint_best, self.checkpoint_latest

    @property
    def weights(self) -> Path | None:
        """The checkpoint to predict with; None before there is one."""
        return next((path for path in self.checkpoints if path.is_file()), None)

    @property
    def is_kept_when_replaced(self) -> bool:
        """Whether the run that is here is set aside in `earlier` when another begins.

        One without weights is not worth it, and an unfinished one does not take the place of a finished one.
        """
        kept = self.earlier / self.checkpoint_final.name
        return self.checkpoint_final.is_file() or (self.has_weights and not kept.is_file())

    @property
    def has_weights(self) -> bool:
        """Whether something was trained here."""
        return self.weights is not None

    @property
    def events(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def settings(self) -> Path:
        return self.folder / "settings.json"

    @property
    def made_of(self) -> Path:
        """The cases that the run trains on and validates with."""
        return self.folder / "made_of.json"

    @property
    def stop(self) -> Path:
        """A file whose presence asks for a clean stop."""
        return self.folder / "STOP"

    @property
    def progress_picture(self) -> Path:
        return self.folder / "progress.png"

    @property
    def validation(self) -> Path:
        return self.folder / "validation"

    @property
    def summary(self) -> Path:
        return self.validation / "summary.json"

    @property
    def predicted_by(self) -> Path:
        """The weights that made the label maps in `validation`, and the cases' files of that time."""
        return self.validation / "predicted_by.json"

    @property
    def earlier(self) -> Path:
        """The run that was here before, when the fold was trained again."""
        return self.folder.with_name("earlier_" + self.folder.name)


@dataclass(frozen=True)
class JobFolder:
    """One verb run as a process of its own: what was asked, what happened, and what it gave."""

    folder: Path

    @property
    def request(self) -> Path:
        return self.folder / "job.json"

    @property
    def process(self) -> Path:
        """Which process does the work, written by itself."""
        return self.folder / "process.json"

    @property
    def events(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.folder / "log.txt"

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    @property
    def stop(self) -> Path:
        """A file whose presence asks for a clean stop."""
        return self.folder / "STOP"

    @property
    def heartbeat(self) -> Path:
        """Touched every few seconds while the work goes on."""
        return self.folder / "heartbeat"


def visible(folder: Path, pattern: str = "") -> list[Path]:
    """What a folder holds, or what of it has this pattern, sorted and without hidden files; nothing if it is no folder.

    macOS lays a file ._NAME beside each NAME on disks of other systems, which matches patterns like *.json too.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = folder.glob(pattern) if pattern else folder.iterdir()
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def new_dated_folder(parent: Path, ending: str = "") -> Path:
    """An empty folder named after this second, '20260131-101500' and `ending`, numbered where that is taken.

    Raises StorageError.
    """
    name, parent = time.strftime("%Y%m%d-%H%M%S") + ending, Path(parent).absolute()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for n in itertools.count(1):
            folder = parent / (name if n == 1 else f"{name}-{n}")
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                continue
    except OSError as error:
        raise StorageError(cannot_write(parent, error)) from error
