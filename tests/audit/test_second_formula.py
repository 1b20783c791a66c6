"""The audit's own formula beside the mechanism's: two evaluations, the same whole numbers."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from setting import examples

from fedfsd.audit import loss
from fedfsd.errors import AccountingError, PlanError
from fedfsd.mechanism import kind, renyi
from fedfsd.mechanism.event import Event

rates = st.one_of(st.floats(1e-12, 1), st.just(1.0), st.sampled_from([0.1, 0.5, 1e-300]))
noise = st.floats(0.3, 1e4)


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(300))
@given(q=rates, sigma=noise, alpha=st.integers(2, 64), steps=st.integers(1, 10**6))
@example(q=1.0, sigma=1.0, alpha=2, steps=1)  # exactly a whole number of nano-nats
@example(q=1.0, sigma=0.5, alpha=64, steps=7)
@example(q=5e-324, sigma=1.0, alpha=64, steps=1)
def test_both_formulas_book_the_same_integer(q, sigma, alpha, steps):
    events = [Event(q, sigma, steps)]
    assert loss.nano_nats(events, alpha) == renyi.nano_nats(events, alpha)


@given(booked=st.integers(0, 10**12), alpha=st.integers(2, 64), delta=st.floats(1e-9, 0.5))
def test_both_formulas_make_the_same_epsilon(booked, alpha, delta):
    ours = loss.epsilon_lifetime(booked, alpha=alpha, delta=delta)
    assert ours == pytest.approx(
        renyi.epsilon_lifetime(booked, alpha=alpha, delta=delta), abs=1e-12, rel=1e-12
    )


@given(
    sigmas=st.lists(st.sampled_from([0.75, 1.0, 2.5, 9.0]), min_size=1, max_size=30), alpha=st.integers(2, 64)
)
def test_a_plans_rounds_are_read_alike(sigmas, alpha):
    """From the plan's document alone: the filter's sum over booked rounds, whole, by round and by level."""
    rounds, mine = len(sigmas), {"sample_rate": 0.25, "max_grad_norm": 1.5, "local_steps": 3}
    written = {"kind": "gaussian-by-round", "noise_multipliers": sigmas}
    event = loss.event_of({"regions": {"EU": mine | {"mechanism": written}}}, "EU", rounds)
    mechanism = kind.GaussianByRound(**mine, sigmas=tuple(sigmas))
    assert kind.GaussianByRoundText.model_validate(event) == mechanism.text(rounds)
    read = loss.rounds_of(event, rounds)
    assert read.nano_nats(alpha) == mechanism.rho(range(1, rounds + 1), alpha)
    each = tuple(loss.nano_nats([read[number].event], alpha) for number in range(1, rounds + 1))
    assert each == mechanism.rho_by_round(rounds, alpha)
    assert sorted(read.events) == list(mechanism.events(range(1, rounds + 1)))


def test_a_kind_that_is_not_known_is_no_gaussian():
    event = {"kind": "laplace", "noise_multiplier": 1.0, "sample_rate": 1, "max_grad_norm": 1, "steps": 2}
    with pytest.raises(PlanError):
        loss.rounds_of(event, 2)
    with pytest.raises(PlanError):
        loss.rounds_of(event | {"kind": "gaussian-by-round", "noise_multipliers": [1.0]}, 2)


def test_a_hostile_number_of_rounds_costs_nothing():
    event = {"noise_multiplier": 1.0, "sample_rate": 0.5, "max_grad_norm": 1, "steps": 4}
    assert loss.rounds_of(event, 2**53 - 1).nano_nats(2) > 10**15


def test_too_little_noise_is_an_answer():
    with pytest.raises(AccountingError):
        loss.nano_nats([Event(0.5, 1e-30, 1)], 64)
