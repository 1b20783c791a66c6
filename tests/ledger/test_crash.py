"""A crash at any moment: the record may count too much, never too little."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from fedfsd import canonical
from fedfsd.errors import BudgetError, NotReadyError
from fedfsd.ledger import record as record_module
from fedfsd.ledger.record import OUTBOX, RECORD, Record

PLAN = "a" * 64


def arrays(round: int) -> str:
    return canonical.sha256(b"arrays%d" % round)


def content(round: int) -> bytes:
    return b"update %d " % round * 40


def walk(record: Record, *, rounds: int = 3) -> list[bytes]:
    """What a region does: reserve, train, release, send; returns what is sent."""
    sent = []
    for round in range(1, rounds + 1):
        booked = record.reserve(PLAN, round, arrays(round))
        released = record.released(booked) or record.release(content(round), booked)
        sent.append(released.content)
    return sent


def check(record: Record, sent: int) -> None:
    """Every release has its reservation before it; what was sent is released; nothing is booked twice."""
    raw = (record.folder / RECORD).read_bytes() if (record.folder / RECORD).exists() else b""
    entries = [json.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]
    keys = [(entry["entry"], entry["round"]) for entry in entries]
    assert len(keys) == len(set(keys))
    for position, (kind, round) in enumerate(keys):
        assert kind == "reserve" or ("reserve", round) in keys[:position]
    assert all(("release", round) in keys for round in range(1, sent + 1))


def resume(folder, *, rounds: int = 3) -> None:
    """After the crash: booked rounds keep their arrays, and the walk goes on to its end."""
    entries = (folder / RECORD).read_bytes() if (folder / RECORD).exists() else b""
    booked = [
        entry["round"]
        for entry in map(json.loads, entries[: entries.rfind(b"\n") + 1].splitlines())
        if entry["entry"] == "reserve"
    ]
    record = Record(folder)
    for round in booked:
        with pytest.raises(BudgetError):
            record.reserve(PLAN, round, "f" * 64)
    first = max(1, len(booked))
    for round in range(first, rounds + 1):
        again = record.reserve(PLAN, round, arrays(round))
        released = record.released(again) or record.release(content(round), again)
        assert released.content == content(round)
    check(record, sent=rounds if first == 1 else 0)
    final = [json.loads(line)["round"] for line in (folder / RECORD).read_bytes().splitlines()]
    assert sorted(final) == sorted([*range(1, rounds + 1)] * 2)


def test_a_crash_at_every_write(tmp_path, monkeypatch):
    """The folder as it stands before and after each fsync, and before each write, is one to wake up in."""
    live = tmp_path / "live"
    states = []

    def snapshot() -> None:
        states.append(tmp_path / f"state{len(states)}")
        shutil.copytree(live, states[-1])

    fsync, append = os.fsync, record_module._append

    def watched_fsync(descriptor: int) -> None:
        snapshot()
        fsync(descriptor)
        snapshot()

    def watched_append(file, entry) -> None:
        snapshot()
        append(file, entry)

    monkeypatch.setattr(record_module.os, "fsync", watched_fsync)
    monkeypatch.setattr(record_module, "_append", watched_append)
    assert walk(Record(live)) == [content(round) for round in (1, 2, 3)]
    monkeypatch.undo()
    assert len(states) == 3 * 8
    for state in states:
        check(Record(state), sent=0)
        resume(state)


def test_a_record_cut_at_every_byte(tmp_path, monkeypatch):
    """A torn line was never acknowledged: it is as if the call had not been made."""
    monkeypatch.setattr(record_module.os, "fsync", lambda _: None)  # thousands of them would take a minute
    live = Record(tmp_path / "live")
    walk(live, rounds=2)
    raw = (live.folder / RECORD).read_bytes()
    for cut in range(len(raw) + 1):
        folder = tmp_path / str(cut)
        (folder / OUTBOX).mkdir(parents=True)
        (folder / RECORD).write_bytes(raw[:cut])
        # The outbox is written first: the bytes of the last release on record, and of one not yet on it.
        done = raw[: raw.rfind(b"\n", 0, cut) + 1].count(b'"release"')
        for round in {done, 2} - {0}:
            (folder / OUTBOX / f"{PLAN}.{round}").write_bytes(content(round))
        resume(folder, rounds=2)


@pytest.mark.parametrize(
    "tail", [b"\0" * 40, b'{"entry":"release"', b"\xff", b'{"entry":"reserve","plan":"' + b"a" * 64]
)
def test_whatever_follows_the_last_line_end_is_dropped(tmp_path, tail):
    record = Record(tmp_path)
    booked = record.reserve(PLAN, 1, arrays(1))
    with (tmp_path / RECORD).open("ab") as file:
        file.write(tail)
    assert record.released(booked) is None
    record.release(content(1), booked)
    assert [json.loads(line)["entry"] for line in (tmp_path / RECORD).read_bytes().splitlines()] == [
        "reserve",
        "release",
    ]


@pytest.mark.parametrize("failing", range(3))
def test_a_full_disk_releases_nothing(tmp_path, monkeypatch, failing):
    """fsync fails at the reservation, the outbox or the entry: nothing may be sent, and later it goes on."""
    calls = iter(range(10))
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if next(calls) == failing:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(record_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        walk(Record(tmp_path), rounds=1)
    monkeypatch.undo()
    assert walk(Record(tmp_path), rounds=1) == [content(1)]
    check(Record(tmp_path), sent=1)


def test_a_release_whose_bytes_were_lost_is_not_sent(tmp_path):
    """The entry is on disk, the outbox file is not (a power cut): better silent than other bytes."""
    record = Record(tmp_path)
    booked = record.reserve(PLAN, 1, arrays(1))
    record.release(content(1), booked)
    (tmp_path / OUTBOX / f"{PLAN}.1").write_bytes(content(1)[:-5])
    with pytest.raises(NotReadyError):
        Record(tmp_path).released(booked)


CROSSING = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from ledger.test_crash import PLAN, arrays, content
from fedfsd.ledger.record import Record
record = Record(Path(sys.argv[1]))
with open(sys.argv[2], "ab", buffering=0) as border:
    for round in range(int(sys.argv[4]), 10**6):
        booked = record.reserve(PLAN, round, arrays(round))
        released = record.released(booked) or record.release(content(round), booked)
        border.write(b"%d %s\\n" % (round, released.sha256.encode()))
        print(round, flush=True)
"""


@pytest.mark.slow
def test_killed_twenty_times_nothing_crosses_uncovered(tmp_path):
    folder, border, moment = tmp_path / "region", tmp_path / "border", random.Random(7)
    border.touch()
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for _ in range(20):
        next_round = int([b"0", b"", *border.read_bytes().split()][-2]) + 1
        process = subprocess.Popen(
            [sys.executable, "-c", CROSSING, str(folder), str(border), tests, str(next_round)],
            stdout=subprocess.PIPE,
        )
        for _ in range(moment.randint(1, 6)):
            assert process.stdout.readline()
        time.sleep(moment.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    entries = [json.loads(line) for line in (folder / RECORD).read_bytes().split(b"\n")[:-1] if line]
    crossings = border.read_bytes().decode().split("\n")[:-1]
    assert len(crossings) >= 20
    released = {entry["round"]: entry["sha256"] for entry in entries if entry["entry"] == "release"}
    for crossing in crossings:
        round, sha256 = crossing.split()
        assert released[int(round)] == sha256
    check(Record(folder), sent=int(crossings[-1].split()[0]))
