"""One tiny task with trained models for all tests that look at what the journey leaves."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    from tiny_task import go_through_the_journey

    return go_through_the_journey(tmp_path_factory.mktemp("tiny"))
