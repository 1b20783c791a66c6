"""The outcome of one region's part in one round: every code once, with its wording for reports.

A region that sends no update sends one of four words and nothing else. The border has an enum of the same
names, Flower carries the number, and the receiver raises the error again.

>>> of(BudgetError("grant")), REFUSALS["budget"].flower
('budget', 1002)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fedfsd.errors import BudgetError, FedfsdError, FormatError, NotReadyError, PlanError, RefusedError
from fedfsd.language import mark

Word: TypeAlias = Literal["region_unavailable", "refused", "budget", "plan"]


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
    UNUSUAL: mark("sent an update with noise unlike the plan's, and takes no further part"),
    LATE_USED: mark("came late and counted less"),
    LATE_DROPPED: mark("came late and was dropped"),
}
"""How a report words whatever is not a release in time."""


def of(error: Exception) -> Word:
    """The word for ``error``: all that may leave the region about it."""
    if isinstance(error, FormatError):  # a newer release's plan
        return "plan"
    return next(
        (word for word, refusal in REFUSALS.items() if isinstance(error, refusal.error)), "region_unavailable"
    )


def from_flower(code: int) -> Word | None:
    """The word for the code of a Flower error; None where the error is Flower's own."""
    return next((word for word, refusal in REFUSALS.items() if refusal.flower == code), None)
