"""Training as the regions do it, by the engine's own private step, with all regions in one process.

What crosses, is booked and released is what ``fedfsd simulate`` shows; here are only arrays, so that a frozen
trunk's features are computed once for all runs.

Shapes: arrays by name, as in the plan.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from fedfsd.config.experiment import Experiment, Privacy, Server, Training
from fedfsd.config.experiment import Task as TaskChoice
from fedfsd.engine import backbone, local, trunk
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import VehicleData, place
from fedfsd.gate import arrays as gate_arrays
from fedfsd.mechanism import calibration
from fedfsd.plan.build import Roster, build
from fedfsd.plan.plan import Arrays, ArraySchema, ModelPlan, Plan, TaskPlan
from fedfsd.simulation.prepare import arrays_of
from fedfsd.task.camera.task import Camera
from fedfsd.task.task import Examples

NO_NOISE = float("inf")
DELTA = 1e-4
_HARDLY = 1e-3  # of noise: the same training, clipped alike, as good as without
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    """What is chosen for a run, as a function of what is public."""

    rounds: int
    step: float
    """The largest length of a round's update before noise: learning rate times clipping norm."""


@dataclass(frozen=True)
class Start:
    """A model that learns in part, ready for many runs."""

    task: Camera
    model: nn.Module
    names: tuple[str, ...]
    """Of the parameters that learn."""
    initial: Arrays
    frames: int
    """Of each car, at most: the places of a vehicle in a step."""
    behind: bool
    """Whether the trunk is frozen, so that its features are computed once."""
    gradient: VehicleGradient
    clip: float

    @property
    def size(self) -> int:
        """Trained parameters."""
        return sum(array.size for array in self.initial.values())

    def place(self, found: Examples) -> VehicleData:
        """One region's frames, or what the frozen trunk makes of them."""
        roster = len(found.vehicles)
        if self.behind:
            return trunk.place_behind(self.model, found, roster=roster, device=_CPU)
        return place(found, roster=roster, device=_CPU)

    def with_arrays(self, arrays: Arrays) -> nn.Module:
        """The whole model with these weights, for use."""
        model = copy.deepcopy(self.model)
        backbone.put_arrays(model, arrays)
        return model.eval()


def start_of(
    task: Camera, model: nn.Module, trainable: Sequence[str], frames: int, public: Examples
) -> Start:
    """``model`` as it starts; the clipping norm is 0.75 of the median length of a public car's gradient."""
    model = copy.deepcopy(model)
    names = backbone.trained(model, trainable)
    backbone.freeze(model, names)
    behind = trunk.frozen(model, task)
    gradient = local.model_on(copy.deepcopy(model), task.loss, _CPU, behind_trunk=behind)
    initial = arrays_of(model, names, witness_size=0)
    found = Start(task, model, names, initial, frames, behind, gradient, 0.0)
    data = found.place(public)
    lengths = []
    for low, count in zip(data.first, np.minimum(data.counts, frames), strict=True):
        rows = torch.arange(low, low + count)
        inputs = {name: values[None] for name, values in data.inputs_of(rows).items()}
        targets = {name: values[rows][None] for name, values in data.targets.items()}
        taken = torch.ones(1, len(rows), dtype=torch.bool)
        lengths.append(float(gradient.mean_by_vehicle(inputs, targets, taken).norm()))
    return replace(found, clip=0.75 * median(lengths))


def whitened(model: Any, public: Examples) -> nn.Module:
    """``model``, the same function, with a head whose inputs are uncorrelated on public frames."""
    image, speed = (torch.from_numpy(public.inputs[name]) for name in ("image", "speed"))
    with torch.no_grad():
        features = torch.cat(
            [model.trunk(*part)[0] for part in zip(image.split(256), speed.split(256), strict=True)]
        )
    model.head.whiten(features, speed)
    found: nn.Module = model
    return found


