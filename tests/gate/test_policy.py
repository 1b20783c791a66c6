"""What a region refuses to take on: plans outside its policy, rounds outside the plan, foreign arrays."""

from __future__ import annotations

import time
from typing import cast

import numpy as np
import pytest
from plan.sample import REGION, SMALL, planned, zeros

from fedfsd.errors import FedfsdError, PlanError, RefusedError
from fedfsd.gate.frame import Frames
from fedfsd.gate.gate import Gate
from fedfsd.gate.message import RoundTask
from fedfsd.gate.policy import ModelPin, Policy, declared, objections, simulated, warnings
from fedfsd.gate.remote import RemoteGate
from fedfsd.ledger import program as programs
from fedfsd.plan.plan import TaskPlan


@pytest.fixture
def gate(tmp_path) -> Gate:
    return Gate(REGION, Policy(), tmp_path)


def test_a_plan_within_the_policy_is_accepted(gate):
    gate.admit(planned(), 1, zeros())
    gate.admit(planned(), 3, zeros())


HOSTILE = {
    "no noise": {"noise_multiplier": 0.0, "epsilon": 1.0},
    "little noise": {"noise_multiplier": 0.49, "epsilon": 1.0},
    "hardly any noise": {"noise_multiplier": 1e-200, "epsilon": 1.0},
    "absurd noise": {"noise_multiplier": 1e308, "epsilon": 1.0},
    "no clipping": {"max_grad_norm": None, "epsilon": 1.0},
    "huge clip": {"max_grad_norm": 1e30},
    "epsilon under-stated": {"epsilon": 0.001},
    "epsilon over-stated": {"epsilon": 9.9},
    "epsilon unsaid": {"epsilon": None},
    "epsilon too large": {"noise_multiplier": 0.5, "sample_rate": 1.0},
    "delta too large": {"target_delta": 0.01},
    "delta above one in N": {"roster": 1_000_000, "target_delta": 1e-3},
    "delta of one in N": {"roster": 1000, "target_delta": 1e-3},
    "delta too small to compute": {"target_delta": 1e-12, "epsilon": 1.0},
    "many windows": {"windows_per_vehicle": 10**9},
    "huge roster": {"roster": 10**12, "target_delta": 1e-9},
    "many rounds": {"num_rounds": 10**6, "epsilon": 1.0},
    "many steps": {"local_steps": 10**9, "epsilon": 1.0},
    "too many steps to count": {"local_steps": 2**52, "num_rounds": 2**52, "epsilon": 1.0},
    "rehearsal": {"mode": "rehearsal"},
    "no privacy": {"mode": "none"},
    "no privacy, loudly denied": {"mode": "none", "epsilon": 0.1, "target_epsilon": 0.1},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_constants_are_refused_before_anything_is_booked(gate, tmp_path, what):
    changes = HOSTILE[what]
    try:
        plan = planned(**changes)
    except FedfsdError:  # an honest reader cannot even hold such a plan
        plan = planned(**{"epsilon": 1.0} | changes)
    started = time.monotonic()
    with pytest.raises(RefusedError) as caught:
        gate.admit(plan, 1, zeros())
    assert time.monotonic() - started < 5
    assert len(str(caught.value)) < 500
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"max_grad_norm": 5e-324},
        {"max_grad_norm": 1e-300},
        {"max_grad_norm": -1.0},
        {"noise_multiplier": -1.0},
        {"sample_rate": 0.0},
        {"sample_rate": 1.5},
        {"roster": 0},
        {"optimizer__learning_rate": 1e308},
        {"optimizer__momentum": 1.0},
        {"window__period_seconds": 0.0},
        {"window__history_seconds": -1.0},
        {"num_rounds": 0},
        {"local_steps": -3},
    ],
    ids=str,
)
def test_numbers_that_mean_nothing_make_no_plan(changes):
    with pytest.raises(PlanError):
        planned(epsilon=1.0, **changes)


