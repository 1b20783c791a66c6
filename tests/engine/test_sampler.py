"""Poisson sampling and the choice of windows: frequencies, independence, and slots that stand alone.

Keys are fixed, so every statistic is the same each time; thresholds are at probabilities below 1e-6.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from setting import examples

from fedfsd.engine.randomness import RoundKey, Stream
from fedfsd.engine.sampler import choose_windows, sample_vehicles

ALPHA = 1e-6
KEY = RoundKey(b"k" * 32, "CN", "plan", 1, "arrays")


def draws(steps: int, roster: int, rate: float) -> np.ndarray:
    """Who is in at each step, (steps, roster) bool."""
    taken = np.zeros((steps, roster), bool)
    for step in range(steps):
        taken[step, sample_vehicles(KEY.stream("vehicles", step), roster, rate)] = True
    return taken


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5, 0.9])
def test_every_vehicle_is_in_with_probability_q(rate):
    taken = draws(400, 300, rate)
    z = (taken.mean() - rate) / np.sqrt(rate * (1 - rate) / taken.size)
    assert abs(z) < 5
    counts = taken.sum(axis=0)
    spread = ((counts - 400 * rate) ** 2 / (400 * rate * (1 - rate))).sum()
    assert ALPHA < stats.chi2.cdf(spread, 300) < 1 - ALPHA


def test_the_number_drawn_is_binomial_not_fixed():
    """A shuffle or a fixed batch would have no spread here; so would a cap."""
    sizes = draws(2000, 100, 0.2).sum(axis=1)
    spread = ((sizes - 20) ** 2 / 16).sum()
    assert ALPHA < stats.chi2.cdf(spread, 2000) < 1 - ALPHA
    assert sizes.min() < 12
    assert sizes.max() > 30


def test_vehicles_and_steps_are_drawn_independently():
    taken = draws(4000, 60, 0.5) * 2.0 - 1
    between = taken.T @ taken / np.sqrt(len(taken))  # pairs of vehicles: N(0, 1) off the diagonal
    np.fill_diagonal(between, 0)
    assert np.abs(between).max() < 6
    assert abs(np.mean(between**2) * 60 / 59 - 1) < 0.2
    later = (taken[:-1] * taken[1:]).sum(axis=0) / np.sqrt(len(taken) - 1)
    assert np.abs(later).max() < 5.5


def test_sampled_always_or_never():
    assert sample_vehicles(KEY.stream("vehicles", 0), 50, 1.0).tolist() == list(range(50))
    assert sample_vehicles(KEY.stream("vehicles", 0), 50, 1e-12).tolist() == []


@pytest.mark.parametrize(("count", "k"), [(1, 1), (4, 1), (4, 2), (4, 3), (4, 4), (5, 2)])
def test_every_ordered_choice_of_windows_is_as_likely(count, k):
    vehicles = 24_000
    choices, taken = choose_windows(
        KEY.stream("windows", 0), np.arange(vehicles), np.full(vehicles, count), k
    )
    assert taken.all()
    seen = {tuple(row) for row in choices.tolist()}
    expected = set(permutations(range(count), k))
    assert seen == expected
    tally = np.array([(choices == choice).all(axis=1).sum() for choice in sorted(expected)])
    if len(expected) > 1:
        assert stats.chisquare(tally).pvalue > ALPHA


def test_large_counts_are_covered_evenly():
    window, _ = choose_windows(KEY.stream("windows", 0), np.arange(20_000), np.full(20_000, 1000), 8)
    assert stats.chisquare(np.bincount(window.ravel(), minlength=1000)).pvalue > ALPHA


@settings(deadline=None, max_examples=examples(150))
@given(
    counts=st.lists(st.sampled_from([0, 1, 2, 3, 7, 50, 10_000]), max_size=30),
    k=st.integers(1, 9),
    step=st.integers(0, 5),
)
def test_windows_are_distinct_in_range_and_at_most_k(counts, k, step):
    slots = np.arange(len(counts)) * 3 + 1
    window, taken = choose_windows(KEY.stream("windows", step), slots, np.array(counts, int), k)
    assert window.shape == taken.shape == (len(counts), k)
    assert not window[~taken].any()
    for position, count in enumerate(counts):
        mine = window[position][taken[position]].tolist()
        assert len(mine) == len(set(mine)) == min(k, count)
        assert all(0 <= index < count for index in mine)


@settings(deadline=None, max_examples=examples(150))
@given(
    counts=st.lists(st.integers(0, 20), min_size=2, max_size=25),
    other=st.lists(st.integers(0, 20), min_size=25, max_size=25),
    data=st.data(),
)
def test_a_vehicles_windows_hang_on_its_slot_alone(counts, other, data):
    """Neither who else is drawn nor how many windows the others have changes what is chosen of it."""
    me = data.draw(st.integers(0, len(counts) - 1))
    drawn = data.draw(st.sets(st.integers(0, len(counts) - 1)))
    changed = np.array([count if slot == me else other[slot] for slot, count in enumerate(counts)])
    stream = KEY.stream("windows", 3)
    everyone = np.arange(len(counts))
    some = np.array(sorted(drawn | {me}))
    window, taken = choose_windows(stream, everyone, np.array(counts), 4)
    chosen, mask = choose_windows(stream, some, changed[some], 4)
    at = int(np.searchsorted(some, me))
    assert window[me].tolist() == chosen[at].tolist()
    assert taken[me].tolist() == mask[at].tolist()


def test_a_longer_roster_changes_no_earlier_draw():
    stream = KEY.stream("vehicles", 0)
    short, long = sample_vehicles(stream, 40, 0.5), sample_vehicles(stream, 400, 0.5)
    assert long[long < 40].tolist() == short.tolist()


def test_vehicles_and_their_windows_are_drawn_from_different_streams():
    """Being in the sample must say nothing about which window is seen."""
    roster = 40_000
    taken = sample_vehicles(KEY.stream("vehicles", 0), roster, 0.5)
    window, _ = choose_windows(KEY.stream("windows", 0), taken, np.full(len(taken), 2), 1)
    assert abs(window.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(taken))


def test_the_largest_draw_stays_in_range():
    """A draw just below 1 times a count of windows must not round up to the count."""

    class Highest(Stream):
        def bits(self, count: int, *, block: int = 0) -> np.ndarray:
            return np.full(count, 2**64 - 1, np.uint64)

    for count in (1, 3, 1000, 2**31, 2**53):
        window, _ = choose_windows(Highest(bytes(32)), np.array([0]), np.array([count]), 1)
        assert window.tolist() == [[count - 1]]
