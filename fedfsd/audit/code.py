"""Whether the programs on record are among the reviewed ones (FORMAT.md, section 9)."""

from __future__ import annotations

from collections.abc import Iterator

from fedfsd.audit.evidence import Evidence, Ledger
from fedfsd.audit.finding import Finding, skipped, undecided
from fedfsd.audit.reviewed import Reviewed
from fedfsd.language import say
from fedfsd.ledger.entry import PlanEntry, Program, ProgramEntry, Reserve

FEDFSD = "fedfsd"


def check_code(ledger: Ledger, evidence: Evidence) -> Iterator[Finding]:
    """What approved and trained every plan is code that was reviewed."""
    reviewed = evidence.reviewed
    if reviewed is None:
        yield skipped(say("no list of reviewed code was given (--code)"))
        return
    known: set[str] = set()
    for one in ledger.entries():
        place = f"entry {one.seq} ({one.type})"
        if isinstance(one, PlanEntry):
            yield from reviewed.judge(place, FEDFSD, one.version, one.code)
        elif isinstance(one, ProgramEntry):
            known.add(one.plan)
            yield from _judged(reviewed, place, one.program)
        elif isinstance(one, Reserve) and one.plan not in known:
            known.add(one.plan)  # told once
            yield undecided(place, say("no program is on record for what trained it"))


def _judged(reviewed: Reviewed, place: str, program: Program) -> Iterator[Finding]:
    yield from reviewed.judge(place, FEDFSD, program.version, program.code)
    for name, package in program.packages.items():
        yield from reviewed.judge(place, name, package.version, package.sha256)
