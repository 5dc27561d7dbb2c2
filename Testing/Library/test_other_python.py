"""Another Python is asked what it lacks, by its own `doctor`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from NNSegmentLib.errors import SettingsError
from NNSegmentLib.other_python import Look

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")


@pytest.fixture
def program(tmp_path):
    """Makes a program of the lines of a shell script."""

    def make(line: str) -> Path:
        path = tmp_path / "bin of another" / "python"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
        return path

    return make


def answer(look: Look) -> str:
    while look.is_running():
        time.sleep(0.02)
    return look.device()


def test_a_python_that_has_everything_tells_its_device(program):
    assert " cores" in answer(Look(program(f'exec {sys.executable} "$@"')))


def test_a_python_without_packages_tells_how_to_install_them(program):
    python = program(f'exec {sys.executable} -S "$@"')

    with pytest.raises(SettingsError, match=r"is not ready \(numpy: not installed .* and 7 more\); run: ") as refused:
        answer(Look(python))

    assert str(refused.value).endswith(
        f"{python} -m pip install numpy scipy simpleitk nibabel tifffile torch batchgenerators psutil matplotlib tqdm"
    )


def test_a_torch_that_cannot_be_loaded_is_told(program, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: wrong architecture\\nfor this machine')\n")
    python = program(f'PYTHONPATH={tmp_path}:"$PYTHONPATH" exec {sys.executable} "$@"')

    with pytest.raises(SettingsError, match=r"cannot be loaded \(libtorch_cpu.so: wrong architecture\)"):
        answer(Look(python))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("echo 'nnsegment: Expected Python 3.11 or newer, found 3.9.18; use a newer one.' >&2; exit 1", "found 3.9.18"),
        ('echo \'{"error": "no"}\'', "said: nothing"),
        ("echo '{\"checks\": [3]}'; echo 'a line\nits last words.' >&2", "said: its last words. "),
    ],
)
def test_a_program_that_answers_something_else_is_quoted(program, line, told):
    python = program(line)

    with pytest.raises(SettingsError, match=f"Expected a Python 3.11 or newer that can train; {python} ") as refused:
        answer(Look(python))

    assert told in str(refused.value)


def test_a_program_that_never_answers_is_ended(program):
    look = Look(program("sleep 300"), patience_s=0.1)

    with pytest.raises(SettingsError, match="said: nothing"):
        answer(look)

    assert look._process.returncode is not None


def test_what_is_no_program_is_refused_at_once(program, tmp_path):
    data = program("")
    data.chmod(0o644)

    with pytest.raises(SettingsError, match="found none at"):
        Look(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="found none at"):
        Look(tmp_path)
    with pytest.raises(SettingsError, match="cannot be started"):
        Look(data)


def test_a_python_in_slicer_is_looked_at_without_slicers_libraries(program, tmp_path):
    python = program(f'env > "{tmp_path}/seen"')
    look = Look(python, environment={**os.environ, "SLICER_HOME": "/slicer", "PYTHONHOME": "/slicer/python"})

    with pytest.raises(SettingsError):
        answer(look)

    assert "PYTHONHOME" not in (tmp_path / "seen").read_text()
