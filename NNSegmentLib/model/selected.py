"""What 'nnsegment best' (or nnU-Net) selected for a data set: inference_information.json, as predicting reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import ModelError
from ..folders import SELECTION
from ..records import lack_of, read_json


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
        """The file of the post-processing at the same place below this data set's folder.

        None when no file is named, or for a data set of another name; raises ModelError when the file is missing.
        """
        dataset, parts = self.file.parent, PurePosixPath(self.postprocessing.replace("\\", "/")).parts
        if dataset.name not in parts or ".." in parts:
            return None
        place = dataset.joinpath(*parts[len(parts) - parts[::-1].index(dataset.name) :])
        found = next((p for p in (place.with_suffix(".json"), place.with_suffix(".pkl")) if p.is_file()), None)
        if found is None:
            raise ModelError(
                f"{self.file} names the post-processing {place}, which is missing; run 'nnsegment best' again, or "
                "choose a configuration to predict without post-processing."
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
            f"{file} is not what model selection writes ({lack_of(wrong)}); run 'nnsegment best' again."
        ) from wrong
    if not names:
        raise ModelError(f"{file} selects nothing; run 'nnsegment best' again.")
    if len(set(names)) < len(names):
        raise ModelError(f"{file} selects the same model more than once; run 'nnsegment best' again.")
    return Selected(file, names, folds, postprocessing)
