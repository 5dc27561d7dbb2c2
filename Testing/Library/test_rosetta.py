"""A Python for both processors of Macs is started as Apple's by an Intel Slicer, and nothing else is changed."""

from __future__ import annotations

import struct
import subprocess
from types import SimpleNamespace

import pytest

from NNSegmentLib.machine import rosetta
from NNSegmentLib.machine.launch import command

INTEL, APPLE = 0x01000007, 0x0100000C
NATIVE = ("/usr/bin/arch", "-arm64")


@pytest.fixture
def on_a_mac(monkeypatch):
    """Makes this a process on a Mac to which sysctl says so much."""

    def tell(text: str) -> None:
        rosetta.is_translated.cache_clear()
        monkeypatch.setattr(rosetta, "SYSTEM", "darwin")
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=text))

    yield tell
    rosetta.is_translated.cache_clear()


def universal(*kinds: int) -> bytes:
    return struct.pack(">II", 0xCAFEBABE, len(kinds)) + b"".join(struct.pack(">I16x", kind) for kind in kinds)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (universal(INTEL, APPLE), NATIVE),
        (universal(INTEL), ()),
        (struct.pack("<II", 0xFEEDFACF, APPLE), ()),  # Apple's only: it has no choice
        (struct.pack(">II", 0xCAFEBABE, 61), ()),  # a Java class
        (universal(INTEL, APPLE)[:30], ()),
        (b"", ()),
    ],
)
def test_a_program_for_both_is_started_as_apples(tmp_path, on_a_mac, content, words):
    python = tmp_path / "python3"
    python.write_bytes(content)
    on_a_mac("1\n")

    assert command(python, ("doctor",)) == (*words, str(python), "-m", "NNSegmentLib", "doctor")
    on_a_mac("0\n")
    assert command(python, ("doctor",)) == (str(python), "-m", "NNSegmentLib", "doctor")


def test_elsewhere_nobody_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(rosetta, "SYSTEM", "linux")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked"))
    rosetta.is_translated.cache_clear()

    assert rosetta.natively(tmp_path / "python3") == ()
