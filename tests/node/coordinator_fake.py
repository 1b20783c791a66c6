"""A coordinator for the region's gate to talk to: honest by itself, and as hostile as a test wants it.

``twists[method]`` changes what a method answers: a function of (answer, request); of a stream it gets and
gives an iterator. ``failures[method]`` is a list of status codes that its next calls end with. ``calls`` has
every method that was called, in order.

``Direct`` is a channel to it without sockets: every message is serialized both ways, so that ``mutate`` can
change the bytes of any answer. ``served`` is the same over gRPC.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from fedfsd.audit.receipt import Receipt, countersign
from fedfsd.border import border_pb2 as pb
from fedfsd.border import rpc, wire
from fedfsd.errors import FedfsdError
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.merkle import leaf_hash
from fedfsd.ledger.witness import Witness
from fedfsd.plan.plan import Plan

HELD_SECONDS = 0.05


class Status(grpc.RpcError, Exception):
    """A call that ends with a status code."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code)
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


class Coordinator:
    """One region's view of a coordinator."""

    def __init__(
        self, folder: Path, *, region: str = "EU", chunk: int = 1000, key: SigningKey | None = None
    ) -> None:
        self.key = key or SigningKey.generate("fedfsd/coordinator/hub")
        self.witness = Witness(folder, self.key)
        self.region, self.chunk = region, chunk
        self.ledger = ""
        self.tasks: list[pb.Task] = []
        self.documents: dict[bytes, bytes] = {}
        self.arrays: dict[bytes, bytes] = {}
        self.offered: pb.Release | None = None
        self.parts: dict[bytes, bytearray] = defaultdict(bytearray)
        self.received: dict[tuple[str, int], bytes] = {}
        self.receipts: dict[tuple[str, int], pb.Receipt] = {}
        self.answers: dict[str, str] = {}
        self.refusals: dict[tuple[str, int], str] = {}
        self.shown: list[str] = []
        self.declared: pb.Declaration | None = None
        self.times: dict[str, float] = {}
        self.calls: list[str] = []
        self.twists: dict[str, Callable[[Any, Any], Any]] = {}
        self.failures: dict[str, list[grpc.StatusCode]] = defaultdict(list)
        self.changed = threading.Condition()

    # What a test says.

    def offer(self, plan: Plan, *, document: bytes | None = None) -> None:
        """Offer a plan."""
        content, name = document or plan.document().encode(), bytes.fromhex(plan.hash)
        self.documents[name] = content
        self._put(pb.Task(plan=pb.PlanOffer(plan=name, size=len(content))))

    def ask(self, plan: Plan, round: int, content: bytes, other: dict[str, Any] | None = None) -> None:
        """Ask for a round on these canonical bytes; ``other`` replaces fields of the task."""
        sha256 = hashlib.sha256(content).digest()
        self.arrays[sha256] = content
        fields = {"plan": bytes.fromhex(plan.hash), "round": round, "size": len(content)}
        self._put(pb.Task(round=pb.Round(**{**fields, "arrays_sha256": sha256, **(other or {})})))

    def wait(self, holds: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Wait until something that the region did ``holds``."""
        with self.changed:
            assert self.changed.wait_for(holds, seconds), f"waited in vain; calls: {self.calls[-20:]}"
            return holds()

    def _put(self, task: pb.Task) -> None:
        with self.changed:
            self.tasks.append(task)
            self.changed.notify_all()

    # What the region calls.

    def Hello(self, request: pb.Greeting, context: Any) -> pb.Welcome:
        epoch, size = self.witness.position(self.region, self.ledger)
        return self._answer("Hello", pb.Welcome(version=wire.VERSION, epoch=epoch, size=size), request)

    def Beat(self, request: pb.Ready, context: Any) -> pb.Done:
        return self._answer("Beat", pb.Done(), request)

    def Next(self, request: pb.Ready, context: Any) -> pb.Task:
        with self.changed:
            self.changed.wait_for(lambda: self.tasks, HELD_SECONDS)
            task = self.tasks[0] if self.tasks else pb.Task()
            if task.HasField("plan"):  # handed out once; the region remembers
                self.tasks.pop(0)
        return self._answer("Next", task, request)

    def Document(self, request: pb.PlanRequest, context: Any) -> pb.PlanDocument:
        return self._answer("Document", pb.PlanDocument(document=self.documents[request.plan]), request)

    def Answer(self, request: pb.PlanAnswer, context: Any) -> pb.Done:
        self.answers[request.plan.hex()] = "approved" if request.approved else wire.word(request.code)
        return self._answer("Answer", pb.Done(), request)

    def Fetch(self, request: pb.ArraysRequest, context: Any) -> Iterator[pb.Chunk]:
        yield from self._answer("Fetch", self._chunks(request), request)

    def Refuse(self, request: pb.Refusal, context: Any) -> pb.Done:
        self.refusals[request.plan.hex(), request.round] = wire.word(request.code)
        self._over(request.plan, request.round)
        return self._answer("Refuse", pb.Done(), request)

    def Offer(self, request: pb.Release, context: Any) -> pb.Progress:
        wire.strict(request)
        self._begin("Offer")  # a real coordinator refuses before its witness has moved
        case = (request.plan.hex(), request.round)
        self.times.setdefault("offer", time.monotonic())
        if case not in self.receipts:
            cosigned = self.witness.accept(wire.shown(request.head), seconds=1)
            self.ledger = cosigned.split("/")[2].splitlines()[0]
            self.offered, self._cosigned = request, cosigned
        return self._twisted("Offer", self._progress(request), request)

    def Send(self, chunks: Iterator[pb.Chunk], context: Any) -> pb.Progress:
        assert self.offered is not None
        for chunk in chunks:
            wire.strict(chunk)
            part = self.parts[chunk.sha256]
            assert (chunk.sha256, chunk.offset) == (self.offered.sha256, len(part))
            part += chunk.content
            twist = self.twists.get("chunk")
            if twist:
                twist(chunk, part)
        return self._answer("Send", self._progress(self.offered), self.offered)

    def Show(self, request: pb.Head, context: Any) -> pb.Cosignature:
        self._begin("Show")
        cosigned = self.witness.accept(wire.shown(request), seconds=2)
        self.shown.append(cosigned)
        return self._twisted("Show", pb.Cosignature(cosigned=cosigned.encode()), request)

    def Declare(self, request: pb.Declaration, context: Any) -> pb.Done:
        wire.strict(request)
        self.declared = request
        return self._answer("Declare", pb.Done(), request)

    def Renew(self, request: pb.Renewal, context: Any) -> pb.Enrolled:
        wire.strict(request)
        return self._answer("Renew", pb.Enrolled(), request)

    def Clock(self, request: pb.Ready, context: Any) -> pb.Now:
        return self._answer("Clock", pb.Now(seconds=int(time.time())), request)

    def _answer(self, method: str, answer: Any, request: Any) -> Any:
        self._begin(method)
        return self._twisted(method, answer, request)

    def _begin(self, method: str) -> None:
        """The call is counted, and ends here where it shall fail."""
        with self.changed:
            self.calls.append(method)
            failing = self.failures[method].pop(0) if self.failures[method] else None
            self.changed.notify_all()
        if failing is not None:
            raise Status(failing)

    def _twisted(self, method: str, answer: Any, request: Any) -> Any:
        return self.twists[method](answer, request) if method in self.twists else answer

    def _chunks(self, request: pb.ArraysRequest) -> Iterator[pb.Chunk]:
        content = self.arrays[request.arrays_sha256]
        for start in range(request.offset, len(content), self.chunk):
            part = content[start : start + self.chunk]
            yield pb.Chunk(sha256=request.arrays_sha256, offset=start, content=part)

    def _progress(self, release: pb.Release) -> pb.Progress:
        case, part = (release.plan.hex(), release.round), self.parts[release.sha256]
        if case not in self.receipts and len(part) == release.size:
            assert hashlib.sha256(part).digest() == release.sha256
            one = Receipt(
                region=self.region,
                plan=case[0],
                round=case[1],
                entry=leaf_hash(release.entry).hex(),
                sha256=release.sha256.hex(),
                bytes=release.size,
            )
            signature = countersign(one, self.key)
            self.receipts[case] = wire.receipt(one, signature=signature, cosigned=self._cosigned)
            self.received[case] = bytes(part)
            self._over(release.plan, release.round)
        if case in self.receipts:
            return pb.Progress(receipt=self.receipts[case])
        return pb.Progress(offset=len(part))

    def _over(self, plan: bytes, round: int) -> None:
        with self.changed:
            self.tasks = [
                one
                for one in self.tasks
                if not one.HasField("round") or (one.round.plan, one.round.round) != (plan, round)
            ]
            self.changed.notify_all()


class Direct:
    """A channel that calls ``coordinator`` in the same thread."""

    def __init__(
        self,
        coordinator: Coordinator,
        mutate: Callable[[str, bytes], bytes] = lambda method, content: content,
    ) -> None:
        self._coordinator, self._mutate, self._closed = coordinator, mutate, False

    def unary_unary(self, path: str, **coder: Any) -> Callable[..., Any]:
        return self._call(path, coder, lambda method, request: method(self._parse(path, request), None))

    def stream_unary(self, path: str, **coder: Any) -> Callable[..., Any]:
        return self._call(path, coder, lambda method, request: method(request, None))

    def unary_stream(self, path: str, **coder: Any) -> Callable[..., Any]:
        name = path.rpartition("/")[2]

        def call(request: Any, timeout: float) -> _Stream:
            assert timeout > 0
            self._demand_open()
            chunks = getattr(self._coordinator, name)(self._parse(path, request), None)
            return _Stream(self._received(name, one, coder) for one in chunks)

        return call

    def close(self) -> None:
        self._closed = True

    def _call(self, path: str, coder: Any, invoke: Callable[[Any, Any], Any]) -> Callable[..., Any]:
        name = path.rpartition("/")[2]

        def call(request: Any, timeout: float) -> Any:
            assert timeout > 0
            self._demand_open()
            try:
                answer = invoke(getattr(self._coordinator, name), request)
            except FedfsdError:
                raise Status(grpc.StatusCode.FAILED_PRECONDITION) from None
            return self._received(name, answer, coder)

        return call

    def _received(self, name: str, answer: Any, coder: Any) -> Any:
        try:
            return coder["response_deserializer"](self._mutate(name, answer.SerializeToString()))
        except Exception:  # as gRPC does with what it cannot parse
            raise Status(grpc.StatusCode.INTERNAL) from None

    def _parse(self, path: str, request: Any) -> Any:
        return type(request).FromString(request.SerializeToString())

    def _demand_open(self) -> None:
        if self._closed:
            raise ValueError("Cannot invoke RPC on closed channel!")


class _Stream:
    """Chunks, and the way to end them."""

    def __init__(self, chunks: Iterator[Any]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[Any]:
        return self._chunks

    def cancel(self) -> None:
        pass


@contextmanager
def served(coordinator: Coordinator, port: int = 0) -> Iterator[int]:
    """Serve it over gRPC without TLS; gives the port."""
    server = grpc.server(ThreadPoolExecutor(8))
    rpc.add(server, coordinator)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield bound
    finally:
        server.stop(0).wait()