@pytest.mark.parametrize(
    ("policy", "changes", "word"),
    [
        (Policy(max_sample_rate=0.4), {}, "sample_rate"),
        (Policy(max_sample_rate=0.9), {"sample_rate": 1.0, "noise_multiplier": 4.0}, "sample_rate"),
        (Policy(max_rounds=2), {}, "num_rounds"),
        (Policy(max_steps=5), {}, "steps"),
        (Policy(max_epsilon=1.0), {}, "epsilon"),
        (Policy(max_delta=1e-4), {}, "target_delta"),
        (Policy(min_noise_multiplier=2.1), {}, "noise_multiplier"),
        (Policy(max_grad_norm=0.2), {}, "max_grad_norm"),
        (Policy(max_release_bytes=4 * 4096), {}, "bytes"),
        (Policy(roster=31), {}, "roster"),
        (Policy(identity="recording"), {}, "identity"),
        (Policy(max_windows_per_vehicle=3), {}, "windows_per_vehicle"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_each_rule_of_a_policy_binds(policy, changes, word):
    plan = planned(**changes)
    assert objections(Policy(), plan, REGION) == []
    found = objections(policy, plan, REGION)
    assert len(found) == 1
    assert word in found[0]


def test_rules_bind_at_their_limit_and_not_before():
    plan = planned()
    same = Policy(
        min_noise_multiplier=2.0,
        max_grad_norm=0.3,
        max_sample_rate=0.5,
        max_steps=6,
        max_rounds=3,
        max_delta=1e-3,
        max_release_bytes=4 * plan.model.size,
        max_windows_per_vehicle=4,
        max_epsilon=plan.region(REGION).epsilon + 1e-9,
        roster=30,
        identity="physical",
    )
    assert objections(same, plan, REGION) == []


def test_a_plan_that_does_not_name_the_region_is_refused(tmp_path):
    with pytest.raises(PlanError):
        Gate("EU", Policy(), tmp_path).admit(planned(), 1, zeros())


def test_one_accepted_plan_opens_the_door_to_no_other(gate):
    gate.admit(planned(), 1, zeros())
    with pytest.raises(RefusedError):
        gate.admit(planned(noise_multiplier=0.1, epsilon=1.0), 1, zeros())


@pytest.mark.parametrize("round", [0, -1, 4, 10**9])
def test_rounds_outside_the_plan_are_refused(gate, round):
    with pytest.raises(RefusedError):
        gate.admit(planned(), round, zeros())


@pytest.mark.parametrize("round", [True, 1.5, 1.0, np.float64(2)])
def test_rounds_that_are_no_whole_numbers_are_refused(gate, round):
    """True and 1 would be two keys, so two noises, for one round."""
    with pytest.raises(RefusedError):
        gate.admit(planned(), round, zeros())


def changed(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    return zeros() | {name: array}


def with_value(value: float) -> dict[str, np.ndarray]:
    arrays = zeros()
    arrays["body.weight"][2, 1] = value
    return arrays


FOREIGN = {
    "missing": lambda: {name: array for name, array in zeros().items() if name != "body.bias"},
    "extra": lambda: zeros() | {"more": np.zeros(1, np.float32)},
    "none": dict,
    "another order": lambda: dict(reversed(zeros().items())),
    "another name": lambda: {name.replace("body", "BODY"): array for name, array in zeros().items()},
    "flat": lambda: changed("body.weight", np.zeros(12, np.float32)),
    "transposed": lambda: changed("body.weight", np.zeros((3, 4), np.float32)),
    "a dimension more": lambda: changed("body.bias", np.zeros((1, 4), np.float32)),
    "scalar": lambda: changed("body.bias", np.float32(0)[()].reshape(())),
    "float64": lambda: changed("body.bias", np.zeros(4)),
    "float16": lambda: changed("body.bias", np.zeros(4, np.float16)),
    "integers": lambda: changed("body.bias", np.zeros(4, np.int32)),
    "complex": lambda: changed("body.bias", np.zeros(4, np.complex64)),
    "objects": lambda: changed("body.bias", np.zeros(4, object)),
    "text": lambda: changed("body.bias", np.zeros(4, "U4")),
    "big-endian": lambda: changed("body.bias", np.zeros(4, ">f4")),
    "records": lambda: changed("body.bias", np.zeros(4, [("x", "<f4")])),
    "NaN": lambda: with_value(np.nan),
    "infinity": lambda: with_value(-np.inf),
    "too large": lambda: with_value(1.01e4),
    "too small": lambda: with_value(-1.01e4),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_arrays_that_are_not_the_plans_are_refused(gate, what):
    with pytest.raises(RefusedError):
        gate.admit(planned(), 1, FOREIGN[what]())


def test_values_never_show_in_a_refusal(gate):
    with pytest.raises(RefusedError) as caught:
        gate.admit(planned(), 1, with_value(123456.789))
    assert "123456" not in str(caught.value)


def test_strided_and_read_only_arrays_are_as_good(gate):
    wide = np.zeros((4, 6), np.float32)[:, ::2]
    wide.flags.writeable = False
    assert SMALL["body.weight"] == wide.shape
    gate.admit(planned(), 1, changed("body.weight", wide))


def test_a_model_of_another_package_needs_its_name_in_the_policy():
    plan, mine = planned(model__name="theirs"), planned()
    pin = {"name": "theirs", "distribution": "their-models", "version": "1.0", "sha256": "0" * 64}
    policy = Policy.model_validate({"models": [pin]})
    assert any("model" in one for one in objections(Policy(), plan, REGION))
    for one in (plan, mine):
        assert objections(policy, one, REGION) == []
    assert policy.pin("theirs", "forecasting") == policy.models[0]
    assert policy.pin("mlp", "forecasting") is None
    assert simulated(Policy()).pin("theirs", "forecasting") is None
    assert objections(simulated(Policy()), plan, REGION) == []


def test_a_task_of_another_package_needs_its_name_in_the_policy():
    pin = {"name": "theirs", "distribution": "their-tasks", "version": "1.0", "package_sha256": "0" * 64}
    policy = Policy.model_validate({"tasks": [pin]})
    plan = planned().model_copy(update={"task": TaskPlan(name="theirs", options={})})
    assert [one for one in objections(Policy(), plan, REGION) if "task" in one]
    assert any("task" in one for one in objections(Policy.model_validate({"models": [pin]}), plan, REGION))
    assert objections(policy, plan, REGION) == []
    assert objections(simulated(Policy()), plan, REGION) == []
    assert policy.pin_task("theirs") == policy.tasks[0]
    assert policy.pin_task("forecasting") is None
    assert simulated(Policy()).pin_task("theirs") is None


def test_the_pin_of_a_task_covers_its_models_and_no_others():
    pin = {"name": "theirs", "distribution": "their-tasks", "version": "1.0", "package_sha256": "0" * 64}
    policy = Policy.model_validate({"tasks": [pin], "models": [pin | {"name": "big", "version": "2.0"}]})
    # A name of fedfsd's own means something else in another task: it is not trusted there.
    assert policy.pin("mlp", "theirs") == policy.pin("tiny", "theirs") == policy.tasks[0]
    assert policy.pin("big", "theirs") == policy.models[0]
    assert policy.pin("tiny", "forecasting") is None
    assert any("model" in one for one in objections(policy, planned(model__name="tiny"), REGION))


def test_a_node_that_only_tests_rehearses_too():
    policy = Policy(roster=30, identity="physical")
    assert declared(policy, "policy.toml").modes == ("private",)
    assert declared(policy, "policy.toml", test_only=True).modes == ("private", "rehearsal")


def test_the_runner_refuses_what_came_without_its_pin():
    plan = planned().model_copy(update={"task": TaskPlan(name="theirs", options={})})
    pin = ModelPin(name="theirs", distribution="their-tasks", version="1.0", package_sha256="0" * 64)
    given = {"plan": plan.hash, "round": 1, "document": 1}
    gate = RemoteGate(REGION, programs.installed(), test_only=True)
    for pins in ({"pin": None}, {"pin": pin}, {"pin": None, "task_pin": pin}):
        gate.begin(cast(Frames, None), RoundTask(**given, **pins))
        with pytest.raises(RefusedError, match=r"task|model"):
            gate.admit(plan, 1, zeros())
    gate.begin(cast(Frames, None), RoundTask(**given, pin=pin, task_pin=pin))
    gate.admit(plan, 1, zeros())
    assert gate.pin_task("theirs") == gate.pin("tiny", "theirs") == pin


@pytest.mark.parametrize(("delta", "warned"), [(1e-3, False), (3.1e-3, False), (3.2e-3, True), (0.031, True)])
def test_a_delta_above_a_tenth_of_one_in_n_is_warned_of(delta, warned):
    plan = planned(roster=32, target_delta=delta, epsilon=1.0)
    assert bool(warnings(plan, REGION)) == warned
    assert "target_delta" not in " ".join(objections(Policy(max_delta=0.9), plan, REGION))
    assert warnings(planned(mode="none", roster=32, target_delta=delta, epsilon=None), REGION) == []
