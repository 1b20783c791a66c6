"""How many vehicles an epsilon needs: what ``python -m experiments.enough`` measured, asked for a plan.

It rests on generated traffic, one model and one recipe: an order of magnitude, and no promise about anybody's
recordings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, isfinite, log, sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

from fedfsd.plan.plan import Plan

FILE = Path(__file__).with_name("enough.toml")
_KEPT = 0.5  # of what training without noise gains: how much a person is told it takes
_MOST_EPSILONS = 1.5  # outside the measured epsilons by more than this factor, nothing is said


@dataclass(frozen=True)
class Enough:
    """FDE in m, by epsilon, at each number of vehicles; ascending in both."""

    rests_on: str
    delta: float
    seeds: Sequence[int]
    start: float
    noiseless: float
    vehicles: Sequence[int]
    errors: Mapping[float, Sequence[float]]
    checks: Sequence[Mapping[str, float]]

    def kept(self, epsilon: float, vehicles: float) -> float:
        """The share of the noiseless gain that so many vehicles keep; negative where training does harm.

        Between measured points the share goes evenly with the logarithms of epsilon and vehicles; beyond them
        it is that of the nearest.
        """
        low, high, part = _between(list(self.errors), epsilon)
        shares = [
            _at(self.vehicles, [self._share(one) for one in self.errors[key]], vehicles)
            for key in (low, high)
        ]
        return shares[0] + part * (shares[1] - shares[0])

    def needed(self, share: float, epsilon: float) -> float:
        """From how many vehicles on that share is kept; infinite where the most measured are too few."""
        low, high = log(self.vehicles[0]), log(self.vehicles[-1])
        if self.kept(epsilon, exp(high)) < share:
            return float("inf")
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self.kept(epsilon, exp(middle)) >= share else (middle, high)
        return exp(high)

    def rule(self) -> str:
        """The rule of thumb in one sentence: how the need grows as epsilon falls."""
        found = [(log(one), log(self.needed(_KEPT, one))) for one in self.errors]
        inside = [(x, y) for x, y in found if isfinite(y) and y > log(self.vehicles[0]) * 1.001]
        if len(inside) < 2:
            return "Too few points for a rule of thumb."
        middle = [fmean(values) for values in zip(*inside, strict=True)]
        slope = sum((x - middle[0]) * (y - middle[1]) for x, y in inside) / sum(
            (x - middle[0]) ** 2 for x, _ in inside
        )
        at_one = exp(middle[1] - slope * middle[0])
        return (
            f"Rule of thumb: half of what training without noise gains takes about {counted(at_one)} "
            f"vehicles at epsilon 1, and {2**-slope:.1f} times as many for half of the epsilon."
        )

    def _share(self, error: float) -> float:
        return (self.start - error) / (self.start - self.noiseless)


def read(content: str) -> Enough:
    """What the study wrote."""
    found: dict[str, Any] = tomllib.loads(content)
    return Enough(
        rests_on=found["rests_on"],
        delta=found["delta"],
        seeds=found["seeds"],
        start=found["start_fde_m"],
        noiseless=found["noiseless_fde_m"],
        vehicles=found["vehicles"],
        errors={one["epsilon"]: one["fde_m"] for one in found["point"]},
        checks=found["check"],
    )


@cache
def measured() -> Enough:
    """The study's result that ships with fedfsd."""
    return read(FILE.read_text(encoding="utf-8"))


def said(plan: Plan) -> str | None:
    """A sentence on whether the plan has vehicles enough; None for what was not measured.

    Regions add their noises: R of them with N vehicles each count as sqrt(R) N of one region.
    """
    epsilons = [mine.target_epsilon for mine in plan.regions.values()]
    known = measured()
    if (plan.task.name, plan.model.name, plan.mode) != ("forecasting", "mlp", "private") or None in epsilons:
        return None
    epsilon = min(one for one in epsilons if one is not None)
    low, high = min(known.errors) / _MOST_EPSILONS, max(known.errors) * _MOST_EPSILONS
    if not low <= epsilon <= high:
        return None
    together = 1 / sqrt(sum((mine.weight / mine.roster) ** 2 for mine in plan.regions.values()))
    here, need = known.kept(epsilon, together), known.needed(_KEPT, epsilon)
    return (
        f"how many vehicles: half of what training without noise gains takes "
        f"{'about ' if isfinite(need) else ''}{counted(need)} vehicles of one region at epsilon {epsilon:g}; "
        f"these regions count as {counted(together)}, which kept {max(here, 0):.0%} ({known.rests_on})"
    )


def counted(vehicles: float) -> str:
    """Two digits: it is no more exact.

    >>> counted(1234.5), counted(float("inf"))
    ('1,200', 'more than were measured')
    """
    return f"{float(f'{vehicles:.1e}'):,.0f}" if isfinite(vehicles) else "more than were measured"


def _between(values: Sequence[float], wanted: float) -> tuple[float, float, float]:
    """The two ascending ``values`` around ``wanted``, and how far it is from the first, by logarithms."""
    wanted = min(max(wanted, values[0]), values[-1])
    above = next(place for place, value in enumerate(values) if value >= wanted)
    low, high = values[max(above - 1, 0)], values[above]
    return low, high, 0.0 if low == high else log(wanted / low) / log(high / low)


def _at(places: Sequence[float], values: Sequence[float], wanted: float) -> float:
    low, high, part = _between(places, wanted)
    first, second = (values[list(places).index(one)] for one in (low, high))
    return first + part * (second - first)
