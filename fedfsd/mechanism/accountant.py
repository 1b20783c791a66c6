"""Epsilon of fixed events at one delta, by three independent accountants that must agree.

PLD (dp-accounting) is the claim: an upper bound, rounded pessimistically. PRV (prv-accountant) is other
people's code for the same quantity and must land on the same number. RDP (dp-accounting) is a looser
bound from other mathematics. Gaussian differential privacy is not used: for few steps it lies below
the truth.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fedfsd.errors import AccountingError
from fedfsd.mechanism.event import SMALLEST_DELTA, Event, check_delta, exact
from fedfsd.mechanism.renyi import rho

TOLERANCE = 0.02  # what two accountants may differ by
PRV_ERRORS = (0.01, 0.03, 0.1, 0.3)  # half-width of prv-accountant's interval: the first of few points
INTERVALS = (1e-4, 1e-3, 1e-2, 1e-1)  # discretisation of the privacy loss, nats
GRID_SHARE = 0.05  # keeps what rounding adds to epsilon below 0.005, however many steps there are
MAX_POINTS = 5e6  # grid points of all compositions together: a few seconds, a few hundred MB
MAX_PRV_POINTS = 3e6
_LINES = 400  # epsilons at which a trade-off curve is bounded


@dataclass(frozen=True)
class Epsilons:
    """One answer per accountant; ``pld`` is the claim."""

    pld: float
    prv: float
    rdp: float


@dataclass(frozen=True)
class Bounds:
    """prv-accountant's interval around the true epsilon."""

    low: float
    estimate: float
    high: float


def epsilon_pld(events: Iterable[Event], delta: float, *, coarse: bool = False) -> float:
    """The claim: an upper bound on epsilon at ``delta`` for all ``events`` composed.

    The loss is discretised at 1e-4 nats, coarser for very many or very lossy events; rounding is
    upwards, so a coarser grid can only enlarge the answer. ``coarse`` makes it ten times coarser
    (and faster), for searches.

    Raises:
        AccountingError: a loss too large for the coarsest grid.
    """
    check_delta(delta)
    merged = exact(events)
    return _pld(merged, delta, interval(merged) * (10 if coarse else 1)) if merged else 0.0


def true_positives(
    events: Iterable[Event], false_positives: Sequence[float], *, coarse: bool = False
) -> tuple[float, ...]:
    """The largest shares of members that any attacker can recognise, at these shares of false alarms.

    The attacker sees everything that ``events`` release, knows all data but one vehicle's, and accuses that
    vehicle of having taken part; the bound holds for every test there is. It is the trade-off curve of the
    composed PLD: each epsilon with its delta bounds it by a line, and the least of all lines is the curve.
    Deltas are rounded upwards, and so is the bound.

    Args:
        false_positives: shares of vehicles that took no part and are accused all the same, in [0, 1].

    Raises:
        AccountingError: a loss too large for the coarsest grid.

    Source: Dong, Roth, Su 2022, proposition 2.12 (a trade-off curve and its deltas are dual).
    """
    merged = exact(events)
    if not merged:
        return tuple(min(1.0, share) for share in false_positives)
    epsilons, deltas = _profile(merged, interval(merged) * (10 if coarse else 1))
    with np.errstate(over="ignore"):
        rise = np.exp(epsilons)
        return tuple(
            float(min(1.0, (rise * share + deltas).min(), (1 - (1 - deltas - share) / rise).min()))
            for share in false_positives
        )


def warm_up() -> None:
    """Load what computes an epsilon: the first one should not take seconds."""
    epsilon_pld([Event(sample_rate=0.1, noise_multiplier=1.0, steps=1)], 1e-5)


def epsilon_prv(events: Iterable[Event], delta: float, *, coarse: bool = False) -> Bounds:
    """prv-accountant's bounds and estimate of epsilon at ``delta`` for all ``events`` composed.

    The bounds are up to 0.3 wide where many steps would make a fine grid large, and at least 0.1 where
    ``coarse`` asks for a tenth of the time and memory; the estimate is far closer.

    Raises:
        AccountingError: prv-accountant gives up, as on a very large loss or very many steps.

    Source: Gopi, Lee, Wutschitz 2021.
    """
    check_delta(delta)
    merged = exact(events)
    errors = PRV_ERRORS[2:] if coarse else PRV_ERRORS
    return _prv(merged, delta, errors) if merged else Bounds(0.0, 0.0, 0.0)


