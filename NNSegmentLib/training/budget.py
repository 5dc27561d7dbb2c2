"""Which training settings fit a plan and the time there is: nnU-Net's own for long runs, a quick recipe for short ones.

nnU-Net's schedule (SGD with momentum 0.99) needs hours before it finds anything on a laptop. The quick recipe
(AdamW with warm-up, averaged weights) was chosen by measurement, see Testing/benchmarks/RESULTS.md. A processor takes
too few steps in its time to learn mirrored images too; a CUDA GPU takes so many that it needs their variety. Where a
training is long for its device the same patches come back often, and more of them are rotated and scaled.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from ..errors import SettingsError
from ..planning.plan import Plan
from ..planning.presets import find_preset
from ..run import TrainingSettings, load_settings

QUICK_UP_TO_S = 2 * 3600.0
"""Time budgets up to this get the quick recipe."""
QUICK_EPOCHS = 50
"""Length of the small preset's schedule when neither time nor epochs are given."""
LONG_FROM_S, LONG_ON_CUDA_FROM_S, LONG_FROM_EPOCHS = 30 * 60.0, 5 * 60.0, 30
"""From here on a quick recipe is a long one: time on a processor and on a CUDA GPU, or epochs where no time is given."""


def default_settings(
    plan: Plan,
    time_s: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    many_steps: bool | None = None,
) -> TrainingSettings:
    """The settings for a plan when the user names none but, perhaps, the length and the device.

    `many_steps` as in `quick_settings`. Raises SettingsError when the device is not there.
    """
    small = plan.name == find_preset("small").plans_name
    if small or (time_s is not None and time_s <= QUICK_UP_TO_S):
        return quick_settings(device, many_steps, time_s=time_s, epochs=epochs or QUICK_EPOCHS)
    return TrainingSettings(time_s=time_s, epochs=epochs or TrainingSettings.epochs, device=device)


def quick_settings(
    device: str = "auto", many_steps: bool | None = None, *, time_s: float | None = None, epochs: int = QUICK_EPOCHS
) -> TrainingSettings:
    """The recipe for minutes instead of days, on `device`; with `time_s` (seconds) `epochs` is ignored.

    `many_steps` is whether the device takes so many steps in its time that they need mirrored images; None looks
    whether it is a CUDA GPU. Raises SettingsError for what cannot be, or when the device is not there.
    """
    asked = TrainingSettings(device=device, time_s=time_s, epochs=epochs)
    if many_steps is None:
        many_steps = _is_cuda(device)
    is_long = epochs >= LONG_FROM_EPOCHS if time_s is None else time_s >= _long_from_s(many_steps)
    return replace(
        asked,
        optimizer="adamw",
        learning_rate=3e-3,
        weight_decay=5e-2 if many_steps or is_long else 1e-2,
        warmup_steps=50,
        schedule="poly",
        weight_averaging=0.999 if many_steps or is_long else 0.99,
        augmentation="strong" if is_long else "default",
        mirror_axes=None if many_steps else (),
        validation_iterations=10,
        validation_mirroring=many_steps,
    )


def _long_from_s(many_steps: bool) -> float:
    return LONG_ON_CUDA_FROM_S if many_steps else LONG_FROM_S


def _is_cuda(device: str) -> bool:
    from ..engine.devices import choose_device

    return choose_device(device).type == "cuda"


def settings_from_arguments(args: argparse.Namespace, plan: Plan, stored: TrainingSettings | None) -> TrainingSettings:
    """The settings that the command line asks for; a resumed run keeps those it was `stored` with.

    Raises SettingsError when a resumed run is asked to change its settings, or a recipe cannot be used.
    """
    if args.resume and stored is not None:
        _require_same_schedule(args, stored)
        if args.settings or args.recipe:
            _require_same(_asked_again(args, plan, stored), stored)
        elif args.seed is not None:
            _require_same([replace(stored, seed=args.seed)], stored)
        return replace(stored, device=args.device or stored.device)
    return _asked(args, plan, args.time, args.epochs)


def require_nothing_new(args: argparse.Namespace, fold: Path) -> None:
    """Raises SettingsError when a fold that nnU-Net has trained to its end is asked to go on with other settings."""
    if args.epochs or args.time or args.settings or args.recipe:
        raise SettingsError(
            f"The training in {fold} has come to its end, so there is nothing to resume; rename checkpoint_final.pth "
            "there to checkpoint_latest.pth to train on, or leave out --resume to train again."
        )


def _asked_again(args: argparse.Namespace, plan: Plan, stored: TrainingSettings) -> list[TrainingSettings]:
    """What the words may have meant when the run was started: on this device, or on a processor, or on a CUDA GPU."""
    epochs = args.epochs or (None if args.settings else stored.epochs)
    return [_asked(args, plan, args.time or stored.time_s, epochs, many_steps) for many_steps in (None, False, True)]


def _asked(
    args: argparse.Namespace, plan: Plan, time_s: float | None, epochs: int | None, many_steps: bool | None = None
) -> TrainingSettings:
    if args.settings:
        settings = load_settings(args.settings)
        stored_s = None if args.epochs else settings.time_s
        settings = replace(settings, time_s=time_s or stored_s, epochs=epochs or settings.epochs)
    else:
        settings = default_settings(plan, time_s, epochs, args.device or "auto", many_steps)
    settings = replace(
        settings, device=args.device or settings.device, seed=settings.seed if args.seed is None else args.seed
    )
    return apply_recipe(args.recipe, settings) if args.recipe else settings


def apply_recipe(recipe: str, settings: TrainingSettings) -> TrainingSettings:
    """The settings that the function 'package.module:function' makes of the given ones; raises SettingsError."""
    module, _, name = recipe.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last: what we import later is not to be found there
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as wrong:
        raise SettingsError(f"The recipe {recipe!r} should be package.module:function; {wrong}.") from wrong
    made = function(settings)
    if not isinstance(made, TrainingSettings):
        raise SettingsError(f"The recipe {recipe!r} should return TrainingSettings, found {type(made).__name__}.")
    return made


def _require_same_schedule(args: argparse.Namespace, stored: TrainingSettings) -> None:
    asked = {"time_s": args.time, "epochs": args.epochs}
    for name, value in asked.items():
        if value is not None and value != getattr(stored, name):
            raise SettingsError(
                f"The run was started with {name} = {getattr(stored, name)} and a resumed run keeps its schedule; "
                f"leave out the new value ({value}), or train again without --resume."
            )


def _require_same(meanings: Sequence[TrainingSettings], stored: TrainingSettings) -> None:
    """Raises SettingsError with the first difference of the first meaning unless one of them is the same."""
    differences = [_difference(asked, stored) for asked in meanings]
    if all(differences):
        name, old, new = differences[0]
        raise SettingsError(
            f"The run was started with {name} = {old} and a resumed run keeps its settings; leave out the new "
            f"ones ({name} = {new}), or train again without --resume."
        )


def _difference(asked: TrainingSettings, stored: TrainingSettings) -> tuple[str, object, object] | None:
    """The first field but for the device that differs, with the stored and the asked value."""
    for field in fields(TrainingSettings):
        new, old = getattr(asked, field.name), getattr(stored, field.name)
        if new != old and field.name != "device":
            return field.name, old, new
    return None
