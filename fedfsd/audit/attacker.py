"""What an epsilon leaves to an attacker: of the vehicles that took part, how many can be recognised at most.

The attacker sees everything that a plan releases and knows all data but one vehicle's, so every real one is
weaker. The figures are from the trade-off curve of the plan's own mechanism (its composed PLD), which lies
far below what epsilon and delta alone would allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fedfsd.errors import AccountingError, PlanError
from fedfsd.mechanism import accountant
from fedfsd.mechanism.event import Event, exact

FALSE_POSITIVES = (0.001, 0.01)
"""Shares of vehicles that took no part and are accused all the same."""
EPSILONS = (1.0, 4.0, 8.0)
"""What a plan's own epsilon is put beside."""
MOST = 20
"""Different mechanisms of which it is computed; each takes up to a second."""
_CLOSE = 0.005
_TRIES = 12


def recognised(events: Sequence[Event]) -> tuple[float, ...] | None:
    """The largest shares of participants recognised at ``FALSE_POSITIVES``; None where unknown."""
    try:
        return accountant.true_positives(events, FALSE_POSITIVES, coarse=True)
    except (AccountingError, PlanError):
        return None


def scale(events: Sequence[Event], delta: float) -> list[dict[str, Any]]:
    """The same mechanism with as much noise as ``EPSILONS`` need, and what each leaves to an attacker."""
    rows = []
    for epsilon in EPSILONS:
        factor = _factor(exact(events), delta, epsilon)
        found = recognised(_noisier(exact(events), factor)) if factor else None
        if factor and found:
            least = min(one.noise_multiplier for one in events)
            rows.append({"epsilon": epsilon, "noise": least * factor, "true_positives": list(found)})
    return rows


@lru_cache(maxsize=256)
def _factor(events: tuple[Event, ...], delta: float, epsilon: float) -> float | None:
    """By what the noise has to be multiplied for that epsilon: false position between logarithms."""

    def excess(exponent: float) -> float:
        cost = accountant.epsilon_pld(_noisier(events, math.exp(exponent)), delta, coarse=True)
        return math.log(max(cost, 1e-9) / epsilon)

    try:
        low, high = 0.0, 0.0
        while excess(low) < 0:
            low -= 1.0
        while excess(high) > 0:
            high += 1.0
        above, below = excess(low), excess(high)
        for _ in range(_TRIES):
            if above - below == 0:
                break
            middle = low + (high - low) * above / (above - below)
            middle = min(max(middle, low + 0.1 * (high - low)), high - 0.1 * (high - low))
            found = excess(middle)
            if -_CLOSE <= found <= 0:
                return math.exp(middle)
            low, above, high, below = (
                (middle, found, high, below) if found > 0 else (low, above, middle, found)
            )
        return math.exp(high)
    except (AccountingError, PlanError):
        return None


def _noisier(events: Sequence[Event], factor: float) -> tuple[Event, ...]:
    return tuple(Event(one.sample_rate, one.noise_multiplier * factor, one.steps) for one in events)
