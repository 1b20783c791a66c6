"""A plan that asks some of its regions in each round: who is asked when, and what that costs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan.test_build import MODEL, ROSTERS, TASK, experiment

from fedfsd.errors import FedfsdError, PlanError
from fedfsd.ledger import terms
from fedfsd.ledger.error import EvidenceError
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.plan import build as builds
from fedfsd.plan import plan as plans
from fedfsd.plan.build import build

SOME = {"server": {"regions_per_round": 1}, "training": {"num_rounds": 7}}


def made(**changes):
    return build(experiment(mode="private", **(SOME | changes)), ROSTERS, TASK, MODEL)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**53 - 1))
def test_everybody_is_asked_as_often_as_anybody_but_for_one_round(num_rounds, count, size, seed):
    names = [f"R{number}" for number in range(count)]
    chosen = experiment(seed=seed, server={"regions_per_round": size}, training={"num_rounds": num_rounds})
    if size < count and size * num_rounds < count:
        with pytest.raises(PlanError, match="regions_per_round"):
            builds.rounds(chosen, names)
        return
    rounds = builds.rounds(chosen, names)
    if size >= count:
        assert rounds == dict.fromkeys(names)
        return
    asked = [[name for name in names if number in rounds[name]] for number in range(1, num_rounds + 1)]
    assert {len(one) for one in asked} == {size}
    assert max(map(len, rounds.values())) - min(map(len, rounds.values())) <= 1
    assert all(one < other for mine in rounds.values() for one, other in pairwise(mine))
    assert rounds == builds.rounds(chosen, names[::-1])


def test_another_seed_asks_others():
    names = [f"R{number}" for number in range(20)]
    first, second = (
        builds.rounds(experiment(seed=seed, server={"regions_per_round": 3}), names) for seed in (1, 2)
    )
    assert first != second


@pytest.mark.parametrize("schedule", ["flat", "by_influence"])
def test_noise_and_epsilon_are_those_of_the_rounds_in_which_a_region_is_asked(schedule):
    plan = made(privacy={"noise_schedule": schedule, "target_epsilon": 2.0})
    every = made(privacy={"noise_schedule": schedule, "target_epsilon": 2.0}, server={})
    assert plan.format == 3
    assert plans.read(plan.document()) == plan
    for name, mine in plan.regions.items():
        assert mine.rounds is not None
        assert plan.rounds_of(name) == len(mine.rounds) < 7
        assert [plan.round_of(name, own + 1) for own in range(len(mine.rounds))] == list(mine.rounds)
        events = mine.noise.events(range(1, len(mine.rounds) + 1))
        assert sum(event.steps for event in events) == mine.local_steps * len(mine.rounds)
        assert mine.epsilon == epsilon_pld(events, mine.target_delta)
        assert 1.97 < mine.epsilon <= 2.0
        assert plan.noise_multiplier(name) < every.noise_multiplier(name)
        read = terms.read(plan.as_written(), name)
        assert (read.rounds, read.event.events()) == (len(mine.rounds), plan.events(name))
    for number in range(1, 8):
        asked = plan.asked(number)
        assert len(asked) == 1
        assert all(plan.round_of(name, own) == number for name, own in asked.items())


def test_a_plan_that_asks_all_is_written_as_ever():
    plan = made(server={"regions_per_round": len(ROSTERS)})
    assert plan.format == 1
    assert "rounds" not in plan.as_written()["regions"]["US"]
    assert plan.asked(3) == dict.fromkeys(ROSTERS, 3)


@pytest.mark.parametrize(
    "rounds",
    [[], [2, 1], [1, 1], [0, 1], [1, 2, 3, 4, 5, 6, 7, 8], [1, True], "1", {}],
    ids=["none", "order", "twice", "zero", "beyond", "a boolean", "text", "a table"],
)
def test_rounds_that_are_none_are_refused_by_plan_and_ledger(rounds):
    document = made().as_written()
    document["regions"]["US"]["rounds"] = rounds
    with pytest.raises(FedfsdError):
        plans.read(plans.canonical.encode(document).decode())
    with pytest.raises(EvidenceError):
        terms.read(document, "US")


def test_a_round_without_a_region_is_refused():
    document = made().as_written()
    for mine in document["regions"].values():
        mine["rounds"] = [1, 2]
    with pytest.raises(PlanError, match="a region in every round"):
        plans.read(plans.canonical.encode(document).decode())


def test_an_older_format_has_no_rounds():
    document = made().as_written() | {"format": 2}
    with pytest.raises(PlanError, match="a format that can hold this plan"):
        plans.read(plans.canonical.encode(document).decode())
    with pytest.raises(EvidenceError, match="format 3"):
        terms.read(document, "US")
