"""The least noise that keeps a promise: from a target epsilon to the noise multipliers of a plan."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

from fedfsd.errors import AccountingError, BudgetError, PlanError
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event, check_delta
from fedfsd.mechanism.kind import Text
from fedfsd.mechanism.renyi import NANO, nano_nats

GRID = 10_000  # noise multipliers are whole multiples of 1 / GRID
LEAST, MOST = GRID // 20, 10_000 * GRID  # 0.05 to 10,000
LARGEST_EPSILON = 100.0
_COARSE = 100
LEAST_BY_ROUND = GRID // 2
"""Noise that varies is nowhere below 0.5, the floor of the default policy, however much a round matters."""

_Levels = tuple[tuple[float, int], ...]
"""(noise relative to the scale that is searched for, number of steps with it)."""


def noise_multiplier(
    *,
    target_epsilon: float,
    target_delta: float,
    sample_rate: float,
    steps: int,
    rho_limit: int | None = None,
    alpha: int | None = None,
) -> float:
    """The smallest multiple of 0.0001, at least 0.05, whose PLD epsilon is at most ``target_epsilon``.

    With ``rho_limit`` (nano-nats left in a grant of order ``alpha``) the result is the larger of
    that and the smallest noise multiplier whose booking fits. Answers are remembered.

    Raises:
        PlanError: a value out of range, or not even a noise multiplier of 10,000 is enough.
        BudgetError: nothing is left in the grant.
    """
    Event(sample_rate, 1.0, steps)  # refuses a rate or a number of steps out of range
    levels = ((1.0, steps),)
    return _scale(target_epsilon, target_delta, sample_rate, levels, rho_limit, alpha) / GRID


def noise_multipliers(
    shape: Sequence[float],
    *,
    target_epsilon: float,
    target_delta: float,
    sample_rate: float,
    local_steps: int,
    rho_limit: int | None = None,
    alpha: int | None = None,
) -> tuple[float, ...]:
    """One noise multiplier a round, proportional to ``shape``: the smallest that keep the promise.

    Each is rounded up to a multiple of 0.0001, and to 0.5. Arguments, errors as ``noise_multiplier``.
    """
    Event(sample_rate, 1.0, local_steps * len(shape))
    counts = Counter(shape)
    levels = tuple((factor, local_steps * count) for factor, count in sorted(counts.items()))
    scale = _scale(target_epsilon, target_delta, sample_rate, levels, rho_limit, alpha)
    sigma = {factor: _sigma(scale, factor) for factor in counts}
    return tuple(sigma[factor] for factor in shape)


def what_fits(text: Text, rho_by_round: Sequence[int], *, left: int, alpha: int) -> str:
    """What could be asked for instead of a plan of ``text`` whose rounds cost ``rho_by_round``."""
    fitting = sum(total <= left for total in accumulate(rho_by_round))
    some = f"{fitting} of its {len(rho_by_round)} rounds would fit"
    low, high = int(text.least_noise * _COARSE), 1000 * _COARSE

    def cost(noise: int) -> int:
        return nano_nats(text.with_noise(noise / _COARSE).events(), alpha)

    if cost(high) > left:
        return f"{some}; ask the data officer for more"
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= left else (middle, high)
    return f"{some}, or all with noise_multiplier {high / _COARSE:g}{text.louder}"


def _scale(
    target: float, delta: float, q: float, levels: _Levels, rho_limit: int | None, alpha: int | None
) -> int:
    """The smallest scale, in units of 1 / GRID, at which ``levels`` keep both promises."""
    if not 0 < target <= LARGEST_EPSILON:
        raise PlanError("target_epsilon", got=target, expected=f"above 0, at most {LARGEST_EPSILON:g}")
    check_delta(delta)
    found = _for_epsilon(target, delta, q, levels)
    if rho_limit is not None:
        if alpha is None:
            raise PlanError("alpha", expected="the order of the grant that rho_limit belongs to")
        if rho_limit < 1:
            raise BudgetError("rho", got=rho_limit, expected="something left in the grant")
        found = max(found, _for_rho(rho_limit, alpha, q, levels))
    return found


def _sigma(scale: int, factor: float) -> float:
    """The noise multiplier of a round at ``scale``; 1 is that of a flat plan."""
    return scale / GRID if factor == 1 else max(LEAST_BY_ROUND, math.ceil(scale * factor)) / GRID


def _events(q: float, levels: _Levels, scale: int) -> list[Event]:
    return [Event(q, _sigma(scale, factor), steps) for factor, steps in levels]


def _steps(levels: _Levels) -> int:
    return sum(steps for _, steps in levels)


@lru_cache(maxsize=256)
def _for_epsilon(target: float, delta: float, q: float, levels: _Levels) -> int:
    def epsilon(n: int, *, coarse: bool = False) -> float:
        return epsilon_pld(_events(q, levels, n), delta, coarse=coarse)

    guess = max(0.5, q * math.sqrt(2 * _steps(levels) * math.log(1 / delta)) / target)
    # The coarse grid is at most a few percent higher: it finds the neighbourhood, the claim's decides.
    near, slope = _smallest(lambda n: epsilon(n, coarse=True), target, guess=guess, slope=-1.5)
    return _smallest(epsilon, target, guess=near / GRID, slope=slope)[0]


@lru_cache(maxsize=256)
def _for_rho(limit: int, alpha: int, q: float, levels: _Levels) -> int:
    def booked(n: int) -> float:
        return float(nano_nats(_events(q, levels, n), alpha))

    guess = max(0.5, q * math.sqrt(alpha * _steps(levels) * NANO / 2 / limit))
    return _smallest(booked, limit, guess=guess, slope=-2.0)[0]


def _smallest(
    loss: Callable[[int], float], target: float, *, guess: float, slope: float
) -> tuple[int, float]:
    """The smallest n with loss(n) <= target, and d ln(loss) / d ln(n) near it; ``loss`` falls with n.

    Secant steps on logarithms come close, then a bracket grows from there and is halved.
    """

    def at(n: int) -> float:
        try:
            return min(1e12 * target, max(1e-12 * target, loss(n)))
        except AccountingError:  # too large a loss to be computed
            return 1e12 * target

    n = _clamp(guess * GRID)
    for _ in range(20):
        value = at(n)
        moved = _clamp(n * math.exp(min(2.0, max(-2.0, math.log(target / value) / slope))))
        if abs(moved - n) <= 1:
            break
        secant = math.log(at(moved) / value) / math.log(moved / n)
        slope, n = min(-0.2, max(-20.0, secant)), moved
    low, high = n - 1, n
    while at(high) > target:
        if high == MOST:
            raise PlanError(
                "target_epsilon",
                got=f"{target:g}",
                expected=f"within reach of a noise multiplier of {MOST // GRID:,}",
                hint="lower the sample rate or the number of steps",
            )
        low, high = high, min(MOST, high + 2 * (high - low))
    while low >= LEAST and at(low) <= target:
        low, high = low - 2 * (high - low), low
    low = max(low, LEAST - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle) <= target else (middle, high)
    return high, slope


def _clamp(n: float) -> int:
    return min(MOST, max(LEAST, math.ceil(n)))
