"""A claim in plain words: what an attacker can gain, about whom, against whom, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedfsd.errors import PlanError
from fedfsd.language import mark, say
from fedfsd.mechanism.event import check_delta

_DECLARED = ", as the regions declare. For a vehicle in several the losses add up."

TWO_FIGURES = mark(
    "A plan has two figures. Its own epsilon, say 8.00, is computed exactly for this plan alone, fixed "
    "before it began. What it is charged for life, say 8.74, is higher: plans may be chosen after "
    "looking at earlier releases, which only a bound that adds up one Renyi loss of all plans covers, "
    "and turning that loss into an epsilon costs a constant, once for the grant and not for each plan. "
    "The grant counts the second figure."
)
"""Why a plan is charged more for life than it costs alone."""


@dataclass(frozen=True)
class Claim:
    """What one region promises each of its rostered vehicles for one plan.

    Args:
        region: the region's name.
        epsilon: of this plan alone, by PLD.
        delta: the slack of the promise.
        vehicles: the public roster N.
        identity: whether a key is one physical car or one car in one recording.
        epsilon_lifetime: what the plan brings the grant to, where there is one.
    """

    region: str
    epsilon: float
    delta: float
    vehicles: int
    identity: Literal["physical", "recording"]
    epsilon_lifetime: float | None = None

    def __post_init__(self) -> None:
        _check(self.epsilon, self.delta)


@dataclass(frozen=True)
class Crossing:
    """Training vehicles whose key several regions have: known where all data are, as in a simulation."""

    vehicles: int
    regions: tuple[str, ...]
    """Of those that share vehicles, the ones whose losses compose to most."""
    epsilon: float
    """Of a vehicle in all of ``regions``, by PLD over the whole plan."""
    delta: float

    @property
    def sentence(self) -> str:
        """How many there are, and what holds for them."""
        keys = f"{self.vehicles:,} vehicle key{' is' if self.vehicles == 1 else 's are'}"
        return (
            f"{keys} in several regions: for such a vehicle the losses of these regions add up, to epsilon "
            f"{_up(self.epsilon):.2f} at delta {_chance(self.delta)} in {' and '.join(self.regions)}."
        )


def sentence(epsilon: float, delta: float) -> str:
    """One sentence on what (``epsilon``, ``delta``) rules out; figures are rounded against the claim.

    >>> print(sentence(1.0, 1e-4))
    Every outcome an attacker could look for is at most 2.72 times (e^1.00) as likely with one vehicle's \
data as without it, and the reverse, except with probability 1 in 10,000; a 50-50 guess whether \
that vehicle's data were used is right at most 73.11 % of the time.
    """
    _check(epsilon, delta)
    return say(
        "Every outcome an attacker could look for is at most {factor} times (e^{epsilon:.2f}) as likely with "
        "one vehicle's data as without it, and the reverse, except with probability {delta}; a 50-50 guess "
        "whether that vehicle's data were used is right {right} of the time.",
        factor=_factor(epsilon),
        epsilon=_up(epsilon),
        delta=_chance(delta),
        right=_right(best_guess(epsilon, delta)),
    )


def best_guess(epsilon: float, delta: float) -> float:
    """The largest probability with which a 50-50 guess about one vehicle can be right.

    Source: Kairouz, Oh, Viswanath 2015 (the trade-off between both kinds of error).
    """
    return (1 + delta * math.exp(-epsilon)) / (1 + math.exp(-epsilon))


def joint(claims: Sequence[Claim]) -> tuple[float, float]:
    """(epsilon, delta) of all regions together, for vehicles that are in one region only: the maxima."""
    return max(claim.epsilon for claim in claims), max(claim.delta for claim in claims)


def paragraph(claims: Sequence[Claim], crossing: Crossing | None = None) -> str:
    """The whole statement for the regions of one plan, one point a line.

    Args:
        crossing: where it is known which vehicles are in several regions; otherwise the regions declare that.
    """
    lines = []
    for claim in claims:
        lines.append(
            f"{claim.region}: epsilon {_up(claim.epsilon):.2f} at delta {_chance(claim.delta)}, "
            f"for each of {claim.vehicles:,} rostered vehicles. {sentence(claim.epsilon, claim.delta)}"
        )
        if best_guess(claim.epsilon, claim.delta) >= 0.99:
            lines.append(
                f"{claim.region}: in the worst case this rules out little; a smaller epsilon rules out more."
            )
        if claim.epsilon_lifetime is not None:
            lines.append(
                f"{claim.region}: with this plan the grant stands at epsilon "
                f"{_up(claim.epsilon_lifetime):.2f}. "
                "Where plans are chosen after seeing results, the grant's own epsilon is what holds."
            )
        if claim.identity == "recording":
            lines.append(
                f"{claim.region}: a key stands for one car in one recording; "
                "one car recorded under two keys is protected per key only."
            )
    lines.append(
        "Unit: one vehicle, that is everything recorded about one vehicle key, compared with the same "
        "data in which that vehicle's is replaced by nothing (zero-out). The size of the roster is public."
    )
    lines.append(
        "Against: the coordinator, every other region and anyone they pass it on to, all of whom see "
        "everything a region releases. Each region adds its own noise and is trusted with its own data only. "
        "Sums and noise are rounded to a public grid of at most 2^-20 of the noise's standard deviation, "
        "which the clipping counts in: the low bits of a number tell nothing."
    )
    lines.append(
        "Not covered: what does not pass through this mechanism (a model or settings chosen on the same "
        "data outside it, the time a reply takes); the car that carried the sensors and a car "
        "under a second key, unless the importer maps them to one key; a person with several vehicles, "
        "to whom the losses of all of them apply; what can be learned about traffic in general."
    )
    if len(claims) > 1:
        epsilon, delta = joint(claims)
        lines.append(
            f"All regions together: epsilon {_up(epsilon):.2f} at delta {_chance(delta)}, the largest of the "
            "regions', for vehicles that are in one region only"
            + (f". {crossing.sentence}" if crossing else _DECLARED)
        )
    return "\n".join(lines)


def _check(epsilon: float, delta: float) -> None:
    if not 0 <= epsilon < math.inf:
        raise PlanError("epsilon", got=epsilon, expected="finite, at least 0")
    check_delta(delta)


def _up(value: float) -> float:
    """Two decimals, upwards; the small term forgives what floats add."""
    return math.ceil(value * 100 - 1e-6) / 100


def _factor(epsilon: float) -> str:
    factor = math.exp(min(_up(epsilon), 700.0))
    if factor < 100:
        return f"{_up(factor):.2f}"
    return f"{math.ceil(factor):,}" if factor < 1e9 else f"{factor * 1.05:.1e}"


def _right(guess: float) -> str:
    """How often a guess is right; what rounds up to always is not called a bound.

    >>> _right(0.731059), _right(0.99999)
    ('at most 73.11 %', 'in the worst case more than 99.99 %')
    """
    percent = _up(100 * guess)
    if percent < 100:
        return say("at most {percent:.2f} %", percent=percent)
    return say("in the worst case more than 99.99 %")


def _chance(delta: float) -> str:
    return say("1 in {number:,}", number=math.floor(1 / delta + 1e-6))
