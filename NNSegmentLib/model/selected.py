"""What 'nnsegment best' (or nnU-Net) selected for a data set: inference_information.json, as predicting reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import InputError, ModelError, some
from ..folders import SELECTION, ModelFolders
from ..provenance.predicted_by import Weights
from ..records import from_json, lack_of, read_json

_DEPTH = 3
"""Of a file of post-processing in a data set: MODEL/crossval_results_folds_…/FILE or ensembles/ENSEMBLE/FILE."""
COMPARED_WEIGHTS = "compared_weights"
"""Ours in inference_information.json: what the compared folds were predicted by."""


@dataclass(frozen=True)
class ComparedFold:
    """A fold that was compared, with the weights it had."""

    model: str
    """Name of its folder."""
    weights: Weights


@dataclass(frozen=True)
class Selected:
    """The models to predict with, whether or not they are there."""

    file: Path
    models: tuple[str, ...]
    """Names of their folders; several are an ensemble."""
    folds: tuple[str, ...]
    postprocessing: str = ""
    """The file's path where the selection was made, perhaps on another machine; empty without post-processing."""

    def postprocessing_file(self) -> Path | None:
        """The file of the post-processing at the same place below this data set's folder, which may have been renamed.

        None when no file is named, or that of a data set of another name that this one does not have; raises ModelError
        when the file is missing.
        """
        dataset, parts = self.file.parent, PurePosixPath(self.postprocessing.replace("\\", "/")).parts
        if not parts or ".." in parts:
            return None
        is_own = dataset.name in parts
        below = len(parts) - parts[::-1].index(dataset.name) if is_own else -_DEPTH
        place = dataset.joinpath(*parts[below:])
        found = next((p for p in (place.with_suffix(".json"), place.with_suffix(".pkl")) if p.is_file()), None)
        if not is_own:
            return found if len(parts) > _DEPTH else None
        if found is None:
            raise ModelError(
                f"{self.file} names the post-processing {place}, which is missing; run 'nnsegment best {dataset.name}' "
                "again, or choose a configuration to predict without post-processing."
            )
        return found


def read_selected(dataset: Path) -> Selected:
    """What was selected for the data set of this results folder; raises ModelError when the file does not tell."""
    file = dataset / SELECTION
    values = read_json(file, ModelError)
    try:
        best = values["best_model_or_ensemble"]
        names = tuple(
            f"{chosen['trainer']}__{chosen['plans_identifier']}__{chosen['configuration']}"
            for chosen in best["selected_model_or_models"]
        )
        folds = tuple(str(fold) for fold in values["folds"])
        postprocessing = str(best.get("postprocessing_file") or "")
    except (KeyError, TypeError, AttributeError) as wrong:
        raise ModelError(
            f"{file} is not what model selection writes ({lack_of(wrong)}); run 'nnsegment best {dataset.name}' again."
        ) from wrong
    if not names:
        raise ModelError(f"{file} selects nothing; run 'nnsegment best {dataset.name}' again.")
    if len(set(names)) < len(names):
        raise ModelError(f"{file} selects the same model more than once; run 'nnsegment best {dataset.name}' again.")
    return Selected(file, names, folds, postprocessing)


def compared_folds(values: object) -> tuple[ComparedFold, ...]:
    """The compared weights that an inference_information.json tells; none in those of others and earlier versions."""
    found = values.get(COMPARED_WEIGHTS) if isinstance(values, dict) else None
    try:
        return tuple(from_json(ComparedFold, fold) for fold in found or ())
    except (InputError, TypeError):
        return ()


def trained_again(dataset: Path, by_content: bool = True) -> str:
    """A sentence about the folds of a results folder that were trained again since they were compared; empty for none.

    Weights that are no younger than the comparison are the compared ones. Of younger ones with `by_content` the content
    decides, which takes seconds; without it they count as others, also in a copy that kept no times.
    """
    file = dataset / SELECTION
    if not file.is_file():
        return ""
    again = [
        f"fold {compared.weights.fold} of {compared.model}"
        for compared in compared_folds(read_json(file, ModelError))
        if _has_other_weights(dataset, compared, file.stat().st_mtime_ns, by_content)
    ]
    return (
        f"Trained again since the models were compared: {some(again)}; run 'nnsegment best {dataset.name}' again."
        if again
        else ""
    )


def _has_other_weights(dataset: Path, compared: ComparedFold, compared_ns: int, by_content: bool) -> bool:
    fold = ModelFolders(dataset / compared.model).fold(compared.weights.fold)
    is_younger = fold.weights is not None and fold.weights.stat().st_mtime_ns > compared_ns
    return is_younger and compared.weights.are_replaced_in(fold, by_content)
