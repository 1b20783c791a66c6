"""Lower bounds on epsilon: below the truth, near it, and equal to what their definitions give."""

from __future__ import annotations

import doctest
from math import comb, exp, inf

import numpy as np
import pytest

from fedfsd.audit import lower_bound
from fedfsd.audit.lower_bound import (
    bounds,
    curve_of,
    delta_of,
    epsilon_of,
    gaussian_curve,
    gaussian_pair,
    one_run,
    rejected,
)
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event

DELTA = 1e-5


def mu_of(epsilon: float) -> float:
    """By bisection of its definition."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon_of(middle, DELTA) < epsilon else (low, middle)
    return low


def test_its_example_is_true():
    assert doctest.testmod(lower_bound).failed == 0


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_the_gaussian_curve_is_the_accountants(sigma):
    assert epsilon_of(1 / sigma, DELTA) == pytest.approx(epsilon_pld([Event(1.0, sigma, 1)], DELTA), rel=2e-3)
    assert delta_of(1 / sigma, 200.0) < 1e-100


def test_one_run_is_its_theorem_written_out():
    canaries, guesses, correct, delta, error = 50, 20, 18, 1e-3, 0.05

    def tail(rate, least):
        return sum(
            comb(guesses, n) * rate**n * (1 - rate) ** (guesses - n) for n in range(least, guesses + 1)
        )

    def possible(epsilon):
        rate = exp(epsilon) / (1 + exp(epsilon))
        slack = max((tail(rate, correct - i) - tail(rate, correct)) / i for i in range(1, correct + 1))
        return tail(rate, correct) + 2 * canaries * delta * slack

    found = one_run(canaries, guesses=guesses, correct=correct, delta=delta, error=error)
    assert possible(found - 1e-6) < error < possible(found + 1e-6)
    assert one_run(canaries, guesses=guesses, correct=10, delta=delta) == 0.0


@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_bounds_stay_below_the_truth_and_come_near_it(epsilon):
    """Of orthogonal canaries of a Gaussian mechanism, whose epsilon is known."""
    random, mu = np.random.default_rng(1), mu_of(epsilon)
    found = []
    for _ in range(12):
        count = random.binomial(1000, 0.5)
        inside, outside = mu + random.standard_normal(count), random.standard_normal(1000 - count)
        found.append(bounds(inside, outside, delta=DELTA))
    assert max(one.one_run for one in found) < epsilon
    assert max(one.one_run_f for one in found) < epsilon
    assert sum(one.gaussian_pair > epsilon for one in found) <= 2
    middle = {name: float(np.median([getattr(one, name) for one in found])) for name in NAMES}
    assert middle["one_run"] < middle["one_run_f"] < middle["gaussian_pair"]
    if epsilon == 4.0:
        assert middle["one_run_f"] >= 1.2
        assert middle["gaussian_pair"] >= 3.0


NAMES = ("one_run", "one_run_f", "gaussian_pair")


def test_a_curve_of_points_is_below_what_it_stands_for():
    mu = 0.9
    points = [(epsilon / 10, delta_of(mu, epsilon / 10)) for epsilon in range(100)]
    exact, made = gaussian_curve(mu), curve_of(points)
    for x in np.linspace(0, 1, 41):
        assert made(x) == pytest.approx(exact(x), abs=5e-3)
    assert not rejected(1000, 100, 60, made)
    assert rejected(1000, 100, 99, made)


def test_scores_without_any_noise_bound_nothing_from_above():
    assert gaussian_pair(np.ones(10), np.zeros(10), delta=DELTA) == inf
    assert gaussian_pair(np.zeros(10), np.zeros(10), delta=DELTA) == 0.0
