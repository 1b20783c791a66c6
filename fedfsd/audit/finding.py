"""What a check may say about evidence. Texts may quote evidence, so they are made printable at birth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from fedfsd.errors import FedfsdError, FormatError
from fedfsd.language import mark, say
from fedfsd.plain_text import plain

WORDS = (mark("note"),)
"""Kinds as people read them, beside the outcomes of checks; documents say them in English."""


_PLACES = {
    "entry": mark("entry {entry}"),
    "round": mark("round {round}"),
    "plan": mark("plan {plan}"),
    "grant of": mark("grant of {grant}"),
    "checkpoint": mark("checkpoint {checkpoint}"),
    "receipt of": mark("receipt of {receipt}"),
}
_PLACE = re.compile(rf"(?<!\S)({'|'.join(_PLACES)}) ([^\s,():;]+)")


class Kind(StrEnum):
    """What a finding does to the outcome of its check."""

    CONTRADICTED = "contradicted"
    UNDECIDED = "cannot decide"
    SKIPPED = "not checked"
    """The whole check has nothing to look at."""
    LEFT_OUT = "left out"
    """A part of what the check's title says was not looked at."""
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing to know: where and what; ``proof`` are signed texts that show it to anybody."""

    kind: Kind
    place: str
    text: str
    proof: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", plain(self.place))
        object.__setattr__(self, "text", plain(self.text))
        proof = tuple("\n".join(map(plain, note.split("\n"))) for note in self.proof)
        object.__setattr__(self, "proof", proof)

    def __str__(self) -> str:
        return f"{said(self.place)}: {self.text}" if self.place else self.text


def said(place: str) -> str:
    """A finding's place as people read it; documents keep its words in English."""
    return _PLACE.sub(lambda found: say(_PLACES[found[1]], **{found[1].split()[0]: found[2]}), place)


def contradiction(place: str, got: object, expected: object, *, proof: tuple[str, ...] = ()) -> Finding:
    """The evidence says one thing there and another elsewhere."""
    return Finding(
        Kind.CONTRADICTED, place, say("got {got}, expected {expected}", got=got, expected=expected), proof
    )


def refusal(place: str, error: FedfsdError) -> Finding:
    """What one of the ledger's own rules refused."""
    place = f"{place}, {error.place}" if place and error.place not in place else place or error.place
    return contradiction(place, error.got, error.expected)


def undecided(place: str, why: str) -> Finding:
    """Neither shown nor contradicted."""
    return Finding(Kind.UNDECIDED, place, why)


def newer(error: FormatError) -> Finding:
    """Something that only a later release of this program can read."""
    return undecided(
        error.place,
        say(
            "{got}, written by a newer release of fedfsd; this one reads {expected}: verify with that "
            "release",
            got=error.got,
            expected=error.expected,
        ),
    )


def skipped(why: str) -> Finding:
    """This check looked at nothing."""
    return Finding(Kind.SKIPPED, "", why)


def left_out(what: str) -> Finding:
    """This check did not look at that."""
    return Finding(Kind.LEFT_OUT, "", what)


def remark(text: str, place: str = "") -> Finding:
    """Worth telling; it decides nothing."""
    return Finding(Kind.NOTE, place, text)
