"""Permissions to transfer: every release that needs one relies on one that covers it."""

from __future__ import annotations

from collections.abc import Iterator

from fedfsd.audit.evidence import Ledger
from fedfsd.audit.finding import Finding, contradiction, remark
from fedfsd.language import say
from fedfsd.ledger.entry import Abort, Approval, Grant, PlanEntry, Recover, Release, Reserve
from fedfsd.ledger.permission import Permission, year_of


def check_approvals(ledger: Ledger) -> Iterator[Finding]:
    """Every release that needs permission has one: recipient, purpose, task, model, dates and volume."""
    permissions: dict[int, Permission] = {}
    live: dict[str, Grant] = {}
    labels: dict[str, str] = {}  # plan -> data set
    booked: dict[tuple[str, int], Reserve] = {}
    numbers: set[str] = set()
    needed = False
    for one in ledger.entries():
        place = f"entry {one.seq} ({one.type})"
        if isinstance(one, Grant):
            live[one.data_set] = one
            needed = needed or one.approval_required
        elif isinstance(one, PlanEntry):
            for label in (grant.data_set for grant in live.values() if grant.seq == one.grant):
                labels.setdefault(one.plan, label)
        elif isinstance(one, Approval):
            if one.number in numbers:
                yield contradiction(place, say("the number of another approval"), say("a new number"))
            if one.valid_from > one.valid_until:
                yield contradiction(place, say("an end before its start"), say("a period"))
            numbers.add(one.number)
            permissions[one.seq] = Permission(one)
        elif isinstance(one, Recover):
            for some in permissions.values():
                some.void = True
        elif isinstance(one, Reserve):
            label = labels.get(one.plan, "")
            booked.setdefault((one.plan, one.round), one)
            if one.approval is not None:
                yield from _relies(one, label, permissions.get(one.approval), ledger, place)
            elif label in live and live[label].approval_required:
                yield contradiction(
                    place, say("no approval"), say("one, as entry {seq} demands", seq=live[label].seq)
                )
        elif isinstance(one, Abort | Release) and (one.plan, one.round) in booked:
            yield from _ends(one, booked[one.plan, one.round], permissions, ledger, place)
    if not needed and not permissions:
        yield remark(say("no grant demands an approval"))


def _relies(
    one: Reserve, label: str, permission: Permission | None, ledger: Ledger, place: str
) -> Iterator[Finding]:
    plan, read = ledger.plans.get(one.plan), ledger.terms.get(one.plan)
    if permission is None:
        yield contradiction(
            place, say("approval {approval}", approval=one.approval), say("an approval before it")
        )
    elif plan is not None and read is not None:
        size = plan.release_bytes
        objection = permission.objection(
            data_set=label,
            recipient=plan.recipient,
            purpose=plan.purpose,
            task=read.task,
            model=read.model,
            size=size,
            date=one.date,
        )
        if objection is not None:
            yield contradiction(
                place,
                say("approval {approval}, {objection}", approval=one.approval, objection=objection),
                say("an approval that covers it"),
            )
        permission.book(year_of(one.date), size)


def _ends(
    one: Abort | Release,
    reserve: Reserve,
    permissions: dict[int, Permission],
    ledger: Ledger,
    place: str,
) -> Iterator[Finding]:
    permission = permissions.get(reserve.approval) if reserve.approval is not None else None
    year = year_of(reserve.date)
    if isinstance(one, Abort):
        if permission is not None and one.plan in ledger.plans:
            permission.give_back(year, ledger.plans[one.plan].release_bytes)
        return
    got = (one.approval, one.year, one.approval_releases, one.approval_bytes)
    expected: tuple[int | None, ...] = (reserve.approval, None, None, None)
    if permission is not None:
        totals = permission.totals(year, one.bytes)
        expected = (reserve.approval, year, *totals)
        permission.released[year], permission.released_bytes[year] = totals
    if got != expected:
        yield contradiction(f"{place}, approval and running totals", got, expected)
