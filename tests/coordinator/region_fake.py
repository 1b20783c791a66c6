"""A region as the coordinator's gate meets it: a real ledger, real proofs, and no manners.

It speaks through a stub, of gRPC or of ``Direct``, which calls the servicer in this process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import books
import grpc
import numpy as np
from google.protobuf.message import Message
from plan.sample import noise_alone

from fedfsd import canonical
from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.coordinator.folder import Coordinator
from fedfsd.coordinator.servicer import Servicer
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.gate import LEDGER, MIRROR, open_ledger
from fedfsd.ledger import draft
from fedfsd.ledger import witness as witnesses
from fedfsd.ledger.ledger import Booked, Released
from fedfsd.plan.plan import Plan

READY = pb.Ready(version=wire.VERSION)


class RefusedCall(Exception):
    """A call ended in a status."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code
        super().__init__(code.name)


class Context:
    """What a servicer sees of a call that did not come over a wire."""

    def __init__(self, region: str, peer: str = "ipv4:127.0.0.1:1", seconds: float | None = 20.0) -> None:
        self.region, self._peer, self._seconds = region, peer, seconds
        self.code: grpc.StatusCode | None = None
        self.details: str | None = None
        self.ended = False
        self._callbacks: list[Callable[[], None]] = []

    def peer(self) -> str:
        return self._peer

    def time_remaining(self) -> float | None:
        return self._seconds

    def is_active(self) -> bool:
        return not self.ended

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self._callbacks.append(callback)
        return True

    def cancel(self) -> None:
        self.ended = True
        for callback in self._callbacks:
            callback()

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.code, self.details = code, details
        raise Exception


class Direct:
    """A stub whose calls are the servicer's methods; messages cross as bytes all the same."""

    def __init__(self, servicer: Servicer, region: str, peer: str = "ipv4:127.0.0.1:1") -> None:
        self._servicer, self._region, self._peer = servicer, region, peer

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(request: Any, timeout: float | None = 20.0) -> Any:
            context = Context(self._region, self._peer, timeout)
            crossed = _again(request) if isinstance(request, Message) else (_again(one) for one in request)
            try:
                answer = getattr(self._servicer, name)(crossed, context)
                return answer if isinstance(answer, Message) else list(answer)
            except Exception as error:
                if context.code is None:
                    raise
                assert context.details == ""
                raise RefusedCall(context.code) from error

        return call


class RegionFake:
    """One region with its books in ``folder``, enrolled with ``coordinator``."""

    def __init__(self, coordinator: Coordinator, name: str, folder: Path, *plans: Plan) -> None:
        self.name, self.folder, self._coordinator = name, folder, coordinator
        self.plans = {plan.hash: plan for plan in plans}
        self.officer, self.node = draft.officer_key(name), draft.node_key(name)
        ledger = books.begin(folder / LEDGER, folder / MIRROR, node=self.node, officer=self.officer)
        books.grant_for(ledger, self.officer, *plans, data_set=f"data {name}")
        for plan in plans:
            ledger.approve_plan(
                plan, recipient=coordinator.key.name, purpose="test", key_commitment=plan.hash
            )
        self.ledger = ledger
        self.position = (0, 0)
        self.enrol()

    def enrol(self) -> None:
        """Have the ledger's keys confirmed."""
        folder = self._coordinator.region(self.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "node.vkey").write_text(f"{self.node.verification}\n")
        (folder / "officer.vkey").write_text(f"{self.officer.verification}\n")

    def reopen(self) -> None:
        """The ledger as it is on disk, after a test changed that."""
        self.ledger.close()
        self.ledger = open_ledger(self.folder)

    # What an honest region does.

    def hello(self, stub: Any) -> None:
        """Greet, and learn what is remembered of the ledger."""
        welcome = stub.Hello(pb.Greeting(versions=[wire.VERSION]), timeout=5)
        assert welcome.version == wire.VERSION
        self.position = (welcome.epoch, welcome.size)

    def fetch(self, stub: Any, task: pb.Round, offset: int = 0) -> bytes:
        """The arrays of a round, from ``offset`` on."""
        request = pb.ArraysRequest(arrays_sha256=task.arrays_sha256, offset=offset)
        return b"".join(chunk.content for chunk in stub.Fetch(request, timeout=20))

    def train(self, plan: Plan, round: int, arrays_sha256: str, content: bytes | None = None) -> Released:
        """Book a round and release ``content``, by default noise as planned."""
        booked = self.ledger.reserve(plan.hash, round, arrays_sha256)
        earlier = self.ledger.released(booked)
        return earlier or self.ledger.release(content or update_of(plan, self.name, round), booked)

    def release(self, booked: Booked, released: Released) -> pb.Release:
        """The message that offers a release, with its proofs."""
        head = self.ledger.checkpoint()
        state, seq = self.ledger.state, released.entry
        size = int(head.split("\n")[1])
        shown = witnesses.show(state, head, epoch=self.position[0], size=self.position[1])
        return pb.Release(
            plan=bytes.fromhex(booked.plan_hash),
            round=booked.round,
            sha256=bytes.fromhex(released.sha256),
            size=len(released.content),
            entry=self.content(seq),
            seq=seq,
            inclusion=state.tree.inclusion(seq, size),
            head=wire.head(shown),
        )

    def content(self, seq: int) -> bytes:
        """The canonical bytes of an entry."""
        return (self.folder / MIRROR).read_bytes().splitlines()[seq]

    def work(self, stub: Any, task: pb.Round, content: bytes | None = None) -> pb.Receipt:
        """A whole round: fetch, train, offer, send."""
        plan = self.plans[task.plan.hex()]
        arrays = self.fetch(stub, task)
        assert canonical.sha256(arrays) == task.arrays_sha256.hex()
        assert len(arrays) == task.size
        released = self.train(plan, task.round, canonical.sha256(arrays), content)
        booked = Booked(plan.hash, task.round, canonical.sha256(arrays))
        self.hello(stub)
        progress = stub.Offer(self.release(booked, released), timeout=20)
        if not progress.HasField("receipt"):
            progress = stub.Send(iter(chunks(released.content, start=progress.offset)), timeout=20)
        return progress.receipt


def chunks(content: bytes | memoryview, *, start: int = 0, piece: int = 4096) -> Iterable[pb.Chunk]:
    """The bytes from ``start`` on, in pieces."""
    sha256 = bytes.fromhex(canonical.sha256(content))
    for offset in range(start, len(content), piece):
        yield pb.Chunk(sha256=sha256, offset=offset, content=bytes(content[offset : offset + piece]))


def update_of(plan: Plan, region: str, round: int, *, scale: float = 1.0) -> bytes:
    """The bytes of an update of nothing but noise, ``scale`` times as large as planned."""
    return noise_alone(plan, region, round, scale=scale)


def arrays_of(plan: Plan, value: float = 0.0) -> dict[str, np.ndarray]:
    """Inbound arrays of one value."""
    flat = np.full(plan.model.size, value, "<f4")
    return gate_arrays.view(flat.tobytes(), plan.model.arrays)


def changed(message: Message, **fields: Any) -> Any:
    """A copy of ``message`` with other fields."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in fields.items():
        if isinstance(value, list):
            del getattr(copy, name)[:]
            getattr(copy, name).extend(value)
        else:
            setattr(copy, name, value)
    return copy


def replaced(booked: Booked, **fields: Any) -> Booked:
    """Another booking."""
    return dataclasses.replace(booked, **fields)


def _again(message: Message) -> Message:
    return type(message).FromString(message.SerializeToString())
