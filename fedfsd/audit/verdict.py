"""The answers of checks, and the one answer of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ParamSpec

from fedfsd.audit.finding import Finding, Kind
from fedfsd.language import mark, say

P = ParamSpec("P")
SHOWN = 20
"""Findings of one check that are kept; the rest are counted."""


class Outcome(StrEnum):
    """What came out of a check, or of all of them."""

    HOLDS = "holds"
    CONTRADICTED = "contradicted"
    UNDECIDED = "cannot decide"
    SKIPPED = "not checked"


WORDS = (mark("holds"), mark("contradicted"), mark("cannot decide"), mark("not checked"), mark("left out"))
"""As people read them; documents say them in English."""
EXIT_CODES = {Outcome.HOLDS: 0, Outcome.CONTRADICTED: 10, Outcome.UNDECIDED: 11}
_DECIDING = (
    (Kind.CONTRADICTED, Outcome.CONTRADICTED),
    (Kind.UNDECIDED, Outcome.UNDECIDED),
    (Kind.SKIPPED, Outcome.SKIPPED),
)


@dataclass(frozen=True)
class Answer:
    """What one check found out about one file."""

    name: str
    claim: str
    outcome: Outcome
    findings: tuple[Finding, ...]
    more: int
    """Findings beyond those kept."""


@dataclass(frozen=True)
class Part:
    """The answers about one file of the evidence, or about what they say together."""

    source: str
    region: str | None
    facts: dict[str, Any]
    answers: tuple[Answer, ...]
    title: str
    """The shortest name that no other part has."""


@dataclass(frozen=True)
class Report:
    """Everything that ``verify`` found out."""

    parts: tuple[Part, ...]
    unproved: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """Contradicted where anything is; else undecided where anything is."""
        found = {one.outcome for part in self.parts for one in part.answers}
        for outcome in (Outcome.CONTRADICTED, Outcome.UNDECIDED):
            if outcome in found:
                return outcome
        return Outcome.HOLDS if Outcome.HOLDS in found else Outcome.UNDECIDED

    @property
    def headline(self) -> str:
        """The outcome and the checks that decided it."""
        if self.outcome == Outcome.HOLDS:
            return say(str(self.outcome))
        deciding = dict.fromkeys(
            one.name for part in self.parts for one in part.answers if one.outcome == self.outcome
        )
        return say("{outcome}: {checks}", outcome=say(str(self.outcome)), checks=", ".join(deciding))

    @property
    def heading(self) -> str:
        """What must stand at the head of every page; empty where nothing must."""
        rehearsed = any(
            one.name == "rehearsal" and one.outcome == Outcome.UNDECIDED
            for part in self.parts
            for one in part.answers
        )
        simulated = any(part.facts.get("simulated") for part in self.parts)
        return "rehearsal, no guarantee" if rehearsed else "a simulation" if simulated else ""

    @property
    def more(self) -> int:
        """Findings that are counted only."""
        return sum(one.more for part in self.parts for one in part.answers)

    def found(self, *kinds: Kind) -> list[tuple[str, Finding]]:
        """(where, finding) of these kinds; what several files have in common once."""
        titles: dict[tuple[str, Finding], list[str]] = {}
        for part in self.parts:
            for one in part.answers:
                for finding in one.findings:
                    if finding.kind in kinds:
                        titles.setdefault((one.name, finding), []).append(part.title)
        return [
            (f"{', '.join(dict.fromkeys(where))}: {name}", finding)
            for (name, finding), where in titles.items()
        ]

    @property
    def exit_code(self) -> int:
        """0 holds, 10 contradicted, 11 cannot decide."""
        return EXIT_CODES[self.outcome]


class Sheet:
    """Runs the checks of one part; a check is a function ``check_<name>`` of findings."""

    def __init__(self, source: str, *, region: str | None = None, title: str | None = None) -> None:
        self.source, self.region = source, region
        self.title = title or region or source
        self._answers: list[Answer] = []
        self.rest: Finding | None = None
        """What no check looks at from here on: one that found nothing did not hold."""

    def run(self, check: Callable[P, Iterable[Finding]], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run ``check`` to its end and keep the findings that matter most."""
        kept: dict[Kind, list[Finding]] = {kind: [] for kind in Kind}
        more = 0
        for finding in check(*args, **kwargs):
            place = kept[finding.kind]
            if len(place) < SHOWN:
                place.append(finding)
            else:
                more += 1
        if self.rest is not None and not any(kept[kind] for kind, _ in _DECIDING):
            kept[self.rest.kind].append(self.rest)
        self._answers.append(
            Answer(
                name=check.__name__.removeprefix("check_"),
                claim=say((check.__doc__ or "").strip().partition("\n")[0]),
                outcome=next((outcome for kind, outcome in _DECIDING if kept[kind]), Outcome.HOLDS),
                findings=tuple(one for kind in Kind for one in kept[kind]),
                more=more,
            )
        )

    def part(self, facts: dict[str, Any]) -> Part:
        """All answers so far."""
        return Part(self.source, self.region, facts, tuple(self._answers), self.title)
