"""What `doctor` finds wrong with a Python."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from NNSegmentLib import doctor


def checks(tmp_path: Path) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine(tmp_path)}


@pytest.mark.parametrize(
    ("version", "ok"), [("2.2.2", False), ("2.6.0", True), ("2.9.1+cu128", False), ("2.10.0", True)]
)
def test_a_torch_outside_of_what_is_required_is_told(monkeypatch, tmp_path, version, ok):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)

    found = checks(tmp_path)

    assert found["torch"].ok == ok
    assert (found["torch"] in doctor.lacking(list(found.values()))) != ok


@pytest.mark.parametrize(
    ("version", "told"), [("2.6.0", True), ("2.8.0+cu128", True), ("2.10.0", False), ("3.0", False)]
)
def test_a_torch_that_weights_of_strangers_may_take_over_is_told_in_the_same_line(version, told):
    check = doctor.torch_check(version)

    assert check.ok
    assert ("CVE-2026-24747" in str(check)) == told
    assert "\n" not in str(check)


def test_a_torch_that_is_installed_but_cannot_be_loaded_is_told(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: wrong architecture\\nfor this machine')\n")
    for name in [
        name for name in sys.modules if name.split(".")[0] == "torch" or name.startswith("NNSegmentLib.engine")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)

    found = checks(tmp_path)

    assert not found["device"].ok
    assert found["device"].found == "PyTorch cannot be loaded (libtorch_cpu.so: wrong architecture)"


@pytest.mark.parametrize(("allowed", "letters", "warned"), [(False, 81, True), (False, 80, False), (True, 200, False)])
def test_a_workspace_too_deep_for_windows_is_told(monkeypatch, allowed, letters, warned):
    monkeypatch.setattr(doctor, "allows_long_paths", lambda: allowed)

    found = checks(Path("/" + "w" * (letters - 1)))

    assert ("workspace path" in found) == warned
    if warned:
        assert "has 81 letters" in found["workspace path"].found
        assert "nearer to the drive's root" in found["workspace path"].advice


def test_an_older_python_is_refused_in_one_sentence():
    code = "import runpy, sys; sys.version_info = (3, 10, 1); runpy.run_module('NNSegmentLib', run_name='__main__')"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stderr.startswith("nnsegment: Expected Python 3.11 or newer, found ")
