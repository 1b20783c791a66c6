"""Facts of a report, each with how it is known: the one distinction that a reader must never lose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fedfsd.audit.case import Case
from fedfsd.audit.words import listed, said
from fedfsd.language import mark, say


class Mark(StrEnum):
    """How a fact is known."""

    RECOMPUTED = "recomputed"
    """It follows from the bundle's entries by our own arithmetic or hashing."""
    DECLARED = "declared"
    """Somebody says so, and nothing in the evidence can show it."""
    MISSING = "not stated"
    """Nobody says anything."""


MEANINGS = {
    Mark.RECOMPUTED: mark(
        "follows from the bundle's signed entries by this program's own arithmetic or hashing"
    ),
    Mark.DECLARED: mark(
        "said by the region in its plans, its ledger or its file, or by the documentation of the program "
        "whose hash the ledger names; the evidence cannot show it"
    ),
    Mark.MISSING: mark("nobody said anything about it"),
}


WORDS = (
    mark("recomputed"),
    mark("declared"),
    mark("not stated"),
    mark("ledger"),
    mark("plan"),
    mark("program"),
    mark("region's file"),
)
"""Marks and sources as people read them."""


@dataclass(frozen=True)
class Fact:
    """One thing to know, and how it is known."""

    label: str
    value: str
    mark: Mark
    source: str

    def document(self) -> dict[str, str]:
        """As plain values."""
        return {
            "label": self.label,
            "value": self.value,
            "mark": str(self.mark),
            "source": self.source,
        }


@dataclass(frozen=True)
class Sources:
    """What the facts of one region are made of."""

    case: Case
    plans: Sequence[dict[str, Any]]
    releases: Sequence[dict[str, Any]]
    data_sets: Sequence[dict[str, Any]]
    """As the statement tells them."""
    receipts: bool
    tried: Sequence[str] = ()
    """What trainings of canaries showed of the region's plans."""

    def recomputed(self, label: str, value: object) -> Fact:
        """A fact that follows from the bundle, as long as the bundle holds together."""
        label = say(label)
        text = said(value) or say("none")
        if self.case.withheld:
            how = say("a contradicted bundle") if self.case.contradicted else say("a bundle read in part")
            return Fact(said(label), text, Mark.DECLARED, how)
        return Fact(said(label), text, Mark.RECOMPUTED, say("bundle"))

    def declared(self, label: str, value: object, source: str) -> Fact:
        """A fact that somebody states; None is nobody."""
        label = say(label)
        if value in (None, "", []):
            return Fact(said(label), "", Mark.MISSING, "")
        return Fact(said(label), said(value), Mark.DECLARED, say(source))

    def by_program(self, label: str, value: str) -> Fact:
        """How the program whose hash the ledger names is documented to work."""
        return self.declared(label, say(value), "program")

    def by_region(self, label: str, key: str) -> Fact:
        """What the region's file says under ``practice``."""
        declaration = self.case.declaration
        value = getattr(declaration.practice, key) if declaration else None
        return self.declared(label, value, "region's file")

    def grouped(self, tell: Callable[[dict[str, Any]], str | None]) -> str:
        """What ``tell`` makes of the plans, each text once, with its plans where they differ."""
        found: dict[str, list[str]] = {}
        for row in self.plans:
            text = tell(row)
            if text:
                found.setdefault(text, []).append(row["plan"][:8])
        if len(found) == 1 and len(next(iter(found.values()))) == len(self.plans):
            return next(iter(found))
        return say("; ").join(
            say("{text} (plan {names})", text=text, names=names[0])
            if len(names) == 1
            else say("{text} (plans {names})", text=text, names=listed(names))
            for text, names in found.items()
        )


Facts = Iterator[Fact]
