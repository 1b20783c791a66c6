"""Plans written by hand, for tests that need one without an experiment; arrays that fit them.

``planned`` changes a document, ``spending`` gives regions that spend a budget and never train.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from fedfsd import canonical
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.kind import GaussianByRoundPlan
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import (
    CANARIES,
    WITNESS,
    ArraySchema,
    ModelPlan,
    OptimizerPlan,
    Plan,
    RegionPlan,
    TaskPlan,
)

REGION = "CN"
WITNESS_SIZE = 4096
Shapes = Mapping[str, tuple[int, ...]]
SMALL: Shapes = {"body.weight": (4, 3), "body.bias": (4,), WITNESS: (WITNESS_SIZE,)}

PLANNED = {
    "roster": 30,
    "identity": "physical",
    "sample_rate": 0.5,
    "noise_multiplier": 2.0,
    "max_grad_norm": 0.3,
    "local_steps": 2,
    "windows_per_vehicle": 4,
    "weight": 1.0,
    "target_delta": 1e-3,
    "target_epsilon": None,
    "epsilon": None,
}


def document(shapes: Shapes = SMALL, **changes: Any) -> dict[str, Any]:
    """A private plan of one region as plain values; ``changes`` are dotted keys with __ for dots.

    A key that no table has, such as noise_multiplier, means the region's own. The stated epsilon is the
    true one unless given.
    """
    found: dict[str, Any] = {
        "format": 1,
        "name": "sample",
        "run": 32 * "0",
        "mode": "private",
        "unit": "vehicle",
        "adjacency": "zero-out",
        "num_rounds": 3,
        "regions": {REGION: dict(PLANNED)},
        "model": {
            "name": "mlp",
            "options": {},
            "arrays": [
                {"name": name, "shape": list(shape), "dtype": "float32"} for name, shape in shapes.items()
            ],
            "witness_size": int(np.prod(shapes.get(WITNESS, (0,)))),
            "initial_sha256": "0" * 64,
        },
        "window": {"history_seconds": 2.0, "future_seconds": 3.0, "period_seconds": 0.5},
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.5, "schedule": "constant"},
        "seed": 1,
        "strategy": "FedAvg",
        "strategy_options": {},
        "quorum": 0.5,
        "late_updates": "drop",
        "average_last": 0.5,
    }
    for key, value in changes.items():
        *tables, last = key.split("__")
        table = found["regions"][REGION] if not tables and last in PLANNED else found
        for name in tables:
            table = table[name]
        table[last] = value
    return found


def planned(shapes: Shapes = SMALL, **changes: Any) -> Plan:
    """The plan of ``document``, with a true epsilon where none is given and the mode promises one."""
    plan = plans.read(canonical.encode(document(shapes, **changes)).decode())
    if plan.mode == "none" or "epsilon" in changes or "regions" in changes:
        return plan
    epsilon = epsilon_pld(plan.events(REGION), plan.region(REGION).target_delta)
    return plans.read(canonical.encode(document(shapes, **changes, epsilon=epsilon)).decode())


def by_round(noise: tuple[float, ...], shapes: Shapes = SMALL, **changes: Any) -> Plan:
    """The plan of ``document`` with a noise multiplier of its own in every round."""
    found = document(shapes, **changes, num_rounds=len(noise))
    mine = found["regions"][REGION]
    del mine["noise_multiplier"]
    mine["mechanism"] = {"kind": "gaussian-by-round", "noise_multipliers": list(noise)}
    found["task"] = {"name": "forecasting", "options": found.pop("window")}
    found["format"] = 2

    def read() -> Plan:
        return plans.read(canonical.encode(found).decode())

    if "epsilon" not in changes:
        mine["epsilon"] = epsilon_pld(read().events(REGION), mine["target_delta"])
    return read()


def spending(
    *names: str,
    noise: float | tuple[float, ...] = 1.0,
    region: Mapping[str, Any] = MappingProxyType({}),
    **changes: Any,
) -> Plan:
    """A plan of rounds of 4 steps at q 0.1 for the regions ``names``, with no epsilon stated.

    ``noise`` is that of every round, or one multiplier a round. ``region`` has fields of every region,
    ``changes`` fields of the plan.
    """
    by_round = isinstance(noise, tuple)
    mine: dict[str, Any] = {
        "roster": 1000,
        "identity": "physical",
        "sample_rate": 0.1,
        "noise_multiplier": None if by_round else noise,
        "mechanism": GaussianByRoundPlan(noise_multipliers=noise) if by_round else None,
        "max_grad_norm": 1.0,
        "local_steps": 4,
        "windows_per_vehicle": 2,
        "weight": 1.0,
        "target_delta": 1e-4,
        "target_epsilon": None,
        "epsilon": None,
    }
    fields: dict[str, Any] = {
        "name": "test",
        "mode": "private",
        "num_rounds": 3,
        "regions": dict.fromkeys(names, RegionPlan(**{**mine, **region})),
        "model": model(5),
        "task": TaskPlan(
            name="forecasting",
            options={"history_seconds": 2.0, "future_seconds": 3.0, "period_seconds": 0.5},
        ),
        "optimizer": OptimizerPlan(learning_rate=0.1, momentum=0.9, schedule="constant"),
        "seed": 0,
        "strategy": "FedAvg",
        "strategy_options": {},
        "quorum": 0.5,
        "late_updates": "drop",
        "average_last": 0.0,
    }
    return Plan(**{**fields, **changes})


def model(floats: int, *, name: str = "mlp", array: str = "weight") -> ModelPlan:
    """A model of one array, which is the witness block where it has that name."""
    return ModelPlan(
        name=name,
        options={},
        arrays=(ArraySchema(name=array, shape=(floats,)),),
        witness_size=floats if array == WITNESS else 0,
        initial_sha256="0" * 64,
    )


def zeros(shapes: Shapes = SMALL) -> dict[str, np.ndarray]:
    """Inbound arrays of that schema."""
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def noise_alone(plan: Plan, region: str, round: int, *, scale: float = 1.0, key: object = "") -> bytes:
    """The canonical bytes of an update that is the plan's noise and nothing else, ``scale`` times as large.

    Another ``key`` gives other noise, as another run key does.
    """
    mine = plan.region(region)
    stream = _Noise(f"{key} {plan.hash} {region} {round}", scale)
    velocity = update = np.zeros(plan.model.size)
    for _ in range(mine.local_steps):
        velocity = plan.optimizer.momentum * velocity
        velocity = velocity + mine.noise.noised(np.zeros(plan.model.size), stream, round=round) / mine.divisor
        update = update - plan.learning_rate(plan.round_of(region, round)) * velocity
    return update.astype("<f4").tobytes()


class _Noise:
    """A stream whose noise is ``scale`` times what is asked for."""

    def __init__(self, key: str, scale: float) -> None:
        self._random = np.random.default_rng(list(key.encode()))
        self._scale = scale

    def whole(self, count: int, scale: float, /) -> np.ndarray:
        return np.rint(self._scale * scale * self._random.standard_normal(count))


def with_canaries(plan: Plan, count: int) -> Plan:
    """The same plan with so many canaries in every region."""
    found = plan.model_dump(exclude={"format"})
    for mine in found["regions"].values():
        mine["canaries"] = count
    arrays = [one for one in found["model"]["arrays"] if one["name"] != CANARIES]
    block = {"name": CANARIES, "shape": (count,), "dtype": "float32"}
    at = len(arrays) - (arrays[-1]["name"] == WITNESS)
    found["model"]["arrays"] = [*arrays[:at], block, *arrays[at:]]
    return Plan(**found)
