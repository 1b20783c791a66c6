"""The plan of an experiment whose noise follows the influence of rounds."""

from __future__ import annotations

import json

import pytest
from plan.test_build import MODEL, ROSTERS, TASK, experiment

from fedfsd.config.experiment import Experiment
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.renyi import nano_nats
from fedfsd.plan import plan as plans
from fedfsd.plan.build import Limit, build

MOMENTUM = {"strategy": "FedAvgM", "options": {"server_momentum": 0.9}, "average_last": 0.0}


def made(schedule: str = "by_influence", *, limits=None, privacy=None, training=None, server=None):
    return build(
        experiment(
            mode="private",
            privacy={"noise_schedule": schedule, "target_epsilon": 2.0, **(privacy or {})},
            training={"num_rounds": 40, **(training or {})},
            server=server or MOMENTUM,
        ),
        ROSTERS,
        TASK,
        MODEL,
        limits=limits,
    )


def test_every_round_has_a_sigma_and_the_promise_holds():
    plan, flat = made(), made("flat")
    assert (plan.format, flat.format) == (2, 1)
    assert plans.read(plan.document()) == plan
    for name, mine in plan.regions.items():
        noise = [mine.noise.noise_multiplier(round) for round in range(1, 41)]
        assert noise == sorted(noise)  # under the cosine late rounds move little
        assert mine.epsilon == epsilon_pld(plan.events(name), mine.target_delta)
        assert 1.98 < mine.epsilon <= 2.0
        assert plan.effective_noise(name) < 0.87 * flat.effective_noise(name)
        assert flat.effective_noise(name) == pytest.approx(flat.noise_multiplier(name))
        assert "noise_multiplier" not in plan.as_written()["regions"][name]
    assert [one.weight for one in plan.regions.values()] == pytest.approx(
        [one.weight for one in flat.regions.values()]
    )


def test_the_limit_on_noise_bounds_what_reaches_the_released_model():
    privacy = {"max_grad_norm": 10.0, "max_noise_std": 20.0}
    plan, flat = made(privacy=privacy), made("flat", privacy=privacy)
    for name, mine in plan.regions.items():
        assert plan.effective_noise(name) * mine.max_grad_norm == pytest.approx(20.0)
        assert flat.noise_multiplier(name) * flat.region(name).max_grad_norm == pytest.approx(20.0)


@pytest.mark.parametrize(
    "case",
    [
        {"training": {"schedule": "constant"}, "server": {"strategy": "FedAvg", "average_last": 0.0}},
        {"privacy": {"noise_multiplier": 3.0}},
        {"training": {"num_rounds": 1}},
    ],
    ids=["equal influence", "a fixed sigma", "one round"],
)
def test_where_nothing_can_be_gained_noise_is_flat(case):
    plan = made(**case)
    assert plan.format == 1
    assert plan.as_written() | {"run": 0} == made("flat", **case).as_written() | {"run": 0}


def test_noise_is_never_worse_than_flat_on_paper():
    """With little noise and few sampled, a step costs far more than 1 / sigma^2 says."""
    case = {"privacy": {"sample_rate": 0.01, "target_epsilon": 8.0}, "training": {"num_rounds": 1000}}
    plan, flat = made(**case), made("flat", **case)
    for name in plan.regions:
        assert plan.effective_noise(name) <= flat.effective_noise(name)


def test_a_grant_that_is_nearly_spent_raises_the_noise():
    free = made()
    cost = nano_nats(free.events("SG"), 6)
    bound = made(limits={"SG": Limit(cost // 3, 6)})
    assert nano_nats(bound.events("SG"), 6) <= cost // 3
    assert bound.region("US") == free.region("US").model_copy(update={"weight": bound.region("US").weight})


def test_an_experiment_of_format_1_means_flat_noise():
    old = Experiment.resolved({"name": "x"})
    assert old.privacy.noise_schedule == "flat"
    assert "noise_schedule" not in json.dumps(old.document())
    assert old.document().get("format", 1) == 1 or "format" not in old.document()
    varied = experiment(privacy={"noise_schedule": "by_influence"})
    assert varied.document()["format"] == 2
    assert Experiment.resolved(varied.document()) == varied
