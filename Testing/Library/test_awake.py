"""While a training runs the computer is asked to stay awake, and is let alone afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

from NNSegmentLib.machine import awake


class Kernel:
    """kernel32 that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked = []

    def SetThreadExecutionState(self, flags: int) -> int:
        self.asked.append(flags)
        return 0  # a failure


def test_windows_stays_awake_until_the_work_ends_in_whatever_way():
    kernel = Kernel()

    with pytest.raises(KeyboardInterrupt), awake._awake_windows(kernel):
        assert kernel.asked == [0x80000001]
        raise KeyboardInterrupt

    assert kernel.asked == [0x80000001, 0x80000000]


def test_macos_has_a_helper_as_long_as_the_work_goes_on(monkeypatch):
    started, popen = [], subprocess.Popen

    def remembered(words, **options):
        started.append(popen(words, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remembered)
    sleeper = (sys.executable, "-c", "import time; time.sleep(60)")

    with awake._awake_macos(sleeper):
        assert started[0].poll() is None

    assert started[0].returncode is not None


@pytest.mark.parametrize("system", ["darwin", "linux"])
def test_work_goes_on_where_the_courtesy_cannot_be_had(monkeypatch, system):
    def missing(*_words, **_options):
        raise FileNotFoundError(2, "No such file", "caffeinate")

    monkeypatch.setattr(awake, "SYSTEM", system)
    monkeypatch.setattr(subprocess, "Popen", missing)
    done = []

    with awake.kept_awake():
        done.append(True)

    assert done