def epsilon_rdp(events: Iterable[Event], delta: float) -> float:
    """A looser upper bound on epsilon at ``delta``, through Renyi divergences of many orders.

    Raises:
        AccountingError: the divergences cannot be computed.
    """
    check_delta(delta)
    from dp_accounting import rdp

    with _asking("RDP (dp-accounting)"):
        accountant = rdp.RdpAccountant(neighboring_relation=_zero_out())
        accountant.compose(_dp_event(exact(events)))
        return float(accountant.get_epsilon(delta))


def check(events: Iterable[Event], delta: float, *, coarse: bool = False) -> Epsilons:
    """Epsilon by all three accountants, when they agree. ``coarse`` as of ``epsilon_pld``.

    Raises:
        AccountingError: PRV differs from PLD, or RDP lies below PLD, by more than 0.02; or one of
            them cannot answer.
    """
    merged = exact(events)
    pld = epsilon_pld(merged, delta, coarse=coarse)
    prv, rdp = epsilon_prv(merged, delta, coarse=coarse), epsilon_rdp(merged, delta)
    # The PLD grid can lift a tiny epsilon a little above RDP's; that is still an upper bound.
    if not (math.isfinite(pld) and abs(pld - prv.estimate) <= TOLERANCE and rdp >= pld - TOLERANCE):
        raise AccountingError(
            "epsilon",
            got=f"PLD {pld:.4f}, PRV {prv.estimate:.4f}, RDP {rdp:.4f}",
            expected=f"PRV within {TOLERANCE} of PLD, RDP not below it",
            hint="do not release on this plan; change its noise, rate or steps",
        )
    return Epsilons(pld, prv.estimate, rdp)


def compose(plans: Iterable[Iterable[Event]], delta: float) -> float:
    """Epsilon (PLD) of several plans on the same vehicles, all fixed before the first began.

    For plans chosen after seeing earlier results use ``renyi.epsilon_lifetime``.
    """
    return epsilon_pld([event for plan in plans for event in plan], delta)


def interval(events: Iterable[Event]) -> float:
    """The discretisation at which ``epsilon_pld`` answers, nats: a function of the events alone."""
    merged = exact(events)
    losses = [rho(event, 2) for event in merged]
    widths = [_width(event) for event in merged]
    # How far the composed loss spreads, and by how much dp-accounting's bounds on that overshoot
    # when a great many steps of small width are composed.
    spread = sum(losses) + 10 * math.sqrt(2 * sum(losses))
    overshoot = sum(loss / width for loss, width in zip(losses, widths, strict=True) if loss)
    # Points of a single step cost about eight times those of a composition.
    points = (spread + overshoot) * (len(merged) + 1) / 2 + 8 * sum(widths)
    # Rounding adds up to a quarter of the grid's square to the variance of each step's loss.
    steps = sum(event.steps for event in merged if event.sample_rate < 1)
    fine = GRID_SHARE * math.sqrt(math.sqrt(sum(losses)) / max(1, steps)) or INTERVALS[0]
    for step in (min(fine, INTERVALS[0]), *INTERVALS):
        if points <= MAX_POINTS * step:
            return step
    raise AccountingError(
        "noise_multiplier",
        got=min(event.noise_multiplier for event in merged),
        expected="a privacy loss small enough to be computed",
        hint="raise the noise multiplier or lower the number of steps",
    )


def _width(event: Event) -> float:
    """How far one discretised step's loss spreads, nats (at q = 1 all steps are one)."""
    mu = (math.sqrt(event.steps) if event.sample_rate == 1 else 1.0) / event.noise_multiplier
    width = mu * mu / 2 + 10 * mu
    return math.log1p(event.sample_rate * math.expm1(width)) if width < 1 else width


@lru_cache(maxsize=1024)
def _pld(events: tuple[Event, ...], delta: float, step: float) -> float:
    with _asking("PLD (dp-accounting)"):
        return float(_composed(events, step).get_epsilon(delta))


@lru_cache(maxsize=256)
def _profile(events: tuple[Event, ...], step: float) -> tuple[np.ndarray, np.ndarray]:
    """Epsilons from 0 to where delta vanishes, and the delta (PLD) of each."""
    with _asking("PLD (dp-accounting)"):
        composed = _composed(events, step)
        largest = composed.get_epsilon(SMALLEST_DELTA)
        epsilons = np.linspace(0.0, max(largest, step), _LINES)
        return epsilons, np.array([composed.get_delta(one) for one in epsilons])


