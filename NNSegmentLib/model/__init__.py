"""Trained models: found on disk, described, exported and imported; nnU-Net's of version 1 and 2, and ours."""

from .loading import BEST_AVAILABLE, CHECKPOINTS, find_model_folders, load_model, require_supported_trainer
from .members import Member, Model, TrainedConfiguration

__all__ = [
    "BEST_AVAILABLE", "CHECKPOINTS", "Member", "Model", "TrainedConfiguration", "find_model_folders",
    "load_model", "require_supported_trainer",
]  # fmt: skip
