"""A coordinator's gate without its process: hall, servicer and bridges over a Flower that is played."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from coordinator.region_fake import Direct, RegionFake, arrays_of
from plan.sample import PLANNED, planned

from fedfsd.coordinator.bridge import Bridge
from fedfsd.coordinator.folder import Coordinator, CoordinatorSettings
from fedfsd.coordinator.hall import Hall
from fedfsd.coordinator.servicer import Servicer
from fedfsd.errors import NotReadyError
from fedfsd.flower.fleet import QUERY, TRAIN, Instruction, StaleReplyError
from fedfsd.ledger.key import SigningKey
from fedfsd.plan.plan import Plan

NAMES = ("CN", "EU")


def plan_of(name: str = "sample", **changes: Any) -> Plan:
    """A plan of both regions."""
    return planned(name=name, regions={region: {**PLANNED, "weight": 0.5} for region in NAMES}, **changes)


class FleetFake:
    """A node whose instructions a test puts, and that may be away; it outlives the gate, like SuperLink."""

    def __init__(self) -> None:
        self.queue: list[Instruction] = []
        self.answers: list[tuple[str, str, Any]] = []
        """(envelope, reply | fail | identify, what)."""
        self.gone: set[str] = set()
        self.away = False
        self.activated = self.beats = self.closed = 0

    def ask(self, plan: Plan | str, round: int, arrays: dict[str, np.ndarray] | None = None) -> str:
        """Put a training instruction and return its envelope."""
        document = plan if isinstance(plan, str) else plan.document()
        values = arrays_of(plan, float(round)) if arrays is None and isinstance(plan, Plan) else arrays
        name = f"{len(self.queue)}-{round}-{time.monotonic_ns()}"
        self.queue.append(Instruction(name.encode(), TRAIN, document, round, values))
        return name

    def query(self, kind: str = QUERY) -> str:
        """Put an instruction of another kind."""
        self.queue.append(Instruction(b"query", kind))
        return "query"

    def answer(self, envelope: str, seconds: float = 10.0) -> tuple[str, Any]:
        """The answer to an instruction, once it is there."""
        found = until(lambda: [one for one in self.answers if one[0] == envelope], seconds)
        assert len(found) == 1
        return found[0][1:]

    def activate(self, known: int | None) -> int:
        self._reach()
        self.activated += 1
        return 7

    def beat(self) -> None:
        self._reach()
        self.beats += 1

    def pull(self) -> Instruction | None:
        self._reach()
        return self.queue.pop(0) if self.queue else None

    def reply(self, envelope: bytes, arrays: Mapping[str, np.ndarray], entry_hash: str, sha256: str) -> None:
        copy = {name: np.array(array) for name, array in arrays.items()}
        self._answer(envelope, "reply", (copy, entry_hash, sha256))

    def identify(self, envelope: bytes, region: str) -> None:
        self._answer(envelope, "identify", region)

    def fail(self, envelope: bytes, code: int, word: str) -> None:
        self._answer(envelope, "fail", (code, word))

    def close(self) -> None:
        self.closed += 1

    def _answer(self, envelope: bytes, kind: str, what: Any) -> None:
        self._reach()
        if envelope.decode() in self.gone:
            raise StaleReplyError("SuperLink")
        self.answers.append((envelope.decode(), kind, what))

    def _reach(self) -> None:
        if self.away:
            raise NotReadyError("SuperLink", got="ConnectError", expected="an answer")


class Scene:
    """A coordinator in ``folder`` with two regions; ``restart`` is a kill and a new start."""

    def __init__(self, folder: Path, *plans: Plan) -> None:
        self.coordinator = Coordinator(folder / "hub", CoordinatorSettings(name="roads"))
        for inner in ("offers", "receipts", "store", "regions"):
            (folder / "hub" / inner).mkdir(parents=True)
        SigningKey.generate("fedfsd/coordinator/roads").write(folder / "hub" / "coordinator.key")
        self.fleets = {name: FleetFake() for name in NAMES}
        self.regions = {name: RegionFake(self.coordinator, name, folder / name, *plans) for name in NAMES}
        for plan in plans:
            self.offer(plan)
        self.start()

    def offer(self, plan: Plan, *, approved: bool = True) -> Path:
        """Put a plan on offer, answered by both regions unless told otherwise."""
        path = self.coordinator.offers / f"{plan.hash}.json"
        path.write_text(plan.document())
        if approved:
            path.with_suffix("").mkdir(exist_ok=True)
            for name in NAMES:
                (path.with_suffix("") / f"{name}.json").write_text('{"approved":true,"code":null}')
        return path

    def start(self) -> None:
        """Bring the gate up from what is on disk."""
        self.hall = Hall(self.coordinator)
        self.servicer = Servicer(self.hall, caller=lambda context: context.region, hold=0.3)
        self.bridges = [
            Bridge(self.hall, self.hall.station(name), self._connect, poll=0.005) for name in NAMES
        ]
        for bridge in self.bridges:
            bridge.start()

    def stop(self) -> None:
        """End its threads; nothing is written on the way."""
        self.hall.stopping.set()
        self.hall.ring()
        for bridge in self.bridges:
            bridge.join(5)

    def restart(self) -> None:
        """As after kill -9."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End all."""
        self.stop()
        for region in self.regions.values():
            region.ledger.close()

    def stub(self, name: str, peer: str = "ipv4:127.0.0.1:1") -> Direct:
        """How a region calls."""
        return Direct(self.servicer, name, peer)

    def _connect(self, name: str) -> FleetFake:
        self.fleets[name].activate(None)
        return self.fleets[name]


def until(look: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What ``look`` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "nothing came"
        threading.Event().wait(0.002)
    return found
