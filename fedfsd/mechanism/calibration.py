"""The least noise that keeps a promise: from a target epsilon to the noise multiplier of a plan."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from fedfsd.errors import AccountingError, BudgetError, PlanError
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event, check_delta
from fedfsd.mechanism.renyi import NANO, nano_nats

GRID = 10_000  # noise multipliers are whole multiples of 1 / GRID
LEAST, MOST = GRID // 20, 10_000 * GRID  # 0.05 to 10,000
LARGEST_EPSILON = 100.0


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
    if not 0 < target_epsilon <= LARGEST_EPSILON:
        raise PlanError(
            "target_epsilon", got=target_epsilon, expected=f"above 0, at most {LARGEST_EPSILON:g}"
        )
    check_delta(target_delta)
    Event(sample_rate, 1.0, steps)  # refuses a rate or a number of steps out of range
    found = _for_epsilon(target_epsilon, target_delta, sample_rate, steps)
    if rho_limit is not None:
        if alpha is None:
            raise PlanError("alpha", expected="the order of the grant that rho_limit belongs to")
        if rho_limit < 1:
            raise BudgetError("rho", got=rho_limit, expected="something left in the grant")
        found = max(found, _for_rho(rho_limit, alpha, sample_rate, steps))
    return found / GRID


@lru_cache(maxsize=256)
def _for_epsilon(target: float, delta: float, q: float, steps: int) -> int:
    def epsilon(n: int, *, coarse: bool = False) -> float:
        return epsilon_pld([Event(q, n / GRID, steps)], delta, coarse=coarse)

    guess = max(0.5, q * math.sqrt(2 * steps * math.log(1 / delta)) / target)
    # The coarse grid is at most a few percent higher: it finds the neighbourhood, the claim's decides.
    near, slope = _smallest(lambda n: epsilon(n, coarse=True), target, guess=guess, slope=-1.5)
    return _smallest(epsilon, target, guess=near / GRID, slope=slope)[0]


@lru_cache(maxsize=256)
def _for_rho(limit: int, alpha: int, q: float, steps: int) -> int:
    def booked(n: int) -> float:
        return float(nano_nats([Event(q, n / GRID, steps)], alpha))

    guess = max(0.5, q * math.sqrt(alpha * steps * NANO / 2 / limit))
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
