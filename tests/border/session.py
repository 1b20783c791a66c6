"""A whole valid session between a region's gate and the coordinator's, in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import operator_kit as kit
from border.loopback import Server, connect
from google.protobuf.message import Message

from fedfsd import canonical
from fedfsd.border import authority, enrolment
from fedfsd.border import border_pb2 as pb
from fedfsd.coordinator import invite
from fedfsd.coordinator.desk import DeskTask
from fedfsd.coordinator.folder import Coordinator, CoordinatorSettings
from fedfsd.coordinator.hall import Hall
from fedfsd.coordinator.new_coordinator import make
from fedfsd.coordinator.presence import CallLimit
from fedfsd.coordinator.servicer import Servicer
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.gate import Gate, witness_std
from fedfsd.gate.policy import declared
from fedfsd.ledger import program as programs
from fedfsd.ledger.ledger import Booked, Released
from fedfsd.node.courier import Courier
from fedfsd.node.line import CoordinatorLine
from fedfsd.node.node import Node, open_node
from fedfsd.node.receipt_store import ReceiptStore
from fedfsd.node.station import FOLDERS, GateStation
from fedfsd.node.tally import Tally
from fedfsd.node.upload import Upload
from fedfsd.plan.plan import WITNESS, Arrays, Plan
from fedfsd.service.gauge import Metrics

FEDERATION = kit.HUB.rpartition("/")[2]
SERVICE = "/fedfsd.border.v1.Border/"
# What each method's messages are: (request, reply).
KINDS: dict[str, tuple[type[Message], type[Message]]] = {
    "Hello": (pb.Greeting, pb.Welcome),
    "Beat": (pb.Ready, pb.Done),
    "Next": (pb.Ready, pb.Task),
    "Document": (pb.PlanRequest, pb.PlanDocument),
    "Answer": (pb.PlanAnswer, pb.Done),
    "Fetch": (pb.ArraysRequest, pb.Chunk),
    "Refuse": (pb.Refusal, pb.Done),
    "Offer": (pb.Release, pb.Progress),
    "Send": (pb.Chunk, pb.Progress),
    "Show": (pb.Head, pb.Cosignature),
    "Declare": (pb.Declaration, pb.Done),
    "Renew": (pb.Renewal, pb.Enrolled),
    "Clock": (pb.Ready, pb.Now),
}
SILENT = logging.getLogger("silent")
SILENT.disabled = True


class Trainer:
    """A runner that draws noise of the planned scale; ``fault`` is what it fails with, booked or not."""

    connected, program = True, programs.installed()

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.fault: Exception | None = None
        self.books = True

    def commitment(self, plan_hash: str) -> str:
        return "c" * 64

    def round(self, plan: Plan, round: int, arrays: Arrays) -> Released:
        self._gate.admit(plan, round, arrays)
        if self.fault is not None and not self.books:
            raise self.fault
        booked = self._gate.reserve(plan, round, arrays)
        released = self._gate.ledger.released(booked)
        if released is None:
            if self.fault is not None:
                raise self.fault
            released = self._gate.release(update(plan, self._gate.region, round), booked, plan)
        return released

    def settle(self, plan_hash: str) -> None:
        pass


def update(plan: Plan, region: str, round: int) -> dict[str, np.ndarray]:
    """An update that is noise alone."""
    scale, random = witness_std(plan, region, round), np.random.default_rng(round)
    return {one.name: random.normal(0, scale, one.shape).astype(np.float32) for one in plan.model.arrays}


def model(plan: Plan, round: int) -> dict[str, np.ndarray]:
    """What a round starts from."""
    random = np.random.default_rng(100 + round)
    return {one.name: random.normal(0, 0.1, one.shape).astype(np.float32) for one in plan.model.arrays}


@dataclass
class Side:
    """One region at its coordinator, and everything that crossed: (method, sent by the region?, content)."""

    station: GateStation
    hall: Hall
    server: Server
    crossed: list[tuple[str, bool, bytes]] = field(default_factory=list)
    key: Any = field(default_factory=authority.new_key)
    """Of the region's certificate."""

    def line(self) -> CoordinatorLine:
        """A connection whose messages are kept in ``crossed``."""

        def keep(method: str, content: bytes, ours: bool) -> bytes:
            self.crossed.append((method.removeprefix(SERVICE), ours, content))
            return content

        channel = connect(
            self.server,
            self.station.region,
            sent=lambda method, content: keep(method, content, True),
            received=lambda method, content: keep(method, content, False),
        )
        return CoordinatorLine(channel, count=lambda direction, size: None)

    def lay(self, plan: Plan, round: int) -> DeskTask:
        """Put a round on the region's desk, as the bridge to Flower does."""
        schema, desk = plan.model.arrays, self.hall.station(self.station.region)
        size = 4 * sum(one.size for one in schema)

        def task(sha256: str) -> DeskTask:
            return DeskTask(plan=plan.hash, round=round, arrays=sha256, size=size, envelope="")

        self.hall.lay(desk, model(plan, round), schema, task)
        desk.desk.reveal()
        return desk.desk.task

    def clear(self) -> None:
        """Whatever lies on the desk has been forwarded."""
        desk = self.hall.station(self.station.region).desk
        if desk.task is not None:
            desk.clear(desk.task)

    def offer(self, plan: Plan) -> None:
        """Put a plan on offer."""
        (self.hall.coordinator.offers / f"{plan.hash}.json").write_text(plan.document(), encoding="utf-8")
        self.hall.look()

    def approve(self, plan: Plan) -> None:
        """What the operator does."""
        self.station.ledger.approve_plan(plan, recipient=kit.HUB, purpose="research", key_commitment="c" * 64)


