"""The region's side of the border: connect, ask for the next task, do it, and reconnect after a break.

Memory keeps nothing that a restart needs: after a break or a restart the coordinator hands out the same
task, and the ledger records how much of it was done.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

import grpc

from fedfsd.border import border_pb2 as pb
from fedfsd.errors import FedfsdError, NotReadyError, RefusedError
from fedfsd.ledger.disk import is_full
from fedfsd.ledger.ledger import Booked
from fedfsd.node.assignment import carry_out
from fedfsd.node.line import ClosedError, CoordinatorLine
from fedfsd.node.proposal import Proposals
from fedfsd.node.station import GateStation, StoppedError
from fedfsd.node.upkeep import Upkeep
from fedfsd.node.upload import ForkError, Upload, fork

BEAT_SECONDS = 10.0
LOOK_SECONDS = 0.5
"""How often a plan that waits for the operator or for the runner is looked at again."""
RETRY_SECONDS = 60.0
"""How often a release is offered again that the coordinator did not ask for."""

PACE_SECONDS = 0.02
CUT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.DATA_LOSS,
)
"""What ends a connection; anything else is the coordinator's answer to one offer."""


class Backoff:
    """Waits that double from 0.2 s to 30 s, each shortened by chance, so that regions do not come at once."""

    FIRST, MOST = 0.2, 30.0

    def __init__(self) -> None:
        self._next = self.FIRST

    def reset(self) -> None:
        """All is well again."""
        self._next = self.FIRST

    def wait(self) -> float:
        """Seconds to wait now."""
        mine, self._next = self._next, min(2 * self._next, self.MOST)
        return mine * random.uniform(0.5, 1.0)


