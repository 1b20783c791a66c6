"""The statistics of released bytes: valid at every round, and what is wrong is named in time."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from fedfsd.mechanism import watch
from fedfsd.mechanism.watch import Sight, State, look

N, ROUNDS = 4096, 20


def named(make, *, rounds=ROUNDS, seed=0, groups=None, others=None, regions=3, lattice=None):
    """The alarm that a region's releases lead to, if any; ``make(random, round)`` is its witness block."""
    random, state = np.random.default_rng(seed), State()
    for round in range(1, rounds + 1):
        block = make(random, round)
        parts = groups(random, round, block) if groups else ()
        sight = Sight(round, block, parts, lattice)
        near = others(round) if others else ()
        state, alarm = look(state, sight, rounds=rounds, regions=regions, others=near)
        if alarm is not None:
            return alarm
    return None


def scaled(scale):
    return lambda random, _: scale * random.standard_normal(N)


def test_its_example_is_true():
    assert doctest.testmod(watch).failed == 0


def test_right_noise_is_left_alone():
    signal = np.linspace(-2, 2, 200)

    def groups(random, round, _):
        return (("head", signal * round + random.standard_normal(200)), ("body", random.standard_normal(900)))

    assert not [seed for seed in range(6) if named(scaled(1.0), seed=seed, groups=groups)]


@pytest.mark.parametrize(
    ("scale", "by"), [(0.97, 10), (0.95, 3), (0.9, 1), (0.5, 1), (1.03, 12), (1.1, 1), (2.0, 1)]
)
def test_noise_of_another_scale_is_named_in_time(scale, by):
    found = [named(scaled(scale), seed=seed) for seed in range(30)]
    late = [one for one in found if one is None or one.round > by]
    assert len(late) <= 1
    assert {one.code for one in found if one} == {"noise-scale"}


def test_what_goes_wrong_late_is_named_as_fast():
    def make(random, round):
        return (0.9 if round >= 12 else 1.0) * random.standard_normal(N)

    assert [named(make, seed=seed).round for seed in range(5)] == [12] * 5


