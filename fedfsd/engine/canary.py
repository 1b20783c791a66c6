"""Canaries: synthetic vehicles that go through the private step beside real ones, in the same batches.

Each moves one parameter of an audit block (``CANARIES``) and no other, far beyond C, and is in or out by a
secret coin of its own; the last is always in and has a gradient that is not finite, so it must move nothing.
No real vehicle's gradient touches the block, and no canary's touches the model: a canary is the padding
example of a real one, whose loss is replaced by one that depends on the block alone.

What that costs real vehicles: nothing. Let M be a step's sum over real vehicles, of sensitivity C in the
model's entries and zero in the block's; let K be what canaries add, zero in the model's entries. K depends on
public constants, coins, and draws for slots of the canaries' own, so it is independent of every real vehicle.
M + K + noise is then the same Gaussian mechanism of M in more coordinates, shifted by something independent:
for each value of K its two neighbouring distributions are those without canaries, shifted alike. So epsilon
and delta are what is booked, for all that is released, block included. N and the divisor q N leave canaries
out. The bounds that grow with the number of vehicles in a sum (``clipping_norm``, ``within``) count them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
import torch
from torch import Tensor, nn

from fedfsd.engine.gradient import Loss
from fedfsd.engine.vehicle import VehicleData
from fedfsd.plan.plan import Plan
from fedfsd.task.task import Tensors

NORM = 20.0
"""Of a canary's gradient, in units of C."""


@dataclass(frozen=True)
class Canaries:
    """The canaries of one region: ``count`` of them, in a block of ``size`` parameters."""

    count: int
    size: int
    examples: int
    """Of each: as many as count of a vehicle in a step."""
    max_grad_norm: float

    def accompany(self, model: nn.Module, loss: Loss) -> tuple[nn.Module, Loss]:
        """The model with the block behind its parameters, and the loss of an example of either kind."""
        push = torch.full((self.count + 1,), NORM * self.max_grad_norm)
        push[-2:] = torch.tensor([inf, 0.0])  # the last canary; and, by the index -1, vehicles

        def either(made: tuple[Tensor, Tensor, Tensor], targets: Tensors) -> Tensor:
            of_model, value, canary = made
            there = push.to(value.device)[canary] * value
            return torch.where(canary < 0, loss(of_model, targets), there)

        return _Accompanied(model, self.size), either

    def beside(self, data: VehicleData) -> VehicleData:
        """``data`` with a slot for every canary before those of vehicles, each with its examples."""
        first = data.padding + 1 + self.examples * np.arange(self.count)
        return _Beside(
            data.inputs,
            data.targets,
            np.concatenate([first, data.first]),
            np.concatenate([np.full(self.count, self.examples), data.counts]),
            data.device,
            data.surplus,
            vehicles=data,
            canaries=self,
        )


def of(plan: Plan, region: str) -> Canaries | None:
    """The canaries of a region of ``plan``; None where it has none."""
    mine = plan.region(region)
    if not mine.canaries or mine.max_grad_norm is None:
        return None
    return Canaries(mine.canaries, plan.model.canaries, mine.windows_per_vehicle, mine.max_grad_norm)


def tossed(data: VehicleData, inside: Sequence[bool] | np.ndarray) -> VehicleData:
    """``data`` of ``beside`` in which the canaries that are out own nothing."""
    counts = data.counts.copy()
    counts[: len(inside)] *= np.asarray(inside)
    return replace(data, counts=counts)


class _Accompanied(nn.Module):
    """A model and the audit block: canary i looks up entry i; what a vehicle (-1) looks up does not count."""

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model = model
        self.block = nn.Embedding(size, 1)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        *own, canary = inputs
        return self.model(*own), self.block(canary.clamp(min=0))[:, 0], canary


@dataclass(frozen=True)
class _Beside(VehicleData):
    """Canaries in the first slots; their examples have the numbers beyond the padding example's."""

    vehicles: VehicleData = field(kw_only=True)
    canaries: Canaries = field(kw_only=True)

    @property
    def company(self) -> int:
        return self.canaries.count

    def inputs_of(self, rows: Tensor) -> Tensors:
        beyond = rows - self.padding - 1
        canary = beyond.div(self.canaries.examples, rounding_mode="floor").clamp_(min=-1)
        return {**self.vehicles.inputs_of(rows.clamp(max=self.padding)), "canary": canary}

    def targets_of(self, rows: Tensor) -> Tensors:
        return self.vehicles.targets_of(rows.clamp(max=self.padding))
