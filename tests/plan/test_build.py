"""From an experiment to the plan: weights, calibration, and what is refused before any training."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan.sample import document
from setting import examples

from fedfsd.config.experiment import Experiment
from fedfsd.errors import FedfsdError, PlanError
from fedfsd.gate.policy import Policy, objections
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event
from fedfsd.plan.build import Roster, build, local_steps, weights
from fedfsd.plan.plan import ModelPlan, TaskPlan

WINDOW = {"history_seconds": 2.0, "future_seconds": 3.0, "period_seconds": 0.5}
TASK = TaskPlan(name="forecasting", options=WINDOW)
MODEL = ModelPlan.model_validate(document()["model"])
ROSTERS = {"US": Roster(1414, "physical", counted=False), "SG": Roster(147, "recording", counted=True)}


def experiment(**tables) -> Experiment:
    return Experiment.model_validate({"name": "x", **tables})


@settings(deadline=None, max_examples=examples(300))
@given(
    st.dictionaries(
        st.text("ABCD", min_size=1, max_size=4),
        st.tuples(st.integers(1, 10**7), st.floats(0.05, 1e4)),
        min_size=1,
        max_size=12,
    ),
    st.floats(0.01, 1.0),
)
def test_weights_sum_to_one_and_keep_to_their_cap(regions, max_weight):
    found = weights(
        {name: size for name, (size, _) in regions.items()},
        {name: sigma for name, (_, sigma) in regions.items()},
        max_weight=max_weight,
    )
    assert set(found) == set(regions)
    assert sum(found.values()) == pytest.approx(1, abs=1e-9)
    assert all(share > 0 for share in found.values())
    assert max(found.values()) <= max(max_weight, 1 / len(found)) * (1 + 1e-9)


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(1, 1000), st.floats(0.5, 5), st.floats(0.5, 5))
def test_more_vehicles_or_less_noise_never_weigh_less(few, more, quiet, loud):
    few, more = sorted((few, more))
    quiet, loud = sorted((quiet, loud))
    by_size = weights({"A": few, "B": more}, {"A": 1.0, "B": 1.0}, max_weight=1.0)
    assert by_size["A"] <= by_size["B"] + 1e-12
    by_noise = weights({"A": 100, "B": 100}, {"A": loud, "B": quiet}, max_weight=1.0)
    assert by_noise["A"] <= by_noise["B"] + 1e-12


def test_weights_by_hand():
    flat = {"A": 1.0, "B": 1.0, "C": 1.0}
    assert weights({"A": 60, "B": 30, "C": 10}, flat, max_weight=1.0) == pytest.approx(
        {"A": 0.6, "B": 0.3, "C": 0.1}
    )
    assert weights({"A": 60, "B": 30, "C": 10}, flat, max_weight=0.5) == pytest.approx(
        {"A": 0.5, "B": 0.375, "C": 0.125}
    )
    assert weights({"A": 60, "B": 30, "C": 10}, flat, max_weight=0.1) == pytest.approx(
        dict.fromkeys("ABC", 1 / 3)
    )
    # The median region sets the usual noise: four times as much counts a quarter.
    assert weights(
        {"A": 10, "B": 10, "C": 10}, {"A": 1.0, "B": 1.0, "C": 4.0}, max_weight=1.0
    ) == pytest.approx({"A": 4 / 9, "B": 4 / 9, "C": 1 / 9})


def test_without_noise_weights_follow_the_rosters():
    assert weights({"A": 3, "B": 1}, {"A": 0.0, "B": 0.0}, max_weight=1.0) == {"A": 0.75, "B": 0.25}


def test_a_plan_keeps_its_target_and_its_region_accepts_it():
    plan = build(
        experiment(
            privacy={"target_epsilon": 4.0, "target_delta": 1e-4, "sample_rate": 0.2},
            training={"num_rounds": 20, "local_steps": 3},
            regions={"SG": {"target_epsilon": 2.0}},
        ),
        ROSTERS,
        TASK,
        MODEL,
    )
    assert sum(region.weight for region in plan.regions.values()) == pytest.approx(1)
    for name, target in (("US", 4.0), ("SG", 2.0)):
        mine = plan.region(name)
        assert (mine.roster, mine.identity) == (ROSTERS[name].size, ROSTERS[name].identity)
        assert mine.target_epsilon == target
        assert 0.98 * target <= mine.epsilon <= target
        assert mine.epsilon == epsilon_pld([Event(0.2, mine.noise_multiplier, 60)], 1e-4)
        assert objections(Policy(roster=mine.roster, identity=mine.identity), plan, name) == []
    assert plan.region("SG").noise_multiplier > plan.region("US").noise_multiplier


def test_steps_are_local_steps_times_rounds():
    """Twice the local steps is as bad as twice the rounds, and both cost."""
    epsilons = [
        build(
            experiment(
                privacy={"noise_multiplier": 3.0, "sample_rate": 0.2},
                training={"num_rounds": rounds, "local_steps": steps},
            ),
            ROSTERS,
            TASK,
            MODEL,
        )
        .region("US")
        .epsilon
        for rounds, steps in ((20, 2), (40, 1), (20, 1))
    ]
    assert epsilons[0] == epsilons[1] > epsilons[2]


@pytest.mark.parametrize("delta", [1 / 1413, 0.01, 0.9])
def test_a_delta_of_one_in_n_or_more_is_refused(delta):
    with pytest.raises(PlanError) as caught:
        build(experiment(privacy={"target_delta": delta}), ROSTERS, TASK, MODEL)
    assert caught.value.place == "privacy.target_delta"
    assert "US" in caught.value.expected


def test_the_suggested_delta_is_one_that_passes():
    with pytest.raises(PlanError) as caught:
        build(experiment(privacy={"target_delta": 0.01, "noise_multiplier": 5.0}), ROSTERS, TASK, MODEL)
    suggested = float(caught.value.hint.rsplit("= ", 1)[1])
    build(experiment(privacy={"target_delta": suggested, "noise_multiplier": 5.0}), ROSTERS, TASK, MODEL)


def test_no_region_is_no_plan():
    with pytest.raises(PlanError):
        build(experiment(), {}, TASK, MODEL)


def test_without_privacy_nothing_is_promised():
    plan = build(experiment(mode="none"), ROSTERS, TASK, MODEL)
    for mine in plan.regions.values():
        assert (mine.noise_multiplier, mine.max_grad_norm) == (0.0, None)
        assert (mine.epsilon, mine.target_epsilon) == (None, None)


def test_a_limit_on_the_noise_lowers_the_clip_and_not_the_noise_multiplier():
    tables = {"privacy": {"noise_multiplier": 5.0, "max_grad_norm": 1.0, "max_noise_std": 2.0}}
    mine = build(experiment(**tables), ROSTERS, TASK, MODEL).region("US")
    assert mine.noise_multiplier == 5.0
    assert mine.max_grad_norm == pytest.approx(0.4)
    assert mine.noise.std(1) == pytest.approx(2.0)


OUT_OF_RANGE = {
    "a clip that underflows": {"privacy": {"noise_multiplier": 5.0, "max_noise_std": 1e-300}},
    "a clip below the floor": {"privacy": {"noise_multiplier": 5.0, "max_noise_std": 1e-7}},
    "an epsilon of zero": {"privacy": {"noise_multiplier": 1e5}},
    "a wild rate": {"privacy": {"noise_multiplier": 5.0}, "training": {"learning_rate": 1e7}},
}


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(
            what, marks=[pytest.mark.xfail(strict=True, reason="ValidationError")] if "zero" in what else []
        )
        for what in OUT_OF_RANGE
    ],
)
def test_what_no_plan_can_hold_is_one_error(what):
    with pytest.raises(FedfsdError):
        build(experiment(**OUT_OF_RANGE[what]), ROSTERS, TASK, MODEL)


@pytest.mark.parametrize(
    "privacy",
    [
        {"target_epsilon": 1e-9},
        {"target_epsilon": 1e9},
        {"noise_multiplier": 1e-9},
        {"noise_multiplier": 1e300},
    ],
)
def test_promises_that_cannot_be_kept_are_one_error(privacy):
    with pytest.raises(FedfsdError):
        build(experiment(privacy=privacy), ROSTERS, TASK, MODEL)


def steps_of(training, **regions):
    tables = {name: {"roster": 1000, **table} for name, table in regions.items()}
    return local_steps(experiment(training=training, regions=tables), regions)


def test_regions_of_unequal_speed_finish_together():
    training = {"local_steps": 12}
    assert steps_of(training, US={}, SG={}) == {"US": 12, "SG": 12}
    # The fastest makes all of them, whatever the unit of speed is; nobody makes none.
    assert steps_of(training, US={"speed": 8.0}, SG={"speed": 2.0}) == {"US": 12, "SG": 3}
    assert steps_of(training, US={"speed": 0.5}, SG={}) == {"US": 6, "SG": 12}
    assert steps_of(training, US={"speed": 1e-6}, SG={}) == {"US": 1, "SG": 12}
    assert steps_of(training, US={"local_steps": 40}, SG={"speed": 3.0}) == {"US": 40, "SG": 12}


def test_each_region_is_calibrated_to_its_own_steps():
    tables = {
        "privacy": {"target_epsilon": 4.0, "target_delta": 1e-4, "sample_rate": 0.2},
        "training": {"num_rounds": 20, "local_steps": 8},
    }
    slow = build(experiment(**tables, regions={"SG": {"speed": 0.25}}), ROSTERS, TASK, MODEL)
    assert {name: mine.local_steps for name, mine in slow.regions.items()} == {"SG": 2, "US": 8}
    for name, mine in slow.regions.items():
        assert 0.98 * 4.0 <= mine.epsilon <= 4.0
        assert slow.events(name)[0].steps == mine.local_steps * 20
    assert slow.region("SG").noise_multiplier < slow.region("US").noise_multiplier
    # Less noise a step and fewer of them: after normalising, the slow region is not weighed up.
    equal = build(experiment(**tables), ROSTERS, TASK, MODEL)
    assert slow.region("SG").weight == pytest.approx(equal.region("SG").weight, rel=0.1)


def test_updates_count_by_planned_steps_and_equal_ones_as_they_are():
    tables = {"privacy": {"noise_multiplier": 3.0}, "training": {"local_steps": 8, "momentum": 0.0}}
    equal = build(experiment(**tables), ROSTERS, TASK, MODEL)
    assert {equal.scale(name) for name in ROSTERS} == {1.0}
    plan = build(experiment(**tables, regions={"SG": {"local_steps": 2}}), ROSTERS, TASK, MODEL)
    mean = sum(mine.weight * mine.local_steps for mine in plan.regions.values())
    assert plan.scale("SG") == pytest.approx(mean / 2)
    assert plan.scale("US") == pytest.approx(mean / 8)
