"""Mutations of what a coordinator sends, at the region's own gate: refused or harmless, and nothing leaks."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing

import grpc
import operator_kit as kit
import pytest
from border import canary, fuzz, session
from border.loopback import Loopback, Status
from border.mutation import Mutation, Sample
from google.protobuf.message import DecodeError, Message

from fedfsd import canonical
from fedfsd.audit.receipt import Receipt, countersign
from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.errors import FedfsdError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.gate import Gate
from fedfsd.gate.policy import Policy
from fedfsd.ledger import note
from fedfsd.ledger.ledger import Booked, Ledger
from fedfsd.node import assignment, courier, proposal
from fedfsd.node.line import ClosedError
from fedfsd.node.receipt_store import ReceiptStore
from fedfsd.node.upload import Upload

PLAN, WAITING = kit.plan(rounds=200, seed=1, noise=8.0), kit.plan(rounds=3, seed=2)
ROUND = 3
# Asked for with arrays of the coordinator's choice. Its runner fails before it books, so it stays open.
OPEN = 190
ARRAYS = gate_arrays.to_bytes(session.model(PLAN, ROUND), PLAN.model.arrays)
# What is mutated, how often, and which of the region's checks then has seen it.
TARGETS: dict[str, tuple[int, set[str]]] = {
    "round": (6, {"_demand", "_released_before"}),
    "chunk": (6, {"admit"}),
    "plan": (2, {"_judge"}),
    "document": (1, {"demand", "read"}),
    "offset": (2, {"_send"}),
    "receipt": (4, {"keep"}),
    "welcome": (1, {"__init__"}),
    "cosigned": (1, {"keep_head"}),
}
FAULT = OSError(f"/data/{fuzz.TEXT}.parquet")
# The task within which it comes, where that is no round.
TASKS = {"plan": "plan", "document": "plan", "cosigned": "idle"}
CHECKS = (
    (assignment, "_demand"),
    (assignment, "_released_before"),
    (Gate, "admit"),
    (proposal.Proposals, "_judge"),
    (proposal.plans, "read"),
    (Policy, "demand"),
    (Upload, "_send"),
    (Upload, "__init__"),
    (ReceiptStore, "keep"),
    (ReceiptStore, "keep_head"),
)


class Coordinator:
    """Answers every call as an honest one did, but for the messages in ``wrong``."""

    def __init__(self, side: session.Side) -> None:
        self.side = side
        offer = pb.PlanOffer(plan=bytes.fromhex(WAITING.hash), size=len(WAITING.document().encode()))
        self.honest: dict[str, Message] = {
            "round": pb.Task(round=_round(ROUND)),
            "plan": pb.Task(plan=offer),
            "idle": pb.Task(),
            "document": pb.PlanDocument(document=WAITING.document().encode()),
            "chunk": pb.Chunk(sha256=hashlib.sha256(ARRAYS).digest(), offset=0, content=ARRAYS),
            "offset": pb.Progress(offset=0),
            "receipt": self._of(side, "Send", -1),
            "welcome": pb.Welcome(version=1, epoch=0, size=side.station.ledger.state.size),
            "cosigned": self._of(side, "Show", -1),
        }
        self.kinds = {name: type(message) for name, message in self.honest.items()}
        self.wrong: dict[str, bytes] = {}
        self.sent: list[tuple[str, bytes]] = []
        self.tasks: list[str] = []
        self._newest = 0

    def follow(self) -> None:
        """Ask for the newest round, and have the right receipt for it."""
        ledger = self.side.station.ledger
        newest = ledger.state.runs[PLAN.hash].newest
        if newest is None or newest in (self._newest, 2):
            return
        self._newest = newest
        self.honest["round"] = pb.Task(round=_round(newest))
        released = ledger.released(Booked(PLAN.hash, newest, canonical.sha256(ARRAYS)))
        assert released is not None
        hub = self.side.hall.coordinator.key
        receipt = Receipt(
            region=kit.REGION,
            plan=PLAN.hash,
            round=newest,
            entry=released.entry_hash,
            sha256=released.sha256,
            bytes=len(released.content),
        )
        cosigned = note.cosign(ledger.checkpoint(), hub, seconds=1)
        signature = countersign(receipt, hub)
        crossed = wire.receipt(receipt, signature=signature, cosigned=cosigned)
        self.honest["receipt"] = pb.Progress(receipt=crossed)

    def answer(self, method: str, requests: Iterable[bytes], timeout: float | None) -> Iterator[bytes]:
        """The replies to one call; every request is kept in ``sent``."""
        name = method.removeprefix(session.SERVICE)
        requests = list(requests)
        self.sent += [(name, content) for content in requests]
        if name == "Next":
            if not self.tasks:
                raise Status(grpc.StatusCode.UNAVAILABLE)
            yield self._reply(self.tasks.pop(0))
        elif name in ("Answer", "Refuse", "Beat"):
            yield b""
        else:
            parts = {"Hello": "welcome", "Document": "document", "Fetch": "chunk", "Show": "cosigned"}
            yield self._reply(parts.get(name, "offset" if name == "Offer" else "receipt"))

    def _reply(self, name: str) -> bytes:
        return self.wrong.get(name, self.honest[name].SerializeToString())

    @staticmethod
    def _of(side: session.Side, method: str, at: int) -> Message:
        found = [content for name, ours, content in side.crossed if name == method and not ours]
        return session.KINDS[method][1].FromString(found[at])


def _round(number: int) -> pb.Round:
    return pb.Round(
        plan=bytes.fromhex(PLAN.hash),
        round=number,
        arrays_sha256=hashlib.sha256(ARRAYS).digest(),
        size=len(ARRAYS),
    )


def attack(hub: Coordinator, mutation: Mutation, target: str, chance: random.Random) -> str:
    """Put one mutation in place of an honest message; its operator."""
    hub.follow()
    honest = Sample.of(hub.honest[target])
    alike = [one for one in mutation.samples if one.kind is honest.kind]
    mutant = mutation.of(honest if chance.random() < 0.7 else chance.choice(alike))
    hub.tasks = [TASKS.get(target, "round")]
    hub.wrong = {target: mutant.content}
    if target in ("chunk", "document") and chance.random() < 0.8:
        hub.wrong |= _announced(hub, target, mutant.content)
    return mutant.operator


def _announced(hub: Coordinator, target: str, content: bytes) -> dict[str, bytes]:
    """A hostile coordinator announces the hash of what it is going to send."""
    try:
        message = hub.kinds[target].FromString(content)
    except DecodeError:
        return {}
    task = pb.Task()
    if target == "document":
        task.CopyFrom(hub.honest["plan"])
        task.plan.plan, task.plan.size = hashlib.sha256(message.document).digest(), len(message.document)
        return {"plan": task.SerializeToString()}
    task.round.CopyFrom(_round(OPEN))
    task.round.arrays_sha256 = message.sha256 = hashlib.sha256(message.content).digest()
    message.offset = 0
    return {"round": task.SerializeToString(), "chunk": message.SerializeToString()}


def connection(station, hub: Coordinator) -> str:
    """One connection of the region's gate to this coordinator; how it ended. Any other error is a crash."""
    try:
        courier.Courier(station, lambda: Loopback(hub.answer))._connection(courier.Backoff())
    except (FedfsdError, ClosedError) as error:
        return type(error).__name__
    except grpc.RpcError as error:
        return "malformed" if error.code() == grpc.StatusCode.INTERNAL else "done"
    raise AssertionError


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_mutation_of_what_a_coordinator_sends_does_harm(monkeypatch):
    count, chance, reach = (
        fuzz.MUTATIONS - fuzz.MUTATIONS // 2,
        random.Random(fuzz.SEED),
        fuzz.Reach(monkeypatch),
    )
    monkeypatch.setattr(courier, "PACE_SECONDS", 0.0)
    outcomes, operators, reached = Counter(), Counter(), 0
    with (
        fuzz.folder() as folder,
        session.opened(folder / fuzz.TEXT) as side,
        session.opened(folder / "other") as stranger,
    ):
        for one, plan in ((side, PLAN), (stranger, kit.plan(rounds=3, seed=4))):
            session.run(one, plan, WAITING)
        hub, station = Coordinator(side), side.station
        mutation = fuzz.mutation([side, stranger])
        for owner, name in CHECKS:
            reach.watch(owner, name)
        weights = [weight for weight, _ in TARGETS.values()]
        for number, target in enumerate(chance.choices(list(TARGETS), weights, k=count)):
            reach.names.clear()
            station.runner.fault = FAULT if number % 10 == 0 or target == "chunk" else None
            station.runner.books = target != "chunk"
            operator = attack(hub, mutation, target, chance)
            with fuzz.named(f"{operator} of {target}: {hub.wrong[target].hex()}"):
                outcomes[connection(station, hub)] += 1
            hit = bool(reach.names & TARGETS[target][1])
            reached += hit
            operators[operator] += hit
            for path in (*station.folder("plans").iterdir(), *station.folder("inbox").iterdir()):
                path.unlink()  # what came is asked for again
        fuzz.tell("region", count, reached, outcomes, operators)
        assert reached >= count / 3
        _nothing_leaked(station, hub.sent)
        checkpoint = station.ledger.checkpoint()
        bookings = station.ledger.state.runs[PLAN.hash].bookings
        assert set(station.ledger.state.runs) == {PLAN.hash}
        assert len(bookings) <= PLAN.num_rounds
        with closing(Ledger(station.node.ledger, mirror=station.node.mirror, heads=[checkpoint])) as again:
            assert again.state.tree.root() == station.ledger.state.tree.root()


def _nothing_leaked(station, sent: list[tuple[str, bytes]]) -> None:
    """Every message is one of the wire's, and carries nothing but releases, entries and what came in."""
    ledger = station.ledger
    entries = {ledger.content(seq) for seq in range(ledger.state.size)}
    released = {
        booking.release.sha256: booking
        for booking in ledger.state.runs[PLAN.hash].bookings.values()
        if booking.release is not None
    }
    chunks = 0
    sent = list(dict.fromkeys(sent))
    for method, content in sent:
        message = session.KINDS[method][0].FromString(content)
        wire.strict(message)
        if method == "Send":
            chunks += 1
            assert message.offset or hashlib.sha256(message.content).hexdigest() in released
            assert message.sha256.hex() in released
        elif method == "Offer":
            assert message.entry in entries
            assert message.sha256.hex() in released
    assert chunks
    assert canary.Search(canary.text(fuzz.TEXT))(b"\n".join(content for _, content in sent)) == []
