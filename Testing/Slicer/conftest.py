"""What the tests of the panel have in common."""

from __future__ import annotations

import pytest


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A workspace that is not there yet, of a user whose home is empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "workspace"
