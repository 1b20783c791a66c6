"""The outcome of one region's part in one round: every code once, with its wording for reports.

A region that sends no update sends one word and nothing else: one of four, or what its own gate found in the
update. The border has an enum of the same names, Flower carries the number, and the receiver raises the error
again.

>>> of(BudgetError("grant")), REFUSALS["budget"].flower
('budget', 1002)
>>> of(UnusualNoiseError("update", finding="noise-scale"))
'noise-scale'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from fedfsd.errors import (
    BudgetError,
    FedfsdError,
    FormatError,
    NotReadyError,
    PlanError,
    RefusedError,
    UnusualNoiseError,
)
from fedfsd.language import mark

Finding: TypeAlias = Literal[
    "update-norm",
    "noise-scale",
    "noise-shape",
    "noise-grid",
    "noise-overlap",
    "noise-floor",
    "canary-sensitivity",
    "canary-noise",
    "canary-not-finite",
    "canary-draws",
]
"""What a gate finds in an update: of ``gate.judge``, ``mechanism.watch`` and ``mechanism.canary``."""
Word: TypeAlias = Literal["region_unavailable", "refused", "budget", "plan"] | Finding
FINDINGS: tuple[Finding, ...] = get_args(Finding)
_UNLIKE = mark("made an update with noise unlike the plan's, and takes no further part")


@dataclass(frozen=True)
class Refusal:
    """One reason why a region sends no update."""

    error: type[FedfsdError]
    flower: int
    """Code of Flower's error message."""
    meaning: str
    """How a report completes "the region ..."."""


REFUSALS: dict[Word, Refusal] = {
    "refused": Refusal(RefusedError, 1001, mark("refused the request or its own release")),
    "budget": Refusal(BudgetError, 1002, mark("had no budget left for it")),
    "plan": Refusal(PlanError, 1003, mark("did not accept the plan")),
    "region_unavailable": Refusal(NotReadyError, 1000, mark("could not be reached")),
    **{word: Refusal(UnusualNoiseError, 1010 + number, _UNLIKE) for number, word in enumerate(FINDINGS)},
}

# The coordinator's own findings.
RELEASED = "released"
TIMEOUT, LOST, BUSY, BAD_REPLY = "timeout", "lost", "busy", "bad_reply"
UNUSUAL = "unusual_noise"
LATE_USED, LATE_DROPPED = "late_used", "late_dropped"

MEANINGS: dict[str, str] = {
    **{word: refusal.meaning for word, refusal in REFUSALS.items()},
    TIMEOUT: mark("took too long"),
    LOST: mark("got lost on the way"),
    BUSY: mark("was still working on an earlier round"),
    BAD_REPLY: mark("sent a reply that is not a valid update"),
    UNUSUAL: _UNLIKE,
    LATE_USED: mark("came late and counted less"),
    LATE_DROPPED: mark("came late and was dropped"),
}
"""How a report words whatever is not a release in time."""


def of(error: Exception) -> Word:
    """The word for ``error``: all that may leave the region about it."""
    if isinstance(error, UnusualNoiseError) and error.finding in FINDINGS:
        return error.finding
    if isinstance(error, FormatError):  # a newer release's plan
        return "plan"
    return next(
        (word for word, refusal in REFUSALS.items() if isinstance(error, refusal.error)), "region_unavailable"
    )


def from_flower(code: int) -> Word | None:
    """The word for the code of a Flower error; None where the error is Flower's own."""
    return next((word for word, refusal in REFUSALS.items() if refusal.flower == code), None)


def raised(word: Word, place: str, *, got: object, expected: object, hint: str) -> FedfsdError:
    """The error that a word stands for, raised again by whoever received the word."""
    error = REFUSALS[word].error(place, got=got, expected=expected, hint=hint)
    if isinstance(error, UnusualNoiseError):
        error.finding = word
    return error
