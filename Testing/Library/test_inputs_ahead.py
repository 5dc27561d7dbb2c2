"""Inputs are made ahead of the network: in order, no more than memory should hold, and while torch loads."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from task_on_disk import PLAIN, noise

from NNSegmentLib.errors import ImageError, ModelError
from NNSegmentLib.image import write_image
from NNSegmentLib.predicting import files
from NNSegmentLib.predicting.ahead import KEPT_BYTES, InputsAhead
from NNSegmentLib.predicting.files import FileRequest, predict_files
from NNSegmentLib.task import Case

CASES = [Case(f"case{n}", (Path(f"case{n}.nii.gz"),)) for n in range(6)]
SMALL, LARGE = KEPT_BYTES // 100, KEPT_BYTES * 2
SOON_S = 20.0


class Maker:
    """Makes inputs of a size and lets tests wait until a number of them was begun."""

    def __init__(self, nbytes: int, failing: tuple[str, ...] = ()) -> None:
        self.nbytes, self.failing, self.begun = nbytes, failing, []
        self._begun = threading.Condition()

    def __call__(self, case: Case) -> SimpleNamespace:
        with self._begun:
            self.begun.append(case.id)
            self._begun.notify_all()
        if case.id in self.failing:
            raise ImageError(f"{case.id} is damaged")
        return SimpleNamespace(case=case, nbytes=self.nbytes)

    def has_begun(self, count: int, within_s: float = SOON_S) -> bool:
        with self._begun:
            return self._begun.wait_for(lambda: len(self.begun) >= count, within_s)


def test_small_inputs_are_all_made_before_the_first_is_taken_and_come_in_order():
    make = Maker(SMALL)
    with InputsAhead(CASES, make) as inputs:
        assert make.has_begun(len(CASES))
        assert [inputs.take().case.id for _ in CASES] == [case.id for case in CASES]
    assert make.begun == [case.id for case in CASES]


def test_of_large_inputs_one_is_made_ahead():
    make = Maker(LARGE)
    with InputsAhead(CASES, make) as inputs:
        assert make.has_begun(1) and not make.has_begun(2, within_s=0.2)
        for n, case in enumerate(CASES, start=1):
            assert inputs.take().case is case
            if n < len(CASES):
                assert make.has_begun(n + 1) and not make.has_begun(n + 2, within_s=0.05)


def test_a_case_that_cannot_be_read_says_so_in_its_turn():
    with InputsAhead(CASES, Maker(SMALL, failing=("case1", "case5"))) as inputs:
        assert inputs.take().case.id == "case0"
        with pytest.raises(ImageError, match="case1 is damaged"):
            inputs.take()
        assert [inputs.take().case.id for _ in range(3)] == ["case2", "case3", "case4"]
        with pytest.raises(ImageError, match="case5 is damaged"):
            inputs.take()


def test_a_case_is_begun_when_it_is_taken_before_its_thread_has_gone_on_to_it():
    inputs = InputsAhead(CASES[:1], Maker(SMALL))  # nothing is begun, as when the case before has just failed

    assert inputs.take().case.id == "case0"
    inputs.__exit__()


def test_nothing_more_is_read_when_the_work_ends_early():
    make = Maker(LARGE)
    with pytest.raises(ModelError), InputsAhead(CASES, make):
        assert make.has_begun(1)
        raise ModelError("The model is damaged.")
    assert make.begun == ["case0"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("inputs")]


def test_images_are_read_while_the_networks_load(tmp_path, monkeypatch):
    path = tmp_path / "case_0000.nii.gz"
    write_image(path, noise(1), PLAIN)
    read = threading.Event()
    monkeypatch.setattr(files, "read_case", lambda case, model: read.set())
    monkeypatch.setattr(files, "prepare_input", lambda *given: SimpleNamespace(nbytes=SMALL))
    model = SimpleNamespace(channels=("MRI",), parts=())

    def load():
        assert read.wait(SOON_S)
        raise ModelError("The checkpoint is damaged.")

    with pytest.raises(ModelError, match="checkpoint is damaged"):
        predict_files(model, load, [Case("case", (path,))], FileRequest(tmp_path / "out.nii.gz"))