@contextmanager
def opened(folder: Path) -> Iterator[Side]:
    """A region with a grant and a coordinator that confirmed its keys, both in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    coordinator = make(CoordinatorSettings(name=FEDERATION), folder / "hub")
    node = open_node(kit.region(folder))
    for name in FOLDERS:
        (node.folder / name).mkdir(exist_ok=True)
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(node.open_ledger()))
        genesis = ledger.state.genesis
        known = coordinator.region(kit.REGION)
        known.mkdir()
        (known / "node.vkey").write_text(genesis.node_key)
        (known / "officer.vkey").write_text(genesis.officer_key)
        limit = CallLimit(calls_per_second=1e9, calls_at_once=1e9, bytes_per_second=1e15, bytes_at_once=1e15)
        metrics = [stack.enter_context(closing(Metrics(0))) for _ in range(2)]
        hall = Hall(coordinator, metrics=metrics[0], log=SILENT, limit=limit)
        servicer = Servicer(hall, caller=lambda context: context.region, hold=0.0)
        made = Side(_station(node, ledger, coordinator, metrics[1]), hall, Server(servicer))
        asked = enrolment.Request(
            request=authority.request(made.key).hex(), node=genesis.node_key, officer=genesis.officer_key
        )
        invite.accept(coordinator, kit.REGION, asked)
        invite.confirm(coordinator, kit.REGION, said=asked.fingerprint)
        yield made


def _station(node: Node, ledger, coordinator: Coordinator, metrics: Metrics) -> GateStation:
    gate = Gate(kit.REGION, declared(node.policy(), "policy.toml"), node.folder)
    gate.ledger = ledger
    receipts = ReceiptStore(node.folder, coordinator.key.verification)
    return GateStation(node, ledger, gate, Trainer(gate), receipts, Tally(metrics), SILENT)


def run(side: Side, plan: Plan, other: Plan) -> None:
    """A session with a message of each kind, after which ``plan`` is approved and ``other`` waits.

    Its first round is done. The second is refused once, because its model is not finite; laid down again,
    it is trained; those last messages have not arrived: they are in ``crossed`` alone.
    """
    side.offer(plan)
    courier, line = Courier(side.station, lambda: None), side.line()
    delivery = Upload(side.station, line, line.hello())

    def turn() -> None:
        courier._do(line, delivery, line.next())

    line.beat()
    line.declare(kit.ROSTER, pb.IDENTITY_PHYSICAL)
    line.clock()
    line.renew(authority.request(side.key))
    side.approve(plan)
    turn()
    side.offer(other)
    turn()
    side.lay(plan, 1)
    turn()
    side.clear()
    turn()
    _spoil(side, plan)
    turn()
    side.clear()
    delivery.show()
    side.lay(plan, 2)
    released = side.station.runner.round(plan, 2, model(plan, 2))
    booked = Booked(plan.hash, 2, gate_arrays.sha256(model(plan, 2), plan.model.arrays))
    asked = pb.ArraysRequest(arrays_sha256=bytes.fromhex(booked.arrays_sha256))
    side.crossed.append(("Fetch", True, asked.SerializeToString()))
    side.crossed.append(("Offer", True, delivery._announce(booked, released).SerializeToString()))
    pieces = delivery._pieces(released, 0)
    side.crossed += [("Send", True, piece.SerializeToString()) for piece in pieces]


def _spoil(side: Side, plan: Plan) -> None:
    """Lay the second round on arrays of which one value is none."""
    task, bad = side.lay(plan, 2), model(plan, 2)
    bad[WITNESS][0] = np.nan
    content = gate_arrays.to_bytes(bad, plan.model.arrays)
    side.hall.shelf.path(canonical.sha256(content)).write_bytes(content)
    desk = side.hall.station(side.station.region).desk
    desk.put(task.model_copy(update={"arrays": canonical.sha256(content)}))
