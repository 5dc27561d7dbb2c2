"""NNSegment: nnU-Net's journey from labelled images to a cross-validated model and its predictions.

The verbs (`convert, check, plan, train, best, predict, …`) and nouns (`Task, Plan, Run, Model, …`) are here;
each is imported when first used, so that `import NNSegmentLib` costs nothing and never loads torch.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOMES = {
    "pipeline": (
        "best", "check", "convert", "extract_fingerprint", "open_task", "plan", "predict", "preprocess", "train", "validate",
    ),
    "conversion": ("export_task",),
    "errors": ("ImageError", "InputError", "MissingPackageError", "ModelError", "NNSegmentError", "OutOfMemoryError", "PlanError",
               "RunError", "SettingsError", "StorageError", "TaskError", "WorkError"),
    "evaluation": ("Scores",),
    "exchange": ("describe_model", "export_model", "import_model", "list_models"),
    "fingerprint": ("Fingerprint",),
    "folders": ("Workspace",),
    "geometry": ("Geometry",),
    "image": ("Image", "LabelMap", "read_image", "read_labels", "write_labels"),
    "integrity": ("Finding",),
    "labels": ("Label", "LabelSet"),
    "model": ("Model", "load_model"),
    "planning.plan": ("Configuration", "NetworkSpec", "Plan", "load_plan"),
    "prediction": ("Prediction",),
    "preprocessing.prepare": ("prepare_case",),
    "preprocessing.prepared": ("Placement", "PreparedCase"),
    "preprocessing.restore": ("restore_labels",),
    "results": ("diagram", "ensemble", "evaluate", "postprocess", "write_report"),
    "run": ("Run", "TrainingSettings"),
    "selection.record": ("Selection",),
    "task": ("Case", "Channel", "Task", "load_task"),
    "training.budget": ("quick_settings",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"NNSegmentLib has no {name}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
