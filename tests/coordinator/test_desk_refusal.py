"""What a region must not do: refused with a code and no text, nothing kept, the others untouched."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from coordinator.region_fake import (
    READY,
    Context,
    Direct,
    RefusedCall,
    changed,
    chunks,
    update_of,
)
from coordinator.scene import Scene, plan_of, until
from coordinator.test_desk_course import PLAN, ready, task_of
from ledger.ledger_kit import MEMORY

from fedfsd import canonical
from fedfsd.audit.receipt import ReceivedIncident
from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.coordinator.presence import CallLimit, Presence
from fedfsd.coordinator.servicer import Servicer
from fedfsd.coordinator.standing import document
from fedfsd.gate.gate import open_ledger
from fedfsd.gate.outcome import REFUSALS
from fedfsd.ledger import draft, entry, witness
from fedfsd.ledger.ledger import Booked
from fedfsd.ledger.note import Note, cosigners

INVALID = grpc.StatusCode.INVALID_ARGUMENT
FAILED = grpc.StatusCode.FAILED_PRECONDITION
FORK = grpc.StatusCode.DATA_LOSS
BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED
OTHER = plan_of("other")


@pytest.fixture
def scene():
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        made = Scene(Path(folder), PLAN, OTHER)
        yield made
        made.close()


def refused(call, *arguments, **options) -> grpc.StatusCode:
    with pytest.raises(RefusedCall) as found:
        call(*arguments, **options)
    return found.value.code


def untouched(scene: Scene, name: str = "CN") -> None:
    """Nothing was received, and nothing of the ledger is remembered."""
    assert scene.hall.intake.position(name) == (0, 0)
    assert not list(scene.coordinator.receipts.iterdir())
    assert not list(scene.coordinator.store(name).glob("*.part"))
    assert all(answer[1] == "fail" for answer in scene.fleets[name].answers)


def flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


def rewritten(offer: pb.Release, **fields: object) -> pb.Release:
    """The same offer over an entry that says something else."""
    found = entry.parse(offer.entry)
    return changed(offer, entry=entry.encode(found.model_copy(update=fields)))


@pytest.mark.parametrize(
    "change",
    [
        lambda offer: changed(offer, inclusion=[flipped(offer.inclusion[0]), *offer.inclusion[1:]]),
        lambda offer: changed(offer, inclusion=list(offer.inclusion)[1:]),
        lambda offer: changed(offer, inclusion=[]),
        lambda offer: changed(offer, seq=offer.seq - 1),
        lambda offer: changed(offer, sha256=flipped(offer.sha256)),
        lambda offer: changed(offer, size=offer.size - 4),
        lambda offer: changed(offer, size=offer.size + 4),
        lambda offer: changed(offer, round=2),
        lambda offer: changed(offer, round=4),
        lambda offer: changed(offer, plan=bytes.fromhex(OTHER.hash)),
        lambda offer: changed(offer, plan=bytes(32)),
        lambda offer: changed(offer, entry=offer.entry + b" "),
        lambda offer: changed(offer, entry=b"{}"),
        lambda offer: rewritten(offer, seq=offer.seq + 1),
        lambda offer: rewritten(offer, destination="somebody else"),
        lambda offer: rewritten(offer, schema_="0" * 64),
        lambda offer: rewritten(offer, bytes=offer.size + 4),
        lambda offer: rewritten(offer, round=2),
    ],
)
def test_an_offer_that_does_not_hold(scene, change):
    envelope, _, released, offer = ready(scene)
    stub = scene.stub("CN")
    assert refused(stub.Offer, change(offer)) is FAILED
    assert refused(stub.Send, chunks(released.content)) is FAILED
    untouched(scene)
    stub.Offer(offer)  # the honest one goes through all the same
    assert stub.Send(chunks(released.content)).receipt.sha256 == offer.sha256
    assert scene.fleets["CN"].answer(envelope)[0] == "reply"


@pytest.mark.parametrize("what", ["text", "signature", "statement", "no statements", "close"])
def test_a_head_that_does_not_hold(scene, what):
    _, _, _, offer = ready(scene)
    head = pb.Head()
    head.CopyFrom(offer.head)
    if what == "text":
        head.checkpoint = b"x" + head.checkpoint
    elif what == "signature":
        head.checkpoint = head.checkpoint[:-4] + b"AA=\n"
    elif what == "statement":
        head.statements[0].content = flipped(head.statements[0].content)
    elif what == "no statements":
        del head.statements[:]
    else:
        head.close = b"{}"
    bad = pb.Release()
    bad.CopyFrom(offer)
    bad.head.CopyFrom(head)
    stub = scene.stub("CN")
    if what == "close":  # read where a second ledger begins, and nowhere else
        assert stub.Offer(bad).offset == 0
        return
    assert refused(stub.Offer, bad) is FAILED
    assert refused(stub.Show, head) is FAILED
    untouched(scene)


def test_a_region_offers_for_another(scene):
    """EU's genuine release, sent by CN, whose round is outstanding too."""
    _, _, released, offer = ready(scene, "EU")
    ready(scene, "CN")
    stub = scene.stub("CN")
    assert refused(stub.Offer, offer) is FAILED
    assert refused(stub.Show, offer.head) is FAILED
    assert refused(stub.Send, chunks(released.content)) is FAILED
    untouched(scene, "CN")
    untouched(scene, "EU")