SHAPES = {
    "uniform": lambda random, _: random.uniform(-np.sqrt(3), np.sqrt(3), N),
    "laplace": lambda random, _: random.laplace(scale=np.sqrt(0.5), size=N),
    "clipped": lambda random, _: np.clip(random.standard_normal(N), -3, 3),
    "half of it missing": lambda random, _: random.standard_normal(N) * (np.arange(N) % 2),
    "a fiftieth missing": lambda random, _: random.standard_normal(N) * (np.arange(N) % 50 > 0),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_of_another_shape_is_named(shape):
    alarm = named(SHAPES[shape])
    assert alarm.code in ("noise-shape", "noise-scale", "noise-grid")
    assert alarm.round <= 3


def test_noise_in_few_bits_repeats_its_values():
    alarm = named(lambda random, _: random.standard_normal(N).astype(np.float16).astype(float))
    assert (alarm.code, alarm.round) == ("noise-grid", 1)


def test_noise_beside_the_public_grid_is_named_and_on_it_is_right():
    unit = 2.0**-21

    def on(random, _):
        return (np.rint(random.standard_normal(N) / unit) * unit).astype(np.float32).astype(float)

    def beside(random, _):
        return random.standard_normal(N).astype(np.float32).astype(float)

    assert named(on, lattice=unit, rounds=5) is None
    assert (named(beside, lattice=unit).code, named(beside, lattice=unit).round) == ("noise-grid", 1)


def test_noise_used_twice_is_named_wherever_it_was():
    kept = np.random.default_rng(99).standard_normal((40, N))
    same = named(lambda *_: kept[0])
    assert (same.code, same.round, same.text) == ("noise-overlap", 2, "noise used before, in other rounds")
    shifted = named(lambda random, round: np.roll(kept[0], 100) if round == 4 else kept[round - 1])
    assert (shifted.code, shifted.round) == ("noise-overlap", 4)
    negative = named(lambda random, round: -kept[0] if round == 3 else kept[round - 1])
    assert (negative.code, negative.round) == ("noise-overlap", 3)
    old = named(lambda random, round: kept[0] if round == 30 else kept[round - 1], rounds=30)
    assert (old.code, old.round) == ("noise-overlap", 30)
    periodic = named(lambda random, _: np.tile(random.standard_normal(N // 4), 4))
    assert (periodic.round, periodic.text) == (1, "noise used before, in the same block")
    region = named(scaled(1.0), seed=7, others=lambda round: [_block(7, round)])
    assert (region.round, region.text) == (1, "noise used before, in other regions")


def _block(seed, round):
    random = np.random.default_rng(seed)
    return [random.standard_normal(N) for _ in range(round)][-1]


def test_the_witness_noise_in_the_model_is_named():
    def groups(random, round, block):
        return (("body", 0.3 * np.sin(np.arange(600)) + block[:600]),)

    alarm = named(scaled(1.0), groups=groups)
    assert (alarm.round, alarm.text) == (1, "noise used before, in the model's own arrays")


SIGNAL = np.random.default_rng(5).normal(0, 1, 600)


@pytest.mark.parametrize(
    ("share", "by"), [(0.0, 3), (0.5, 6), (0.7, 12)], ids=["no noise", "half noise", "seven tenths"]
)
def test_a_tensor_with_too_little_noise_is_named(share, by):
    """Whatever its signal is, as long as that changes slower than the noise."""

    def groups(random, round, _):
        drift = SIGNAL * (1 - round / 60)
        right = ("right", np.full(300, 3.0) + random.standard_normal(300))
        return right, ("wrong", drift + share * random.standard_normal(600))

    alarm = named(scaled(1.0), groups=groups)
    assert alarm.code == "noise-floor"
    assert alarm.round <= by
    assert alarm.text.startswith(("wrong", "all arrays"))


def test_one_entry_without_noise_is_named():
    def groups(random, round, _):
        values = random.standard_normal(300)
        values[17] = 1.5
        return (("body", values),)

    alarm = named(scaled(1.0), groups=groups, rounds=60)
    assert (alarm.code, alarm.text) == ("noise-floor", "an entry of the model moves less than its noise")


def test_noise_used_again_in_the_model_alone_is_named():
    kept = np.random.default_rng(3).standard_normal(600)

    def groups(random, round, _):
        return (("body", 0.1 * round * SIGNAL + kept),)

    assert named(scaled(1.0), groups=groups).code == "noise-floor"


def test_a_signal_of_any_size_is_no_alarm():
    """The floor is the least that noise leaves: signals only add to it."""
    for size in (0.0, 0.3, 3.0, 100.0):

        def groups(random, round, _, size=size):
            return (("body", size * np.sin(round * np.arange(600)) + random.standard_normal(600)),)

        assert named(scaled(1.0), groups=groups) is None


def test_each_bet_has_expectation_one_or_less_under_the_null():
    """By simulation of short blocks, where ratios are tame enough to be averaged."""
    random = np.random.default_rng(1)
    won = []
    for _ in range(2000):
        groups = (("a", random.standard_normal(3)), ("b", 0.5 + random.standard_normal(2)))
        state, _ = look(State(), Sight(1, random.standard_normal(2), groups), rounds=1, regions=1)
        won.append(state.bets)
    mean, spread = np.exp(won).mean(0), np.exp(won).std(0) / np.sqrt(len(won))
    assert (mean <= 1 + 5 * spread + 1e-3).all()  # rare events do not occur in so few trials
    assert np.count_nonzero(mean > 0.5) > len(mean) / 2  # it is no bet on nothing


def test_overlap_is_the_ratio_of_two_densities(monkeypatch):
    """Against scipy-free densities, written out entry by entry, at every offset."""
    monkeypatch.setattr(watch, "STRONG", -1.0)  # every offset, however weak
    random = np.random.default_rng(2)
    z, x = random.standard_normal(80), random.standard_normal(80)
    x *= np.sqrt(len(x) / (x @ x))
    lags = range(watch.LEAST_OVERLAP - 80, 80 - watch.LEAST_OVERLAP + 1)
    total = 0.0
    for lag in lags:
        pairs = [(z[i], x[i - lag]) for i in range(80) if 0 <= i - lag < 80]
        for r in [sign * one for one in watch.CORRELATIONS for sign in (1, -1)]:
            ratio = 1.0
            for mine, theirs in pairs:
                ratio *= np.exp(-((mine - r * theirs) ** 2) / (2 * (1 - r * r)) + mine**2 / 2) / np.sqrt(
                    1 - r * r
                )
            total += ratio * (0.5 / len(lags) + (0.5 if lag == 0 else 0)) / (2 * len(watch.CORRELATIONS))
    assert watch._overlap(z, [x]) == pytest.approx(np.log(total), rel=1e-9)


def test_the_money_is_one_and_the_threshold_is_of_all_regions():
    for groups in ((), ("a",), tuple("abcdefgh")):
        share = sum(bet.share for bet in watch.bets(groups)) + watch.ENTRY
        assert share == pytest.approx(1.0)
    starts = [watch._start(looks, 7) for looks in range(9)]
    assert np.exp(starts).sum() == pytest.approx(1.0)
    assert np.exp(watch.threshold(4)) == pytest.approx(8000)


@pytest.mark.parametrize(("share", "signal"), [(0.6, 0.0), (0.6, 0.5), (0.85, 0.0)])
def test_the_stated_power_is_what_happens(share, signal):
    size, rounds = 600, 20
    assert watch.noticed(share, size, rounds, regions=3, signal=signal)
    found = 0
    for seed in range(20):

        def groups(random, round, _):
            change = signal * random.standard_normal(size)  # a signal that changes by that much
            return (("body", change + share * random.standard_normal(size)),)

        found += named(scaled(1.0), groups=groups, seed=seed) is not None
    assert found >= 19
    assert watch.noticed_in_witness(0.97, N, 10, regions=3)
    assert not watch.noticed_in_witness(0.995, N, 10, regions=3)
    assert not watch.noticed(0.95, size, rounds, regions=3, signal=0.5)


def test_of_a_model_without_witness_or_arrays_nothing_is_said():
    assert named(lambda *_: np.empty(0), rounds=3) is None
