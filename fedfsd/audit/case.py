"""One ledger as every page needs it: what it tells, how it was judged, what its region declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedfsd.audit.chapter import Course, course
from fedfsd.audit.declaration import Declaration
from fedfsd.audit.evidence import Evidence, Ledger
from fedfsd.audit.finding import Finding, Kind
from fedfsd.audit.verdict import Outcome, Part, Report
from fedfsd.language import mark, say

NO_DECLARATIONS: Mapping[str, Declaration] = {}


@dataclass(frozen=True)
class Case:
    """A ledger, judged."""

    course: Course
    report: Report
    """Of the bundles of this ledger alone."""
    title: str
    declaration: Declaration | None

    @property
    def contradicted(self) -> bool:
        """Whether a check found that this ledger contradicts itself or others."""
        return self.report.outcome == Outcome.CONTRADICTED

    @property
    def withheld(self) -> str:
        """Why nothing that this ledger promises may be repeated; empty where it may."""
        if self.contradicted:
            return say("the evidence contradicts itself")
        if self.course.ledger.newer is not None:
            return say("a newer release of fedfsd wrote entry {entry}", entry=self.course.ledger.known)
        return ""

    def findings(self, *kinds: Kind) -> list[str]:
        """What checks found, each with the check's name."""
        rows: list[tuple[str, Finding]] = [
            (one.name, finding)
            for part in self.report.parts
            for one in part.answers
            for finding in one.findings
            if finding.kind in kinds
        ]
        return list(dict.fromkeys(f"{name}: {finding}" for name, finding in rows))


def cases(
    evidence: Evidence, report: Report, declared: Mapping[str, Declaration] = NO_DECLARATIONS
) -> tuple[Case, ...]:
    """Each ledger once, by its longest bundle, ordered by region."""
    parts: dict[str, list[Part]] = {}
    longest: dict[str, Ledger] = {}
    judged = report.parts[len(evidence.refused) :]
    for ledger, part in zip(evidence.ledgers, judged, strict=False):
        parts.setdefault(ledger.id, []).append(part)
        if ledger.id not in longest or len(longest[ledger.id].lines) < len(ledger.lines):
            longest[ledger.id] = ledger
    regions = [ledger.region for ledger in longest.values()]
    return tuple(
        Case(
            course=course(ledger),
            report=Report(tuple(parts[ledger.id]), report.unproved),
            title=ledger.region
            if regions.count(ledger.region) == 1
            else f"{ledger.region} ({ledger.id[:8]})",
            declaration=declared.get(ledger.region),
        )
        for ledger in sorted(longest.values(), key=lambda one: (one.region, one.id))
    )


HEADINGS = (
    mark("simulated"),
    mark("rehearsal, no guarantee"),
    mark("simulated · rehearsal, no guarantee"),
    mark("a simulation"),
)
"""What ``heading`` may be; documents say it in English."""


def heading(found: tuple[Case, ...]) -> str:
    """What must stand at the head of a page about these ledgers; empty where nothing must."""
    words = {word for case in found for word in case.course.heading.split(" · ") if word}
    return " · ".join(sorted(words, reverse=True))