def test_a_region_sees_nothing_of_another(scene):
    envelope, _, released, offer = ready(scene, "EU")
    stub = scene.stub("EU")
    stub.Offer(offer)
    stub.Send(chunks(released.content))
    scene.fleets["EU"].answer(envelope)
    thief = scene.stub("CN")
    for sha256 in (offer.sha256, flipped(offer.sha256)):
        assert refused(thief.Fetch, pb.ArraysRequest(arrays_sha256=sha256)) is FAILED
    assert refused(thief.Offer, offer) is FAILED  # no receipt of EU's either
    assert thief.Next(READY) == pb.Task()


def test_arrays_are_those_of_the_outstanding_round(scene):
    scene.fleets["CN"].ask(PLAN, 1)
    task = task_of(scene.stub("CN"))
    request = pb.ArraysRequest(arrays_sha256=task.arrays_sha256)
    assert refused(scene.stub("EU").Fetch, request) is FAILED
    assert refused(scene.stub("CN").Fetch, changed(request, offset=task.size + 1)) is FAILED
    assert refused(scene.stub("CN").Fetch, changed(request, arrays_sha256=bytes(32))) is FAILED
    scene.regions["CN"].work(scene.stub("CN"), task)
    assert refused(scene.stub("CN").Fetch, request) is FAILED


def test_a_replayed_offer_gets_its_old_receipt_and_changes_nothing(scene):
    _, _, released, offer = ready(scene)
    stub = scene.stub("CN")
    stub.Offer(offer)
    receipt = stub.Send(chunks(released.content)).receipt
    envelope, _, second, newer = ready(scene, round=2)
    assert stub.Offer(offer).receipt == receipt
    assert stub.Offer(newer).offset == 0
    assert stub.Offer(offer).receipt == receipt
    assert refused(stub.Send, chunks(released.content)) is FAILED
    stub.Send(chunks(second.content))
    assert scene.fleets["CN"].answer(envelope)[1][2] == second.sha256


def test_a_second_release_of_a_round_with_a_receipt(scene):
    _, _, released, offer = ready(scene)
    stub = scene.stub("CN")
    stub.Offer(offer)
    stub.Send(chunks(released.content))
    assert refused(stub.Offer, changed(offer, sha256=flipped(offer.sha256))) is FAILED


