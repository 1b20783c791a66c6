"""The Border service: what a region may ask, and the status code without text that it gets otherwise.

A region is named by its certificate, never by a message; what it names must be its own outstanding round or
a plan on offer to it. Every call has a deadline, and every region its own bounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import grpc
from cryptography.hazmat.primitives.serialization import Encoding

from fedfsd import formats
from fedfsd.border import border_pb2 as pb
from fedfsd.border import channel, identity, wire
from fedfsd.coordinator import declaration, invite
from fedfsd.coordinator.desk import DeskTask
from fedfsd.coordinator.hall import Hall, RegionStation
from fedfsd.coordinator.intake import is_fork
from fedfsd.coordinator.offer import TOO_OLD
from fedfsd.coordinator.presence import BusyError
from fedfsd.coordinator.reception import Reception
from fedfsd.errors import FedfsdError, FormatError, NotReadyError, RefusedError

HOLD_SECONDS = 10.0
MAX_DEADLINE_SECONDS = 300.0
"""Whoever is revoked may finish the call that is open: not for long."""
# A plan that waits for its people is offered again, but not at once.
_AGAIN_SECONDS = 5.0
_DISPLACED_SECONDS = 1.0

_STATUS: tuple[tuple[type[FedfsdError], grpc.StatusCode], ...] = (
    (BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (wire.WireError, grpc.StatusCode.INVALID_ARGUMENT),
    (NotReadyError, grpc.StatusCode.UNAVAILABLE),
    (FedfsdError, grpc.StatusCode.FAILED_PRECONDITION),
)


class Servicer:
    """The calls of all regions; ``caller`` tells them apart."""

    def __init__(
        self, hall: Hall, *, caller: Callable[[Any], str] = channel.caller, hold: float = HOLD_SECONDS
    ) -> None:
        self._hall, self._caller, self._hold = hall, caller, hold
        self._delivery = Reception(hall)

    def Hello(self, request: pb.Greeting, context: grpc.ServicerContext) -> pb.Welcome:
        """The version to speak, and which head of the region's ledger is remembered."""
        with self._call(context, request, check=False) as station:
            version = wire.common(request.versions)
            if version is None and 0 < len(request.versions) <= wire.COUNTS["Greeting.versions"]:
                # Said before all else: what more such a greeting holds is of a version unknown here.
                theirs = max(request.versions)
                here = f"the coordinator {self._hall.coordinator.name}"
                self._object(
                    station, formats.disagreement("border", theirs, peer=f"region {station.name}", here=here)
                )
                return pb.Welcome(version=wire.VERSION)
            wire.strict(request)
            if version is None:
                raise wire.WireError("Greeting.versions", got="none", expected=wire.VERSIONS)
            station.version, station.objection = version, None
            station.known = epoch, size = self._hall.intake.position(station.name)
            self._hall.note("hello", station, peer=context.peer(), version=version)
            return pb.Welcome(version=version, epoch=epoch, size=size)

    def Beat(self, request: pb.Ready, context: grpc.ServicerContext) -> pb.Done:
        """The region is alive."""
        with self._call(context, request) as station:
            _agree(station, request)
            return pb.Done()

    def Next(self, request: pb.Ready, context: grpc.ServicerContext) -> pb.Task:
        """The outstanding round, or a plan to answer; held for a while when there is neither."""
        with self._call(context, request) as station:
            _agree(station, request)
            with station.presence.only("next", station.desk.ring) as newest:
                context.add_callback(station.desk.ring)

                def look() -> pb.Task | None:
                    if not newest() or not context.is_active() or self._hall.stopping.is_set():
                        return pb.Task()
                    return self._task(station)

                task = station.desk.wait(look, min(self._hold, 0.9 * context.time_remaining())) or pb.Task()
                if not newest():  # two nodes with one key must not drive each other round
                    self._hall.stopping.wait(_DISPLACED_SECONDS)
                return task

    def Document(self, request: pb.PlanRequest, context: grpc.ServicerContext) -> pb.PlanDocument:
        """A plan on offer to the region."""
        with self._call(context, request) as station:
            plan = self._hall.board.plan_of(station.name, request.plan.hex())
            return pb.PlanDocument(document=plan.document().encode())

    def Answer(self, request: pb.PlanAnswer, context: grpc.ServicerContext) -> pb.Done:
        """The region approves a plan, or says why not."""
        with self._call(context, request) as station:
            plan, code = request.plan.hex(), None if request.approved else wire.word(request.code)
            self._hall.board.answer(station.name, plan, code=code)
            self._hall.note("answer", station, plan=plan, code=code or "approved")
            return pb.Done()

    def Fetch(self, request: pb.ArraysRequest, context: grpc.ServicerContext) -> Iterator[pb.Chunk]:
        """The arrays of the outstanding round."""
        with self._call(context, request) as station:
            task = station.desk.open
            if task is None or task.arrays != request.arrays_sha256.hex() or request.offset > task.size:
                raise RefusedError("arrays", got="other arrays", expected="those of the outstanding round")
            with (
                station.presence.only("stream", context.cancel) as newest,
                self._hall.shelf.path(task.arrays).open("rb") as file,
            ):
                offset = request.offset
                file.seek(offset)
                while newest() and (content := file.read(wire.CHUNK)):
                    yield pb.Chunk(sha256=request.arrays_sha256, offset=offset, content=content)
                    offset += len(content)
                    self._hall.moved(station, "out", len(content))

    def Refuse(self, request: pb.Refusal, context: grpc.ServicerContext) -> pb.Done:
        """There will be no update of the outstanding round."""
        with self._call(context, request) as station:
            self._delivery.refuse(station, request.plan.hex(), request.round, wire.word(request.code))
            return pb.Done()

    def Offer(self, request: pb.Release, context: grpc.ServicerContext) -> pb.Progress:
        """An update of the outstanding round is about to come, or came: how much of it is here."""
        with self._call(context, request) as station:
            return self._delivery.offer(station, request)

    def Send(self, request_iterator: Iterable[pb.Chunk], context: grpc.ServicerContext) -> pb.Progress:
        """The bytes of what was offered."""
        with (
            self._call(context) as station,
            station.presence.only("stream", context.cancel) as newest,
        ):
            progress = None
            try:
                for chunk in request_iterator:
                    wire.strict(chunk)
                    if not newest():
                        raise RefusedError("stream", got="an older one", expected="the newest")
                    progress = self._delivery.take(station, chunk)
                    if progress.HasField("receipt"):
                        break
            except grpc.RpcError:  # cut off, or past its deadline: what came is kept
                raise RefusedError(
                    "stream", got="an interrupted stream", expected="a complete stream"
                ) from None
            return progress or self._delivery.progress(station)

    def Show(self, request: pb.Head, context: grpc.ServicerContext) -> pb.Cosignature:
        """The newest head of the region's ledger, cosigned."""
        with self._call(context, request) as station:
            return pb.Cosignature(cosigned=self._delivery.show(station, request).encode())

    def Declare(self, request: pb.Declaration, context: grpc.ServicerContext) -> pb.Done:
        """What plans must state of the region."""
        with self._call(context, request) as station:
            physical = request.identity == pb.IDENTITY_PHYSICAL
            kind: Literal["physical", "recording"] = "physical" if physical else "recording"
            made = declaration.Declaration(roster=request.roster, identity=kind)
            if declaration.keep(self._hall.coordinator, station.name, made):
                self._hall.note("declared", station, count=request.roster, kind=kind)
            return pb.Done()

    def Renew(self, request: pb.Renewal, context: grpc.ServicerContext) -> pb.Enrolled:
        """A certificate for the key for which the region has one."""
        with self._call(context, request) as station:
            made = invite.renew(self._hall.coordinator, station.name, request.request)
            self._hall.note("renewed", station, days=identity.days_left(made))
            return pb.Enrolled(certificate=made.public_bytes(Encoding.PEM))

    def Clock(self, request: pb.Ready, context: grpc.ServicerContext) -> pb.Now:
        """The time here; also asked by the region's doctor, beside its gate."""
        with self._call(context, request, place=False) as station:
            _agree(station, request)
            return pb.Now(seconds=int(time.time()))

    @contextmanager
    def _call(
        self, context: grpc.ServicerContext, request: Any = None, *, check: bool = True, place: bool = True
    ) -> Iterator[RegionStation]:
        """The caller's station, within its bounds; a refusal inside becomes a status without text.

        ``place``: it is the region's node that calls, from the one place where it is.
        """
        station = self._hall.station(self._caller(context))
        try:
            with station.presence.call(0 if request is None else request.ByteSize()):
                if not 0 < (context.time_remaining() or 0) <= MAX_DEADLINE_SECONDS:
                    raise wire.WireError("deadline", got="none, or a long one", expected="one")
                if request is not None and check:
                    wire.strict(request)
                if place and station.presence.arrive(context.peer()):
                    self._hall.note("two_nodes", station, warn=True, peer=context.peer())
                yield station
        except FedfsdError as error:
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
            word = status.name.lower()
            if is_fork(error):  # the region's gate stops at this one
                status, word = grpc.StatusCode.DATA_LOSS, "fork"
            self._hall.refused(station, word, str(error))
            context.abort(status, "")

    def _object(self, station: RegionStation, error: FormatError) -> None:
        """A region and this coordinator are of releases that cannot do that together."""
        station.objection = str(error)
        self._hall.refused(station, "version", str(error))

    def _carries(self, station: RegionStation, plan: str) -> bool:
        """Whether the version agreed on carries the plan; where it does not, that is the region's answer."""
        document = formats.peek(self._hall.board.plans[plan].document().encode())
        number = document.get("format", 1)
        if number <= wire.PLANS[station.version]:
            return True
        here = f"region {station.name}"
        why = FormatError(
            f"plan {plan[:8]}",
            got=f"a plan of format {number} for {here}, which speaks version {station.version} of the border",
            expected=f"version {min(v for v, most in wire.PLANS.items() if number <= most)}",
            hint=f"upgrade fedfsd at {here}, then run the plan again",
        )
        self._object(station, why)
        self._hall.board.answer(station.name, plan, code=TOO_OLD)
        return False

    def _task(self, station: RegionStation) -> pb.Task | None:
        """What there is to do for a region now."""
        task: DeskTask | None = station.desk.open
        if task is not None:
            return pb.Task(
                round=pb.Round(
                    plan=bytes.fromhex(task.plan),
                    round=task.round,
                    arrays_sha256=bytes.fromhex(task.arrays),
                    size=task.size,
                )
            )
        now = time.monotonic()
        for plan in self._hall.board.unanswered(station.name):
            again = now - station.told.get(plan, -_AGAIN_SECONDS) >= _AGAIN_SECONDS
            if again and self._carries(station, plan):
                station.told[plan] = now
                size = len(self._hall.board.plans[plan].document().encode())
                return pb.Task(plan=pb.PlanOffer(plan=bytes.fromhex(plan), size=size))
        return None


def _agree(station: RegionStation, request: pb.Ready) -> None:
    """The region repeats the version: this gate may have been started since they agreed on it."""
    if request.version not in wire.VERSIONS:
        raise wire.WireError("Ready.version", got="another version", expected=wire.VERSIONS)
    station.version = request.version
