"""The region's own program, fed the entries one by one: a second opinion on every rule of the format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedfsd.audit.evidence import Ledger
from fedfsd.audit.finding import Finding, left_out, refusal
from fedfsd.errors import FedfsdError
from fedfsd.language import say
from fedfsd.ledger.state import State


@dataclass(frozen=True, eq=False)
class Replay:
    """What the ledger's own fold makes of the entries, up to the first that it refuses."""

    state: State
    refused: Finding | None


def check_rules(ledger: Ledger) -> Iterator[Finding]:
    """The region's own program, fed the entries one by one, accepts each of them too."""
    refused = replay(ledger).refused
    if refused is not None:
        yield refused
        yield left_out(say("the entries after that one"))


def replay(ledger: Ledger) -> Replay:
    """Fold the entries of a bundle."""
    state = State()
    for position, one in ledger.numbered():
        try:
            state.apply(one, ledger.lines[position])
        except FedfsdError as error:
            return Replay(state, refusal(f"entry {position} ({one.type})", error))
    return Replay(state, None)
