"""The validation of a trained fold on its full cases, and the cascade's input for the next stage."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import RunError, StorageError, TaskError, counted, some
from ..evaluation import evaluate_folder
from ..folders import REFERENCE_LABELS, FoldFolder, prepared_folder
from ..geometry import Geometry
from ..image import REORIENTING_READERS, read_geometry
from ..planning.plan import Configuration
from ..prediction import Prediction, save_prediction
from ..preprocessing.prepared import Placement, PreparedCase
from ..preprocessing.resample import separate_axis
from ..preprocessing.restore import labels_from_logits, probabilities_from_logits
from ..preprocessing.storage import PreparedStore, load_previous_stage, previous_stage_file, save_previous_stage
from ..progress import Progress, silent, within
from ..provenance.made_of import CaseFiles
from ..provenance.predicted_by import (
    PredictedBy,
    StageInput,
    Weights,
    files_to_predict,
    forget_stage_input,
    keep_present,
    load_stage_input,
    note_stage_input,
)
from ..records import cannot_write
from ..run import Finished, Message, Progressed, Run
from ..scores import Scores
from .cascade import with_previous_labels
from .checkpoints import load_checkpoint, load_weights, steps_done
from .devices import choose_device, memory_errors, prepare_device
from .normalization import placed
from .session import TrainingRequest, make_network
from .sliding_window import predict_logits

_ADVICE = "close other programs, or validate on a device with more memory"


def validate_fold(
    request: TrainingRequest,
    *,
    save_probabilities: bool = False,
    again: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> Scores | None:
    """Predict the fold's validation cases and score them: CASE with the task's file ending, and summary.json.

    What the same weights made of the same files is kept unless `again`, and everything else there is removed. The final
    weights are used, or the best ones of a run that was stopped. A configuration with a next stage also writes what that
    stage takes as input. None without validation cases. Raises RunError when the fold was never trained,
    OutOfMemoryError, StorageError.
    """
    run = Run(request.folder, request.configuration, request.fold_name)
    with memory_errors(_ADVICE):
        validation = Validation.of(request, run, save_probabilities)
        if again:
            shutil.rmtree(request.folder.validation, ignore_errors=True)
        validation.keep_present()
        cases = request.fold.validation
        for done, case_id in enumerate(cases):
            what = f"validating {case_id}"
            _report(run, progress, done, len(cases), what)
            validation.predict(
                case_id, within(progress, done, len(cases), lambda tiles, what=what: f"{what} ({tiles})")
            )
    if not cases:
        run.record(Finished(time.time()))
        return None
    _report(run, progress, len(cases), len(cases), "scoring")
    scores = _score(request, workers)
    run.record(Finished(time.time(), scores.dice))
    return scores


@dataclass(frozen=True)
class Validation:
    """A trained network, and where its predictions go."""

    request: TrainingRequest
    network: torch.nn.Module
    weights: Weights
    files: Mapping[str, CaseFiles]
    """Case id → its files as they were prepared, and who made what the previous stage gives."""
    device: torch.device
    save_probabilities: bool
    tell: Callable[[str], None]

    @classmethod
    def of(cls, request: TrainingRequest, run: Run, save_probabilities: bool) -> Validation:
        """The fold's trained network on the device of the settings; raises RunError when there is none."""
        device = choose_device(request.settings.device)
        prepare_device(device, request.settings.threads)
        path = trained_checkpoint(request.folder)
        network = make_network(request)
        checkpoint = load_checkpoint(path, mapped=True)
        load_weights(network, checkpoint.network_weights, str(path))
        placed(network, device).eval()
        steps = steps_done(checkpoint, request.settings.iterations_per_epoch)
        weights = Weights.of(path, request.fold_name, steps)
        seen = files_to_predict(request.prepared, request.previous_stage, request.fold.validation)
        return cls(
            request, network, weights, {files.case_id: files for files in seen}, device, save_probabilities,
            lambda text: run.record(Message(text, time.time())),
        )  # fmt: skip

    def keep_present(self) -> None:
        """Remove what other weights or settings made, or of other files or cases; raises StorageError."""
        settings = self.request.settings
        made_by = PredictedBy(
            self.weights, tuple(self.files.values()), settings.validation_step, settings.validation_mirroring
        )
        try:
            removed = keep_present(self.request.folder, made_by, self.request.dataset_json["file_ending"])
        except OSError as error:
            raise StorageError(cannot_write(self.request.folder.validation, error)) from error
        if removed:
            self.tell(
                f"The validation of {counted(len(removed), 'case')} ({some(removed)}) was of other weights, files, folds "
                "or settings and is removed."
            )

    def predict(self, case_id: str, progress: Progress = silent) -> None:
        """Write what is missing of one case, and with it what the next stage takes as input."""
        target = self.request.folder.validation / (case_id + self.request.dataset_json["file_ending"])
        archive = target.with_name(case_id + ".npz") if self.save_probabilities else None
        if target.is_file() and (archive is None or archive.is_file()) and not self._lacks_next(case_id):
            return
        case = PreparedStore(self.request.prepared).open(case_id)
        logits = self._logits(case, progress)
        if self._serves_next(case_id):
            self._write_next_stage(logits, case)
        placement, wanted, label_set = case.placement, self.request.wanted, self.request.label_set
        labels = labels_from_logits(logits, placement, wanted, label_set)
        probabilities = probabilities_from_logits(logits, placement, wanted, label_set) if archive else None
        prediction = Prediction(labels, placement.geometry, label_set, probabilities)
        save_prediction(prediction, target, self._file_grid(case))

    def _logits(self, case: PreparedCase, progress: Progress) -> np.ndarray:
        """Outputs (n_outputs, Z, Y, X) on the prepared grid."""
        settings, configuration = self.request.settings, self.request.wanted
        logits = predict_logits(
            self.network,
            self._input(case),
            configuration.patch_size,
            mirror_axes=self.request.mirror_axes if settings.validation_mirroring else (),
            step=settings.validation_step,
            device=self.device,
            mixed_precision=settings.mixed_precision,
            progress=progress,
            message=self.tell,
        )
        return logits.numpy()

    def _input(self, case: PreparedCase) -> torch.Tensor:
        """Image channels (C, Z, Y, X) and, in a cascade, one channel per label of the previous stage."""
        image = np.array(case.image, np.float32)
        if self.request.previous_stage is None:
            return torch.from_numpy(image)
        previous = load_previous_stage(self.request.previous_stage, case.id)
        return with_previous_labels(image, previous, self.request.label_set)

    def _file_grid(self, case: PreparedCase) -> Geometry:
        """The grid of the case's files: the network's unless the reader turned them."""
        if self.request.plan.reader not in REORIENTING_READERS:
            return case.placement.geometry
        ending = self.request.dataset_json["file_ending"]
        return read_geometry(self.request.prepared.parent / REFERENCE_LABELS / (case.id + ending))

    @property
    def _next_folder(self) -> Path:
        return self.request.model_folder.next_stage(self.request.wanted.next_stage)

    def _lacks_next(self, case_id: str) -> bool:
        """Whether the next stage's input is not what these weights make of this case, and should be."""
        if not self._serves_next(case_id):
            return False
        made_by = load_stage_input(self._next_folder, case_id)
        is_there = previous_stage_file(self._next_folder, case_id).is_file()
        return not (is_there and made_by and made_by.is_of(self.files[case_id], self.weights))

    def _serves_next(self, case_id: str) -> bool:
        """Whether there is a next stage and no fold that never saw the case predicted it: that one's is worth more."""
        if not self.request.wanted.next_stage:
            return False
        if self._held_out(case_id) or not previous_stage_file(self._next_folder, case_id).is_file():
            return True
        made_by = load_stage_input(self._next_folder, case_id)
        if made_by:
            return not made_by.held_out
        others = (fold for fold in self.request.model_folder.folds() if fold != self.request.folder)
        return not any(fold.has_weights for fold in others)

    def _held_out(self, case_id: str) -> bool:
        return case_id not in self.request.fold.train

    def _write_next_stage(self, logits: np.ndarray, case: PreparedCase) -> None:
        folder, name = self._next_folder, self.request.wanted.next_stage
        try:
            forget_stage_input(folder, case.id)
        except OSError as error:
            raise StorageError(cannot_write(folder, error)) from error
        following = self.request.plan.configuration(name)
        try:
            goal = PreparedStore(prepared_folder(self.request.prepared.parent, following.data_identifier)).open(case.id)
        except TaskError:
            self.tell(f"{case.id} is not prepared for {name}; its cascade input is left out.")
            return
        configuration = _without_choice(self.request.wanted, case.placement.spacing_mm)
        labels = labels_from_logits(logits, _onto(case, goal), configuration, self.request.label_set)
        save_previous_stage(labels, folder, case.id)
        note_stage_input(StageInput(self.weights, self.files[case.id], self._held_out(case.id)), folder)


