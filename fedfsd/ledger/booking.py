"""Whether a round may be booked or released now, and the entries that say so. Pure: the date is given."""

from __future__ import annotations

from fedfsd.errors import BudgetError, FedfsdError, RefusedError, UnusualNoiseError
from fedfsd.ledger import entry
from fedfsd.ledger.entry import Program, RefuseCode
from fedfsd.ledger.permission import refusal, year_of
from fedfsd.ledger.state import Booking, Run, State


def objection(
    state: State, run: Run, round: int, arrays: str, date: str, program: Program | None
) -> tuple[RefuseCode, FedfsdError] | None:
    """Why ``program`` cannot train ``round`` of an open plan on the arrays of that hash; None where it can.

    A round that is booked already on the same arrays, and not released, can: nothing left the region,
    and the same key makes the same noise.
    """
    booking = run.bookings.get(round)
    place = f"round {round}"
    if not 1 <= round <= run.entry.rounds:
        expected = f"1 to {run.entry.rounds}, as planned"
        return "arrays", BudgetError(place, got="a round outside the plan", expected=expected)
    if round < run.newest:
        return "arrays", BudgetError(
            place,
            got=f"a round before {run.newest}, which is released",
            expected="rounds that go forward",
            hint="resume from the newest checkpoint",
        )
    if run.ended is not None:
        return "policy", UnusualNoiseError(
            place,
            got=f"a plan that ended here with an incident in round {run.ended.round}",
            expected="a plan of its own for a new run",
            hint="find the cause before the region takes part again",
            finding=str(run.ended.finding),
        )
    if booking is not None and booking.entry.arrays != arrays:
        return "arrays", BudgetError(
            place,
            got="other arrays than the ones it was booked on",
            expected="the same arrays",
            hint="start a new run, or resume from its checkpoint",
        )
    if booking is not None and booking.aborted:
        return "settled", BudgetError(place, got="a round given up", expected="another round")
    if run.program not in (None, program) and not state.genesis.simulated:
        return "policy", changed(run.entry.plan)
    if booking is not None:
        refused = expired(state, run, booking, date)
    else:
        refused = (
            None if _approval(state, run, date) or not _required(state, run) else _none(state, run, date)
        )
    return ("approval", refused) if refused else None


def changed(plan: str) -> RefusedError:
    """The refusal of a program that is not the one on record for a plan."""
    return RefusedError(
        f"program of plan {plan[:8]}",
        got="another program than the one on record",
        expected="the program that the plan was approved with",
        hint=f"review the change, then: fedfsd region approve {plan[:16]} --program; or install the old one",
    )


def reservation(state: State, run: Run, round: int, arrays: str, date: str) -> entry.Reserve:
    """The entry that books a round to which there is no objection."""
    account, rho = state.accounts[run.data_set], run.entry.rho_of(round)
    return entry.Reserve(
        plan=run.entry.plan,
        round=round,
        arrays=arrays,
        event=run.terms.round_event(round),
        rho=rho,
        grant=account.grant.seq,
        spent=account.spent + rho,
        held=account.held - rho,
        approval=_approval(state, run, date),
        date=date,
    )


def release(state: State, run: Run, booking: Booking, sha256: str, size: int) -> entry.Release:
    """The entry that lets the bytes of that hash and size go.

    Raises:
        RefusedError: another size than planned.
    """
    plan, booked = run.entry, booking.entry
    if size != plan.release_bytes:
        raise RefusedError(
            f"round {booked.round}", got=f"a release of {size} bytes", expected=f"{plan.release_bytes} bytes"
        )
    year: int | None = None
    totals: tuple[int | None, int | None] = None, None
    if booked.approval is not None:
        year = year_of(booked.date)
        totals = state.permissions[booked.approval].totals(year, size)
    return entry.Release(
        plan=plan.plan,
        round=booked.round,
        reserve=booked.seq,
        sha256=sha256,
        bytes=size,
        schema=run.terms.schema,
        destination=plan.recipient,
        approval=booked.approval,
        year=year,
        approval_releases=totals[0],
        approval_bytes=totals[1],
    )


def expired(state: State, run: Run, booking: Booking, date: str) -> RefusedError | None:
    """The refusal where the approval of a booking does not hold today."""
    if booking.entry.approval is None:
        return None
    approval = state.permissions[booking.entry.approval].approval
    if approval.valid_from <= date <= approval.valid_until:
        return None
    return refusal(run.entry.recipient, [f"approval {approval.number} is not valid on {date}"])


def _required(state: State, run: Run) -> bool:
    return state.accounts[run.data_set].grant.approval_required


def _approval(state: State, run: Run, date: str) -> int | None:
    """The first approval that covers one more round."""
    return next((seq for seq in state.permissions if state.objection(seq, run, date) is None), None)


def _none(state: State, run: Run, date: str) -> RefusedError:
    reasons = [
        f"approval {permission.approval.number}: {state.objection(seq, run, date)}"
        for seq, permission in state.permissions.items()
    ]
    return refusal(run.entry.recipient, reasons[-3:])