@pytest.mark.parametrize("update", ["nan", "loud", "quiet", "rows", "long"])
def test_a_bad_update_fails_the_round_at_once(scene, update):
    region, stub = scene.regions["CN"], scene.stub("CN")
    flat = np.frombuffer(update_of(PLAN, "CN", 1), "<f4").copy()
    if update == "nan":
        flat[3] = np.nan
    elif update == "loud":
        flat *= 2
    elif update == "quiet":
        flat *= 0.5
    elif update == "rows":
        flat[:] = np.linspace(0, 100, flat.size)
    else:
        flat[:16] = 1e3
    envelope = scene.fleets["CN"].ask(PLAN, 1)
    assert refused(region.work, stub, task_of(stub), flat.tobytes()) is FAILED
    found = {"nan": "refused", "quiet": "noise-scale"}.get(update, "update-norm")
    said = ("fail", (REFUSALS[found].flower, found))
    assert scene.fleets["CN"].answer(envelope) == said
    assert not list(scene.coordinator.receipts.iterdir())
    until(lambda: not list(scene.coordinator.store("CN").iterdir()))
    assert stub.Next(READY) == pb.Task()
    # Noise or length unlike the plan's ends the region's part: no other round is asked of it.
    if update == "nan":
        assert scene.hall.book.ended("CN", PLAN.hash) is None
    else:
        ended(scene, stub, found)


def ended(scene: Scene, stub: Direct, finding: str) -> None:
    """The part of CN in PLAN ended in round 1, on record, and no other round is asked of it."""
    assert [scene.hall.book.ended(name, PLAN.hash) for name in ("CN", "EU")] == [finding, None]
    envelope = scene.fleets["CN"].ask(PLAN, 2)
    said = ("fail", (REFUSALS[finding].flower, finding))
    assert scene.fleets["CN"].answer(envelope) == said
    assert stub.Next(READY) == pb.Task()
    (path,) = (scene.coordinator.folder / "ended" / PLAN.hash).iterdir()
    incident = ReceivedIncident(**json.loads(path.read_bytes()))
    assert (incident.region, incident.round, incident.finding) == ("CN", 1, finding)


def test_what_a_regions_own_gate_found_is_on_record_here_too(scene):
    stub, envelope = scene.stub("CN"), scene.fleets["CN"].ask(PLAN, 1)
    refusal = pb.Refusal(plan=task_of(stub).plan, round=1, code=pb.CODE_CANARY_DRAWS)
    for _ in range(2):  # saying so again changes nothing
        stub.Refuse(refusal)
    found = "canary-draws"
    assert scene.fleets["CN"].answer(envelope) == ("fail", (REFUSALS[found].flower, found))
    ended(scene, stub, found)


def test_bytes_other_than_offered(scene):
    envelope, _, released, offer = ready(scene)
    stub, content = scene.stub("CN"), bytes(released.content)
    stub.Offer(offer)
    mine = list(chunks(content))
    assert refused(stub.Send, mine[1:]) is FAILED  # a gap
    assert refused(stub.Send, [mine[0], mine[0]]) is FAILED  # twice
    assert stub.Offer(offer).offset == 4096
    assert refused(stub.Send, chunks(content + bytes(4096), start=4096)) is FAILED  # of another hash
    long = [changed(one, sha256=mine[0].sha256) for one in chunks(content + bytes(4096), start=4096)]
    assert refused(stub.Send, [*long[:-2], changed(long[-2], content=bytes(8192))]) is FAILED
    assert stub.Send(iter(())).offset == 16_384
    bad = [changed(one, content=bytes(len(one.content))) for one in mine[4:]]
    assert refused(stub.Send, bad) is FAILED  # whole, but of another hash
    assert stub.Offer(offer).offset == 0  # from the beginning
    assert stub.Send(mine).receipt.sha256 == offer.sha256
    assert scene.fleets["CN"].answer(envelope)[0] == "reply"


def test_nothing_is_sent_without_an_offer(scene):
    ready(scene)
    assert refused(scene.stub("CN").Send, iter(())) is FAILED
    assert refused(scene.stub("CN").Send, chunks(bytes(10**6))) is FAILED
    untouched(scene)


