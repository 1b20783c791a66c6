"""The filter's arithmetic against quadrature, exact decimals and dp-accounting."""

import math
from decimal import Context, Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from setting import examples

from fedfsd.errors import AccountingError, PlanError
from fedfsd.mechanism.accountant import epsilon_rdp
from fedfsd.mechanism.event import Event
from fedfsd.mechanism.renyi import NANO, best_order, epsilon_lifetime, nano_nats, rho, rho_max

rates = st.floats(1e-4, 1.0)
noises = st.floats(0.3, 50.0)
orders = st.integers(2, 64)


def quadrature(q: float, sigma: float, alpha: int) -> tuple[float, float]:
    """Both Renyi divergences between (1-q) N(0) + q N(1) and N(0), by the trapezoid rule."""
    reach, count = alpha + 40 * sigma, 100_000
    x = np.linspace(-reach, reach, count + 1)
    log_null = -(x**2) / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi))
    with np.errstate(divide="ignore"):
        log_ratio = np.logaddexp(np.log1p(-q), math.log(q) + (2 * x - 1) / (2 * sigma**2))
    found = []
    for power in (alpha, 1 - alpha):
        log_term = log_null + power * log_ratio
        largest = log_term.max()
        area = np.exp(log_term - largest).sum() * (2 * reach / count)
        found.append((largest + math.log(area)) / (alpha - 1))
    return found[0], found[1]


@pytest.mark.parametrize("alpha", [2, 3, 4, 17, 64])
@pytest.mark.parametrize(
    ("q", "sigma"), [(0.01, 1.0), (0.1, 2.0), (0.5, 8.0), (0.2, 0.5), (0.9, 3.0), (1, 5.0)]
)
def test_equals_quadrature_and_bounds_the_other_direction(q, sigma, alpha):
    forward, backward = quadrature(q, sigma, alpha)
    ours = rho(Event(q, sigma, 1), alpha)
    assert ours == pytest.approx(forward, rel=1e-9, abs=1e-11)
    assert ours >= backward - 1e-11


def test_equals_dp_accounting_at_whole_orders():
    from dp_accounting.rdp import rdp_privacy_accountant

    alphas = list(range(2, 65))
    for q, sigma in [(0.01, 1.0), (0.1, 2.0), (0.05, 30.0), (0.2, 0.5), (1.0, 4.0)]:
        theirs = rdp_privacy_accountant._compute_rdp_poisson_subsampled_gaussian(q, sigma, alphas)
        ours = [rho(Event(q, sigma, 1), alpha) for alpha in alphas]
        # Theirs loses digits to 1 - 1: a few 1e-14.
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def exact_nano_nats(q: float, sigma: float, alpha: int) -> Decimal:
    """One step's loss with 150 digits, summing the exact binomial terms of A - 1."""
    with localcontext(Context(prec=150)):
        rate, variance = Decimal(q), Decimal(sigma) ** 2
        moment = sum(
            (
                math.comb(alpha, k)
                * rate**k
                * ((1 - rate) ** (alpha - k) if alpha > k else 1)
                * ((Decimal(k * (k - 1)) / (2 * variance)).exp() - 1)
                for k in range(2, alpha + 1)
            ),
            Decimal(0),
        )
        return (1 + moment).ln() / (alpha - 1) * NANO


@settings(max_examples=examples(60), deadline=None)
@given(rates, noises, orders, st.integers(1, 10_000))
def test_booking_is_rounded_up_and_by_less_than_one_a_step(q, sigma, alpha, steps):
    exact = exact_nano_nats(q, sigma, alpha) * steps
    booked = nano_nats([Event(q, sigma, steps)], alpha)
    assert isinstance(booked, int)
    assert exact - Decimal("1e-30") * steps <= booked < exact + steps


