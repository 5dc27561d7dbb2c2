"""Whether the processor has a unit for half precision is known without torch, or said not to be."""

from __future__ import annotations

import sys

import pytest

from NNSegmentLib.machine import processor


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16 amx_tile\nbugs\t\t: none\n", True),
        ("flags\t\t: fpu avx512_bf16 amx_tile\n", False),
        ("Features\t: fp asimd bf16\n", False),
        (None, False),
    ],
    ids=["with AMX", "without", "of another make", "where nobody tells"],
)
def test_linux_tells_of_amx(tmp_path, monkeypatch, told, expected):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    if told is not None:
        processor.CPUINFO.write_text(told)

    assert processor.tells_amx() is expected


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells")
def test_where_torch_finds_amx_linux_tells_it():
    from NNSegmentLib.engine.devices import has_amx

    assert processor.tells_amx() or not has_amx()
