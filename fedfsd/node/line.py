"""The only outgoing connection: each call has a deadline, each answer is checked against border.proto."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from fedfsd import formats
from fedfsd.border import border_pb2 as pb
from fedfsd.border import rpc, wire

CALL_SECONDS = 20.0
HELD_SECONDS = 30.0
"""For Next, which the coordinator holds for up to 10 seconds."""
STREAM_SECONDS = 60.0
"""For one stream of chunks; what is longer goes on with the next."""


class ClosedError(Exception):
    """The connection was closed on this side."""


class CoordinatorLine:
    """Calls to the coordinator over ``channel``.

    Every call raises grpc.RpcError where the connection or the coordinator fails, WireError where an answer
    is not one, and ClosedError after ``close``.
    """

    def __init__(self, channel: grpc.Channel, *, count: Callable[[str, int], None]) -> None:
        """``count`` is called with ("in" or "out", bytes) for every message."""
        self._channel, self._count = channel, count
        self._ready = pb.Ready(version=wire.VERSION)
        self.version = 1
        """Of the border, as agreed; 1 until ``hello``."""
        self._stub = rpc.stub(channel)

    def hello(self) -> tuple[int, int]:
        """(epoch, size) of the newest head of this region's ledger that the coordinator remembers.

        Raises:
            FormatError: no version of the border is spoken here and there.
        """
        welcome = self._said(self._stub.Hello, pb.Greeting(versions=wire.VERSIONS))
        if welcome.version not in wire.VERSIONS:  # before all else: what else it says is of that version
            raise formats.disagreement("border", welcome.version, peer="the coordinator", here="this region")
        wire.strict(welcome)
        self._ready, self.version = pb.Ready(version=welcome.version), welcome.version
        return welcome.epoch, welcome.size

    def beat(self) -> None:
        """Say that this region is alive."""
        self._call(self._stub.Beat, self._ready)

    def next(self) -> pb.Task:
        """The next task, or an empty one."""
        task: pb.Task = self._call(self._stub.Next, self._ready, seconds=HELD_SECONDS)
        return task

    def document(self, plan: bytes) -> bytes:
        """A plan's document."""
        return bytes(self._call(self._stub.Document, pb.PlanRequest(plan=plan)).document)

    def answer(self, plan: bytes, code: str | None) -> None:
        """The plan is approved, or why not, in one of the wire's words."""
        reason: Any = pb.CODE_UNSPECIFIED if code is None else wire.code(code)
        self._call(self._stub.Answer, pb.PlanAnswer(plan=plan, approved=code is None, code=reason))

    def fetch(self, sha256: bytes, offset: int) -> Iterator[pb.Chunk]:
        """Chunks of a round's arrays; leaving the loop ends the stream."""
        request = pb.ArraysRequest(arrays_sha256=sha256, offset=offset)
        with _open():
            stream = self._stub.Fetch(request, timeout=STREAM_SECONDS)
        self._count("out", request.ByteSize())
        try:
            for chunk in stream:
                self._count("in", chunk.ByteSize())
                wire.strict(chunk)
                yield chunk
        finally:
            stream.cancel()

    def refuse(self, plan: bytes, round: int, code: str) -> None:
        """This round will not be done."""
        reason: Any = wire.code(code, self.version)
        self._call(self._stub.Refuse, pb.Refusal(plan=plan, round=round, code=reason))

    def offer(self, release: pb.Release) -> pb.Progress:
        """Announce an update; the answer states how much has arrived."""
        progress: pb.Progress = self._call(self._stub.Offer, release)
        return progress

    def send(self, chunks: Iterable[pb.Chunk]) -> pb.Progress:
        """Send chunks of the offered update."""
        counted = self._counted(chunks)
        progress: pb.Progress = self._call(self._stub.Send, counted, seconds=STREAM_SECONDS)
        return progress

    def show(self, head: pb.Head) -> bytes:
        """The head with the coordinator's cosignature."""
        return bytes(self._call(self._stub.Show, head).cosigned)

    def declare(self, roster: int, identity: Any) -> None:
        """Say what plans must state of this region."""
        self._call(self._stub.Declare, pb.Declaration(roster=roster, identity=identity))

    def renew(self, request: bytes) -> bytes:
        """A new certificate, PEM, for the key of the signing ``request``, which has one."""
        return bytes(self._call(self._stub.Renew, pb.Renewal(request=request)).certificate)

    def clock(self) -> int:
        """The coordinator's time, POSIX seconds."""
        return int(self._call(self._stub.Clock, self._ready).seconds)

    def close(self) -> None:
        """End every call."""
        self._channel.close()

    def _call(self, method: Any, request: Any, *, seconds: float = CALL_SECONDS) -> Any:
        answer = self._said(method, request, seconds=seconds)
        wire.strict(answer)
        return answer

    def _said(self, method: Any, request: Any, *, seconds: float = CALL_SECONDS) -> Any:
        """An answer, nothing of it checked yet."""
        with _open():
            answer = method(request, timeout=seconds)
        if hasattr(request, "ByteSize"):
            self._count("out", request.ByteSize())
        self._count("in", answer.ByteSize())
        return answer

    def _counted(self, chunks: Iterable[pb.Chunk]) -> Iterator[pb.Chunk]:
        for chunk in chunks:
            self._count("out", chunk.ByteSize())
            yield chunk


@contextmanager
def _open() -> Iterator[None]:
    """gRPC reports a closed channel with a ValueError."""
    try:
        yield
    except ValueError:
        raise ClosedError from None
