"""A mechanism event: what a plan does to each vehicle, before any accountant has an opinion.

One step samples every rostered vehicle with probability q, clips what it contributes to norm C, adds
Gaussian noise of standard deviation sigma C and releases the sum. The unit is one vehicle; neighbouring
data sets differ by zeroing out that vehicle (dp-accounting's ``REPLACE_SPECIAL``).

>>> merge([Event(0.1, 2.0, 100), Event(0.1, 2.0, 200)])
(Event(sample_rate=0.1, noise_multiplier=2.0, steps=300),)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fedfsd.errors import PlanError

# Double-precision FFTs carry about 1e-15 of noise a step: below this no accountant here can be trusted.
SMALLEST_DELTA = 1e-9
MOST_STEPS = 10**6
LARGE_DELTA = 10
"""From 1 / N on a delta is refused, above 1 / (this times N) people are warned."""


@dataclass(frozen=True, order=True)
class Event:
    """``steps`` times PoissonSampled(sample_rate, Gaussian(noise_multiplier)).

    Raises:
        PlanError: sample_rate outside (0, 1], noise_multiplier not positive and finite (without noise
            the loss is infinite), steps not a whole number from 1 to 10^6.
    """

    sample_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not _is_number(self.sample_rate) or not 0 < self.sample_rate <= 1:
            raise PlanError("sample_rate", got=self.sample_rate, expected="above 0, at most 1")
        if not _is_number(self.noise_multiplier) or not 0 < self.noise_multiplier < math.inf:
            raise PlanError(
                "noise_multiplier",
                got=self.noise_multiplier,
                expected="positive and finite",
                hint="without noise the privacy loss is infinite; set a target_epsilon",
            )
        whole = isinstance(self.steps, int) and not isinstance(self.steps, bool)
        if not whole or not 1 <= self.steps <= MOST_STEPS:
            raise PlanError("steps", got=self.steps, expected=f"a whole number from 1 to {MOST_STEPS:,}")


def merge(events: Iterable[Event]) -> tuple[Event, ...]:
    """Equal mechanisms as one event with their steps added, in ascending order.

    Composition is commutative, so the loss is the same; the accountants are far faster and their
    answer no longer depends on the order in which plans were listed.
    """
    steps: Counter[tuple[float, float]] = Counter()
    for event in events:
        steps[event.sample_rate, event.noise_multiplier] += event.steps
    return tuple(Event(q, sigma, count) for (q, sigma), count in sorted(steps.items()))


def exact(events: Iterable[Event]) -> tuple[Event, ...]:
    """``merge``, and unsampled Gaussians of different noise as the one Gaussian that they compose to.

    Steps without sampling that add noise s_i to the same vehicles tell exactly as much as one step with
    noise (sum of 1 / s_i^2)^(-1/2).
    """
    merged = merge(events)
    plain = [one for one in merged if one.sample_rate == 1]
    if len(plain) < 2:
        return merged
    loss = math.fsum(one.steps / one.noise_multiplier / one.noise_multiplier for one in plain)
    # Noise beyond what a double can square: the least of it in every step loses more.
    least = min(one.noise_multiplier for one in plain) / math.sqrt(sum(one.steps for one in plain))
    sigma = loss**-0.5 if loss else least
    return merge([*(one for one in merged if one.sample_rate < 1), Event(1.0, sigma, 1)])


def repeat(events: Iterable[Event], count: int) -> tuple[Event, ...]:
    """``events`` ``count`` times over."""
    return tuple(Event(one.sample_rate, one.noise_multiplier, one.steps * count) for one in merge(events))


def check_delta(delta: float) -> None:
    """Refuse (PlanError) a delta that is no probability or below what double precision resolves."""
    if not _is_number(delta) or not SMALLEST_DELTA <= delta < 1:
        raise PlanError(
            "target_delta",
            got=delta,
            expected=f"at least {SMALLEST_DELTA:g}, below 1",
            hint="choose a delta well below 1 / number of vehicles",
        )


def delta_fault(delta: float, roster: int) -> str | None:
    """Why no plan may have this delta: from 1 / N on, publishing one vehicle whole would satisfy it.

    >>> delta_fault(0.01, 100), delta_fault(0.0099, 100)
    ('delta 0.01 is not below 1/100, one over the roster', None)
    """
    return f"delta {delta:g} is not below 1/{roster}, one over the roster" if delta * roster >= 1 else None


def delta_warning(delta: float, roster: int) -> str | None:
    """What people should know of a delta that is allowed and large: above 1 / (10 N).

    >>> delta_warning(0.001, 100), delta_warning(0.002, 100)
    (None, 'delta 0.002 is above 1/1000, a tenth of one over the roster: choose at most 0.0001')
    """
    if LARGE_DELTA * roster * delta <= 1 or delta * roster >= 1:
        return None
    return (
        f"delta {delta:g} is above 1/{LARGE_DELTA * roster}, a tenth of one over the roster: "
        f"choose at most {small_delta(roster):g}"
    )


def small_delta(roster: int) -> float:
    """The power of ten to suggest for a roster: below 1 / (10 N)."""
    return 10.0 ** -(len(str(roster)) + 1)


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)
