"""The bench, started once for all tests of this folder; they skip with a reason where it cannot start."""

from __future__ import annotations

import pytest
from bench import harness


@pytest.fixture(scope="session")
def started():
    reason = harness.why_not()
    if reason:
        pytest.skip(reason)
    return harness.start()


@pytest.fixture
def bench(started):
    """The harness on an empty scene; what a slot or an observer raised fails the test."""
    yield harness
    harness.close_scene()
