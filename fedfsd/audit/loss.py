"""The audit's own reading of a mechanism and its own formula for the Renyi loss, kind by kind.

Written from FORMAT.md, sections 4 to 6, and not from ``fedfsd.mechanism``, which a contract forbids here: a
mistake in one is then found by the other. The same moment is evaluated another way: binomial weights as
exact whole numbers, and only what each term adds to 1 as a decimal of 100 digits.
"""

from __future__ import annotations

import decimal
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from fedfsd.errors import AccountingError, PlanError
from fedfsd.mechanism.event import Event

NANO = 10**9
_DIGITS = decimal.Context(
    prec=100,
    Emin=decimal.MIN_EMIN,
    Emax=decimal.MAX_EMAX,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)


@dataclass(frozen=True)
class Round:
    """One round: ``steps`` times a sampled Gaussian."""

    sample_rate: float
    noise_multiplier: float
    max_grad_norm: float
    steps: int

    @property
    def event(self) -> Event:
        """What accountants are asked about."""
        return Event(sample_rate=self.sample_rate, noise_multiplier=self.noise_multiplier, steps=self.steps)


def event_of(document: Mapping[str, Any], name: str, rounds: int) -> dict[str, Any]:
    """The ``event`` that the entry of a plan must have in the ledger of the region ``name``."""
    region = document["regions"][name]  # all there: the ledger's own reader has looked
    noise = region.get("mechanism") or {"noise_multiplier": region.get("noise_multiplier")}
    return {
        "sample_rate": region["sample_rate"],
        "max_grad_norm": region["max_grad_norm"],
        "steps": region["local_steps"] * rounds,
        "unit": "vehicle",
        "adjacency": "zero-out",
        **noise,
    }


@dataclass(frozen=True)
class Rounds:
    """All rounds of a plan, equal ones counted."""

    levels: Sequence[tuple[Round, int]]
    _sigmas: Sequence[float] = ()

    def __getitem__(self, number: int) -> Round:
        """Round ``number``, from 1; of a number outside the plan, the nearest."""
        if not self._sigmas:
            return self.levels[0][0]
        sigma = self._sigmas[max(1, min(number, len(self._sigmas))) - 1]
        return replace(self.levels[0][0], noise_multiplier=sigma)

    @property
    def events(self) -> tuple[Event, ...]:
        """All of them for accountants."""
        return tuple(
            Event(sample_rate=one.sample_rate, noise_multiplier=one.noise_multiplier, steps=one.steps * count)
            for one, count in self.levels
        )

    def nano_nats(self, alpha: int) -> int:
        """Their loss; an entry may count more steps than an accountant would look at."""
        return sum(nano_nats([one.event], alpha) * count for one, count in self.levels)


def rounds_of(event: Mapping[str, Any], rounds: int) -> Rounds:
    """The rounds of a plan whose entry has this ``event``.

    Raises:
        PlanError: a kind that is not known here, or noise for another number of rounds.
    """
    kind = event.get("kind", "gaussian")
    if kind not in _SIGMAS:
        raise PlanError("kind", got="another kind of mechanism", expected=", ".join(_SIGMAS))
    sigmas = _SIGMAS[kind](event)
    if sigmas and len(sigmas) != rounds:
        raise PlanError("noise_multipliers", got=f"{len(sigmas)} of them", expected=f"{rounds}")
    levels = Counter(sigmas) if sigmas else {event["noise_multiplier"]: rounds}
    steps = max(1, event["steps"] // rounds)
    return Rounds(
        [
            (Round(event["sample_rate"], sigma, event["max_grad_norm"], steps), count)
            for sigma, count in levels.items()
        ],
        sigmas,
    )


_SIGMAS: Mapping[str, Callable[[Mapping[str, Any]], Sequence[float]]] = {
    "gaussian": lambda _: (),
    "gaussian-by-round": lambda event: tuple(event["noise_multipliers"]),
}
"""One noise multiplier a round; none where all are alike."""


def differing(got: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """(field, value, expected value) of two events, by round where noise is."""
    for name in sorted(got.keys() | expected.keys()):
        mine, theirs = got.get(name), expected.get(name)
        if name != "noise_multipliers" or mine is None or theirs is None:
            yield name, mine, theirs
            continue
        yield "noise_multipliers", len(mine), len(theirs)
        for number, (one, other) in enumerate(zip(mine, theirs, strict=False), 1):
            yield f"noise_multiplier of round {number}", one, other


def nano_nats(events: Iterable[Event], alpha: int) -> int:
    """What a filter of order ``alpha`` books for ``events``: each step rounded up to a nano-nat."""
    if not 2 <= alpha <= 64:
        raise PlanError("alpha", got=alpha, expected="2 to 64")
    return sum(_step(one.sample_rate, one.noise_multiplier, alpha) * one.steps for one in events)


def epsilon_lifetime(booked: int, *, alpha: int, delta: float) -> float:
    """E of FORMAT.md, section 5: epsilon at ``delta`` of a booked loss."""
    if not 2 <= alpha <= 64 or not 1e-9 <= delta < 1:
        raise PlanError("grant", got=f"order {alpha}, delta {delta:g}", expected="2 to 64, 1e-9 to 1")
    # As differences of logarithms, where the ledger takes log1p.
    excess = math.log((alpha - 1) / alpha) - (math.log(delta) + math.log(alpha)) / (alpha - 1)
    return max(0.0, booked / NANO + excess)


@lru_cache(maxsize=4096)
def _step(q: float, sigma: float, alpha: int) -> int:
    """Nano-nats of one step, at least one."""
    if q == 1:
        return max(1, math.ceil(NANO * alpha / (2 * Fraction(sigma) ** 2)))
    part, whole = q.as_integer_ratio()
    try:
        with decimal.localcontext(_DIGITS):
            double_variance = 2 * Decimal(sigma) ** 2
            # The weights add up to 1, and the terms of 0 and 1 draws add nothing beyond theirs.
            excess = sum(
                (
                    Decimal(math.comb(alpha, drawn) * part**drawn * (whole - part) ** (alpha - drawn))
                    / Decimal(whole**alpha)
                    * ((Decimal(drawn * (drawn - 1)) / double_variance).exp() - 1)
                    for drawn in range(2, alpha + 1)
                ),
                Decimal(0),
            )
            nano = (1 + excess).ln() / (alpha - 1) * NANO
            return max(1, math.ceil(nano))
    except decimal.DecimalException:
        raise AccountingError(
            "noise_multiplier", got=sigma, expected=f"enough noise for a finite loss at order {alpha}"
        ) from None
