import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedfsd.errors import PlanError
from fedfsd.mechanism.accountant import epsilon_pld, epsilon_prv, epsilon_rdp
from fedfsd.mechanism.event import MOST_STEPS, SMALLEST_DELTA, Event, check_delta, merge, repeat

events = st.builds(
    Event, st.sampled_from([0.01, 0.1, 1.0]), st.sampled_from([0.5, 1.0, 3.0]), st.integers(1, 100)
)


@pytest.mark.parametrize("rate", [0, -0.1, 1.0000001, math.nan, math.inf, "0.1", None, True])
def test_refuses_a_sample_rate(rate):
    with pytest.raises(PlanError, match="sample_rate"):
        Event(rate, 1.0, 1)


@pytest.mark.parametrize("noise", [0, 0.0, -1.0, math.nan, math.inf, "1", None, False])
def test_refuses_a_noise_multiplier(noise):
    with pytest.raises(PlanError, match="noise_multiplier"):
        Event(0.1, noise, 1)


@pytest.mark.parametrize("steps", [0, -1, 1.0, True, "3", None, MOST_STEPS + 1])
def test_refuses_a_number_of_steps(steps):
    with pytest.raises(PlanError, match="steps"):
        Event(0.1, 1.0, steps)


@pytest.mark.parametrize("delta", [0, -1e-5, 1.0, 2, SMALLEST_DELTA / 2, math.nan, "1e-5", None])
def test_refuses_a_delta(delta):
    with pytest.raises(PlanError, match="target_delta"):
        check_delta(delta)
    for accountant in (epsilon_pld, epsilon_prv, epsilon_rdp):
        with pytest.raises(PlanError, match="target_delta"):
            accountant([Event(0.1, 1.0, 1)], delta)


@given(st.lists(events), st.randoms())
def test_merging_keeps_every_step_and_forgets_the_order(listed, random):
    merged = merge(listed)
    shuffled = list(listed)
    random.shuffle(shuffled)
    assert merge(shuffled) == merged == merge(merged)
    mechanisms = [(event.sample_rate, event.noise_multiplier) for event in merged]
    assert len(set(mechanisms)) == len(mechanisms)
    for mechanism, event in zip(mechanisms, merged, strict=True):
        assert event.steps == sum(e.steps for e in listed if (e.sample_rate, e.noise_multiplier) == mechanism)
    assert sum(e.steps for e in merged) == sum(e.steps for e in listed)


def test_bounds_are_within():
    assert Event(1, 1e300, MOST_STEPS).steps == 10**6
    assert Event(1.0, 1e-3, 1).sample_rate == 1
    for delta in (1e-9, 1 - 1e-9):
        check_delta(delta)
    with pytest.raises(PlanError):
        Event(0.1, 1.0, 10**6 + 1)
    with pytest.raises(PlanError):
        check_delta(0.99e-9)


def test_an_event_does_not_change_and_has_an_order():
    with pytest.raises(AttributeError):
        Event(0.1, 1.0, 1).steps = 2
    assert Event(0.1, 2.0, 1) < Event(0.1, 2.0, 2) < Event(0.1, 3.0, 1) < Event(0.2, 1.0, 1)


def test_repeating_multiplies_the_steps_of_each():
    events = [Event(0.1, 2.0, 3), Event(1.0, 2.0, 1), Event(0.1, 2.0, 1)]
    assert repeat(events, 5) == (Event(0.1, 2.0, 20), Event(1.0, 2.0, 5))
