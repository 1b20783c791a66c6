"""Checks of canaries: seldom wrong, and powerful where they say so."""

from __future__ import annotations

from math import comb, exp, isfinite, log

import numpy as np
import pytest

from fedfsd.mechanism import canary
from fedfsd.mechanism.kind import gains


def released(random, *, rounds, count, sigma, rate, steps=2, clip=1.0, noise=1.0, drawn=None):
    """(seen, coins, pulls) of a training as the mechanism is defined, a step after another."""
    moved = gains(learning_rate=0.1, momentum=0.5, local_steps=steps)
    coins = random.random(count) < 0.5
    coins[-1] = True
    moving = np.append(coins[:-1], False)
    seen = []
    for _ in range(rounds):
        velocity = update = np.zeros(count)
        for _ in range(steps):
            hits = random.random(count) < rate if drawn is None else drawn(random, count)
            velocity = 0.5 * velocity + clip * hits * moving + noise * sigma * random.standard_normal(count)
            update = update + 0.1 * velocity
        seen.append(update / (sigma * np.linalg.norm(moved)))
    return np.array(seen), coins, np.tile(canary.pulls_of(moved, sigma), (rounds, 1))


@pytest.mark.parametrize(
    "plan",
    [
        {"rounds": 20, "count": 50, "sigma": 3.0, "rate": 0.5},
        {"rounds": 12, "count": 120, "sigma": 1.0, "rate": 1.0},
        {"rounds": 30, "count": 400, "sigma": 0.6, "rate": 0.02},
        {"rounds": 1, "count": 2, "sigma": 0.5, "rate": 0.3},
        {"rounds": 2, "count": 1, "sigma": 0.5, "rate": 0.3},
    ],
)
def test_right_plans_pass(plan):
    random = np.random.default_rng(7)
    for _ in range(40):
        seen, coins, pulls = released(random, **plan)
        assert canary.verdict(seen, coins, pulls, plan["rate"], looks=20) == "...."


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_a_mean_is_bounded_however_far_it_is_off(rate):
    """Beyond where an exponential of the distance is nothing beside 1."""
    pulls = np.full((1, 1), 2.0)
    tails = [canary._mean_tail(2.0 * rate - off, pulls, rate, 2) for off in (0.5, 1.85, 5.0, 50.0)]
    assert tails == sorted(tails, reverse=True)
    if rate == 1.0:  # two normal numbers alone, and the best slope is among those that are tried
        planned = canary.NEARLY * 2.0
        assert tails == pytest.approx(
            [log(2) - (planned - 2.0 + off) ** 2 for off in (0.5, 1.85, 5.0, 50.0)], rel=0.02
        )


WRONG = {
    "canary-sensitivity": {"clip": 2.0},
    "canary-noise": {"noise": 0.9},
    "canary-draws": {"drawn": lambda random, count: np.arange(count) % 2 == 0},
}


@pytest.mark.parametrize("finding", WRONG)
def test_wrong_ones_do_not(finding):
    seen, coins, pulls = released(
        np.random.default_rng(3), rounds=20, count=400, sigma=2.0, rate=0.5, **WRONG[finding]
    )
    assert finding in canary.findings(canary.verdict(seen, coins, pulls, 0.5, looks=20))


def test_a_canary_that_is_not_finite_and_counts_is_found():
    seen, coins, pulls = released(np.random.default_rng(3), rounds=6, count=60, sigma=2.0, rate=1.0)
    seen[:, -1] += 6
    assert canary.findings(canary.verdict(seen, coins, pulls, 1.0, looks=6)) == (
        "canary-noise",
        "canary-not-finite",
    )


def test_what_goes_wrong_in_one_late_round_alone_is_found():
    random, rate = np.random.default_rng(3), 0.5
    seen, coins, pulls = released(random, rounds=200, count=400, sigma=2.0, rate=rate)
    seen[-1] *= 0.5
    assert canary.verdict(seen[:-1], coins, pulls[:-1], rate, looks=200) == "...."
    assert "canary-noise" in canary.findings(canary.verdict(seen, coins, pulls, rate, looks=200))


def test_what_is_said_to_be_noticed_is_noticed():
    random = np.random.default_rng(5)
    plan = {"rounds": 20, "count": 100, "sigma": 3.0, "rate": 0.5}
    _, coins, pulls = released(random, **plan)
    factor = canary.noticed(pulls, 0.5, int(coins[:-1].sum()), looks=20)
    assert 1.5 < factor < 4
    hits = 0
    for _ in range(40):
        seen, coins, pulls = released(random, **plan, clip=factor)
        hits += "canary-sensitivity" in canary.findings(canary.verdict(seen, coins, pulls, 0.5, looks=20))
    assert hits >= 36
    assert not isfinite(canary.noticed(pulls, 0.5, 0, looks=20))


@pytest.mark.parametrize(("rate", "hits"), [(0.1, 25), (0.5, 70), (0.5, 30)])
def test_a_mean_of_draws_is_not_judged_more_strictly_than_the_binomial_allows(rate, hits):
    """With next to no noise what is left is one binomial: its exact tail, by sums of whole numbers."""
    count, sigma = 100, 1e-4
    pulls = np.array([[1 / sigma]])
    bound = exp(canary._mean_tail(hits / count / sigma, pulls, rate, count))
    tail = range(hits, count + 1) if hits > rate * count else range(hits + 1)
    exact = sum(comb(count, one) * rate**one * (1 - rate) ** (count - one) for one in tail)
    assert exact <= bound <= 60 * exact


def test_a_seed_decides_the_coins_and_the_last_canary_is_always_in():
    assert canary.coins(b"a" * 32, 9).tolist() == canary.coins(b"a" * 32, 9).tolist()
    assert canary.coins(b"a" * 32, 100).tolist() != canary.coins(b"b" * 32, 100).tolist()
    assert all(canary.coins(bytes([one]) * 32, 1).tolist() == [True] for one in range(8))