class Courier:
    """Works for the coordinator that ``dial`` reaches until the station is to stop."""

    def __init__(self, station: GateStation, dial: Callable[[], grpc.Channel]) -> None:
        self._station, self._dial = station, dial
        self._proposals = Proposals(station)
        self._line: CoordinatorLine | None = None
        self._retry = 0.0

    def run(self) -> None:
        """Dial and work, until the station is to stop.

        Raises:
            ForkError: this ledger is behind, or beside, the one that the coordinator knows.
        """
        station, backoff = self._station, Backoff()
        while not station.stop.is_set():
            try:
                self._connection(backoff)
            except (StoppedError, ForkError):
                raise
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.DATA_LOSS:
                    raise fork() from None
                self._tell(error)
            except Exception as error:  # whatever a coordinator brought about: the region goes on
                self._tell(error)
            finally:
                station.tally.connected("waiting")
            station.stop.wait(backoff.wait())

    @property
    def pending(self) -> tuple[str, ...]:
        """Plans that wait for the operator."""
        return self._proposals.pending

    def decline(self, plan: str) -> None:
        """The operator's no to a plan that waits. NotReadyError where it does not."""
        self._proposals.decline(plan)
        self._station.look.set()

    def close(self) -> None:
        """End the calls under way; any thread may say so."""
        if self._line is not None:
            self._line.close()

    def beat(self) -> None:
        """Beside the tasks: say that this region is alive, and answer plans that were approved meanwhile."""
        beaten = 0.0
        while not self._station.stop.is_set():
            self._station.look.wait(LOOK_SECONDS)
            self._station.look.clear()
            line, now = self._line, time.monotonic()
            if line is not None and self._station.tally.connection == "open":
                try:
                    self._proposals.look(line)
                    if now >= beaten + BEAT_SECONDS:
                        line.beat()
                        beaten = now
                except Exception as error:  # the next task finds out what it means
                    if not isinstance(error, grpc.RpcError | ClosedError):
                        self._tell(error)

    def _connection(self, backoff: Backoff) -> None:
        """One connection, task by task, for as long as it holds."""
        station = self._station
        line = self._line = CoordinatorLine(self._dial(), count=station.tally.crossed)
        try:
            station.rest(0)  # whoever said stop before there was this line to close has said it to it, too
            delivery = Upload(station, line, line.hello())
            station.tally.connected("open")
            station.log.info("connected")
            self._retry, upkeep = 0.0, Upkeep(station, line)
            while not self._renewed(upkeep):
                asked = time.monotonic()
                self._do(line, delivery, line.next())
                backoff.reset()
                # A coordinator that answers without end must not keep this machine busy.
                station.rest(max(0.0, asked + PACE_SECONDS - time.monotonic()))
        finally:
            line.close()

    def _renewed(self, upkeep: Upkeep) -> bool:
        """Whether the connection is to be made anew, with a new certificate."""
        renewed = False

        def look() -> None:
            nonlocal renewed
            renewed = upkeep.look()

        self._try(look)
        return renewed

    def _do(self, line: CoordinatorLine, delivery: Upload, task: pb.Task) -> None:
        station, kind = self._station, task.WhichOneof("task")
        if kind == "round":
            carry_out(station, line, delivery, task.round)
        elif kind == "plan":
            self._proposals.consider(line, task.plan)
        else:
            self._proposals.idle()
            self._idle(delivery)

    def _idle(self, delivery: Upload) -> None:
        """Offer again what has no receipt, and show what the coordinator has not seen."""
        station, now = self._station, time.monotonic()
        if station.paused or now < self._retry:
            return
        self._retry = now + RETRY_SECONDS
        for plan, round in station.waiting():
            if now >= station.began.setdefault((plan, round), now) + station.gate.policy.round_seconds:
                self._try(partial(self._again, delivery, plan, round))
        self._try(delivery.show)

    def _again(self, delivery: Upload, plan: str, round: int) -> None:
        """Offer a release that the coordinator may have taken without this region hearing of it."""
        ledger = self._station.ledger
        booked = Booked(plan, round, ledger.state.runs[plan].bookings[round].entry.arrays)
        released = ledger.released(booked)
        if released is not None:
            delivery.deliver(booked, released)

    def _try(self, offer: Callable[[], None]) -> None:
        """Do what the coordinator did not ask for; that it does not want it is no failure."""
        try:
            offer()
        except grpc.RpcError as error:
            if error.code() in CUT:
                raise
            self._station.log.warning("offer_refused", extra={"state": error.code().name.lower()})
        except (NotReadyError, RefusedError) as error:
            self._station.log.warning("offer_failed", extra={"line": str(error)})

    def _tell(self, error: Exception) -> None:
        """Why the connection ended; nothing that the coordinator wrote is in it."""
        log = self._station.log
        if self._station.stop.is_set():
            return
        if is_full(error):
            log.error("disk_full")
        elif isinstance(error, grpc.RpcError):
            log.warning("connection_lost", extra={"state": error.code().name.lower()})
            if (why := _refusal(error.code(), self._station.region)) is not None:
                self._station.tally.objection = str(why)
        elif isinstance(error, FedfsdError):
            if str(error) != self._station.tally.objection:  # until a person mends it, every attempt ends so
                log.error("connection_refused", extra={"line": str(error)})
            self._station.tally.objection = str(error)
        else:
            log.error("connection_failed", extra={"error": type(error).__name__})


def _refusal(code: grpc.StatusCode, region: str) -> NotReadyError | None:
    """What to tell people of a status that stays until somebody does something."""
    if code == grpc.StatusCode.UNAVAILABLE:
        return NotReadyError(
            "coordinator",
            got="no connection",
            expected="an answer",
            hint="it is tried again by itself; fedfsd region doctor shows what is in the way",
        )
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return NotReadyError(
            "certificate",
            got="one that the coordinator does not accept now",
            expected="one that is valid by its clock",
            hint=f"compare clocks; else a new invitation: fedfsd coordinator invite {region}",
        )
    if code == grpc.StatusCode.PERMISSION_DENIED:
        return NotReadyError(
            "certificate",
            got="one that the coordinator refuses",
            expected="one that is not revoked",
            hint=f"ask its operators; fedfsd coordinator invite {region} invites this region again",
        )
    return None
