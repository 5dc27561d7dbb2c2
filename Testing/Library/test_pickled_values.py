"""Pickles of numbers and text are read; everything that could run, escape or fill the memory is refused."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from NNSegmentLib.errors import ModelError
from NNSegmentLib.pickled_values import Named, PickledArray, read_pickle

LIMIT = 1 << 20
NUMPY_CORE = np.array(0).__reduce__()[0].__module__.removesuffix(".multiarray")


def plain(value: object) -> object:
    """Arrays as lists, at any depth."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, PickledArray)):
        return [plain(item) for item in value]
    return value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        {0: {"mean": np.float64(1.5), "sd": np.float32(0.25), "n": np.int64(-3), "flag": np.bool_(True)}},
        OrderedDict([(1, "CT"), (2, (3, None, 2.5, b"raw"))]),
        [np.arange(6).reshape(2, 3), np.arange(6.0).reshape(2, 3, order="F").T, np.array([[1, 2], [3, 4]], ">i4")],
        [np.array(["ab", "c"]), np.array([(1, 2), None], dtype=object), np.array(["x", "y"])[0], np.zeros((0, 3))],
        {"all": {1, 2}, "fixed": frozenset([3]), "big": 10**40, "nested": [[[]]]},
    ],
    ids=["numbers", "ordered", "arrays", "texts and objects", "containers"],
)
def test_what_nnunet_stores_comes_back_as_plain_values(tmp_path, value, protocol):
    (tmp_path / "plans.pkl").write_bytes(pickle.dumps(value, protocol))

    found = plain(read_pickle(tmp_path / "plans.pkl", LIMIT))

    expected = [v.tolist() if isinstance(v, np.ndarray) else v for v in value] if isinstance(value, list) else value
    assert found == expected


def test_named_things_stand_for_themselves(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([os.getcwd, 1], 2))
    module = os.getcwd.__module__

    name, one = read_pickle(tmp_path / "a.pkl", LIMIT, {(module, "getcwd")})

    assert isinstance(name, Named)
    assert (name.name, one) == ((module, "getcwd"), 1)
    with pytest.raises(pickle.UnpicklingError):
        name()


class Runs:
    """Unpickling one of these leaves a file behind."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


DTYPE = named("numpy", "dtype") + b"(S'f8'\ntR"
EMPTY = named(f"{NUMPY_CORE}.multiarray", "_reconstruct") + b")R"
HOSTILE = {
    "a shell": named("os", "system") + b"(S'touch ran'\ntR.",
    "a builtin": named("builtins", "eval") + b"(S'1'\ntR.",
    "an attribute of a module": named("numpy", "load") + b"(S'ran'\ntR.",
    "a dotted way out": b"\x80\x04\x8c\x05numpy\x8c\x0bdtype.__new__\x93.",
    "a name called as class": named("collections", "OrderedDict") + b")\x81.",
    "an old instance": b"(ios\nsystem\n.",
    "an extension": b"\x82\x01.",
    "an object elsewhere": b"Pelsewhere\n.",
    "a changed array": EMPTY + b"N}S'_rows'\nI1\ns\x86b.",
    "a changed name": named("numpy", "dtype") + b"N}S'name'\nI1\ns\x86b.",
    "a grown array": EMPTY + b"(I1\nI2\ne.",
    "an array with entries": EMPTY + b"I0\nI1\ns.",
    "an array larger than its numbers": EMPTY + b"(I1\n(I1000000000\nI1000000000\nt" + DTYPE + b"I00\nS'x'\ntb.",
    "an array of negative size": EMPTY + b"(I1\n(I-1\nt" + DTYPE + b"I00\nS'12345678'\ntb.",
    "a number of no type": named(f"{NUMPY_CORE}.multiarray", "scalar") + b"(I1\nS'x'\ntR.",
    "a number of objects": named(f"{NUMPY_CORE}.multiarray", "scalar")
    + named("numpy", "dtype")
    + b"(S'O8'\ntRS'x'\n\x86R.",
    "a record type": named("numpy", "dtype") + b"(S'V8'\ntR.",
    "a type of a huge text": named("numpy", "dtype") + b"(S'U999999999'\ntR.",
    "a place beyond the memory": b"\x80\x02K\x01r\xff\xff\xff\xff.",
    "a size beyond the file": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "text beyond the file": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b".",
    "a deep nest": b"(" * 100_000 + b"t" * 100_000 + b")R.",
    "cut off": pickle.dumps([1, 2, 3])[:-3],
    "nothing": b"",
    "text": b"not a pickle",
    "another protocol": b"\x80\xff.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_damaged_files_are_refused_in_one_sentence(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plans.pkl").write_bytes(HOSTILE[name])

    with pytest.raises(ModelError) as refused:
        read_pickle(tmp_path / "plans.pkl", LIMIT)

    assert "\n" not in str(refused.value)
    assert "plans.pkl" in str(refused.value)
    assert [p.name for p in tmp_path.iterdir()] == ["plans.pkl"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: {x: 1}, lambda x: [np.zeros(2), {"a": (x,)}], lambda x: {1: x}]
)
def test_code_at_any_place_does_not_run(tmp_path, protocol, wrap):
    (tmp_path / "plans.pkl").write_bytes(pickle.dumps(wrap(Runs(tmp_path / "ran")), protocol))

    with pytest.raises(ModelError, match="source you trust"):
        read_pickle(tmp_path / "plans.pkl", LIMIT)

    assert not (tmp_path / "ran").exists()


def test_missing_and_oversized_files_are_refused(tmp_path):
    with pytest.raises(ModelError, match="found nothing there"):
        read_pickle(tmp_path / "plans.pkl", LIMIT)
    shutil.copyfile(__file__, tmp_path / "plans.pkl")
    with pytest.raises(ModelError, match="too large"):
        read_pickle(tmp_path / "plans.pkl", 10)
