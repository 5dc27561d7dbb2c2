"""The verbs as the console calls them, with as few words as possible."""

from __future__ import annotations

from pathlib import Path

import pytest

import NNSegmentLib as nns
from NNSegmentLib.budget import default_settings
from NNSegmentLib.sample import make_sample_task
from NNSegmentLib.training_setup import training_request


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A workspace with the sample task converted and planned."""
    folder = tmp_path_factory.mktemp("python")
    task = nns.convert(make_sample_task(folder / "source", n_cases=2, n_test=0), folder, id=7, name="Sample")
    nns.plan(task, preset="small")
    return folder


def test_without_settings_a_run_gets_those_that_fit_its_plan(workspace):
    request = training_request(7, "2d", 0, workspace)

    assert request.settings == default_settings(request.plan)
    assert request.settings.time_s is None
