"""What canaries beside vehicles cost: processor time of a private round with and without them, in turns."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import torch

from experiments.benchmark.row import Row
from experiments.benchmark.step import spread
from fedfsd.engine import canary, local
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import VehicleData
from fedfsd.mechanism.canary import coins
from fedfsd.plan.plan import CANARIES, WITNESS, Arrays, ArraySchema, ModelPlan, Plan
from fedfsd.runner import selftest
from fedfsd.task import registry

MODELS = (("mlp", 478, 8), ("gru", 478, 8), ("transformer", 478, 8))
SHARE, REPEATS, LIMIT = 0.05, 40, 1.1


def beside(*, quick: bool) -> list[Row]:
    """A row a model: the middle of the ratios of neighbours in time."""
    torch.set_num_threads(1)
    rows = []
    for name, roster, windows in MODELS[:1] if quick else MODELS:
        ratios = _ratios(name, roster, windows, 10 if quick else REPEATS)
        row = f"step with canaries: {name}, {SHARE:.0%} of {roster} vehicles"
        rows.append(Row(row, median(ratios), LIMIT, "x without", "<=", spread(ratios)))
    return rows


def _ratios(name: str, roster: int, windows: int, repeats: int) -> list[float]:
    without, beside = (_rounds(name, roster, windows, count) for count in (0, round(SHARE * roster)))
    ratios = []
    for number in range(repeats + 3):
        seconds = [_seconds(one, number + 1) for one in (without, beside)]
        if number >= 3:  # the first ones fill caches
            ratios.append(seconds[1] / seconds[0])
    return ratios


def _rounds(name: str, roster: int, windows: int, count: int) -> Any:
    """A round of a region with ``count`` canaries, by its number."""
    task = registry.of("forecasting", {})
    model = task.model(name, {}, seed=1)
    plan = _plan(dict(model.named_parameters()), roster, windows, count)
    inputs, targets = task.synthetic(torch.Generator().manual_seed(1))
    owned = np.full(roster, windows)
    rows = torch.arange(roster * windows + 1) % len(next(iter(inputs.values())))
    given, wanted = ({key: one[:, 0][rows] for key, one in part.items()} for part in (inputs, targets))
    data = VehicleData(given, wanted, np.cumsum(owned) - owned, owned, torch.device("cpu"))
    canaries = canary.of(plan, selftest.REGION)
    if canaries is not None:
        data = canary.tossed(canaries.beside(data), coins(bytes(32), count))
    gradient = local.model_on(model, task.loss, torch.device("cpu"), canaries=canaries)
    arrays: Arrays = {one.name: np.zeros(one.shape, np.float32) for one in plan.model.arrays}

    def run(number: int) -> None:
        local.train(gradient, data, arrays, plan, RoundKey(bytes(32), selftest.REGION, "", number, ""))

    return run


def _plan(parameters: dict[str, Any], roster: int, windows: int, count: int) -> Plan:
    plan = selftest.plan()
    shapes = {name: tuple(one.shape) for name, one in parameters.items()}
    shapes |= {CANARIES: (count,)} if count else {}
    arrays = tuple(ArraySchema(name=key, shape=one) for key, one in (shapes | {WITNESS: (4096,)}).items())
    model = ModelPlan(name="mlp", options={}, arrays=arrays, witness_size=4096, initial_sha256=64 * "0")
    constants = {"roster": roster, "windows_per_vehicle": windows, "sample_rate": 0.5, "canaries": count}
    mine = plan.region(selftest.REGION).model_copy(update=constants)
    return plan.model_copy(update={"regions": {selftest.REGION: mine}, "model": model})


def _seconds(one: Any, number: int) -> float:
    started = time.process_time()
    one(number)
    return time.process_time() - started
