"""Folders of images in, folders of label maps out: reading, the network and writing overlap, one failure costs one case."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ..errors import ImageError, ModelError, NNSegmentError, RunError, some
from ..image import FILE_ENDINGS, FLAT_ENDINGS, file_ending, read_geometry, read_labels
from ..machine.memory import Say, memory_errors, unsaid
from ..model import Model
from ..prediction import Prediction, save_prediction
from ..progress import Progress, silent, within
from ..records import copy_whole, require_writable
from ..task import Case, write_dataset_json
from .ahead import InputsAhead
from .cases import read_case
from .doubts import Doubts, doubts_of, tell_doubts
from .inputs import Ready, prepare_input, require_earlier_stages

T = TypeVar("T")
Outputs = TypeVar("Outputs")
_ADVICE = "close other programs, leave out the probabilities, or predict on a machine with more memory"
_UNKNOWN_FILE = re.compile(r"\.[a-z]{2,4}$", re.IGNORECASE)
"""The end of a name that looks like a file's: letters only, since folders are called results_v1.2."""
_CHANNEL = re.compile(r"(?<=.)_(\d{4})$")
Finish = Callable[[Prediction], Prediction]


class Networks(Protocol[Outputs]):
    """What the engine's Predictor does with an input that is ready."""

    def run(self, ready: Ready, progress: Progress) -> Outputs:
        """The networks' part."""

    def finish(self, ready: Ready, outputs: Outputs, want_probabilities: bool) -> Prediction:
        """Labels on the image's grid."""

    def rounds(self, has_previous: bool) -> int:
        """How often the tiles of an image are gone through."""


@dataclass(frozen=True)
class FileRequest:
    """What becomes of each case."""

    output: Path
    """A folder, or the file for a single case."""
    save_probabilities: bool = False
    overwrite: bool = True
    previous: Path | None = None
    """Cascade: a folder with the earlier stage's label maps `CASE.ending`; None predicts that stage."""
    finish: Finish = lambda prediction: prediction
    """Post-processing, applied before writing."""

    def target(self, case: Case) -> Path:
        """The label map's file."""
        if is_image_name(self.output):
            return self.output
        return self.output / (case.id + file_ending(case.images[0]))

    def is_done(self, case: Case) -> bool:
        target = self.target(case)
        npz = target.with_name(target.name[: -len(file_ending(target))] + ".npz")
        return target.is_file() and (npz.is_file() or not self.save_probabilities)


def predict_files(
    model: Model,
    load: Callable[[], Networks],
    cases: Sequence[Case],
    request: FileRequest,
    progress: Progress = silent,
    say: Say = unsaid,
) -> tuple[str, ...]:
    """Predict every case into files; returns the ids that were predicted now.

    `load` gives the model's networks; the first images are read while it is at work. `say` hears of channels that lie
    apart and of headers that tell two places. Raises ImageError before starting when files would overwrite each other or
    an earlier stage's label map is missing, ModelError when the model takes none or has no earlier stage to predict it
    with, StorageError when the output cannot be written. A case that fails does not keep the others from being
    predicted; afterwards RunError names those that failed (a single case raises its own error).
    """
    _require_distinct_targets(cases, request)
    require_writable(request.output.parent if is_image_name(request.output) else request.output)
    wanted = [case for case in cases if request.overwrite or not request.is_done(case)]
    if request.previous:
        _require_previous(wanted, request.previous, model)
    else:
        require_earlier_stages(model)
    doubts: dict[str, Doubts] = {}

    def read(case: Case) -> Ready:
        ready = _read(model, case, request)
        doubts[case.id] = doubts_of(case, model.plan.reader)
        return ready

    with InputsAhead(wanted, read) as inputs, ThreadPoolExecutor(1) as writing:
        failed = _predict_all(load(), wanted, inputs, writing, request, progress)
    if not is_image_name(request.output):
        _copy_card(model, request.output)
    tell_doubts(doubts, say)
    _report(failed, wanted)
    return tuple(case.id for case in wanted if case.id not in failed)


def is_image_name(path: Path) -> bool:
    """Whether a path is named like an image file rather than a folder."""
    return path.name.lower().endswith(FILE_ENDINGS) and not path.is_dir()


def require_output_name(inputs: Sequence[Path], output: Path) -> None:
    """Refuse to make a folder where a file was surely meant: `x.doc` for one case given by its files (ImageError)."""
    one_case = not any(path.is_dir() for path in inputs)
    if one_case and _UNKNOWN_FILE.search(output.name) and not is_image_name(output) and not output.is_dir():
        raise ImageError(
            f"Expected a file ending in one of {', '.join(FILE_ENDINGS)} or a folder as output, found {output.name}; "
            "take one of these endings, or make the folder first if it should be called so."
        )


