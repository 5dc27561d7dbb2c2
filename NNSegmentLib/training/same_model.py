"""What all folds of a model share: its plan, labels and channels, written down in its folder with the first one."""

from __future__ import annotations

from ..errors import PlanError, RunError, some
from ..folders import LABELS_CSV, FoldFolder, ModelFolders, TaskFolders
from ..planning.plan import Plan, load_plan, save_plan
from ..records import copy_if_there, copy_whole, read_json
from ..task import Task, parse_dataset_json


def is_described(model: ModelFolders, replaced: FoldFolder | None) -> bool:
    """Whether the model folder's plan belongs to trained weights, but for those of a run that is `replaced`."""
    trained = (fold for fold in model.folds() if fold != replaced and fold.has_weights)
    return model.plan.is_file() and model.dataset_json.is_file() and any(trained)


def plan_that_goes_on(model: ModelFolders, plan: Plan, configuration: str, task: Task, resume: bool) -> Plan:
    """The plan for another fold of a model that is trained: its own to resume, else one that fits.

    Raises PlanError, RunError where labels or channels mean something else than in the folds that are trained.
    """
    if resume:
        _require_same_meaning(model, task)
        return load_plan(model.plan)
    _require_same_plan(model, plan, configuration, task)
    return plan


def _require_same_meaning(model: ModelFolders, task: Task) -> None:
    """Raises RunError when weights would go on, or be scored, with labels or channels that they know otherwise."""
    channels, labels, _ = parse_dataset_json(read_json(model.dataset_json), model.folder)
    now = tuple(channel.name for channel in task.channels)
    changed = labels.changed_meaning(task.labels)
    if len(channels) != len(now) or (channels != now and sorted(channels) == sorted(now)):
        changed = f"channels {some(channels)} became {some(now)}"
    if changed:
        raise RunError(
            f"The folds in {model.folder} were trained with other labels or channels than the task has now ({changed}); "
            f"restore its dataset.json and files of that time, or begin again with 'nnsegment plan {task.name} --anew', "
            "which keeps the trained models."
        )


def _require_same_plan(model: ModelFolders, plan: Plan, configuration: str, task: Task) -> None:
    """Raises PlanError when a fold's weights would need another plan, labels or channels than those trained before."""
    before = load_plan(model.plan)
    card = parse_dataset_json(read_json(model.dataset_json), model.folder)
    same_task = card == parse_dataset_json(task.dataset_json, task.folder)
    if not same_task or _used_with_weights(before, configuration) != _used_with_weights(plan, configuration):
        what = "the plan" if same_task else "labels, channels or file type"
        raise PlanError(
            f"All folds of a model need one plan, but {what} changed since the folds in {model.folder} were trained; "
            f"begin again with 'nnsegment plan {task.name} --anew', which keeps the trained models, or give the new plan "
            f"a name of its own with 'nnsegment plan {task.name} -p NAME'."
        )


def _used_with_weights(plan: Plan, name: str) -> tuple[object, ...]:
    """What of a plan its weights are worth nothing without."""
    c = plan.configuration(name)
    scaled = plan.intensities if any(scheme.startswith("CT") for scheme in c.normalization) else ()
    return (plan.transpose_forward, scaled, c.patch_size, c.spacing_mm, c.normalization, c.use_mask_for_norm,
            c.network, c.resampling_data, c.previous_stage)  # fmt: skip


def write_model_card(model: ModelFolders, folders: TaskFolders, task: Task, plan: Plan) -> None:
    """plans.json, dataset.json, fingerprint and colours, so that the model folder explains itself elsewhere."""
    save_plan(plan, model.plan)
    copy_whole(task.folder / "dataset.json", model.dataset_json)
    copy_if_there(folders.fingerprint, model.folder / folders.fingerprint.name)
    copy_if_there(task.folder / LABELS_CSV, model.labels_csv)
