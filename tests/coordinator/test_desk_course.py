"""A round from Flower's message to Flower's reply, and the same after a crash in every state."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from coordinator.region_fake import (
    READY,
    Direct,
    RefusedCall,
    arrays_of,
    chunks,
    update_of,
)
from coordinator.scene import NAMES, Scene, plan_of, until
from ledger.ledger_kit import MEMORY

from fedfsd import canonical
from fedfsd.audit.receipt import Receipt, is_countersigned
from fedfsd.border import border_pb2 as pb
from fedfsd.coordinator import receipt_book
from fedfsd.errors import NotReadyError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.outcome import REFUSALS
from fedfsd.ledger.ledger import Booked
from fedfsd.ledger.note import Note, cosigners

PLAN = plan_of()


@pytest.fixture
def scene():
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        made = Scene(Path(folder), PLAN)
        yield made
        made.close()


def task_of(stub: Direct) -> pb.Round:
    """The outstanding round, once it is handed out."""
    return until(lambda: (found := stub.Next(READY)).WhichOneof("task") == "round" and found.round)


def ready(scene: Scene, name: str = "CN", round: int = 1):
    """A region that has fetched a round and trained: (envelope, booked, released, the offer's message)."""
    region, stub = scene.regions[name], scene.stub(name)
    envelope = scene.fleets[name].ask(PLAN, round)
    task = task_of(stub)
    arrays = canonical.sha256(region.fetch(stub, task))
    released = region.train(PLAN, round, arrays)
    region.hello(stub)
    booked = Booked(PLAN.hash, round, arrays)
    return envelope, booked, released, region.release(booked, released)


def test_rounds_of_two_regions_go_through(scene):
    for round in (1, 2, 3):
        envelopes = {name: scene.fleets[name].ask(PLAN, round) for name in NAMES}
        for name in NAMES:
            region, stub = scene.regions[name], scene.stub(name)
            receipt = region.work(stub, task_of(stub))
            kind, (arrays, entry, sha256) = scene.fleets[name].answer(envelopes[name])
            content = update_of(PLAN, name, round)
            assert (kind, entry, sha256) == ("reply", receipt.entry.hex(), canonical.sha256(content))
            assert gate_arrays.to_bytes(arrays, PLAN.model.arrays) == content
            kept = Receipt(
                region=name, plan=PLAN.hash, round=round, entry=entry, sha256=sha256, bytes=len(content)
            )
            key = scene.coordinator.key
            assert is_countersigned(kept, receipt.signature, key.verification)
            assert cosigners(Note.parse(receipt.cosigned), [key.cosigner])
            region.ledger.witness(receipt.cosigned.decode(), [key.cosigner])
    lines = receipt_book.read(scene.coordinator.receipts / f"{PLAN.hash}.jsonl")
    assert sorted((one.region, one.round) for one in lines) == [(n, r) for n in NAMES for r in (1, 2, 3)]
    assert all(
        is_countersigned(one.receipt, bytes.fromhex(one.signature), scene.coordinator.key.verification)
        for one in lines
    )
    for name in NAMES:
        until(lambda name=name: scene.hall.station(name).desk.task is None)
    until(lambda: not list((scene.coordinator.folder / "store" / ".arrays").iterdir()))


def test_a_refusal_of_an_instruction_waits_for_the_superlink(scene):
    """It is kept nowhere: it is told until SuperLink has it."""
    fleet = scene.fleets["CN"]
    scene.stop()
    envelope, calls = fleet.ask(PLAN, 99), []
    told = fleet.fail

    def away(*arguments):
        calls.append(arguments)
        if len(calls) < 3:
            raise NotReadyError("SuperLink")
        told(*arguments)

    fleet.fail = away
    scene.start()
    assert fleet.answer(envelope) == ("fail", (1001, "refused"))


def test_what_two_regions_start_from_is_kept_once(scene):
    for name in NAMES:
        scene.fleets[name].ask(PLAN, 1)
    hashes = {task_of(scene.stub(name)).arrays_sha256.hex() for name in NAMES}
    kept = {path.name for path in (scene.coordinator.folder / "store" / ".arrays").iterdir()}
    assert kept == hashes
    assert len(hashes) == 1


def test_a_task_reaches_a_region_that_waits(scene):
    found = []

    def waits():
        while not (task := scene.stub("CN").Next(READY)).HasField("round"):
            pass  # on a busy machine it may have waited in vain before anything was asked
        found.append(task)

    waiting = threading.Thread(target=waits, daemon=True)
    waiting.start()
    scene.fleets["CN"].ask(PLAN, 1)
    waiting.join()
    assert found[0].round.round == 1


def test_nothing_to_do_is_an_empty_task(scene):
    assert scene.stub("CN").Next(READY) == pb.Task()


def test_a_plan_is_offered_until_it_is_answered(tmp_path, scene):
    other = plan_of("other")
    scene.offer(other, approved=False)
    scene.hall.look()
    stub = scene.stub("CN")
    offer = stub.Next(READY).plan
    assert (offer.plan.hex(), offer.size) == (other.hash, len(other.document()))
    assert stub.Next(READY) == pb.Task()  # its people are asked; not at once again
    assert stub.Document(pb.PlanRequest(plan=offer.plan)).document.decode() == other.document()
    stub.Answer(pb.PlanAnswer(plan=offer.plan, approved=False, code=pb.CODE_BUDGET))
    answers = scene.coordinator.offers / other.hash
    assert json.loads((answers / "CN.json").read_text()) == {"approved": False, "code": "budget"}
    assert not (answers / "EU.json").exists()
    scene.restart()
    assert scene.stub("CN").Next(READY) == pb.Task()
    assert scene.stub("EU").Next(READY).plan.plan == offer.plan


def test_a_plan_that_was_not_approved_is_not_handed_out(scene):
    other = plan_of("other")
    scene.offer(other, approved=False)
    envelope = scene.fleets["CN"].ask(other, 1)
    assert scene.fleets["CN"].answer(envelope) == ("fail", (REFUSALS["plan"].flower, "plan"))


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_is_forwarded_as_a_code(scene, code):
    from fedfsd.border import wire

    envelope = scene.fleets["CN"].ask(PLAN, 1)
    stub = scene.stub("CN")
    task = task_of(stub)
    refusal = pb.Refusal(plan=task.plan, round=1, code=wire.code(code))
    stub.Refuse(refusal)
    assert scene.fleets["CN"].answer(envelope) == ("fail", (REFUSALS[code].flower, code))
    stub.Refuse(refusal)  # the answer was lost
    with pytest.raises(RefusedCall):
        stub.Refuse(pb.Refusal(plan=task.plan, round=2, code=wire.code(code)))
    assert scene.stub("CN").Next(READY) == pb.Task()


@pytest.mark.parametrize("kind", ["bad", "evaluate", "query"])
def test_other_instructions_are_refused(scene, kind):
    scene.fleets["CN"].query(kind)
    assert scene.fleets["CN"].answer("query") == ("fail", (1001, "refused"))
    assert scene.stub("CN").Next(READY) == pb.Task()


def test_a_node_says_which_region_it_is(scene):
    scene.fleets["EU"].query()
    assert scene.fleets["EU"].answer("query") == ("identify", "EU")


@pytest.mark.parametrize(
    ("document", "round", "fill", "word"),
    [
        ("{}", 1, 0.0, "plan"),
        (plan_of("never offered"), 1, 0.0, "plan"),
        (PLAN, 0, 0.0, "refused"),
        (PLAN, 4, 0.0, "refused"),
        (PLAN, 1, np.nan, "refused"),
    ],
)
def test_instructions_outside_the_plan_are_refused(scene, document, round, fill, word):
    envelope = scene.fleets["CN"].ask(document, round, arrays_of(PLAN, fill))
    assert scene.fleets["CN"].answer(envelope) == ("fail", (REFUSALS[word].flower, word))


def test_the_newest_round_is_handed_out(scene):
    """A region that comes back late finds one round, and the earlier ones are given up at once."""
    fleet = scene.fleets["CN"]
    scene.stop()
    first, second = fleet.ask(PLAN, 1), fleet.ask(PLAN, 2)
    scene.start()
    assert task_of(scene.stub("CN")).round == 2
    assert fleet.answer(first) == ("fail", (1000, "region_unavailable"))
    scene.regions["CN"].work(scene.stub("CN"), task_of(scene.stub("CN")))
    assert fleet.answer(second)[0] == "reply"


def test_one_round_at_a_time(scene):
    fleet = scene.fleets["CN"]
    fleet.ask(PLAN, 1)
    task = task_of(scene.stub("CN"))
    fleet.ask(PLAN, 2)
    assert task_of(scene.stub("CN")) == task
    scene.regions["CN"].work(scene.stub("CN"), task)
    assert task_of(scene.stub("CN")).round == 2


def test_a_round_of_a_run_that_is_over_is_dropped(scene):
    scene.fleets["CN"].ask(PLAN, 1)
    task_of(scene.stub("CN"))
    (scene.coordinator.offers / f"{PLAN.hash}.json").unlink()
    scene.hall.look()
    until(lambda: scene.hall.station("CN").desk.task is None)
    assert scene.stub("CN").Next(READY) == pb.Task()
    until(lambda: scene.fleets["CN"].closed == 1)  # no plan is open: no heartbeat, no polling


def test_an_answer_that_nobody_waits_for_ends_the_round(scene):
    envelope, _, released, offer = ready(scene)
    scene.fleets["CN"].gone.add(envelope)
    stub = scene.stub("CN")
    stub.Offer(offer)
    stub.Send(chunks(released.content))
    until(lambda: scene.hall.station("CN").desk.task is None)
    assert scene.fleets["CN"].answers == []


# After a crash in every state: the same task, the same receipt, one reply.


def finish(scene: Scene, envelope, released, offer) -> pb.Receipt:
    """Offer and send what is left, and see the reply arrive once."""
    stub = scene.stub("CN")
    progress = stub.Offer(offer)
    if not progress.HasField("receipt"):
        progress = stub.Send(chunks(released.content, start=progress.offset))
    kind, (_, entry, sha256) = scene.fleets["CN"].answer(envelope)
    assert (kind, entry, sha256) == ("reply", released.entry_hash, released.sha256)
    until(lambda: scene.hall.station("CN").desk.task is None)
    assert stub.Offer(offer).receipt == progress.receipt
    return progress.receipt


def test_restart_with_a_task(scene):
    envelope, _, released, offer = ready(scene)
    task = task_of(scene.stub("CN"))
    scene.restart()
    assert task_of(scene.stub("CN")) == task
    assert len(scene.regions["CN"].fetch(scene.stub("CN"), task, 10_000)) == task.size - 10_000
    finish(scene, envelope, released, offer)


def test_restart_after_the_offer(scene):
    envelope, booked, released, offer = ready(scene)
    assert scene.stub("CN").Offer(offer).offset == 0
    scene.restart()
    with pytest.raises(RefusedCall):  # what was offered is not remembered: offer it again
        scene.stub("CN").Send(chunks(released.content))
    scene.regions["CN"].hello(scene.stub("CN"))
    again = scene.regions["CN"].release(booked, released)
    finish(scene, envelope, released, again)


@pytest.mark.parametrize("sent", [4096, 8192, 16_384])
def test_restart_in_the_middle_of_the_bytes(scene, sent):
    envelope, booked, released, offer = ready(scene)
    scene.stub("CN").Offer(offer)
    some = [one for one in chunks(released.content) if one.offset < sent]
    assert scene.stub("CN").Send(some).offset == sent
    scene.restart()
    scene.regions["CN"].hello(scene.stub("CN"))
    again = scene.regions["CN"].release(booked, released)
    assert scene.stub("CN").Offer(again).offset == sent
    finish(scene, envelope, released, again)


@pytest.mark.parametrize("step", ["whole", "sign", "receive"])
def test_restart_between_the_last_byte_and_the_receipt(scene, step, monkeypatch):
    """A crash before one of the three steps: bytes on disk, receipt on disk, round received."""
    envelope, booked, released, offer = ready(scene)
    scene.stub("CN").Offer(offer)
    where = scene.hall.book if step == "sign" else scene.hall.station("CN").desk

    def crash(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, step, crash)
    with pytest.raises(KeyboardInterrupt):
        scene.stub("CN").Send(chunks(released.content))
    scene.restart()
    assert task_of(scene.stub("CN")).round == 1
    scene.regions["CN"].hello(scene.stub("CN"))
    finish(scene, envelope, released, scene.regions["CN"].release(booked, released))
    assert len(receipt_book.read(scene.coordinator.receipts / f"{PLAN.hash}.jsonl")) == 1


def test_restart_with_a_reply_that_was_not_forwarded(scene):
    envelope, _, released, offer = ready(scene)
    scene.fleets["CN"].away = True
    stub = scene.stub("CN")
    stub.Offer(offer)
    receipt = stub.Send(chunks(released.content)).receipt
    assert stub.Offer(offer).receipt == receipt
    assert stub.Next(READY) == pb.Task()
    scene.restart()
    assert scene.stub("CN").Offer(offer).receipt == receipt
    scene.fleets["CN"].away = False
    assert finish(scene, envelope, released, offer) == receipt


def test_restart_with_a_refusal_that_was_not_forwarded(scene):
    envelope = scene.fleets["CN"].ask(PLAN, 1)
    task = task_of(scene.stub("CN"))
    scene.fleets["CN"].away = True
    scene.stub("CN").Refuse(pb.Refusal(plan=task.plan, round=1, code=pb.CODE_BUDGET))
    scene.restart()
    scene.fleets["CN"].away = False
    assert scene.fleets["CN"].answer(envelope) == ("fail", (1002, "budget"))


def test_a_run_that_is_resumed_gets_the_same_bytes_under_the_same_receipt(scene):
    envelope, _, released, offer = ready(scene)
    first = finish(scene, envelope, released, offer)
    envelope = scene.fleets["CN"].ask(PLAN, 1)  # the strategy asks for the round again
    stub = scene.stub("CN")
    assert scene.regions["CN"].work(stub, task_of(stub)) == first
    assert scene.fleets["CN"].answer(envelope)[1][2] == released.sha256
    assert len(receipt_book.read(scene.coordinator.receipts / f"{PLAN.hash}.jsonl")) == 1


def test_a_receipt_half_written_is_written_again(scene):
    envelope, _, released, offer = ready(scene)
    finish(scene, envelope, released, offer)
    path = scene.coordinator.receipts / f"{PLAN.hash}.jsonl"
    whole = path.read_bytes()
    scene.stop()
    path.write_bytes(whole + whole[:100])
    scene.start()
    envelope, _, released, offer = ready(scene, round=2)
    finish(scene, envelope, released, offer)
    assert [one.round for one in receipt_book.read(path)] == [1, 2]


def test_a_full_disk_costs_the_round_and_nothing_else(scene, monkeypatch):
    envelope, _, released, offer = ready(scene)
    stub, desk = scene.stub("CN"), scene.hall.station("CN").desk

    def full(*_, **__):
        raise NotReadyError("disk")

    with monkeypatch.context() as patch:
        patch.setattr(desk, "append", full)
        stub.Offer(offer)
        with pytest.raises(RefusedCall) as refused:
            stub.Send(chunks(released.content))
        assert refused.value.code is grpc.StatusCode.UNAVAILABLE
        patch.setattr(scene.hall.shelf, "put", full)
        other = scene.fleets["EU"].ask(PLAN, 1)
        assert scene.fleets["EU"].answer(other) == ("fail", (1000, "region_unavailable"))
    finish(scene, envelope, released, offer)