@pytest.mark.parametrize("alpha", [2, 5, 64])
@pytest.mark.parametrize("sigma", [1.0, 0.5, 3.0, 7.3, 1e5])
def test_booking_of_the_plain_gaussian_is_the_exact_ceiling(sigma, alpha):
    exact = math.ceil(Fraction(alpha) / (2 * Fraction(sigma) ** 2) * NANO)
    assert nano_nats([Event(1, sigma, 3)], alpha) == 3 * exact


def test_even_the_smallest_event_costs_something():
    assert nano_nats([Event(1e-40, 1.0, 5)], 4) == 5


@given(st.lists(st.integers(1, 500), min_size=1, max_size=6), rates, orders)
@settings(max_examples=examples(30), deadline=None)
def test_a_plan_costs_the_same_booked_whole_or_round_by_round(rounds, q, alpha):
    whole = nano_nats([Event(q, 1.5, sum(rounds))], alpha)
    assert sum(nano_nats([Event(q, 1.5, steps)], alpha) for steps in rounds) == whole
    assert nano_nats([Event(q, 1.5, steps) for steps in rounds], alpha) == whole


@settings(max_examples=examples(40), deadline=None)
@given(rates, noises, st.integers(2, 63))
def test_rho_rises_with_order_and_rate_and_falls_with_noise(q, sigma, alpha):
    here = rho(Event(q, sigma, 1), alpha) * (1 + 1e-12)
    assert rho(Event(q, sigma, 1), alpha + 1) >= here / (1 + 2e-12)
    assert rho(Event(q, sigma * 1.01, 1), alpha) <= here
    assert rho(Event(q * 0.99, sigma, 1), alpha) <= here


def test_conversion_is_the_references():
    alpha, delta, spent = 4, 1e-5, 3.25
    expected = spent + math.log(1 - 1 / alpha) - math.log(delta * alpha) / (alpha - 1)
    assert epsilon_lifetime(round(spent * NANO), alpha=alpha, delta=delta) == pytest.approx(
        expected, abs=1e-12
    )


def test_lifetime_epsilon_at_the_best_order_is_the_rdp_bound():
    for event in (Event(0.1, 2.0, 300), Event(0.25, 4.0, 200), Event(1, 5.0, 20)):
        alpha = best_order([event], 1e-5)
        lifetime = epsilon_lifetime(nano_nats([event], alpha), alpha=alpha, delta=1e-5)
        assert lifetime == pytest.approx(epsilon_rdp([event], 1e-5), rel=0.01)
        for other in (alpha - 1, alpha + 1):
            assert epsilon_lifetime(nano_nats([event], other), alpha=other, delta=1e-5) >= lifetime


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.5, 4.7646, 300), (1, 5.4308, 100)])
def test_a_plan_at_eight_is_charged_about_eight_and_three_quarters(q, sigma, steps):
    from fedfsd.mechanism.accountant import epsilon_pld

    plan = [Event(q, sigma, steps)]
    assert epsilon_pld(plan, 1e-4) == pytest.approx(8.00, abs=0.001)
    alpha = best_order(plan, 1e-4)
    assert alpha == 3
    assert epsilon_lifetime(nano_nats(plan, alpha), alpha=alpha, delta=1e-4) == pytest.approx(8.74, abs=0.01)


# Where the rounding of floats matters.
@pytest.mark.parametrize(
    ("epsilon", "delta", "alpha", "allowed"),
    [
        (1.0293234282091548, 1e-3, 62, 999_999_999),  # one more is too much, by less than floats see
        (1.3345027149221236, 1e-6, 9, 3),  # met exactly
        (7.3276515705737735, 1e-8, 15, 6_274_313_688),  # the difference of floats is one too large
    ],
)
def test_a_grant_allows_what_its_epsilon_has_room_for(epsilon, delta, alpha, allowed):
    assert rho_max(epsilon=epsilon, delta=delta, alpha=alpha) == allowed
    assert epsilon_lifetime(allowed, alpha=alpha, delta=delta) <= epsilon
    with localcontext(Context(prec=50)):
        nothing = (1 - Decimal(1) / alpha).ln() - (Decimal(delta) * alpha).ln() / (alpha - 1)
        room = (Decimal(epsilon) - nothing) * NANO
    assert room - 1 <= allowed <= room + Decimal("1e-5")