def _predict_all(
    networks: Networks,
    cases: Sequence[Case],
    inputs: InputsAhead,
    writing: ThreadPoolExecutor,
    request: FileRequest,
    progress: Progress,
) -> dict[str, NNSegmentError]:
    """What went wrong, by case. One case is written behind, so that of large ones at most three are in memory."""
    failed: dict[str, NNSegmentError] = {}
    rounds = networks.rounds(bool(request.previous))
    behind: tuple[Case, Future] | None = None
    progress(0, len(cases), "cases")
    for n, case in enumerate(cases):
        tiles = _tiles_of(case, n, len(cases), rounds, progress)
        seen = _attempt(failed, case, _run, networks, inputs, tiles)
        if behind:
            _attempt(failed, behind[0], behind[1].result)
        behind = (case, writing.submit(_write, networks, case, *seen, request)) if seen else None
        progress(n + 1, len(cases), "cases")
    if behind:
        _attempt(failed, behind[0], behind[1].result)
    return failed


def _attempt(failed: dict[str, NNSegmentError], case: Case, work: Callable[..., T], *given) -> T | None:
    try:
        return work(*given)
    except NNSegmentError as error:
        failed[case.id] = error
        return None


def _read(model: Model, case: Case, request: FileRequest) -> Ready:
    _require_channel_files(case, model)
    path = _previous_file(case, request.previous, model) if request.previous else None
    previous = read_labels(path, model.plan.reader) if path else None
    with memory_errors(_ADVICE):
        return prepare_input(model, read_case(case, model), previous, case.id)


def _require_previous(cases: Sequence[Case], folder: Path, model: Model) -> None:
    """Raises ModelError when no part of the model is a cascade, ImageError naming cases without a label map."""
    if not any(part.configuration.previous_stage for part in model.parts):
        names = ", ".join(part.configuration.name for part in model.parts)
        raise ModelError(
            f"Label maps of an earlier stage are the input of a cascade, found the configuration {names}; "
            "leave out --previous, or choose the cascade with -c."
        )
    missing = [case.id for case in cases if _previous_file(case, folder, model) is None]
    if missing:
        raise ImageError(
            f"Every case needs a label map of the cascade's earlier stage in {folder}, missing for {len(missing)} of "
            f"{len(cases)}: {some(missing)}; give the folder of those predictions, or leave out --previous."
        )


def _previous_file(case: Case, folder: Path, model: Model) -> Path | None:
    names = [case.id + ending for ending in dict.fromkeys((file_ending(case.images[0]), model.file_ending))]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _run(networks: Networks, inputs: InputsAhead, progress: Progress) -> tuple[Ready, Outputs]:
    ready = inputs.take()
    return ready, networks.run(ready, progress)


def _tiles_of(case: Case, n: int, total: int, rounds: int, progress: Progress) -> Progress:
    """A receiver of tile counts: the steps of a single case, parts of a case among others."""
    if total == 1:
        return lambda done, steps, what: progress(done, steps, f"{case.id}: {what}")
    return within(progress, n, total, lambda tiles: f"cases ({case.id}: {tiles})", rounds)


def _write(networks: Networks, case: Case, ready: Ready, outputs: Outputs, request: FileRequest) -> None:
    with memory_errors(_ADVICE):
        prediction = request.finish(networks.finish(ready, outputs, request.save_probabilities))
    is_flat = file_ending(case.images[0]) in FLAT_ENDINGS  # no reader turns pictures
    save_prediction(
        prediction, request.target(case), ready.image.geometry if is_flat else read_geometry(case.images[0])
    )


def _require_channel_files(case: Case, model: Model) -> None:
    """A single file may hold all channels; otherwise each of them needs its file, numbered where they come numbered."""
    suffixes = [_CHANNEL.search(path.name[: -len(file_ending(path))]) for path in case.images]
    numbers = [int(suffix[1]) for suffix in suffixes if suffix]
    if len(case.images) == 1 or numbers in ([], list(range(len(model.channels)))):
        return
    wanted = ", ".join(f"{i:04d} ({name})" for i, name in enumerate(model.channels))
    raise ImageError(
        f"Case {case.id} has files for the channels {', '.join(f'{n:04d}' for n in numbers)}, the model expects "
        f"{wanted}; add the missing files or remove those of other channels."
    )


def _require_distinct_targets(cases: Sequence[Case], request: FileRequest) -> None:
    targets: dict[Path, Case] = {}
    for case in cases:
        target = request.target(case)
        if target in targets:
            raise ImageError(
                f"{case.images[0]} and {targets[target].images[0]} would both be written to {target}; "
                "give a folder as output and different names to the cases."
            )
        if target.absolute() in {path.absolute() for path in case.images}:
            raise ImageError(f"The prediction would overwrite its image {target}; choose another output.")
        targets[target] = case


def _copy_card(model: Model, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    is_version_1 = model.parts[0].configuration.is_version_1
    if is_version_1:
        write_dataset_json(output, model.channels, model.label_set, 0, model.file_ending)
    for name in ("plans.pkl",) if is_version_1 else ("dataset.json", "plans.json"):
        source = model.folder / name
        if source.absolute().parent != output.absolute():
            copy_whole(source, output / name)


def _report(failed: dict[str, NNSegmentError], cases: Sequence[Case]) -> None:
    if not failed:
        return
    if len(cases) == 1:
        raise next(iter(failed.values()))
    details = "; ".join(f"{case_id}: {error}" for case_id, error in failed.items())
    raise RunError(f"{len(failed)} of {len(cases)} cases could not be predicted, the others were. {details}")
