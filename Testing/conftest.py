"""Paths of the shared reference material, the geometries every test of scene and files uses, and the bench."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from NNSegmentLib.geometry import Geometry

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"reference material {name} is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return _shared("data")


@pytest.fixture(scope="session")
def peer() -> Path:
    """nnU-Net v2's own outputs."""
    return _shared("peer")


def rotation(z_degrees: float, x_degrees: float) -> np.ndarray:
    z, x = np.deg2rad([z_degrees, x_degrees])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    return about_z @ about_x


def geometry(shape, spacing_mm, direction=None, origin_mm=(-12.5, 31.0, 7.25)) -> Geometry:
    rows = np.eye(3) if direction is None else np.asarray(direction)
    return Geometry(tuple(shape), tuple(spacing_mm), tuple(origin_mm), tuple(map(tuple, rows.tolist())))


GEOMETRIES = {
    "plain": geometry((10, 12, 14), (1.0, 1.0, 1.0)),
    "anisotropic": geometry((6, 20, 18), (5.0, 0.7, 0.8)),
    "oblique": geometry((10, 12, 14), (1.5, 0.9, 1.1), rotation(25, -12)),
    "left_handed": geometry((10, 12, 14), (2.0, 1.0, 1.0), np.diag([1.0, 1.0, -1.0])),
    "oblique_left_handed": geometry((8, 15, 9), (3.0, 0.8, 0.8), rotation(-40, 18) @ np.diag([-1.0, 1.0, 1.0])),
}


@pytest.fixture(params=list(GEOMETRIES), ids=list(GEOMETRIES))
def any_geometry(request) -> Geometry:
    return GEOMETRIES[request.param]


@pytest.fixture(scope="session")
def started():
    """The bench, started once for all tests; they skip with a reason where it cannot start."""
    from bench import harness

    reason = harness.why_not()
    if reason:
        pytest.skip(reason)
    return harness.start()


@pytest.fixture
def bench(started):
    """The harness on an empty scene; what a slot or an observer raised fails the test."""
    from bench import harness

    yield harness
    harness.close_scene()
