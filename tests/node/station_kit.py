"""A region's gate without its process: real folder, ledger, policy and gate; a runner that is played."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import operator_kit
from node.coordinator_fake import Coordinator, Direct
from plan.sample import noise_alone

from fedfsd.errors import NotReadyError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.gate import Gate
from fedfsd.gate.policy import declared
from fedfsd.ledger.entry import Package, Program
from fedfsd.ledger.ledger import Released
from fedfsd.node.courier import Courier
from fedfsd.node.node import Node, open_node
from fedfsd.node.receipt_store import ReceiptStore
from fedfsd.node.station import FOLDERS, GateStation, StoppedError
from fedfsd.node.tally import Tally
from fedfsd.plan.plan import Arrays, Plan
from fedfsd.service.gauge import Metrics
from fedfsd.service.journal import journal

ARRAYS = np.zeros(operator_kit.WITNESS_SIZE, "<f4").tobytes()
PROGRAM = Program(
    code="1" * 64, version="0.1.0", packages={"numpy": Package(version="2.4.0", sha256="2" * 64)}
)
"""What the runner that is played trains with."""


def commitment(plan_hash: str) -> str:
    """To a run key that nobody has."""
    return hashlib.sha256(plan_hash.encode()).hexdigest()


class RunnerFake:
    """Trains by drawing the noise alone. ``fails`` has exceptions that its next rounds end with.

    Those of ``fails_booked`` come once the round is booked, when data would have been read.
    """

    def __init__(self, gate: Gate) -> None:
        self.gate, self.connected, self.program = gate, True, PROGRAM
        self.fails: list[Exception] = []
        self.fails_booked: list[Exception] = []
        self.rounds: list[int] = []
        self.before: Callable[[], None] = lambda: None

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def commitment(self, plan_hash: str) -> str:
        return commitment(plan_hash)

    def settle(self, plan_hash: str) -> None:
        pass

    def round(self, plan: Plan, round: int, arrays: Arrays) -> Released:
        self.rounds.append(round)
        self.before()
        if self.fails:
            raise self.fails.pop(0)
        sha256 = gate_arrays.sha256(arrays, plan.model.arrays)
        booked = self.gate.ledger.reserve(plan.hash, round, sha256, program=self.program)
        if self.fails_booked:
            raise self.fails_booked.pop(0)
        released = self.gate.released(booked)
        if released is None:
            released = self.gate.release_bytes(noise_alone(plan, self.gate.region, round), booked, plan)
        if round == plan.num_rounds:
            self.gate.settle(plan.hash)
        return released


def folder(path: Path, *, policy: str = "") -> Path:
    """A region's folder with a grant; ``policy`` is added to its policy."""
    made = operator_kit.region(path)
    for name in FOLDERS:
        (made / name).mkdir(exist_ok=True)
    file = made / "policy.toml"
    file.write_text(file.read_text(encoding="utf-8") + policy, encoding="utf-8")
    return made


def approve(path: Path, plan: Plan) -> None:
    """Approve a plan, as an operator does in another process."""
    with closing(open_node(path).open_ledger()) as ledger:
        ledger.approve_plan(
            plan, recipient=operator_kit.HUB, purpose="research", key_commitment=commitment(plan.hash)
        )


@contextmanager
def station(path: Path, coordinator: Coordinator) -> Iterator[GateStation]:
    """What the gate's process holds, opened on a folder that may have a past."""
    node: Node = open_node(path)
    with closing(node.open_ledger()) as ledger, Metrics(0) as metrics:
        gate = Gate(node.settings.name, declared(node.policy(), "policy"), path)
        gate.ledger = ledger
        coordinator.ledger = ledger.state.genesis.ledger
        receipts = ReceiptStore(path, coordinator.key.verification)
        yield GateStation(
            node, ledger, gate, RunnerFake(gate), receipts, Tally(metrics), journal("gate", path)
        )


@contextmanager
def working(
    path: Path,
    coordinator: Coordinator,
    dial: Callable[[], Any] | None = None,
    prepare: Callable[[GateStation], None] = lambda made: None,
) -> Iterator[GateStation]:
    """A station whose courier runs in a thread; what that raised is raised on leaving."""
    ended: list[BaseException] = []
    with station(path, coordinator) as made:
        prepare(made)
        courier = Courier(made, dial or (lambda: Direct(coordinator)))

        def run() -> None:
            try:
                courier.run()
            except StoppedError:
                pass
            except BaseException as error:
                ended.append(error)

        threads = [threading.Thread(target=run), threading.Thread(target=courier.beat)]
        for thread in threads:
            thread.start()
        try:
            yield made
        finally:
            made.stop.set()
            made.look.set()
            courier.close()
            for thread in threads:
                thread.join(5)
                assert not thread.is_alive()
        if ended:
            raise ended[0]


def entries(path: Path, kind: str) -> list[Any]:
    """The ledger's entries of one type."""
    from fedfsd.ledger import entry

    with closing(open_node(path).open_ledger()) as ledger:
        found = [entry.parse(ledger.content(seq)) for seq in range(ledger.state.size)]
    return [one for one in found if one.type == kind]


def log(path: Path) -> str:
    """All that the gate's log says."""
    file = path / "log" / "gate.jsonl"
    return file.read_text(encoding="utf-8") if file.exists() else ""


def insecure(port: int) -> Callable[[], grpc.Channel]:
    """A way to dial without TLS."""
    return lambda: grpc.insecure_channel(
        f"127.0.0.1:{port}",
        options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 2**22)],
    )


__all__ = ["NotReadyError", "approve", "entries", "folder", "insecure", "log", "station", "working"]
