"""Receiving an update: offered with its proofs, received in chunks, judged as a whole, receipted.

A receipt is on the disk before the round counts as received, and that before the region is told; so
whatever crashes, the region offers the same release again and gets the same receipt, and SuperLink gets the
update once.
"""

from __future__ import annotations

import dataclasses

from fedfsd.audit.receipt import Receipt, ReceivedIncident
from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.coordinator.desk import DeskTask
from fedfsd.coordinator.hall import Hall, RegionStation
from fedfsd.coordinator.intake import Offered, is_fork, offered
from fedfsd.coordinator.receipt_book import ReceiptLine
from fedfsd.coordinator.shelf import arrays_in, hash_of, size_of
from fedfsd.errors import FedfsdError, NotReadyError, RefusedError
from fedfsd.gate.gate import WATCH, judge
from fedfsd.gate.outcome import FINDINGS, Word
from fedfsd.gate.outcome import of as word_of
from fedfsd.gate.watch import Watcher

# A proof can be stale and a disk can fail; a region that is refused this often will not do better.
MAX_STRIKES = 3


class Reception:
    """The way of every region's updates; all calls of one region take turns."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._watcher = Watcher(hall.coordinator.folder / WATCH)

    def refuse(self, station: RegionStation, plan: str, round: int, word: Word) -> None:
        """The region will not send this round, and perhaps what it found in its update.

        Saying so again does nothing; another round: RefusedError.
        """
        with station.lock:
            task = station.desk.open
            if task is not None and (task.plan, task.round) == (plan, round):
                self._fail(station, task, word)
            elif station.last != {"plan": plan, "round": round, "outcome": word}:
                raise _not_outstanding()

    def offer(self, station: RegionStation, release: pb.Release) -> pb.Progress:
        """Check what is offered; how much of it is here, or its receipt.

        Raises:
            RefusedError, EvidenceError: not the outstanding round, or its entry or proofs do not hold.
            NotReadyError: the disk is full.
        """
        asked = offered(release)
        with station.lock:
            task = station.desk.open
            line = self._hall.book.find(station.name, asked.plan, asked.round)
            if line is not None and _case(line) != (asked.entry, asked.sha256, asked.size):
                raise RefusedError(
                    "release", got="another release of a round that has a receipt", expected="the same one"
                )
            if task is None or (task.plan, task.round) != (asked.plan, asked.round):
                if line is None:
                    raise _not_outstanding()
                return self._receipt(station, line)
            if not asked.is_same(station.offered):
                station.offered = self._check(station, task, asked, release)
            return self._progress(station, task, station.offered or asked)

    def take(self, station: RegionStation, chunk: pb.Chunk) -> pb.Progress:
        """The next bytes of what was offered. RefusedError for any others, or where they turn out bad."""
        with station.lock:
            task, mine = self._outstanding(station)
            if chunk.sha256.hex() != mine.sha256:
                raise RefusedError("chunk", got="other content", expected="what was offered")
            held = station.desk.append(mine.sha256, chunk.offset, chunk.content, size=mine.size)
            self._hall.moved(station, "in", len(chunk.content))
            return pb.Progress(offset=held) if held < mine.size else self._complete(station, task, mine)

    def progress(self, station: RegionStation) -> pb.Progress:
        """How much of what was offered is here."""
        with station.lock:
            return self._progress(station, *self._outstanding(station))

    def show(self, station: RegionStation, head: pb.Head) -> str:
        """The newest head of the region's ledger, cosigned. Errors as of ``offer``."""
        with station.lock:
            cosigned = self._hall.believe(station, lambda: self._hall.intake.show(station.name, head))
            self._hall.told(station, cosigned)
            return cosigned

    def _outstanding(self, station: RegionStation) -> tuple[DeskTask, Offered]:
        task, mine = station.desk.open, station.offered
        if task is None or mine is None or (task.plan, task.round) != (mine.plan, mine.round):
            raise RefusedError("stream", got="no offered release", expected="an offer first")
        return task, mine

    def _check(self, station: RegionStation, task: DeskTask, asked: Offered, release: pb.Release) -> Offered:
        """The offer, once every check passed."""
        plan = self._hall.board.plan_of(station.name, task.plan)
        try:
            if asked.size != size_of(plan.model.arrays):
                raise RefusedError("release", got="another size", expected="the size of the plan's model")
            cosigned = self._hall.believe(
                station, lambda: self._hall.intake.release(station.name, plan, release)
            )
        except NotReadyError:
            raise
        except FedfsdError as error:
            self._strike(station, task, MAX_STRIKES if is_fork(error) else 1)
            raise
        return dataclasses.replace(asked, cosigned=cosigned)

    def _progress(self, station: RegionStation, task: DeskTask, mine: Offered) -> pb.Progress:
        held = station.desk.begin(mine.sha256)
        return pb.Progress(offset=held) if held < mine.size else self._complete(station, task, mine)

    def _complete(self, station: RegionStation, task: DeskTask, mine: Offered) -> pb.Progress:
        """All bytes are here: judge them, receipt them, hand them on."""
        plan = self._hall.board.plan_of(station.name, task.plan)
        desk = station.desk
        with self._hall.turn():
            path = desk.whole(mine.sha256)
            if hash_of(path) != mine.sha256:
                desk.discard(mine.sha256)
                self._strike(station, task)
                raise RefusedError("release", got="bytes of another hash", expected="the offered bytes")
            try:
                arrays = arrays_in(path, plan.model.arrays)
                judge(arrays, plan, station.name, task.round)
                self._watcher.look(arrays, plan, station.name, task.round)
            except RefusedError as error:
                desk.discard(mine.sha256)
                self._fail(station, task, word_of(error))
                raise
        line = self._hall.book.sign(
            Receipt(
                region=station.name,
                plan=mine.plan,
                round=mine.round,
                entry=mine.entry,
                sha256=mine.sha256,
                bytes=mine.size,
            ),
            mine.cosigned,
        )
        desk.receive(task, entry=mine.entry, sha256=mine.sha256)
        self._end(station, task, "released")
        return self._receipt(station, line)

    def _receipt(self, station: RegionStation, line: ReceiptLine) -> pb.Progress:
        self._hall.told(station, line.cosigned)
        signature = bytes.fromhex(line.signature)
        return pb.Progress(receipt=wire.receipt(line.receipt, signature=signature, cosigned=line.cosigned))

    def _strike(self, station: RegionStation, task: DeskTask, count: int = 1) -> None:
        station.strikes += count
        if station.strikes >= MAX_STRIKES:
            self._fail(station, task, "refused")

    def _fail(self, station: RegionStation, task: DeskTask, word: Word) -> None:
        """There is no update; where it was unlike the plan's, no other round is asked for."""
        if word in FINDINGS:
            incident = ReceivedIncident(region=station.name, plan=task.plan, round=task.round, finding=word)
            self._hall.book.end(incident)
            self._hall.note("part_ended", station, warn=True, plan=task.plan, round=task.round, code=word)
        station.desk.fail(task, word)
        self._end(station, task, word)

    def _end(self, station: RegionStation, task: DeskTask, word: str) -> None:
        station.offered, station.strikes = None, 0
        self._hall.outcome(station, task.plan, task.round, word)


def _case(line: ReceiptLine) -> tuple[str, str, int]:
    return line.entry, line.sha256, line.bytes


def _not_outstanding() -> RefusedError:
    return RefusedError("round", got="another round", expected="the outstanding one")
