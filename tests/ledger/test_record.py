"""The record's promises: one reservation a round, one release, the same bytes again, nothing torn."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfsd import canonical
from fedfsd.errors import BudgetError, FedfsdError, NotReadyError
from fedfsd.ledger.record import OUTBOX, RECORD, Booked, Record

PLAN, OTHER = "a" * 64, "b" * 64
ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def record(tmp_path) -> Record:
    return Record(tmp_path)


def lines(record: Record) -> list[dict]:
    return [json.loads(line) for line in (record.folder / RECORD).read_bytes().splitlines()]


def test_a_round_is_booked_once(record):
    first = record.reserve(PLAN, 1, ONE)
    assert record.reserve(PLAN, 1, ONE) == first
    assert len(lines(record)) == 1
    with pytest.raises(BudgetError):
        record.reserve(PLAN, 1, TWO)
    assert len(lines(record)) == 1


def test_rounds_and_plans_are_booked_apart(record):
    for plan in (PLAN, OTHER):
        for round in (1, 2):
            record.reserve(plan, round, ONE)
    assert len(lines(record)) == 4


def test_a_release_needs_its_reservation(record):
    with pytest.raises(BudgetError):
        record.release(b"update", Booked(PLAN, 1, ONE))
    record.reserve(PLAN, 1, ONE)
    for other in (Booked(PLAN, 2, ONE), Booked(OTHER, 1, ONE)):
        with pytest.raises(BudgetError):
            record.release(b"update", other)
    assert list((record.folder / OUTBOX).iterdir()) == []


@pytest.mark.xfail(strict=True, reason="release and released do not look at the arrays of the reservation")
def test_a_release_belongs_to_the_arrays_that_were_booked(record):
    record.reserve(PLAN, 1, ONE)
    with pytest.raises(BudgetError):
        record.release(b"update", Booked(PLAN, 1, TWO))


def test_one_release_a_round(record):
    booked = record.reserve(PLAN, 1, ONE)
    assert record.released(booked) is None
    record.release(b"update", booked)
    for content in (b"update", b"other"):
        with pytest.raises(BudgetError):
            record.release(content, booked)
    assert record.released(booked).content == b"update"


def test_the_same_bytes_are_sent_again(tmp_path):
    record = Record(tmp_path)
    released = record.release(b"update", record.reserve(PLAN, 1, ONE))
    assert released.sha256 == canonical.sha256(b"update")
    before = lines(record)
    assert released.entry == len(before) - 1
    again = Record(tmp_path)  # another process, later
    assert again.released(again.reserve(PLAN, 1, ONE)) == released
    assert lines(again) == before


def test_rounds_go_forward(record):
    """After the last round its key is gone: an earlier one would make a new key."""
    early = record.reserve(PLAN, 1, ONE)
    record.release(b"2", record.reserve(PLAN, 2, ONE))
    with pytest.raises(BudgetError):
        record.reserve(early.plan_hash, early.round, early.arrays_sha256)
    with pytest.raises(BudgetError):
        record.reserve(PLAN, 1, TWO)
    record.reserve(OTHER, 1, ONE)
    record.reserve(PLAN, 3, ONE)


def test_old_releases_leave_the_outbox_but_not_those_of_other_plans(record):
    record.release(b"other", record.reserve(OTHER, 7, ONE))
    for round in (1, 2, 3):
        record.release(b"%d" % round, record.reserve(PLAN, round, ONE))
    assert sorted(path.name for path in (record.folder / OUTBOX).iterdir()) == [f"{PLAN}.3", f"{OTHER}.7"]


@pytest.mark.parametrize("tamper", ["change", "shorten", "lengthen", "empty", "delete"])
def test_tampering_with_the_outbox_is_noticed(record, tamper):
    booked = record.reserve(PLAN, 1, ONE)
    record.release(b"update", booked)
    (path,) = (record.folder / OUTBOX).iterdir()
    if tamper == "delete":
        path.unlink()
    else:
        path.write_bytes(
            {"change": b"uPdate", "shorten": b"updat", "lengthen": b"update\n", "empty": b""}[tamper]
        )
    with pytest.raises(NotReadyError) as caught:
        record.released(booked)
    assert "update" not in str(caught.value).lower()
    with pytest.raises(BudgetError):  # and no second release mends it
        record.release(b"update", booked)


def test_an_empty_release_is_no_missing_file(record):
    """The digest of nothing must not pass for a file that is gone."""
    booked = record.reserve(PLAN, 1, ONE)
    record.release(b"", booked)
    assert record.released(booked).content == b""


@pytest.mark.xfail(strict=True, reason="a line that is not JSON raises JSONDecodeError")
@pytest.mark.parametrize(
    "damage", [b"{\n", b"null\n", b"[]\n", b'{"entry":"reserve"}\n', b"\xff\xfe\n", b"\0\0\n"]
)
def test_a_damaged_record_is_refused_with_one_error(record, damage):
    record.reserve(PLAN, 1, ONE)
    path = record.folder / RECORD
    path.write_bytes(damage + path.read_bytes())
    with pytest.raises(FedfsdError):
        record.reserve(PLAN, 2, ONE)
    assert path.read_bytes().startswith(damage)


MOVES = st.lists(
    st.tuples(st.sampled_from(["reserve", "release"]), st.integers(1, 4), st.sampled_from([ONE, TWO])),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(MOVES)
def test_any_order_of_calls_keeps_the_promises(tmp_path_factory, moves):
    record = Record(tmp_path_factory.mktemp("record"))
    booked: dict[int, str] = {}
    for move, round, arrays in moves:
        try:
            if move == "reserve":
                record.reserve(PLAN, round, arrays)
                assert booked.setdefault(round, arrays) == arrays
            elif round in booked:
                record.release(b"%d" % round, Booked(PLAN, round, booked[round]))
        except BudgetError:
            continue
    if not (record.folder / RECORD).exists():
        return
    found = lines(record)
    keys = [(entry["entry"], entry["round"]) for entry in found]
    assert len(keys) == len(set(keys))
    for position, (kind, round) in enumerate(keys):
        assert kind == "reserve" or ("reserve", round) in keys[:position]


RACER = """
import sys
from pathlib import Path
from fedfsd.errors import BudgetError
from fedfsd.ledger.record import Record
record = Record(Path(sys.argv[1]))
for round in range(1, 201):
    try:
        record.reserve("a" * 64, round, sys.argv[2] * 64)
        print(round)
    except BudgetError:
        pass
"""


def test_two_processes_racing_for_200_rounds(tmp_path):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), arrays], stdout=subprocess.PIPE, text=True
        )
        for arrays in ("1", "2")
    ]
    won = [{int(line) for line in racer.communicate(timeout=120)[0].split()} for racer in racers]
    assert all(racer.returncode == 0 for racer in racers)
    assert not won[0] & won[1]
    assert won[0] | won[1] == set(range(1, 201))
    by_round = {entry["round"]: entry["arrays"] for entry in lines(Record(tmp_path))}
    assert len(lines(Record(tmp_path))) == len(by_round) == 200
    for number, arrays in ((0, ONE), (1, TWO)):
        assert all(by_round[round] == arrays for round in won[number])
