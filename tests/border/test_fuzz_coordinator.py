"""Mutations of what a region sends, at the coordinator's own handlers: refused or harmless."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections import Counter

import operator_kit as kit
import pytest
from border import canary, fuzz, session
from border.loopback import Context, Malformed, Status
from border.mutation import Mutation
from google.protobuf.message import DecodeError

from fedfsd.audit.receipt import is_countersigned
from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.coordinator.intake import Intake, offered
from fedfsd.coordinator.offer import Board
from fedfsd.coordinator.reception import Reception

PLAN, WAITING = kit.plan(rounds=3, seed=1), kit.plan(rounds=3, seed=2)
THEIRS = kit.plan(rounds=3, seed=3, region="US")
# How often each method is called, in eighths or so.
WEIGHTS = {
    "Offer": 6,
    "Send": 6,
    "Show": 3,
    "Refuse": 2,
    "Answer": 1,
    "Document": 1,
    "Fetch": 1,
    "Hello": 1,
    "Next": 1,
    "Declare": 1,
    "Renew": 1,
    "Clock": 1,
}
CHECKS = (
    (Intake, "release"),
    (Intake, "show"),
    (Intake, "position"),
    (Reception, "offer"),
    (Reception, "take"),
    (Reception, "refuse"),
    (Board, "plan_of"),
    (Board, "answer"),
)
REFUSALS = {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "DATA_LOSS"}


class Target:
    """The coordinator of a finished session; ``reset`` puts the second round on the desk again."""

    def __init__(self, side: session.Side) -> None:
        self.side, self.hall = side, side.hall
        self.station = side.hall.station(kit.REGION)
        self.memory = side.hall.coordinator.witness.read_bytes()
        self.receipts = {path: path.read_bytes() for path in side.hall.coordinator.receipts.iterdir()}
        self.release = self._last(pb.Release)
        self.chunk = self._last(pb.Chunk)
        self.sent: list[bytes] = []

    def reset(self) -> None:
        """As it was."""
        if self.station.desk.open is None or self.station.desk.open.round != 2:
            self.side.clear()
            self.side.lay(PLAN, 2)
        if self.hall.coordinator.witness.read_bytes() != self.memory:
            self.hall.coordinator.witness.write_bytes(self.memory)
        for path, content in self.receipts.items():
            if path.read_bytes() != content:
                path.write_bytes(content)
                self.hall.book._plans.clear()
        self.station.offered, self.station.strikes = None, 0
        self.station.desk.begin("0" * 64)

    def call(self, method: str, contents: list[bytes]) -> str:
        """The status of one call by the region; its replies are kept in ``sent``."""
        try:
            replies = list(
                self.side.server.call(session.SERVICE + method, contents, Context(kit.REGION, 20.0))
            )
        except Malformed:
            return "malformed"
        except Status as status:
            # A text would say more than the code: seen in the outcomes.
            return status.code().name + status.details()
        for reply in replies:
            wire.strict(session.KINDS[method][1].FromString(reply))
        self.sent += replies
        return "OK"

    def offer(self) -> None:
        """As if the region had offered its release."""
        self.station.offered = dataclasses.replace(offered(self.release), cosigned="cosigned\n")

    def _last(self, kind: type) -> pb.Release | pb.Chunk:
        content = [c for m, ours, c in self.side.crossed if ours and session.KINDS[m][0] is kind]
        return kind.FromString(content[-1])


def attack(target: Target, mutation: Mutation, method: str, chance: random.Random) -> tuple[str, str]:
    """(operator, status) of one mutation."""
    kind = session.KINDS[method][0]
    mutant = mutation.of(chance.choice([one for one in mutation.samples if one.kind is kind]))
    contents = [mutant.content]
    if method == "Send":
        target.offer()
        if chance.random() < 0.5:
            contents = [_fitting(target, mutant.content)]
        if chance.random() < 0.1:
            contents = [*contents, target.chunk.SerializeToString(), *contents]
    with fuzz.named(f"{mutant.operator} of {method}: {[content.hex() for content in contents]}"):
        return mutant.operator, target.call(method, contents)


def _fitting(target: Target, content: bytes) -> bytes:
    """The chunk of a region whose ledger has an entry for just these bytes."""
    try:
        chunk = pb.Chunk.FromString(content)
    except DecodeError:
        return content
    if len(chunk.content) == target.release.size and not chunk.offset:
        chunk.sha256 = hashlib.sha256(chunk.content).digest()
        assert target.station.offered is not None
        target.station.offered = dataclasses.replace(target.station.offered, sha256=chunk.sha256.hex())
    return chunk.SerializeToString()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_mutation_of_what_a_region_sends_does_harm(monkeypatch):
    count, chance, reach = fuzz.MUTATIONS // 2, random.Random(fuzz.SEED), fuzz.Reach(monkeypatch)
    outcomes, operators, reached = Counter(), Counter(), 0
    with (
        fuzz.folder() as folder,
        session.opened(folder / fuzz.TEXT) as side,
        session.opened(folder / "other") as stranger,
    ):
        for one, plan in ((side, PLAN), (stranger, kit.plan(rounds=3, seed=4))):
            session.run(one, plan, WAITING)
        mutation = fuzz.mutation([side, stranger])
        theirs = _another_region(side)
        target = Target(side)
        for owner, name in CHECKS:
            reach.watch(owner, name)
        methods = chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
        for method in methods:
            target.reset()
            reach.names.clear()
            operator, outcome = attack(target, mutation, method, chance)
            outcomes[outcome] += 1
            reached += bool(reach.names)
            operators[operator] += bool(reach.names)
        fuzz.tell("coordinator", count, reached, outcomes, operators)
        assert reached >= count / 3
        assert set(outcomes) == {"OK", "malformed", *REFUSALS}
        _nothing_leaked(side, target.sent)
        assert side.hall.station("US").desk.task == theirs
        _an_honest_round_still_works(target)


def _another_region(side: session.Side):
    """The task of a region that nobody speaks for."""
    side.offer(THEIRS)
    us = side.hall.station("US")
    schema = THEIRS.model.arrays
    side.hall.lay(
        us,
        session.model(THEIRS, 7),
        schema,
        lambda sha256: session.DeskTask(plan=THEIRS.hash, round=1, arrays=sha256, size=4096, envelope="ab"),
    )
    us.desk.reveal()
    return us.desk.task


def _nothing_leaked(side: session.Side, sent: list[bytes]) -> None:
    """Nothing of the other region, and no path, was in any reply; the search finds what is there."""
    theirs = np_row(THEIRS, 7)
    search = canary.Search(canary.text(fuzz.TEXT) | canary.numbers(theirs, "the other region's model"))
    everything = b"\n".join(dict.fromkeys(sent))
    assert search(everything) == []
    assert THEIRS.document().encode() not in everything
    assert canary.Search(canary.numbers(np_row(PLAN, 2), "its own model"))(everything)


def np_row(plan, round: int) -> list[float]:
    """A few irregular values of a round's model."""
    return [float(value) for value in session.model(plan, round)[plan.model.arrays[0].name][:8]]


def _an_honest_round_still_works(target: Target) -> None:
    target.reset()
    assert target.call("Offer", [target.release.SerializeToString()]) == "OK"
    assert pb.Progress.FromString(target.sent[-1]).offset == 0
    assert target.call("Send", [target.chunk.SerializeToString()]) == "OK"
    receipt = pb.Progress.FromString(target.sent[-1]).receipt
    hub = target.hall.coordinator.key.verification
    assert is_countersigned(wire.received(receipt, kit.REGION), receipt.signature, hub)
