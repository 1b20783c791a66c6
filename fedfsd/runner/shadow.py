"""Membership inference on what a plan releases, by shadow models, offline (Carlini et al. 2022).

A few made-up vehicles are trained on by the plan's private step, again and again, with one of them in or out
and all others there: what differential privacy is about is the one vehicle that the attacker does not know
of. Two attackers look. One has the released model alone, and measures its loss on the vehicle. The other has
every update, and multiplies it by the vehicle's clipped gradient at the weights with which the round began.
Each knows how its figure is distributed without the vehicle from shadow trainings without it, and calls the
vehicle in where the likelihood of the figure is low: offline LiRA, with one normal distribution a vehicle.

The roster is cut down, which makes the attack easier, and so are the rounds; clipping, noise, sampling and
local steps are the plan's, so what the plan's epsilon allows bounds the attack.
"""

from __future__ import annotations

import copy
import hashlib
import os

import numpy as np
import torch
from torch import nn

from fedfsd.engine import local
from fedfsd.engine.device import resolve
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import VehicleData, place
from fedfsd.plan.plan import WITNESS, Arrays, ArraySchema, Plan, RegionPlan
from fedfsd.task import registry
from fedfsd.task.task import Examples, Task, Tensors

VEHICLES, TARGETS, SHADOWS, STEPS = 8, 3, 32, 8
"""Made-up vehicles, those attacked, trainings with and as many without each, and steps of one at most."""
MODEL, UPDATES = "the released model", "every update"


Scores = dict[str, tuple[np.ndarray, np.ndarray]]
"""By what the attacker has: of vehicles that were in, and of such that were not, (n,) each. In standard
deviations of trainings without the vehicle, from their mean."""


def scores(plan: Plan, region: str, device: str = "cpu", *, as_if: RegionPlan | None = None) -> Scores:
    """Attack a region of ``plan``; nothing where the model has a frozen part, whose weights are elsewhere.

    Args:
        as_if: constants to run with instead of the plan's: the control.
    """
    if plan.model.backbone is not None:
        return {}
    fleet = _Fleet(plan, region, as_if or plan.region(region), device)
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {MODEL: [], UPDATES: []}
    for target in range(TARGETS):
        made = [
            np.array([fleet.trained(target, inside=inside) for _ in range(SHADOWS)])
            for inside in (True, False)
        ]
        for column, parts in enumerate(found.values()):
            inside, outside = (one[:, column] for one in made)
            parts.append(((inside - outside.mean()) / _spread(outside), _left_out(outside)))
    return {
        name: (np.concatenate([one for one, _ in parts]), np.concatenate([other for _, other in parts]))
        for name, parts in found.items()
    }


def _spread(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) or 1e-12


def _left_out(values: np.ndarray) -> np.ndarray:
    """Each against the others: a training is no shadow of itself."""
    rest = [np.delete(values, number) for number in range(len(values))]
    return np.array([(one - other.mean()) / _spread(other) for one, other in zip(values, rest, strict=True)])


