"""Peers that ask the same, or something new, without end: neither memory nor disk grows with it."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import operator_kit
import pytest
from border import session
from border.loopback import connect
from node import station_kit as kit
from node.coordinator_fake import Coordinator, Direct

from fedfsd.border import border_pb2 as pb
from fedfsd.border import rpc
from fedfsd.ledger import ledger as ledgers
from fedfsd.node import proposal
from fedfsd.node.line import CoordinatorLine
from fedfsd.node.proposal import Proposals

PLAN = operator_kit.plan()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def as_it_is(method: str, content: bytes) -> bytes:
    return content


@pytest.fixture
def region(tmp_path) -> tuple[Path, Coordinator]:
    (tmp_path / "hub").mkdir()
    return kit.folder(tmp_path), Coordinator(tmp_path / "hub")


def test_rounds_of_unknown_plans_do_not_fill_the_ledger(region, monkeypatch):
    monkeypatch.setattr(ledgers, "MAX_STRANGE_REFUSALS", 5)
    folder, hub = region
    with kit.working(folder, hub) as made:
        for count in range(1, 21):
            hub.ask(PLAN, 1, kit.ARRAYS, {"plan": os.urandom(32)})
            hub.wait(lambda count=count: len(hub.refusals) == count)
            hub.tasks.clear()
        assert made.tally.refusals == {"plan": 20}
    assert len(kit.entries(folder, "refuse")) == 5
    assert kit.log(folder).count("round_refused") == 20


def test_plans_on_offer_do_not_fill_the_disk_however_often_the_gate_restarts(region, monkeypatch):
    monkeypatch.setattr(proposal, "MAX_PENDING", 3)
    folder, hub = region
    kit.approve(folder, PLAN)
    (folder / "plans" / f"{PLAN.hash}.json").write_text(PLAN.document(), encoding="utf-8")
    for start in range(3):
        with kit.station(folder, hub) as made:
            line, proposals = CoordinatorLine(Direct(hub), count=made.tally.crossed), Proposals(made)
            for seed in range(10 * start + 2, 10 * start + 7):
                one = operator_kit.plan(seed=seed)
                name, content = bytes.fromhex(one.hash), one.document().encode()
                hub.documents[name] = content
                proposals.consider(line, pb.PlanOffer(plan=name, size=len(content)))
            # The newest are kept for the operator: old ones that nobody offers any more made room.
            assert len(proposals.pending) == 3
            kept = {path.stem for path in (folder / "plans").iterdir()}
            assert kept == {PLAN.hash, *proposals.pending}


def test_offers_under_any_hash_are_not_remembered(tmp_path):
    with session.opened(tmp_path) as side:
        side.offer(PLAN)
        stub = rpc.stub(connect(side.server, operator_kit.REGION, sent=as_it_is, received=as_it_is))
        head, before = pb.Head(checkpoint=b"x"), size_of(tmp_path)
        for _ in range(50):
            strange = pb.Release(
                plan=os.urandom(32), round=1, sha256=bytes(32), size=4, entry=b"{}", seq=1, head=head
            )
            with pytest.raises(grpc.RpcError):
                stub.Offer(strange, timeout=5)
            with pytest.raises(grpc.RpcError):
                stub.Answer(pb.PlanAnswer(plan=os.urandom(32), approved=True), timeout=5)
            with pytest.raises(grpc.RpcError):
                stub.Refuse(pb.Refusal(plan=os.urandom(32), round=1, code=pb.CODE_REFUSED), timeout=5)
        assert side.hall.book._plans == {}
        station = side.hall.station(operator_kit.REGION)
        assert station.told == {}
        assert len(station.refusals) == 1
        assert size_of(tmp_path) == before