def _composed(events: tuple[Event, ...], step: float) -> Any:
    from dp_accounting import pld

    accountant = pld.PLDAccountant(_zero_out(), value_discretization_interval=step)
    accountant.compose(_dp_event(events))
    return accountant


def _dp_event(events: tuple[Event, ...]) -> Any:
    """The same events in dp-accounting's words."""
    import dp_accounting as dp

    def one(event: Event) -> Any:
        step = dp.GaussianDpEvent(event.noise_multiplier)
        # Always sampled is not sampled; said plainly, dp-accounting composes it exactly.
        sampled = step if event.sample_rate == 1 else dp.PoissonSampledDpEvent(event.sample_rate, step)
        return dp.SelfComposedDpEvent(sampled, event.steps)

    return dp.ComposedDpEvent([one(event) for event in events])


def _zero_out() -> Any:
    from dp_accounting import NeighboringRelation

    return NeighboringRelation.REPLACE_SPECIAL


@lru_cache(maxsize=256)
def _prv(events: tuple[Event, ...], delta: float, errors: tuple[float, ...]) -> Bounds:
    """prv-accountant's own pieces in its own order, with a dependable mean (see ``_mean``)."""
    from prv_accountant import PoissonSubsampledGaussianMechanism
    from prv_accountant.accountant import compute_safe_domain_size
    from prv_accountant.composers import Heterogeneous
    from prv_accountant.discretisers import CellCentred
    from prv_accountant.domain import Domain
    from prv_accountant.privacy_random_variables import PrivacyRandomVariableTruncated

    class Truncated(PrivacyRandomVariableTruncated):  # type: ignore[misc]
        def mean(self) -> float:
            return _mean(self, float(self.prv.p))

    steps = [event.steps for event in events]
    delta_error = delta / 1000
    with _asking("PRV (prv-accountant)"):
        losses = [
            PoissonSubsampledGaussianMechanism(
                sampling_probability=event.sample_rate, noise_multiplier=event.noise_multiplier
            )
            for event in events
        ]
        size = compute_safe_domain_size(losses, steps, eps_error=errors[-1], delta_error=delta_error)
        for error in errors:
            mesh = error / math.sqrt(sum(steps) / 2 * math.log(12 / delta_error))
            if 2 * size / mesh * len(events) <= MAX_PRV_POINTS:
                break
        else:
            raise ValueError("a grid of too many points")
        domain = Domain.create_aligned(-size, size, mesh)
        discrete = [
            CellCentred().discretise(Truncated(loss, domain.t_min(), domain.t_max()), domain)
            for loss in losses
        ]
        composed = Heterogeneous(discrete).compute_composition(steps)
        low, estimate, high = composed.compute_epsilon(delta, delta_error, error)
    return Bounds(max(0.0, low), max(0.0, estimate), max(0.0, high))


def _mean(loss: Any, q: float) -> float:
    """Mean of a truncated privacy loss: its upper end minus the area under its distribution function.

    prv-accountant 0.2.0 integrates from the far left end and at some sampling rates (q = 0.11, 0.2)
    misses the steep rise beside the smallest possible loss, ln(1 - q); then it gives up, or is off by
    0.01. Here Gauss-Legendre pieces start at that loss and grow geometrically away from it.
    """
    start = max(loss.t_min, math.log1p(-q)) if q < 1 else loss.t_min
    nodes, weights = np.polynomial.legendre.leggauss(64)
    edges = start + np.concatenate([[0.0], np.geomspace(1e-9, loss.t_max - start, 60)])
    half = np.diff(edges)[:, None] / 2
    points = (edges[:-1, None] + half) + half * nodes
    return float(loss.t_max - (half * weights * loss.cdf(points)).sum())


@contextmanager
def _asking(accountant: str) -> Iterator[None]:
    """Turn whatever stops an accountant, and any overflow on its way, into one refusal."""
    # absl warns of each order whose series does not converge; leaving it out only loosens RDP.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            yield
    except (ArithmeticError, ValueError, RuntimeError, AssertionError) as error:
        raise AccountingError(
            accountant,
            got=str(error) or type(error).__name__,
            expected="a finite epsilon",
            hint="raise the noise multiplier or lower the number of steps",
        ) from None
    finally:
        logger.setLevel(level)