def test_a_fork_is_refused_and_told(scene, tmp_path, caplog):
    """Two copies of one ledger, one key: the second history is not believed, and ends the round."""
    region, stub = scene.regions["CN"], scene.stub("CN")
    shutil.copytree(region.folder, tmp_path / "copy")
    ready(scene)
    scene.stop()
    scene.start()
    stub = scene.stub("CN")
    region.work(stub, task_of(stub))
    envelope = scene.fleets["CN"].ask(PLAN, 2)
    task = task_of(stub)
    region.ledger.close()
    region.folder = tmp_path / "copy"
    region.ledger = open_ledger(region.folder)
    for number in range(9):
        region.ledger.incident("software", f"another history {number}")
    arrays = task.arrays_sha256.hex()
    released = region.train(PLAN, 2, arrays)
    region.hello(stub)
    forked = region.release(Booked(PLAN.hash, 2, arrays), released)
    before = scene.hall.intake.position("CN")
    assert refused(stub.Offer, forked) is FORK
    assert scene.hall.intake.position("CN") == before
    assert scene.hall.station("CN").refusals["fork"] == 1
    assert scene.fleets["CN"].answer(envelope) == ("fail", (1001, "refused"))


def test_a_ledger_rolled_back_is_refused(scene, tmp_path):
    region, stub = scene.regions["CN"], scene.stub("CN")
    older = region.ledger.checkpoint()
    ready(scene)
    region.work(stub, task_of(stub))
    region.ledger.incident("software", "it goes on")
    region.hello(stub)
    assert refused(stub.Show, pb.Head(checkpoint=older.encode())) is FORK
    state, newest = region.ledger.state, region.ledger.checkpoint()
    honest = wire.head(witness.show(state, newest, epoch=0, size=region.position[1]))
    for proof in ([*honest.consistency, bytes(32)], list(honest.consistency)[1:], []):
        assert refused(stub.Show, changed(honest, consistency=proof)) is FORK
    assert stub.Show(honest).cosigned.startswith(newest.encode())


def test_a_proof_from_an_old_position_is_no_fork(scene):
    """An offer was taken but its answer lost: the region greets again and goes on."""
    region, stub = scene.regions["CN"], scene.stub("CN")
    ready(scene)
    region.work(stub, task_of(stub))
    envelope, booked, released, _ = ready(scene, round=2)
    stale = region.position
    region.ledger.incident("software", "it goes on")
    shown = witness.show(region.ledger.state, region.ledger.checkpoint(), epoch=0, size=stale[1])
    scene.hall.intake.show("CN", wire.head(shown))  # remembered, and the region does not know
    assert refused(stub.Offer, region.release(booked, released)) is grpc.StatusCode.UNAVAILABLE
    region.hello(stub)
    assert stub.Offer(region.release(booked, released)).offset == 0
    stub.Send(chunks(released.content))
    assert scene.fleets["CN"].answer(envelope)[0] == "reply"


def test_keys_other_than_those_confirmed(scene):
    """A ledger that began with the confirmed node key under another officer is not the region's."""
    _, _, _, offer = ready(scene)
    path = scene.coordinator.region("CN") / "officer.vkey"
    path.write_text(f"{draft.officer_key('CN').verification}\n")
    assert refused(scene.stub("CN").Offer, offer) is FAILED
    path.write_text(f"{scene.regions['CN'].officer.verification}\n")
    node = scene.coordinator.region("CN") / "node.vkey"
    node.write_text(f"{draft.node_key('CN').verification}\n")
    assert refused(scene.stub("CN").Offer, offer) is FAILED
    untouched(scene)


def test_heads_are_witnessed(scene):
    region, stub = scene.regions["CN"], scene.stub("CN")
    region.hello(stub)
    shown = witness.show(region.ledger.state, region.ledger.checkpoint(), epoch=0, size=0)
    cosigned = stub.Show(wire.head(shown)).cosigned
    assert cosigners(Note.parse(cosigned), [scene.coordinator.key.cosigner])
    assert (scene.coordinator.folder / "heads" / "CN.note").read_bytes() == cosigned
    region.hello(stub)
    assert region.position == (0, region.ledger.state.size)