class _Fleet:
    """The made-up vehicles, and trainings on them."""

    def __init__(self, plan: Plan, region: str, mine: RegionPlan, device: str) -> None:
        self._task: Task = registry.of(plan.task.name, plan.task.options)
        self._region, self._device = region, resolve(device)
        self._model = _stirred(self._task.model(plan.model.name, plan.model.options, seed=plan.seed))
        self._rounds = min(plan.rounds_of(region), max(1, STEPS // mine.local_steps))
        start = {name: one.detach().numpy().copy() for name, one in self._model.named_parameters()}
        self._start = start | {WITNESS: np.zeros(1, np.float32)}
        arrays = tuple(ArraySchema(name=name, shape=one.shape) for name, one in self._start.items())
        less = mine.model_copy(update={"roster": VEHICLES, "canaries": 0})
        model = plan.model.model_copy(update={"arrays": arrays, "witness_size": 1})
        self._plan = plan.model_copy(update={"regions": {**plan.regions, region: less}, "model": model})
        self._gradient = local.model_on(copy.deepcopy(self._model), self._task.loss, self._device)
        self._data = place(self._examples(), roster=VEHICLES, device=self._device)

    def trained(self, target: int, *, inside: bool) -> tuple[float, float]:
        """One training: how well the released model does on the target, and how far updates point its way."""
        counts = self._data.counts.copy()
        counts[target] *= inside
        data = VehicleData(
            self._data.inputs, self._data.targets, self._data.first, counts, self._device, self._data.surplus
        )
        arrays: Arrays = self._start
        secret, along = os.urandom(32), 0.0
        for number in range(1, self._rounds + 1):
            key = RoundKey(secret, self._region, 64 * "0", number, hashlib.sha256().hexdigest())
            own = self._gradient_of(target, arrays)
            update = local.train(self._gradient, data, arrays, self._plan, key)
            # The last round may also be the one with the least noise: each counts in units of its own.
            along -= float(_flat(update) @ own) / self._std(number)
            arrays = {name: arrays[name] + update[name] for name in arrays}
        return -self._loss(target, arrays), along

    def _std(self, number: int) -> float:
        mine = self._plan.region(self._region)
        assert mine.noise is not None
        rate = self._plan.learning_rate(self._plan.round_of(self._region, number))
        return rate * mine.noise.std(number) / mine.divisor

    def _gradient_of(self, target: int, arrays: Arrays) -> np.ndarray:
        """(P,) the target's mean gradient at these weights, of norm C at most."""
        inputs, targets = self._of(target)
        self._gradient.set_parameters(torch.from_numpy(_flat(arrays)).float().to(self._device))
        taken = torch.ones(1, len(next(iter(targets.values()))), dtype=torch.bool, device=self._device)
        alone, wanted = ({name: one[None] for name, one in part.items()} for part in (inputs, targets))
        own = self._gradient.mean_by_vehicle(alone, wanted, taken)[0].double().cpu().numpy()
        bound = float(self._plan.region(self._region).max_grad_norm or 1.0)
        found: np.ndarray = own * min(1.0, bound / max(float(np.linalg.norm(own)), 1e-30))
        return found

    def _loss(self, target: int, arrays: Arrays) -> float:
        inputs, targets = self._of(target)
        model = copy.deepcopy(self._model).to(self._device)
        with torch.no_grad():
            for name, one in model.named_parameters():
                one.copy_(torch.from_numpy(arrays[name]))
            return float(self._task.loss(model(*inputs.values()), targets).mean())

    def _of(self, target: int) -> tuple[Tensors, Tensors]:
        first = int(self._data.first[target])
        rows = slice(first, first + int(self._data.counts[target]))
        found = [
            {name: one[rows] for name, one in part.items()}
            for part in (self._data.inputs, self._data.targets)
        ]
        return found[0], found[1]

    def _examples(self) -> Examples:
        """Of every vehicle those that the task makes up from a seed of its own, k at most."""
        k = self._plan.region(self._region).windows_per_vehicle
        made = [self._task.synthetic(torch.Generator().manual_seed(200 + one)) for one in range(VEHICLES)]
        inputs, targets = (
            {name: np.concatenate([one[part][name][0][:k].numpy() for one in made]) for name in made[0][part]}
            for part in (0, 1)
        )
        each = len(next(iter(targets.values()))) // VEHICLES
        names = tuple(map(str, range(VEHICLES)))
        return Examples(names, np.repeat(np.arange(VEHICLES), each), inputs, targets)


def _flat(arrays: Arrays) -> np.ndarray:
    return np.concatenate([one.ravel() for name, one in arrays.items() if name != WITNESS]).astype(np.float64)


def _stirred(model: nn.Module) -> nn.Module:
    """As initialised a zero head may hide what comes before it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model
