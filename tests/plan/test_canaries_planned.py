"""Canaries in experiment, plan and policy: absent where nobody asked for any, and bounded by the region."""

from __future__ import annotations

import pytest
from plan.sample import REGION, planned, with_canaries
from pydantic import ValidationError

from fedfsd.config.experiment import Experiment
from fedfsd.errors import PlanError
from fedfsd.gate.gate import max_update_norm
from fedfsd.gate.policy import Policy, objections
from fedfsd.plan import plan as plans
from fedfsd.plan.build import Roster, canaries
from fedfsd.plan.plan import CANARIES, Plan

PLAN = planned(roster=40)


def test_a_plan_without_canaries_is_written_as_ever():
    assert (PLAN.format, "canaries" in PLAN.document()) == (1, False)
    found = with_canaries(PLAN, 8)
    assert (found.format, found.region(REGION).canaries, found.model.canaries) == (3, 8, 8)
    assert plans.read(found.document()) == found
    assert found.model.parameters == PLAN.model.parameters
    assert found.region(REGION).divisor == PLAN.region(REGION).divisor
    assert found.events(REGION) == PLAN.events(REGION)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["regions"][REGION].update(canaries=9),
        lambda found: found["regions"][REGION].update(canaries=0),
        lambda found: found["model"]["arrays"].reverse(),
        lambda found: found["model"].update(
            arrays=[one for one in found["model"]["arrays"] if one["name"] != CANARIES]
        ),
        lambda found: found["regions"][REGION].update(max_grad_norm=None),
    ],
)
def test_block_and_number_must_fit(change):
    found = with_canaries(PLAN, 8).model_dump(exclude={"format"})
    found["model"]["arrays"] = list(found["model"]["arrays"])
    Plan(**found)
    change(found)
    with pytest.raises(ValidationError):
        Plan(**found)


def test_an_experiment_says_nothing_of_canaries_where_it_has_none():
    assert "audit" not in Experiment(name="one").document()
    some = Experiment.model_validate({"name": "one", "audit": {"canaries": 0.05}})
    assert some.document()["audit"] == {"canaries": 0.05}
    roster = Roster(478, "physical", counted=True)
    assert canaries(some, roster) == 24
    assert canaries(some.model_copy(update={"mode": "none"}), roster) == 0
    moments = {"name": "one", "audit": {"canaries": 0.05}, "server": {"strategy": "moments"}}
    with pytest.raises(PlanError, match="no gradient"):
        canaries(Experiment.model_validate(moments), roster)
    with pytest.raises(ValidationError):
        Experiment.model_validate({"name": "one", "audit": {"canaries": 1.5}})


def test_a_policy_bounds_them():
    policy = Policy(max_epsilon=100.0, max_delta=0.1)
    assert objections(policy, with_canaries(PLAN, 10), REGION) == []
    (said,) = objections(policy, with_canaries(PLAN, 12), REGION)
    assert said == "canaries per vehicle 0.275 is above the cap 0.25"
    none = policy.model_copy(update={"max_canary_share": 0.0})
    assert objections(none, PLAN, REGION) == []
    assert objections(none, with_canaries(PLAN, 2), REGION)


def test_a_gate_lets_canaries_count_in_the_largest_norm():
    usual, more = (max_update_norm(plan, REGION, 1) for plan in (PLAN, with_canaries(PLAN, 10)))
    assert usual < more < 1.3 * usual
