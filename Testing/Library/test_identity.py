"""A Mac is recognised though its name changes with the network; other computers go by their names."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from NNSegmentLib.machine import identity
from NNSegmentLib.machine.locks import LOCK, holder
from NNSegmentLib.machine.processes import ProcessIdentity
from NNSegmentLib.records import to_json


@pytest.fixture
def computer(monkeypatch):
    """Makes this computer one with a system, the identity of a board, and a name."""

    def be(system: str, known: str, name: str) -> None:
        identity.computer_mark.cache_clear()
        monkeypatch.setattr(identity, "SYSTEM", system)
        monkeypatch.setattr(identity, "_mac_id", lambda: known)
        monkeypatch.setattr(identity.platform, "node", lambda: name)

    yield be
    identity.computer_mark.cache_clear()


def here() -> tuple[str, str]:
    return identity.host_name(), identity.computer_mark()


def test_a_mac_is_the_same_in_every_network(computer):
    computer("darwin", "8A1C", "macbook.lan")
    written = here()
    computer("darwin", "8A1C", "macbook.local")

    assert identity.is_this_computer(*written)
    assert not identity.is_this_computer("macbook.local", "of another mac")


@pytest.mark.parametrize("system", ["linux", "win32"])
def test_elsewhere_the_name_decides_since_disks_are_cloned_with_all_that_they_hold(computer, system):
    computer(system, "", "node1")
    written = here()

    assert identity.is_this_computer(*written)
    computer(system, "", "node2")
    assert not identity.is_this_computer(*written)


def test_the_name_decides_where_a_mark_is_missing(computer):
    computer("linux", "", "node1")
    assert identity.computer_mark() == ""
    assert identity.is_this_computer("node1", "with a mark")
    assert not identity.is_this_computer("node2", "")

    computer("darwin", "8A1C", "macbook.lan")
    assert identity.is_this_computer("macbook.lan", "")
    assert not identity.is_this_computer("macbook.local", "")


def test_a_lock_follows_its_mac_into_another_network_and_those_of_earlier_versions_are_read(computer, tmp_path):
    ended = replace(ProcessIdentity.own(), started="long ago", host="macbook.lan")
    computer("darwin", "8A1C", "macbook.lan")
    old = to_json(replace(ended, computer=""))
    del old["computer"]
    computer("darwin", "8A1C", "macbook.local")
    (tmp_path / LOCK).write_text(json.dumps(old))

    assert holder(tmp_path).host == "macbook.lan"
    (tmp_path / LOCK).write_text(json.dumps(to_json(replace(ended, computer=identity.computer_mark()))))
    assert holder(tmp_path) is None


def test_the_mark_does_not_give_the_identity_away_and_is_asked_for_once(computer, monkeypatch):
    computer("darwin", "8A1C", "macbook.lan")
    mark = identity.computer_mark()
    monkeypatch.setattr(identity, "_mac_id", lambda: pytest.fail("a process each time"))

    assert "8A1C" not in mark
    assert identity.computer_mark() == mark


def test_a_mac_tells_its_identity():
    told = '+-o Mac14,2\n    {\n      "IOPlatformSerialNumber" = "X"\n      "IOPlatformUUID" = "8A1C-22"\n    }\n'

    def fails(*_words, **_options):
        raise FileNotFoundError(2, "No such file", "ioreg")

    assert identity._mac_id(lambda words, **_options: SimpleNamespace(stdout=told)) == "8A1C-22"
    assert identity._mac_id(lambda words, **_options: SimpleNamespace(stdout="")) == ""
    assert identity._mac_id(fails) == ""
