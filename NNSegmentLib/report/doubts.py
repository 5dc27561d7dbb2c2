"""What a reader of scores should know: labels, cases or files that are others now than when they were scored."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import TaskError, counted, some
from ..labels import LabelSet
from ..records import read_json
from .contents import Contents, TrainedModel


def doubts_of(model: TrainedModel, contents: Contents) -> Iterator[str]:
    """Sentences about a validated model; none where nothing has changed or the raw images are gone."""
    if contents.task is None:
        return
    if changed := _changed_labels(model, contents.labels):
        yield f"This model was trained and scored with other labels than the task has now ({changed})."
    known = {case.id for case in contents.task.cases}
    if gone := sorted({case.case_id for case in model.scores.cases} - known):
        yield f"The scores count {counted(len(gone), 'case')} that the task does not have any more ({some(gone)})."
    scored = [case.case_id for case in model.scores.cases if case.case_id in contents.corrected]
    if scored:
        yield (
            f"Images or labels of {counted(len(scored), 'case')} ({some(scored)}) have another time or size than when a "
            "fold was trained: unless they were only copied, it has not learned from them as they are now, and scores "
            "from before are of their former files."
        )


def _changed_labels(model: TrainedModel, now: LabelSet) -> str:
    """How labels mean something else now; empty also where the model's own cannot be read."""
    try:
        return LabelSet.from_dataset_json(read_json(model.folders.dataset_json)).changed_meaning(now)
    except TaskError:
        return ""
