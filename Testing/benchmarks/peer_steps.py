"""Single steps of nnU-Net v2 through its own classes; these functions run in the interpreter NNUNET_PYTHON."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path


def volume(plans: str, dataset_json: str, image: str, labels: str, target: str, runs: int) -> dict[str, float]:
    """Read, crop, normalise, resample and store one case."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    manager, configuration = _plan(plans)
    worker, card = DefaultPreprocessor(verbose=False), _json(dataset_json)
    targets = (f"{target}_{n}" for n in count())  # existing files are an error
    return _median(runs, lambda: worker.run_case_save(next(targets), [image], labels, manager, configuration, card))


def export(plans: str, classes: int, source: list, target: list, spacing_mm: list, runs: int) -> dict[str, float]:
    """Logits (classes, *source) to labels on the grid `target`."""
    import torch
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape as work

    from .export import random_logits

    manager, configuration = _plan(plans)
    labels = {"background": 0} | {f"part {n}": n for n in range(1, classes)}
    label_manager = manager.get_label_manager({"labels": labels, "channel_names": {"0": "MRI"}})
    properties = {
        "spacing": spacing_mm,
        "shape_before_cropping": target,
        "shape_after_cropping_and_before_resampling": target,
        "bbox_used_for_cropping": [[0, n] for n in target],
    }
    logits = torch.from_numpy(random_logits(classes))
    return _median(runs, lambda: work(logits, manager, configuration, label_manager, properties))


def window(plans: str, dataset_json: str, shape: list) -> dict[str, float]:
    """One volume (1, *shape) by the sliding window, without mirroring, with fresh weights."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    manager, configuration = _plan(plans)
    network = get_network_from_plans(
        configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import, 1, 3, deep_supervision=False,
    )  # fmt: skip
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    card = _json(dataset_json)
    predictor.manual_initialization(network, manager, configuration, None, card, "nnUNetTrainer", None)
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return _median(1, lambda: predictor.predict_sliding_window_return_logits(image))


def training(plans: str, dataset_json: str, steps: int) -> dict[str, float]:
    """Median time of an optimiser step of 3d_fullres, fold 0, the wait for its batch included."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    values = _json(plans) | {"continue_training": False}  # newer versions look it up there
    trainer = nnUNetTrainer(values, "3d_fullres", 0, _json(dataset_json), device=torch.device("cpu"))
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    trainer.train_step(next(trainer.dataloader_train))
    found = _median(steps, lambda: trainer.train_step(next(trainer.dataloader_train)))
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        loader._finish()
    return found


def _plan(path: str):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(path)
    return manager, manager.get_configuration("3d_fullres")


def _json(path: str) -> dict:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _median(runs: int, work: Callable[[], object]) -> dict[str, float]:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return {"seconds": statistics.median(times)}