def test_a_grant_with_little_room_or_none():
    nothing = epsilon_lifetime(0, alpha=4, delta=1e-5)
    assert nothing > 0
    assert abs(rho_max(epsilon=nothing + 0.5, delta=1e-5, alpha=4) - NANO // 2) <= 1
    with pytest.raises(PlanError, match="above"):
        rho_max(epsilon=nothing, delta=1e-5, alpha=4)
    with pytest.raises(PlanError, match="delta"):
        rho_max(epsilon=1.0, delta=0.0, alpha=4)


def test_the_filter_costs_one_run_in_ten():
    run = [Event(0.05, 1.6, 300)]
    alpha = best_order(run * 9, 1e-5)
    assert alpha in (3, 4)
    fits = rho_max(epsilon=10.0, delta=1e-5, alpha=alpha) // nano_nats(run, alpha)
    assert fits == 9  # PLD, which is no filter, would allow ten
    wrong = rho_max(epsilon=10.0, delta=1e-5, alpha=8) // nano_nats(run, 8)
    assert wrong < 6
    with pytest.raises(PlanError, match="at order 2"):
        rho_max(epsilon=10.0, delta=1e-5, alpha=2)


@given(st.floats(3.0, 60.0), st.sampled_from([1e-3, 1e-5, 1e-9]), st.integers(12, 64))
def test_a_grant_spent_to_the_last_nano_nat_meets_its_epsilon(epsilon, delta, alpha):
    allowed = rho_max(epsilon=epsilon, delta=delta, alpha=alpha)
    assert allowed > 0
    assert epsilon_lifetime(allowed, alpha=alpha, delta=delta) <= epsilon
    assert epsilon_lifetime(allowed + 3, alpha=alpha, delta=delta) > epsilon


def test_refusals():
    for alpha in (1, 65, 3.0, "3", None, True):
        with pytest.raises(PlanError, match="alpha"):
            rho(Event(0.1, 1.0, 1), alpha)
        with pytest.raises(PlanError, match="alpha"):
            epsilon_lifetime(1, alpha=alpha, delta=1e-5)
    for epsilon in (0.01, -1, math.nan, math.inf):
        with pytest.raises(PlanError, match="epsilon"):
            rho_max(epsilon=epsilon, delta=1e-5, alpha=2)
    with pytest.raises(PlanError, match="target_delta"):
        epsilon_lifetime(1, alpha=2, delta=0)
    with pytest.raises(AccountingError, match="noise_multiplier"):
        nano_nats([Event(0.5, 1e-30, 1)], 64)


def test_orders_and_steps_at_their_ends():
    assert nano_nats([Event(1, 1.0, 3)], 2) == 3 * NANO
    assert nano_nats([Event(1, 1.0, 1)], 64) == 32 * NANO
    assert rho(Event(1, 2.0, 5), 4) == pytest.approx(2.5)
    assert epsilon_lifetime(0, alpha=64, delta=0.5) == 0.0


def test_the_best_order_is_looked_for_from_2_to_64():
    assert best_order([Event(1, 0.1, 1)], 1e-5) == 2
    assert best_order([Event(1, 1000.0, 1)], 1e-5) == 64


@pytest.mark.parametrize(("epsilon", "alpha"), [(4.25, 9), (7.3, 5), (30.0, 2), (2.5, 40)])
def test_a_grant_is_the_largest_that_meets_its_epsilon(epsilon, alpha):
    """Against fifty digits."""
    with localcontext(Context(prec=50)):
        delta = Decimal("1e-5")
        excess = (Decimal(alpha - 1) / alpha).ln() - (delta * alpha).ln() / (alpha - 1)
        exact = (Decimal(epsilon) - excess) * NANO
    assert 0 <= exact - rho_max(epsilon=epsilon, delta=1e-5, alpha=alpha) < 3