# The wire's rules and the bounds of a region's connections.


@pytest.mark.parametrize("name", ["Beat", "Next"])
@pytest.mark.parametrize("request_", [pb.Ready(), pb.Ready(version=wire.VERSION + 1)])
def test_another_version(scene, name, request_):
    assert refused(getattr(scene.stub("CN"), name), request_) is INVALID
    for versions in ([], [99] * 17):
        assert refused(scene.stub("CN").Hello, pb.Greeting(versions=versions)) is INVALID


def test_unknown_fields(scene):
    unknown = pb.Ready.FromString(READY.SerializeToString() + b"\x7a\x03abc")
    assert refused(scene.stub("CN").Next, unknown) is INVALID
    _, _, released, offer = ready(scene)
    stub = scene.stub("CN")
    inside = pb.Release.FromString(offer.SerializeToString() + b"\x42\x04\x7a\x02ab")
    assert refused(stub.Offer, inside) is INVALID
    stub.Offer(offer)
    strange = [
        pb.Chunk.FromString(one.SerializeToString() + b"\x7a\x01a") for one in chunks(released.content)
    ]
    assert refused(stub.Send, strange) is INVALID
    assert scene.hall.station("CN").refusals == {"invalid_argument": 3}


@pytest.mark.parametrize("seconds", [None, 0.0, 301.0])
def test_calls_without_a_deadline(scene, seconds):
    assert refused(scene.stub("CN").Next, READY, timeout=seconds) is INVALID


def test_calls_are_counted_for_each_region(scene):
    scene.hall.station("CN").presence = Presence(CallLimit(calls_per_second=1.0, calls_at_once=5.0))
    stub = scene.stub("CN")
    codes = {refused(stub.Beat, pb.Ready()) for _ in range(5)}
    assert codes == {INVALID}
    assert refused(stub.Beat, READY) is BUSY
    assert scene.stub("EU").Beat(READY) == pb.Done()


def test_bytes_are_counted_for_each_region(scene):
    limit = CallLimit(bytes_per_second=1.0, bytes_at_once=20_000.0)
    scene.hall.station("CN").presence = Presence(limit)
    scene.fleets["CN"].ask(PLAN, 1)
    stub = scene.stub("CN")
    task = task_of(stub)
    scene.regions["CN"].fetch(stub, task)
    scene.regions["CN"].fetch(stub, task)
    request = pb.ArraysRequest(arrays_sha256=task.arrays_sha256)
    assert refused(stub.Fetch, request) is BUSY


def test_calls_at_once_are_bounded(scene):
    scene.hall.station("CN").presence = Presence(CallLimit(open_calls=1))
    waits = threading.Thread(target=lambda: scene.stub("CN").Next(READY))
    waits.start()
    until(lambda: scene.hall.station("CN").presence._open)
    assert refused(scene.stub("CN").Beat, READY) is BUSY
    waits.join(5)
    assert scene.stub("CN").Beat(READY) == pb.Done()


def test_a_newer_stream_ends_an_older_one(scene):
    """A region that reconnects while its old connection hangs."""
    _, _, released, offer = ready(scene)
    stub, servicer = scene.stub("CN"), scene.servicer
    stub.Offer(offer)
    old, hangs = Context("CN"), threading.Event()
    old._callbacks.append(hangs.set)

    def halfway():
        yield next(iter(chunks(released.content)))
        hangs.wait(5)
        yield from ()

    done = []
    thread = threading.Thread(target=lambda: done.append(servicer.Send(halfway(), old)))
    thread.start()
    until(lambda: list(scene.coordinator.store("CN").glob("*.part")))
    assert stub.Send(chunks(released.content, start=4096)).HasField("receipt")
    thread.join(5)
    assert old.ended