def trained_checkpoint(folder: FoldFolder) -> Path:
    """The weights to use of a fold: final, else best, else latest; raises RunError when there are none."""
    if folder.weights is None:
        raise RunError(f"Expected trained weights in {folder.folder}, found none; train this fold first.")
    return folder.weights


def _onto(case: PreparedCase, goal: PreparedCase) -> Placement:
    """A placement whose 'input' is another configuration's prepared grid of the same case."""
    shape, spacing = tuple(goal.image.shape[1:]), case.placement.spacing_mm
    scaled = tuple(s * n / new for s, n, new in zip(spacing, case.image.shape[1:], shape, strict=True))
    geometry = Geometry(shape, scaled)
    return Placement(geometry, (0, 1, 2), shape, (0, 0, 0), shape, scaled, spacing)


def _without_choice(configuration: Configuration, spacing_mm: tuple[float, ...]) -> Configuration:
    """The configuration with its decision for separate z made by its own spacing alone, as nnU-Net does here."""
    resampling = configuration.resampling_probabilities
    separate = separate_axis(spacing_mm, spacing_mm, resampling.force_separate_z) is not None
    return replace(configuration, resampling_probabilities=replace(resampling, force_separate_z=separate))


def _score(request: TrainingRequest, workers: int) -> Scores:
    references = request.prepared.parent / REFERENCE_LABELS
    ending = request.dataset_json["file_ending"]
    return evaluate_folder(
        request.folder.validation, references, request.label_set, file_ending=ending, workers=workers
    )


def _report(run: Run, progress: Progress, done: int, total: int, what: str) -> None:
    run.record(Progressed(done, total, what, time.time()))
    progress(done, total, what)
