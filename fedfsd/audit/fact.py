"""Facts of a report, each with how it is known: the one distinction that a reader must never lose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fedfsd.audit.case import Case
from fedfsd.audit.words import listed, said


class Mark(StrEnum):
    """How a fact is known."""

    RECOMPUTED = "recomputed"
    """It follows from the bundle's entries by our own arithmetic or hashing."""
    DECLARED = "declared"
    """Somebody says so, and nothing in the evidence can show it."""
    MISSING = "not stated"
    """Nobody says anything."""


MEANINGS = {
    Mark.RECOMPUTED: "follows from the bundle's signed entries by this program's own arithmetic or hashing",
    Mark.DECLARED: "said by the region in its plans, its ledger or its file, or by the documentation of the "
    "program whose hash the ledger names; the evidence cannot show it",
    Mark.MISSING: "nobody said anything about it",
}


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
        text = said(value) or "none"
        if self.case.withheld:
            how = "a contradicted bundle" if self.case.contradicted else "a bundle read in part"
            return Fact(said(label), text, Mark.DECLARED, how)
        return Fact(said(label), text, Mark.RECOMPUTED, "bundle")

    def declared(self, label: str, value: object, source: str) -> Fact:
        """A fact that somebody states; None is nobody."""
        if value in (None, "", []):
            return Fact(said(label), "", Mark.MISSING, "")
        return Fact(said(label), said(value), Mark.DECLARED, source)

    def by_program(self, label: str, value: str) -> Fact:
        """How the program whose hash the ledger names is documented to work."""
        return self.declared(label, value, "program")

    def by_region(self, label: str, key: str) -> Fact:
        """What the region's file says under ``practice``."""
        declaration = self.case.declaration
        value = getattr(declaration.practice, key) if declaration else None
        return self.declared(label, value, "region's file")

    def grouped(self, say: Callable[[dict[str, Any]], str | None]) -> str:
        """What ``say`` makes of the plans, each text once; with the plans it is true of where they differ."""
        found: dict[str, list[str]] = {}
        for row in self.plans:
            text = say(row)
            if text:
                found.setdefault(text, []).append(row["plan"][:8])
        if len(found) == 1 and len(next(iter(found.values()))) == len(self.plans):
            return next(iter(found))
        return "; ".join(
            f"{text} ({'plan' if len(names) == 1 else 'plans'} {listed(names)})"
            for text, names in found.items()
        )


Facts = Iterator[Fact]
