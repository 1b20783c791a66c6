"""The lifetime filter's arithmetic: Renyi loss at one integer order, booked in whole nano-nats.

A whole number of type ``int`` is always in nano-nats here, rounded against the region: what is booked
up, what is allowed down. A ``float`` is in nats.

The sum is evaluated with 60 decimal digits: Python's decimal rounds exp and ln correctly, so every
machine, and anybody's second implementation, books the same integer.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

from fedfsd.errors import AccountingError, PlanError
from fedfsd.mechanism.event import Event, check_delta, merge

ORDERS = range(2, 65)
NANO = 1_000_000_000

_CONTEXT = decimal.Context(
    prec=60,
    rounding=decimal.ROUND_HALF_EVEN,
    Emin=decimal.MIN_EMIN,
    Emax=decimal.MAX_EMAX,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)


def rho(event: Event, alpha: int) -> float:
    """Renyi divergence of the whole event at integer order ``alpha`` (2 to 64), in nats.

    Raises:
        AccountingError: the divergence is too large to be represented.

    Source: Mironov, Talwar, Zhang 2019, section 3.3.
    """
    return float(_per_step(event.sample_rate, event.noise_multiplier, _order(alpha))) * event.steps


def nano_nats(events: Iterable[Event], alpha: int) -> int:
    """What the filter books for ``events``, in nano-nats: each step's ``rho`` rounded up, summed.

    Rounding is per step so that a plan costs the same whether it is booked whole or round by round.
    """
    return sum(_booked_per_step(event, _order(alpha)) * event.steps for event in events)


def epsilon_lifetime(booked: int, *, alpha: int, delta: float) -> float:
    """Epsilon at ``delta`` of everything booked under one grant of order ``alpha``.

    Source: Canonne, Kamath, Steinke 2020, proposition 12; Feldman, Zrnic 2021 for the filter.
    """
    check_delta(delta)
    return max(0.0, booked / NANO + _conversion(_order(alpha), delta))


def rho_max(*, epsilon: float, delta: float, alpha: int) -> int:
    """The most nano-nats a grant may allow so that ``epsilon_lifetime`` never passes ``epsilon``.

    Raises:
        PlanError: at this order not even an empty ledger would meet ``epsilon``.
    """
    check_delta(delta)
    room = epsilon - _conversion(_order(alpha), delta)
    if not 0 < room < math.inf:
        raise PlanError(
            "epsilon",
            got=epsilon,
            expected=f"finite, above {_conversion(alpha, delta):.3g} at order {alpha}",
            hint="raise alpha, delta or epsilon",
        )
    allowed = math.floor(room * NANO)
    while allowed > 0 and epsilon_lifetime(allowed, alpha=alpha, delta=delta) > epsilon:
        allowed -= 1
    return allowed


def best_order(events: Iterable[Event], delta: float) -> int:
    """The order from 2 to 64 at which ``events`` have the smallest lifetime epsilon.

    A grant fixes its order once: call this with all the events it is meant to pay for.
    """
    events = merge(events)
    return min(ORDERS, key=lambda alpha: epsilon_lifetime(nano_nats(events, alpha), alpha=alpha, delta=delta))


def _conversion(alpha: int, delta: float) -> float:
    """What epsilon at ``delta`` adds to the Renyi loss at order ``alpha``, nats."""
    return math.log1p(-1 / alpha) - math.log(delta * alpha) / (alpha - 1)


def _booked_per_step(event: Event, alpha: int) -> int:
    """One step's loss in nano-nats, rounded up; at least one, also where 60 digits see none."""
    per_step = _per_step(event.sample_rate, event.noise_multiplier, alpha)
    return max(1, math.ceil(_CONTEXT.multiply(per_step, Decimal(NANO))))


@lru_cache(maxsize=4096)
def _per_step(q: float, sigma: float, alpha: int) -> Decimal:
    """ln(sum_k C(alpha, k) (1-q)^(alpha-k) q^k e^(k(k-1) / 2 sigma^2)) / (alpha - 1), nats."""
    try:
        with decimal.localcontext(_CONTEXT):
            rate, double_variance = Decimal(q), 2 * Decimal(sigma) ** 2
            if q == 1:  # only the last term is left, and 0 ** 0 is undefined
                return Decimal(alpha) / double_variance
            moment = sum(
                (
                    math.comb(alpha, k)
                    * (1 - rate) ** (alpha - k)
                    * rate**k
                    * (Decimal(k * (k - 1)) / double_variance).exp()
                    for k in range(alpha + 1)
                ),
                Decimal(0),
            )
            return max(Decimal(0), moment.ln()) / (alpha - 1)  # rounding may fall just below 1
    except decimal.DecimalException:
        raise AccountingError(
            "noise_multiplier",
            got=sigma,
            expected=f"enough noise for a finite loss at order {alpha}",
            hint="raise the noise multiplier",
        ) from None


def _order(alpha: int) -> int:
    if not isinstance(alpha, int) or isinstance(alpha, bool) or alpha not in ORDERS:
        raise PlanError(
            "alpha", got=alpha, expected=f"a whole number from {ORDERS.start} to {ORDERS.stop - 1}"
        )
    return alpha
