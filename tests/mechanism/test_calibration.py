import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from setting import LONG

from fedfsd.errors import BudgetError, PlanError
from fedfsd.mechanism import calibration
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.calibration import noise_multiplier
from fedfsd.mechanism.event import Event
from fedfsd.mechanism.renyi import nano_nats


def is_smallest(sigma, target, delta, q, steps):
    below = round(sigma * 10_000 - 1) / 10_000
    assert sigma == round(sigma, 4)
    assert epsilon_pld([Event(q, sigma, steps)], delta) <= target
    assert epsilon_pld([Event(q, below, steps)], delta) > target


# Of the table of known epsilons, read from right to left: sigma must come back.
KNOWN = [
    (1, 10, 100, 1e-5, 4.377),
    (1, 5, 20, 1e-5, 3.849),
    (0.1, 2, 300, 1e-5, 4.183),
    (0.1, 5, 300, 1e-5, 1.367),
    (0.25, 4, 200, 1e-6, 4.434),
    (0.05, 30, 1000, 1e-5, 0.170),
    (0.1, 1, 100, 1e-4, 5.966),
]
DEAR = [
    (0.01, 1, 1000, 1e-5, 1.828),
    (0.01, 0.6, 1000, 1e-5, 7.434),
    (0.05, 1, 500, 1e-5, 7.524),
    (0.5, 8, 1000, 1e-6, 10.912),
    (0.02, 0.8, 5000, 1e-6, 16.920),
    (0.2, 0.5, 100, 1e-5, 57.18),
]


@pytest.mark.parametrize(("q", "sigma", "steps", "delta", "epsilon"), KNOWN + DEAR * LONG)
def test_finds_the_noise_of_known_epsilons(q, sigma, steps, delta, epsilon):
    found = noise_multiplier(target_epsilon=epsilon, target_delta=delta, sample_rate=q, steps=steps)
    assert found == pytest.approx(sigma, rel=0.004 if epsilon < 1 else 0.0006)
    is_smallest(found, epsilon, delta, q, steps)


@pytest.mark.slow
@settings(max_examples=3 if LONG else 2, deadline=None)
@given(st.floats(0.3, 8.0), st.floats(0.1, 1.0), st.integers(5, 500))
def test_the_answer_is_the_smallest_that_keeps_the_promise(epsilon, q, steps):
    found = noise_multiplier(target_epsilon=epsilon, target_delta=1e-4, sample_rate=q, steps=steps)
    is_smallest(found, epsilon, 1e-4, q, steps)


def test_the_larger_noise_of_two_bounds():
    plan = {"target_epsilon": 8.0, "target_delta": 1e-4, "sample_rate": 0.5, "steps": 300}
    free = noise_multiplier(**plan)
    cost = nano_nats([Event(0.5, free, 300)], 3)
    assert noise_multiplier(**plan, rho_limit=cost, alpha=3) == free
    assert noise_multiplier(**plan, rho_limit=100 * cost, alpha=3) == free
    bound = noise_multiplier(**plan, rho_limit=cost // 4, alpha=3)
    assert bound > 1.9 * free
    assert nano_nats([Event(0.5, bound, 300)], 3) <= cost // 4
    assert nano_nats([Event(0.5, round(bound - 1e-4, 4), 300)], 3) > cost // 4


def test_answers_are_remembered():
    plan = {"target_epsilon": 2.0, "target_delta": 1e-4, "sample_rate": 0.3, "steps": 60}
    first = noise_multiplier(**plan)
    asked = calibration._for_epsilon.cache_info().misses
    assert noise_multiplier(**plan) == first
    assert calibration._for_epsilon.cache_info().misses == asked


@pytest.mark.slow
def test_a_very_generous_promise_still_gets_some_noise():
    assert noise_multiplier(target_epsilon=100, target_delta=0.1, sample_rate=0.01, steps=1) == 0.05


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"target_epsilon": 0}, "target_epsilon"),
        ({"target_epsilon": -1.0}, "target_epsilon"),
        ({"target_epsilon": float("nan")}, "target_epsilon"),
        ({"target_epsilon": float("inf")}, "target_epsilon"),
        ({"target_delta": 0}, "target_delta"),
        ({"target_delta": 1.0}, "target_delta"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"sample_rate": 1.5}, "sample_rate"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"rho_limit": 10**9}, "alpha"),
        ({"rho_limit": 10**9, "alpha": 65}, "alpha"),
    ],
)
def test_refusals(change, place):
    plan = {"target_epsilon": 8.0, "target_delta": 1e-4, "sample_rate": 0.5, "steps": 300} | change
    with pytest.raises(PlanError, match=place):
        noise_multiplier(**plan)


def test_refuses_what_no_noise_reaches_and_an_empty_grant():
    with pytest.raises(PlanError, match="within reach"):
        noise_multiplier(target_epsilon=1e-5, target_delta=1e-9, sample_rate=1.0, steps=10**6)
    with pytest.raises(BudgetError, match="rho"):
        noise_multiplier(
            target_epsilon=8.0, target_delta=1e-4, sample_rate=0.5, steps=300, rho_limit=0, alpha=3
        )