def federated(
    start: Start, data: Mapping[str, VehicleData], epsilon: float, settings: Settings
) -> dict[str, np.ndarray]:
    """The arrays that ``data``'s regions train together, each with noise of its own."""
    plan = _plan(start, {name: one.roster for name, one in data.items()}, epsilon, settings)
    run_key = os.urandom(32)
    arrays = {name: array.copy() for name, array in start.initial.items()}
    kept = []
    for number in range(1, settings.rounds + 1):
        sha256 = gate_arrays.sha256(arrays, plan.model.arrays)
        updates = {
            name: local.train(
                start.gradient, one, arrays, plan, RoundKey(run_key, name, plan.hash, number, sha256)
            )
            for name, one in data.items()
        }
        for name in arrays:
            arrays[name] = arrays[name] + np.sum(
                [plan.region(where).weight * update[name] for where, update in updates.items()],
                axis=0,
                dtype=np.float32,
            )
        kept.append({name: array.copy() for name, array in arrays.items()})
    last = kept[-max(1, round(plan.average_last * settings.rounds)) :]
    return {name: np.mean([one[name] for one in last], axis=0) for name in arrays}


def _plan(start: Start, rosters: Mapping[str, int], epsilon: float, settings: Settings) -> Plan:
    """As ``fedfsd simulate`` would make it, but for the witness block, which learns nothing."""
    private = epsilon != NO_NOISE
    experiment = Experiment(
        name="camera_fleet",
        mode="private" if private else "rehearsal",
        task=TaskChoice(name="camera", options=start.task.options),
        privacy=Privacy(
            target_epsilon=epsilon if private else 8.0,
            noise_multiplier=None if private else _HARDLY,
            target_delta=DELTA,
            max_grad_norm=start.clip,
            windows_per_vehicle=start.frames,
        ),
        training=Training(num_rounds=settings.rounds, learning_rate=settings.step / start.clip, device="cpu"),
        server=Server(average_last=0.2),
    )
    schema = tuple(ArraySchema(name=name, shape=array.shape) for name, array in start.initial.items())
    model = ModelPlan(
        name="conv",
        options={},
        arrays=schema,
        witness_size=0,
        initial_sha256=gate_arrays.sha256(start.initial, schema),
    )
    known = {name: Roster(size, "physical", counted=False) for name, size in rosters.items()}
    return build(experiment, known, TaskPlan(name="camera", options=start.task.options), model)


def noise_multiplier(epsilon: float, rounds: int) -> float:
    """Of a plan in which every car is drawn in every round."""
    return calibration.noise_multiplier(
        target_epsilon=epsilon, target_delta=DELTA, sample_rate=1.0, steps=rounds
    )


def pooled(
    start: Start, data: Sequence[VehicleData], *, epochs: int, rate: float = 3e-3, seed: int = 1
) -> Arrays:
    """The arrays after Adam on all frames of all cars together, without clipping, noise or regions."""
    model = copy.deepcopy(start.model)
    backbone.still(model)
    whole: nn.Module = trunk.Head(model) if start.behind else model
    learning = [one for one in whole.parameters() if one.requires_grad]
    adam = torch.optim.Adam(learning, lr=rate)
    random = np.random.default_rng(seed)
    rows = [(n, row) for n, one in enumerate(data) for row in range(one.counts.sum())]
    steps = epochs * -(-len(rows) // 128)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    order = np.array(rows)
    for _ in range(epochs):
        random.shuffle(order)
        for chosen in np.array_split(order, -(-len(order) // 128)):
            parts = [(one, torch.from_numpy(chosen[chosen[:, 0] == n, 1])) for n, one in enumerate(data)]
            filled = [
                (one.inputs_of(mine), {k: v[mine] for k, v in one.targets.items()}) for one, mine in parts
            ]
            inputs = {k: torch.cat([one[k] for one, _ in filled]) for k in filled[0][0]}
            targets = {k: torch.cat([one[k] for _, one in filled]) for k in filled[0][1]}
            adam.zero_grad()
            start.task.loss(whole(*inputs.values()), targets).mean().backward()
            adam.step()
            schedule.step()
    return arrays_of(model, start.names, witness_size=0)


def first(data: VehicleData, cars: int) -> VehicleData:
    """The data of a smaller fleet: the first cars of a larger one."""
    return replace(data, first=data.first[:cars], counts=data.counts[:cars])


def _flat(arrays: Arrays) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([array.ravel() for array in arrays.values()]))
