"""A round that the coordinator asks for: refused before a byte is fetched, or fetched, trained, delivered."""

from __future__ import annotations

import datetime
import time

import grpc

from fedfsd import canonical
from fedfsd.border import border_pb2 as pb
from fedfsd.errors import BudgetError, FedfsdError, NotReadyError, PlanError, RefusedError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate import outcome
from fedfsd.ledger import booking
from fedfsd.ledger.disk import is_full
from fedfsd.ledger.entry import RefuseCode
from fedfsd.ledger.ledger import Booked, Released
from fedfsd.node import inbox
from fedfsd.node.line import ClosedError, CoordinatorLine
from fedfsd.node.station import GateStation, StoppedError
from fedfsd.node.upload import Upload
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan

MAX_BEGAN = 1000


class _DataPathError(NotReadyError):
    """A round failed after it was booked, when data may have been read: code and timing hide the cause."""


def carry_out(station: GateStation, line: CoordinatorLine, delivery: Upload, task: pb.Round) -> None:
    """Do one round to its end: receipted, or refused with a code. What it raises is about the connection."""
    plan, began = task.plan.hex(), _began(station, task)
    due = began + station.gate.policy.round_seconds
    station.log.info("round", extra={"plan": plan, "round": task.round})
    try:
        booked = Booked(plan, task.round, task.arrays_sha256.hex())
        before = _released_before(station, task, booked)
        released = before or _work(station, line, task)
    except (grpc.RpcError, ClosedError, StoppedError):
        raise
    except Exception as error:
        late = isinstance(error, _DataPathError)
        cause = error.__cause__ if late and isinstance(error.__cause__, Exception) else error
        word = outcome.of(cause)
        _log(station, task, cause, word)
        station.tally.round(plan, task.round, word)
        if late:
            station.rest(max(0.0, due - time.monotonic()))
        # What was found depends on what would have been released and on constants: it hides nothing.
        line.refuse(task.plan, task.round, word if word in outcome.FINDINGS else outcome.of(error))
        return
    seconds = time.monotonic() - began
    if before is None and 0 < station.gate.policy.round_seconds < seconds:
        about = {"plan": plan, "round": task.round, "seconds": round(seconds, 1)}
        station.log.warning("round_seconds_exceeded", extra=about)
    station.rest(max(0.0, due - time.monotonic()))
    delivery.deliver(booked, released)
    (station.folder("inbox") / booked.arrays_sha256).unlink(missing_ok=True)


def _released_before(station: GateStation, task: pb.Round, booked: Booked) -> Released | None:
    """The release of this very round, to be sent again; the arrays are not needed for that."""
    run = station.ledger.state.runs.get(booked.plan_hash)
    if run is None or run.newest != task.round:
        return None
    return station.ledger.released(booked)


def _work(station: GateStation, line: CoordinatorLine, task: pb.Round) -> Released:
    plan = _demand(station, task)
    path = inbox.fetch(line, station.folder("inbox"), sha256=task.arrays_sha256, size=task.size)
    arrays = gate_arrays.view(path.read_bytes(), plan.model.arrays)
    try:
        station.gate.admit(plan, task.round, arrays)
    except RefusedError as error:
        policy = error.place.startswith("plan for")
        station.ledger.refuse(plan.hash, task.round, "policy" if policy else "arrays")
        raise
    station.working = True
    try:
        return station.runner.round(plan, task.round, arrays)
    except Exception as error:
        if not _is_booked(station, task):
            raise
        raise _DataPathError(
            "round", got="a failure after the round was booked", expected="a release"
        ) from error
    finally:
        station.working = False


def _is_booked(station: GateStation, task: pb.Round) -> bool:
    """Whether this round is reserved on these arrays."""
    run = station.ledger.state.runs.get(task.plan.hex())
    booking = run and run.bookings.get(task.round)
    return bool(booking and booking.entry.arrays == task.arrays_sha256.hex())


def _demand(station: GateStation, task: pb.Round) -> Plan:
    """The plan, if the ledger allows this round on these arrays; a refusal is recorded in the ledger."""
    state, plan = station.ledger.state, task.plan.hex()
    run, place = state.runs.get(plan), f"plan {plan[:8]}"
    refused: tuple[RefuseCode, FedfsdError] | None
    if run is None:
        refused = "policy", PlanError(place, got="a plan without approval", expected="an approved one")
    elif run.settled:
        refused = "settled", BudgetError(place, got="a plan that has ended", expected="an open one")
    elif not 1 <= task.round <= run.entry.rounds:
        rounds = run.entry.rounds
        refused = "arrays", RefusedError("round", got=task.round, expected=f"1 to {rounds}, as planned")
    elif task.size != run.entry.release_bytes:
        size = run.entry.release_bytes
        refused = "arrays", RefusedError("arrays", got=f"{task.size} bytes", expected=f"{size} bytes")
    else:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        program = station.runner.program or run.program  # one that is away may come back as it was
        refused = booking.objection(state, run, task.round, task.arrays_sha256.hex(), today, program)
    if refused is not None:
        station.ledger.refuse(plan, task.round, refused[0])
        raise refused[1]
    document = run.entry.document if run else {}
    return plans.read(canonical.encode(document).decode())


def _began(station: GateStation, task: pb.Round) -> float:
    """When this round first came."""
    while len(station.began) > MAX_BEGAN:
        station.began.pop(next(iter(station.began)))
    return station.began.setdefault((task.plan.hex(), task.round), time.monotonic())


def _log(station: GateStation, task: pb.Round, error: Exception, code: str) -> None:
    """A refusal names its place; of any other error only the type is logged."""
    about = {"plan": task.plan.hex(), "round": task.round, "code": code}
    if is_full(error):
        station.log.error("disk_full", extra=about)
    elif isinstance(error, RefusedError | BudgetError | PlanError | NotReadyError):
        station.log.warning("round_refused", extra={**about, "line": str(error)})
    else:
        station.log.error("round_failed", extra={**about, "error": type(error).__name__})
