"""Can the audit fail? One right training, one with half of the noise and one without clipping, all audited.

A wrong training is this same program with other constants than its plan has: sigma / 2, or a clipping norm a
million times as large beside the same noise. Canaries alone are trained; no data is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedfsd import canonical
from fedfsd.mechanism import accountant, calibration
from fedfsd.plan.plan import WITNESS, ArraySchema, ModelPlan, OptimizerPlan, Plan, RegionPlan, TaskPlan
from fedfsd.runner import canary, replay
from fedfsd.runner.canary import Trial
from fedfsd.task import registry

REGION = "SELF"
EPSILON, DELTA = 4.0, 1e-5
ROSTER, ROUNDS = 2000, 20
_BEYOND = 1e6


@dataclass(frozen=True)
class Audited:
    """One training and what was found in it."""

    name: str
    replay: tuple[str, ...]
    trial: Trial
    wrong: bool
    """Whether something should be found."""

    @property
    def statistics(self) -> str | None:
        """What the statistics of released values found."""
        return self.trial.alarm

    @property
    def canaries(self) -> tuple[str, ...]:
        """What canaries found: checks that failed, and bounds above the claim."""
        failed = tuple(one.name for one in self.trial.checks if one.fails)
        found = self.trial.bounds
        above = found is not None and found.gaussian_pair > EPSILON
        return failed + (("a lower bound above the claim",) if above and self.wrong else ())

    @property
    def as_it_should_be(self) -> bool:
        """Whether faults were found where there are some, and only there."""
        return self.wrong == bool(self.replay or self.statistics or self.canaries)


def plan() -> Plan:
    """The plan of the three: 20 unsampled steps of 2,000 vehicles, claim epsilon 4."""
    task = registry.of("forecasting", {})
    model = task.model("mlp", {}, seed=1)
    shapes = [(name, tuple(value.shape)) for name, value in model.named_parameters()]
    arrays = tuple(ArraySchema(name=name, shape=shape) for name, shape in [*shapes, (WITNESS, (4096,))])
    sigma = calibration.noise_multiplier(
        target_epsilon=EPSILON, target_delta=DELTA, sample_rate=1.0, steps=ROUNDS
    )
    mine = RegionPlan(
        roster=ROSTER,
        identity="recording",
        sample_rate=1.0,
        noise_multiplier=sigma,
        max_grad_norm=1.0,
        local_steps=1,
        windows_per_vehicle=1,
        weight=1.0,
        target_delta=DELTA,
        target_epsilon=EPSILON,
        epsilon=None,
    )
    made = Plan(
        name="selftest",
        mode="private",
        num_rounds=ROUNDS,
        regions={REGION: mine},
        task=TaskPlan(name="forecasting", options=task.options),
        model=ModelPlan(
            name="mlp", options={}, arrays=arrays, witness_size=4096, initial_sha256=canonical.sha256(b"")
        ),
        optimizer=OptimizerPlan(learning_rate=0.1, momentum=0.0, schedule="constant"),
        seed=1,
        strategy="FedAvg",
        strategy_options={},
        quorum=1.0,
        late_updates="drop",
        average_last=0.0,
    )
    claim = accountant.epsilon_pld(made.events(REGION), DELTA)
    return made.model_copy(update={"regions": {REGION: mine.model_copy(update={"epsilon": claim})}})


def run(device: str = "cpu") -> Iterator[Audited]:
    """The three trainings, one after another."""
    agreed = plan()
    mine = agreed.region(REGION)
    sigma, bound = float(mine.noise_multiplier or 0.0), float(mine.max_grad_norm or 0.0)
    wrong = {
        "right": mine,
        "half of the noise": mine.model_copy(update={"noise_multiplier": sigma / 2}),
        "no clipping": mine.model_copy(
            update={"noise_multiplier": sigma / _BEYOND, "max_grad_norm": bound * _BEYOND}
        ),
    }
    for name, as_if in wrong.items():
        replayed = replay.of_plan(agreed, REGION, device, as_if=as_if)
        trial = canary.trial(agreed, REGION, device, as_if=as_if)
        yield Audited(name, replayed.faults, trial, as_if is not mine)