def test_two_nodes_with_one_key_are_told(scene):
    one, two = scene.stub("CN", "ipv4:10.0.0.1:1"), scene.stub("CN", "ipv4:10.0.0.2:1")
    events = []
    scene.hall.note = lambda event, *_, **__: events.append(event)
    one.Beat(READY)
    two.Beat(READY)  # a connection was dropped and made again
    # A doctor beside the gate asks for the time alone, and is no second node.
    assert abs(scene.stub("CN", "ipv4:10.0.0.1:2").Clock(READY).seconds - time.time()) < 60
    two.Beat(READY)
    assert scene.stub("CN", "ipv4:10.0.0.1:2").Clock(READY).seconds > 0
    assert events == []
    one.Beat(READY)
    assert events == ["two_nodes"]
    assert document(scene.hall)["regions"]["CN"]["doubled"] is not None
    for stub in (two, one, two):
        stub.Beat(READY)
    assert events == ["two_nodes"]  # once a minute, not at each call


def test_two_nodes_with_one_key_do_not_drive_each_other_round(scene, monkeypatch):
    monkeypatch.setattr("fedfsd.coordinator.servicer._DISPLACED_SECONDS", 0.2)
    servicer = Servicer(scene.hall, caller=lambda context: context.region, hold=5)
    ends: list[float] = []

    def ask(peer: str) -> None:
        while len(ends) < 4:
            Direct(servicer, "CN", peer).Next(READY)
            ends.append(time.monotonic())

    threads = [threading.Thread(target=ask, args=(f"ipv4:10.0.0.{number}:1",)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    until(lambda: len(ends) >= 4)
    scene.hall.stopping.set()
    scene.hall.ring()
    for thread in threads:
        thread.join(10)
    assert ends[3] - ends[0] >= 0.3


def test_the_newest_of_two_waiting_calls_gets_the_task(scene):
    servicer = Servicer(scene.hall, caller=lambda context: context.region, hold=5)
    found = {}

    def wait(peer: str) -> None:
        found[peer] = Direct(servicer, "CN", peer).Next(READY)

    first = threading.Thread(target=wait, args=("old",))
    first.start()
    until(lambda: scene.hall.station("CN").presence._open)
    second = threading.Thread(target=wait, args=("new",))
    second.start()
    first.join(5)
    assert found == {"old": pb.Task()}
    scene.fleets["CN"].ask(PLAN, 1)
    second.join(5)
    assert found["new"].round.round == 1


def test_a_region_that_hangs_up_frees_its_thread(scene):
    servicer = Servicer(scene.hall, caller=lambda context: context.region, hold=30)
    context = Context("CN", seconds=60)
    thread = threading.Thread(target=servicer.Next, args=(READY, context))
    thread.start()
    until(lambda: context._callbacks)
    context.cancel()
    thread.join(5)
    assert not thread.is_alive()


def test_what_is_no_plan_is_not_offered(scene):
    for name, content in (("0" * 64, "{}"), (canonical.sha256(b"\xff"), "\xff"), ("x", "{}")):
        (scene.coordinator.offers / f"{name}.json").write_text(content, encoding="latin-1")
    scene.hall.look()
    assert set(scene.hall.board.plans) == {PLAN.hash, OTHER.hash}
    assert refused(scene.stub("CN").Document, pb.PlanRequest(plan=bytes(32))) is FAILED
    answer = pb.PlanAnswer(plan=bytes(32), approved=True)
    assert refused(scene.stub("CN").Answer, answer) is FAILED
    assert not (scene.coordinator.offers / ("0" * 64)).exists()


def test_answers_come_from_regions_of_the_plan_alone(scene):
    plan = PLAN.model_copy(update={"regions": {"EU": PLAN.regions["EU"]}})
    scene.offer(plan, approved=False)
    scene.hall.look()
    answer = pb.PlanAnswer(plan=bytes.fromhex(plan.hash), approved=True)
    assert refused(scene.stub("CN").Answer, answer) is FAILED
    assert refused(scene.stub("CN").Document, pb.PlanRequest(plan=answer.plan)) is FAILED
    scene.stub("EU").Answer(answer)
    assert scene.hall.board.is_approved("EU", plan.hash)
