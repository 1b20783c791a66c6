"""Sending a release: announced with its proofs, resumed where it was interrupted, its receipt kept."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from fedfsd.audit.receipt import Receipt
from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.errors import NotReadyError
from fedfsd.ledger import witness
from fedfsd.ledger.ledger import Booked, Released
from fedfsd.ledger.mirror import RECOVER
from fedfsd.ledger.note import Checkpoint, Note
from fedfsd.node.line import CoordinatorLine
from fedfsd.node.station import GateStation

# Small, so that little is under way when the operator holds the outbox; large enough not to cost time.
PIECE = 2**18
MAX_STUCK = 3
"""Streams in a row after which the coordinator holds no more than before."""


class ForkError(NotReadyError):
    """The coordinator knows more of this ledger than this copy has, or a different history."""


class Upload:
    """Sends releases over one connection, on which the coordinator reported the known ``position``."""

    def __init__(self, station: GateStation, line: CoordinatorLine, position: tuple[int, int]) -> None:
        """Raises ForkError where the coordinator has seen more of this ledger than there is here."""
        self._station, self._line, self._position = station, line, position
        state = station.ledger.state
        epoch, size = position
        lost = state.epochs[epoch][1] if epoch < state.epoch else state.size
        if epoch > state.epoch or size > lost:
            raise fork(f"{state.size} entries where the coordinator has seen {size}")

    def deliver(self, booked: Booked, released: Released) -> None:
        """Send ``released`` and keep the receipt for it.

        Raises:
            ReceiptError, EvidenceError, WireError: the coordinator does not answer as it must.
            grpc.RpcError: the connection fails, or the coordinator refuses.
            NotReadyError: a full disk.
            StoppedError: the process ends.
        """
        held, stuck = 0, 0
        while True:
            self._station.hold()
            progress = self._line.offer(self._announce(booked, released))
            if progress.WhichOneof("progress") == "offset":
                progress = self._send(released, progress.offset) or progress
            if progress.WhichOneof("progress") == "receipt":
                return self._received(booked, released, progress.receipt)
            stuck = 0 if progress.offset > held else stuck + 1
            held = max(held, progress.offset)
            if stuck == MAX_STUCK:
                raise wire.WireError("Progress.offset", got="no more than before", expected="more")

    def show(self) -> None:
        """Have the newest head cosigned. Raises as ``deliver``."""
        station = self._station
        state, checkpoint = station.ledger.state, station.ledger.checkpoint()
        if self._position != (state.epoch, _size(checkpoint)):
            head = wire.head(self._shown(checkpoint))
            self._seen(station.receipts.keep_head(self._line.show(head), station.ledger))

    def _announce(self, booked: Booked, released: Released) -> pb.Release:
        ledger = self._station.ledger
        checkpoint = ledger.checkpoint()
        return pb.Release(
            plan=bytes.fromhex(booked.plan_hash),
            round=booked.round,
            sha256=bytes.fromhex(released.sha256),
            size=len(released.content),
            entry=ledger.content(released.entry),
            seq=released.entry,
            inclusion=ledger.state.tree.inclusion(released.entry, _size(checkpoint)),
            head=wire.head(self._shown(checkpoint)),
        )

    def _shown(self, checkpoint: str) -> witness.Shown:
        epoch, size = self._position
        return witness.show(self._station.ledger.state, checkpoint, epoch=epoch, size=size)

    def _send(self, released: Released, offset: int) -> pb.Progress | None:
        """The coordinator's answer after one stream; None if that took too long."""
        if offset > len(released.content):
            raise wire.WireError("Progress.offset", got="more than was sent", expected="what it holds")
        if offset == len(released.content):
            return None
        try:
            return self._line.send(self._pieces(released, offset))
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            return None

    def _pieces(self, released: Released, offset: int) -> Iterator[pb.Chunk]:
        """Chunks from ``offset`` on; none while the outbox is paused."""
        sha256, content = bytes.fromhex(released.sha256), memoryview(released.content)
        for start in range(offset, len(content), PIECE):
            if self._station.paused or self._station.stop.is_set():
                return
            yield pb.Chunk(sha256=sha256, offset=start, content=bytes(content[start : start + PIECE]))

    def _received(self, booked: Booked, released: Released, got: pb.Receipt) -> None:
        station = self._station
        sent = Receipt(
            region=station.region,
            plan=booked.plan_hash,
            round=booked.round,
            entry=released.entry_hash,
            sha256=released.sha256,
            bytes=len(released.content),
        )
        again = station.receipts.has(sent.plan, sent.round)
        cosigned = station.receipts.keep(sent, got, station.ledger)
        self._seen(cosigned)
        about = {"plan": booked.plan_hash, "round": booked.round, "bytes": sent.bytes}
        station.log.info("receipt", extra=about)
        if not again:
            station.tally.round(sent.plan, sent.round, "received")
            if station.ledger.state.runs[sent.plan].settled:
                self._finish(cosigned)

    def _finish(self, cosigned: str) -> None:
        """A plan has ended: record what the coordinator cosigned, and show that head as well."""
        self._station.ledger.witness(cosigned, [self._station.receipts.cosigner])
        self.show()

    def _seen(self, cosigned: str) -> None:
        """The coordinator remembers this head, or a newer one."""
        self._position = max(self._position, (self._station.ledger.state.epoch, _size(cosigned)))


def fork(got: str = "a history that differs from what the coordinator has seen") -> ForkError:
    """The region's gate must stop: its ledger was restored from an old copy, or its key is used twice."""
    return ForkError(
        "ledger",
        got=got,
        expected="the newest copy, written by a single node",
        hint=f"stop the other node with this key; if this disk was restored from a backup, {RECOVER}",
    )


def _size(checkpoint: str) -> int:
    return Checkpoint.parse(Note.parse(checkpoint).text).size
