"""A mirror whose disk is full: nothing is lost, nothing is written twice, and everybody is told where."""

from __future__ import annotations

import errno
import os
from contextlib import closing

import ledger_kit as kit
import pytest

from fedfsd.errors import NotReadyError
from fedfsd.ledger.entry import Incident
from fedfsd.ledger.entry import parse as parse_entry
from fedfsd.ledger.mirror import Mirror


@pytest.fixture
def room(monkeypatch):
    """The bytes that mirrors may still grow by, [None] without a limit."""
    left: list[int | None] = [None]
    write = os.pwrite

    def on_a_small_disk(descriptor: int, content: bytes, offset: int) -> int:
        if left[0] is None:
            return write(descriptor, content, offset)
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, content[: left[0]], offset)
        left[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", on_a_small_disk)
    return left


def incidents(folder) -> list[str]:
    with closing(kit.reopen(folder)) as ledger:
        entries = [parse_entry(ledger.content(seq), place="") for seq in range(ledger.state.size)]
    return [one.text for one in entries if isinstance(one, Incident)]


@pytest.mark.parametrize("again", ["same process", "new process"])
@pytest.mark.parametrize("bytes_left", [0, 50])
def test_a_command_that_is_typed_again_is_written_once(tmp_path, room, again, bytes_left):
    ledger = kit.create(tmp_path)
    room[0] = bytes_left
    for _ in range(3):
        with pytest.raises(NotReadyError) as refused:
            ledger.incident("other", "a long note")
        assert str(kit.mirror(tmp_path)) in str(refused.value)
        assert "in the ledger and not yet here" in str(refused.value)
        if again == "new process":
            ledger.close()
            ledger = kit.reopen(tmp_path)  # it can be read meanwhile
            assert ledger.state.size == 2
    with pytest.raises(NotReadyError, match="not yet here"):  # nothing else is written either
        ledger.incident("other", "another note")
    room[0] = None
    ledger.incident("other", "a long note")
    ledger.incident("other", "another note")
    ledger.incident("other", "another note")  # said twice
    ledger.close()
    assert incidents(tmp_path) == ["a long note", "another note", "another note"]
    with closing(kit.reopen(tmp_path)) as ledger:
        stored = [ledger.content(seq) for seq in range(ledger.state.size)]
    assert Mirror(kit.mirror(tmp_path)).lines() == stored


def test_a_round_waits_and_is_booked_once(tmp_path, room):
    plan = kit.plan_of()
    ledger = kit.ready(tmp_path, plan)
    room[0] = 0
    before = ledger.state.size
    for _ in range(3):
        with pytest.raises(NotReadyError, match="not yet here"):
            ledger.reserve(plan.hash, 1, kit.ARRAYS[1])
    assert ledger.state.size == before + 1
    room[0] = None
    booked = ledger.reserve(plan.hash, 1, kit.ARRAYS[1])
    assert ledger.state.size == before + 1
    assert booked.round == 1
    ledger.close()
