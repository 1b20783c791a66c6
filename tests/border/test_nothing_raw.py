"""Nothing raw crosses, seen from both ends inside TLS; with the gate switched off the same search matches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np
import operator_kit as kit
import pytest
from border import canary, crossing, recorder, session
from pki_kit import Federation

from fedfsd.border import border_pb2 as pb
from fedfsd.border.channel import caller
from fedfsd.coordinator.servicer import Servicer
from fedfsd.gate import gate
from fedfsd.ledger.ledger import Booked
from fedfsd.node import courier
from fedfsd.node.line import CoordinatorLine
from fedfsd.node.upload import Upload
from fedfsd.plan.plan import WITNESS, Arrays, Plan

TEXT = "Kestrel7Marlin4Ibis"
# A drive: (T, 2) coordinates in metres.
DRIVE = np.random.default_rng(11).uniform(1000, 60000, (12, 2)).cumsum(axis=0) % 60000 + 1
NEEDLES = canary.text(TEXT) | canary.track(DRIVE, "drive")
PLAN, OTHER = kit.plan(rounds=3, seed=1), kit.plan(rounds=3, seed=2)


@contextmanager
def border(folder: Path) -> Iterator[tuple[session.Side, CoordinatorLine]]:
    """A region at its coordinator over mutual TLS, a plan approved; both ends record in ``folder``/sink."""
    federation = Federation(folder / "pki")
    with (
        recorder.installed(folder / "sink"),
        session.opened(folder / TEXT) as side,
        federation.border(Servicer(side.hall, caller=caller, hold=0.0)) as address,
        federation.dial(address) as channel,
    ):
        side.offer(PLAN)
        side.approve(PLAN)
        yield side, CoordinatorLine(channel, count=lambda direction, size: None)


def round_of(side: session.Side, line: CoordinatorLine, train: Callable[[Plan], Arrays]) -> None:
    """One round whose update is what ``train`` makes; a refusal is sent like any other."""
    trainer = side.station.runner

    def trained(plan: Plan, round: int, arrays: Arrays):
        booked: Booked = side.station.gate.reserve(plan, round, arrays)
        return side.station.gate.release(train(plan), booked, plan)

    trainer.round = trained
    side.lay(PLAN, 1)
    work = courier.Courier(side.station, lambda: None)
    work._do(line, Upload(side.station, line, line.hello()), line.next())


def raw(plan: Plan) -> Arrays:
    """Rows of the data in a tensor of the right shape."""
    rows = np.zeros(kit.WITNESS_SIZE, np.float32)
    rows[: DRIVE.size] = DRIVE.reshape(-1)
    return {WITNESS: rows}


def failing(plan: Plan) -> Arrays:
    """A data path that fails with everything in its text."""
    raise OSError(f"/data/{TEXT}.parquet: row 3: x = {DRIVE[3, 0]}, y = {DRIVE[3, 1]}")


def honest(plan: Plan) -> Arrays:
    """Noise."""
    return session.update(plan, kit.REGION, 1)


@pytest.mark.parametrize(
    ("train", "outcome"), [(honest, "received"), (raw, "update-norm"), (failing, "region_unavailable")]
)
def test_nothing_raw_crosses(tmp_path: Path, train: Callable[[Plan], Arrays], outcome: str):
    with border(tmp_path) as (side, line):
        round_of(side, line, train)
        assert side.station.tally.rounds[outcome] == 1
    assert {record.side for record in recorder.read(tmp_path / "sink")} == {"client", "server"}
    assert crossing.found(tmp_path / "sink", NEEDLES) == []


def test_the_search_matches_when_the_gate_is_off(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(gate.Gate, "_demand_usual", lambda *_: None)
    with border(tmp_path) as (side, line), suppress(grpc.RpcError):  # the coordinator's own gate is on
        round_of(side, line, raw)
    hits = crossing.found(tmp_path / "sink", NEEDLES)
    assert {hit.rpartition(": ")[2].split()[0] for hit in hits} == {"client", "server"}
    assert any("drive by row as float32<" in hit for hit in hits)


def test_the_search_matches_when_a_failure_is_told_in_words(tmp_path: Path, monkeypatch):
    """A gate that sent texts instead of codes would be seen."""
    plain = CoordinatorLine.refuse

    def telling(line: CoordinatorLine, plan: bytes, round: int, code: str) -> None:
        path = f"/data/{TEXT}.parquet"
        with pytest.raises(grpc.RpcError):
            line._stub.Beat(pb.Ready(version=1), timeout=5, metadata=(("x-error", path),))
        plain(line, plan, round, code)

    monkeypatch.setattr(CoordinatorLine, "refuse", telling)
    with border(tmp_path) as (side, line):
        round_of(side, line, failing)
    assert any(f"{TEXT} as utf-8" in hit for hit in crossing.found(tmp_path / "sink", NEEDLES))
