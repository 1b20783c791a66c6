"""Noise by round: the same promise as flat noise, booked round by round, with less of it in the model."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from setting import LONG

from fedfsd.errors import BudgetError, PlanError
from fedfsd.mechanism import accountant, influence
from fedfsd.mechanism.calibration import noise_multiplier, noise_multipliers
from fedfsd.mechanism.event import Event, exact
from fedfsd.mechanism.kind import (
    KINDS,
    MOST_LEVELS,
    Gaussian,
    GaussianByRound,
    GaussianByRoundPlan,
    GaussianByRoundText,
    GaussianText,
    gains,
    of,
)
from fedfsd.mechanism.renyi import nano_nats

COSINE = [(1 + math.cos(math.pi * number / 120)) / 2 for number in range(120)]
MOVED = influence.influence(COSINE, server_momentum=0.9)
sigmas = st.lists(st.sampled_from([0.75, 1.0, 2.5, 13.7077, 52.4286]), min_size=1, max_size=40).map(tuple)


def made(noise: tuple[float, ...], *, rate: float = 0.3, local_steps: int = 3) -> GaussianByRound:
    return GaussianByRound(sample_rate=rate, max_grad_norm=2.0, local_steps=local_steps, sigmas=noise)


@given(noise=sigmas, alpha=st.sampled_from([2, 3, 17, 64]), cut=st.integers(0, 40))
def test_rounds_cost_what_their_blocks_cost(noise, alpha, cut):
    """However a plan is cut into blocks, and rounds are booked one by one, the nano-nats are the same."""
    mechanism, last = made(noise), len(noise)
    whole = mechanism.rho(range(1, last + 1), alpha)
    each = mechanism.rho_by_round(last, alpha)
    assert sum(each) == whole
    assert each == tuple(
        nano_nats(mechanism.round_text(number).events(), alpha) for number in range(1, last + 1)
    )
    cut = min(cut, last)
    assert mechanism.rho(range(1, cut + 1), alpha) + mechanism.rho(range(cut + 1, last + 1), alpha) == whole
    assert nano_nats(mechanism.text(last).events(), alpha) == whole


@given(sigma=st.floats(0.5, 50), rounds=st.integers(1, 30), alpha=st.sampled_from([2, 8]))
def test_equal_noise_in_every_round_is_the_flat_gaussian(sigma, rounds, alpha):
    step = {"sample_rate": 0.2, "max_grad_norm": 1.0, "local_steps": 2}
    flat, varied = Gaussian(**step, sigma=sigma), GaussianByRound(**step, sigmas=(sigma,) * rounds)
    every = range(1, rounds + 1)
    assert flat.events(every) == varied.events(every)
    assert flat.rho_by_round(rounds, alpha) == varied.rho_by_round(rounds, alpha)
    assert flat.round_text(1) == varied.round_text(rounds)
    assert flat.std(1) == varied.std(rounds)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "epsilon", "delta"),
    [(1.0, 2.0, 1e-4), (0.25, 2.0, 1e-5), *[(1.0, 8.0, 1e-4)] * LONG],
)
def test_a_calibrated_schedule_keeps_the_promise_by_three_accountants(rate, epsilon, delta):
    shape = influence.shape(MOVED)
    found = noise_multipliers(
        shape, target_epsilon=epsilon, target_delta=delta, sample_rate=rate, local_steps=1
    )
    events = made(found, rate=rate, local_steps=1).events(range(1, 121))
    answers = accountant.check(events, delta)  # raises where PRV is 0.02 off
    assert epsilon - 0.02 < answers.pld <= epsilon
    assert abs(answers.prv - answers.pld) <= 0.02
    assert all(round(one * 10_000) == pytest.approx(one * 10_000, abs=1e-6) for one in found)
    smaller = [Event(one.sample_rate, one.noise_multiplier * 0.999, one.steps) for one in events]
    assert accountant.epsilon_pld(smaller, delta) > epsilon
    flat = noise_multiplier(target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=120)
    assert influence.effective(found, MOVED) < 0.87 * flat


def test_what_a_grant_has_left_raises_all_noise_in_proportion():
    wish = {"target_epsilon": 4.0, "target_delta": 1e-4, "sample_rate": 1.0, "local_steps": 1}
    shape = influence.shape(MOVED)
    free = noise_multipliers(shape, **wish)
    cost = nano_nats(made(free, rate=1.0, local_steps=1).events(range(1, 121)), 5)
    assert noise_multipliers(shape, **wish, rho_limit=cost, alpha=5) == free
    bound = noise_multipliers(shape, **wish, rho_limit=cost // 2, alpha=5)
    assert nano_nats(made(bound, rate=1.0, local_steps=1).events(range(1, 121)), 5) <= cost // 2
    assert bound[0] / free[0] == pytest.approx(math.sqrt(2), rel=1e-3)
    with pytest.raises(BudgetError):
        noise_multipliers(shape, **wish, rho_limit=0, alpha=5)


@pytest.mark.slow
def test_no_round_falls_below_the_policys_floor():
    wish = {"target_delta": 1e-4, "sample_rate": 0.01, "local_steps": 1}
    assert min(noise_multipliers(influence.shape(MOVED), target_epsilon=60.0, **wish)) == 0.5


@given(
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    averaged=st.integers(1, 12),
    rates=st.lists(st.floats(0.01, 1), min_size=12, max_size=12),
    noise=st.lists(st.floats(-1, 1), min_size=12, max_size=12),
)
def test_the_influence_is_that_of_the_real_server(momentum, averaged, rates, noise):
    """By running FedAvgM, then averaging the last models, on updates that are nothing but noise."""
    model = velocity = 0.0
    models = []
    for rate, one in zip(rates, noise, strict=True):
        velocity = momentum * velocity + rate * one
        model += velocity
        models.append(model)
    moved = influence.influence(rates, averaged=averaged, server_momentum=momentum)
    assert sum(w * one for w, one in zip(moved, noise, strict=True)) == pytest.approx(
        np.mean(models[-averaged:]), abs=1e-9
    )


@given(weights=st.lists(st.floats(0, 10), min_size=2, max_size=60).filter(lambda found: max(found) > 1e-3))
def test_the_shape_is_bounded_and_costs_what_flat_noise_costs(weights):
    shape = influence.shape(weights)
    assert np.mean([1 / one**2 for one in shape]) == pytest.approx(1, rel=1e-9)
    assert len(set(shape)) <= influence.LEVELS <= MOST_LEVELS
    assert max(shape) / min(shape) <= influence.WIDEST**2 * (1 + 1e-9)
    louder = sorted(zip(weights, shape, strict=True))
    assert all(b[1] <= a[1] * (1 + 1e-9) for a, b in itertools.pairwise(louder))
    assert influence.effective(shape, weights) <= 1 + 0.02  # quantised: at worst a little more than flat


def test_cosine_rounds_gain_what_the_arithmetic_says():
    gain = 1 - influence.effective(influence.shape(MOVED), MOVED)
    assert 0.13 < gain < 0.22
    best = 1 - np.sqrt(np.sum(MOVED) ** 2 / 120 / np.sum(np.square(MOVED)))
    assert best - gain < 0.01


def written_out(weights: list[float]) -> list[float]:
    """``shape`` by its description: within a factor of 3 of what a middling round has, on 8 levels."""
    middling = math.sqrt(np.mean(np.square(weights)))
    wanted = [3.0 if one == 0 else min(3.0, max(1 / 3, (middling / one) ** 0.5)) for one in weights]
    grid = np.geomspace(min(wanted), max(wanted), 8)
    levels = [grid[np.argmin(np.abs(np.log(grid / one)))] for one in wanted]
    return [one * math.sqrt(np.mean([1 / level**2 for level in levels])) for one in levels]


@pytest.mark.parametrize(
    "weights",
    [
        [1.0, 1.5],
        [1.0, 2.0, 4.0, 0.3, 0.14, 0.13, 0.12, 0.0],
        [100.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        [0.2 + 0.1 * number for number in range(40)],
        MOVED,
    ],
)
def test_the_shape_is_the_one_of_its_description(weights):
    assert influence.shape(weights) == pytest.approx(written_out(weights), rel=1e-9)


def test_equal_influence_is_flat():
    assert set(influence.shape(influence.influence([0.1] * 30))) == {1.0}
    assert influence.shape([0.0, 0.0]) == (1.0, 1.0)
    assert influence.shape([1.0, 1.0 + 1e-12]) == (1.0, 1.0)


def test_every_round_has_its_noise_and_its_weight():
    assert influence.effective([3.0, 4.0], [1.0, 1.0]) == pytest.approx(math.sqrt(12.5))
    with pytest.raises(ValueError, match="zip"):
        influence.effective([1.0], [1.0, 2.0])


def test_unsampled_gaussians_compose_to_one():
    events = [Event(1.0, 3.0, 4), Event(1.0, 6.0, 9), Event(0.5, 3.0, 1)]
    one = next(event for event in exact(events) if event.sample_rate == 1)
    assert one.steps / one.noise_multiplier**2 == pytest.approx(4 / 9 + 9 / 36, rel=1e-12)
    assert exact(events[:1]) == (events[0],)
    apart = accountant.epsilon_rdp([Event(0.999999, 3.0, 4), Event(0.999999, 6.0, 9)], 1e-5)
    assert accountant.epsilon_rdp(events[:2], 1e-5) == pytest.approx(apart, rel=1e-3)


def test_a_round_outside_the_plan_has_no_noise():
    for number in (0, 3, -1):
        with pytest.raises(PlanError):
            made((1.0, 2.0)).noise_multiplier(number)
    with pytest.raises(PlanError):
        made((1.0, 2.0)).text(3)


@pytest.mark.parametrize(
    "noise", [(), (0.0,), (-1.0,), (math.inf,), (math.nan,), (True,), ("2",), tuple(map(float, range(1, 19)))]
)
def test_no_document_holds_such_noise(noise):
    with pytest.raises(ValidationError):
        GaussianByRoundPlan(noise_multipliers=noise)


def test_a_region_names_one_kind_of_noise():
    step = {"sample_rate": 0.2, "max_grad_norm": 1.0, "local_steps": 2}
    plan = GaussianByRoundPlan(noise_multipliers=(1.0, 2.0))
    assert type(of(**step, noise_multiplier=None, mechanism=plan)) is KINDS["gaussian-by-round"]
    assert type(of(**step, noise_multiplier=1.0, mechanism=None)) is KINDS["gaussian"]
    for sigma, other in ((None, None), (1.0, plan)):
        with pytest.raises(PlanError):
            of(**step, noise_multiplier=sigma, mechanism=other)


STEP = {"sample_rate": 0.5, "max_grad_norm": 2.0}


def test_a_text_of_rounds_says_what_is_in_it():
    flat = GaussianText(**STEP, noise_multiplier=1.5, steps=6)
    varied = GaussianByRoundText(**STEP, noise_multipliers=(2.0, 1.0, 4.0, 2.0, 3.0), steps=10)
    assert flat.events() == (Event(0.5, 1.5, 6),)
    assert varied.events() == tuple(Event(0.5, one, steps) for one, steps in ((1, 2), (2, 4), (3, 2), (4, 2)))
    assert (flat.least_noise, varied.least_noise) == (1.5, 1.0)
    assert flat.with_noise(3.0).noise_multiplier == 3.0
    assert varied.with_noise(2.0).noise_multipliers == (4.0, 2.0, 8.0, 4.0, 6.0)
    assert flat.words == "1.5"
    assert varied.words == "2 in round 1 to 3 in round 5, by round, 1 between, 4 between"
    ends = GaussianByRoundText(**STEP, noise_multipliers=(1.0, 2.0, 3.0), steps=3)
    assert ends.words == "1 in round 1 to 3 in round 3, by round"


def test_a_text_has_as_many_steps_in_every_round_and_few_levels():
    most = tuple(float(number) for number in range(1, 17))
    assert GaussianByRoundText(**STEP, noise_multipliers=most, steps=32).words.startswith("1 in round 1")
    for noise, steps in (((1.0, 2.0), 3), ((*most, 17.0), 17)):
        with pytest.raises(ValidationError):
            GaussianByRoundText(**STEP, noise_multipliers=noise, steps=steps)


@pytest.mark.parametrize(
    "change",
    [
        {"sample_rate": 0.0},
        {"sample_rate": 1.0000001},
        {"max_grad_norm": 0.0},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.inf},
        {"noise_multiplier": "1"},
        {"steps": 0},
        {"steps": 10**6 + 1},
        {"more": 1},
    ],
)
def test_what_no_text_can_say(change):
    good = STEP | {"noise_multiplier": 1e-3, "steps": 1}
    assert GaussianText(**(good | {"sample_rate": 1.0, "steps": 10**6})).sample_rate == 1
    assert GaussianText(**good).steps == 1
    with pytest.raises(ValidationError) as caught:
        GaussianText(**(good | change))
    assert "input_value" not in str(caught.value)  # of a document that may be anybody's
    with pytest.raises(ValidationError):
        GaussianText(**good).steps = 2


def test_rounds_of_a_mechanism_to_the_last_digit():
    flat = Gaussian(**STEP, local_steps=3, sigma=1.5)
    varied = made((2.0, 1.0, 4.0))
    assert flat.words == "1.5"
    assert varied.words == "2 in round 1 to 4 in round 3, by round, 1 between"
    assert (flat.least_noise(), varied.least_noise()) == ((1.5, ""), (1.0, " of round 2"))
    assert flat.text(4) == GaussianText(**STEP, noise_multiplier=1.5, steps=12)
    assert varied.text(3).steps == 9
    assert varied.round_text(3).noise_multiplier == 4.0
    assert flat.events(range(2, 4)) == (Event(0.5, 1.5, 6),)
    assert (varied.std(1), flat.std(7)) == (4.0, 3.0)


def test_bounds_of_a_policy_are_within_it():
    flat = Gaussian(**STEP, local_steps=3, sigma=1.5)
    assert flat.objections(min_noise_multiplier=1.5, max_grad_norm=2.0) == []
    assert flat.objections(min_noise_multiplier=1.51, max_grad_norm=1.99) == [
        "noise_multiplier 1.5 is below the floor 1.51",
        "max_grad_norm 2 is above the cap 1.99",
    ]


def test_noise_is_drawn_at_its_scale():
    class Ones:
        def whole(self, count: int, scale: float, /) -> np.ndarray:
            return np.rint(scale * np.ones(count))

    assert made((2.0, 1.0)).noised(np.array([0.0, 1.0, -1.0]), Ones(), round=1).tolist() == [4.0, 5.0, 3.0]


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_gains_witness_and_longest_update_by_hand(momentum):
    found = gains(learning_rate=0.1, momentum=momentum, local_steps=3)
    expected = [0.1 * sum(momentum**later for later in range(left)) for left in (3, 2, 1)]
    assert found == pytest.approx(expected)
    flat = Gaussian(**STEP, local_steps=3, sigma=1.5)
    std = math.sqrt(sum(one**2 for one in expected)) * 3.0 / 10
    assert flat.witness_std(1, found, divisor=10.0) == pytest.approx(std)
    longest = flat.max_update_norm(1, found, divisor=10.0, roster=20, size=400, z=6.0)
    assert longest == pytest.approx((sum(expected) * 20 * 2.0 / 10 + std * (20 + 6)) * 1.0001, rel=1e-9)


def test_the_kind_of_today_is_named_by_naming_none():
    text = GaussianText(sample_rate=0.5, noise_multiplier=1.0, max_grad_norm=1.0, steps=3)
    assert "kind" not in text.model_dump()


@settings(max_examples=20)
@given(noise=sigmas)
def test_the_policy_looks_at_the_round_with_the_least_noise(noise):
    found = made(noise).objections(min_noise_multiplier=0.9, max_grad_norm=1.5)
    assert (min(noise) < 0.9) == any("below the floor" in one for one in found)
    assert any("max_grad_norm 2" in one for one in found)
