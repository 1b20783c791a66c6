"""One round inside a region: private steps from the inbound arrays to the update that may be released."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from fedfsd.config.experiment import GradientEngine, Precision
from fedfsd.engine import backbone, trunk
from fedfsd.engine import noise as noises
from fedfsd.engine.canary import Canaries
from fedfsd.engine.device import wide
from fedfsd.engine.gradient import Loss, VehicleGradient, batch_cost
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.sampler import Lane, choose_windows, lanes, pack, sample_vehicles
from fedfsd.engine.shared import Shared
from fedfsd.engine.vehicle import VehicleData, within
from fedfsd.plan.plan import Arrays, Plan, RegionPlan


def train(
    gradient: VehicleGradient | Shared,
    data: VehicleData,
    arrays: Arrays,
    plan: Plan,
    key: RoundKey,
    demand_wanted: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """The update of one round, by name as in the plan's schema, float32.

    The noise is inside: nothing un-noised outlives a step. The update is the sum of the optimizer's
    steps, kept in a buffer of its own, never a difference of weights. ``demand_wanted`` is called before
    each step, and raises where nobody waits for the update any more.
    """
    mine = plan.region(key.region)
    size = gradient.size
    number = plan.round_of(key.region, key.round)
    rate, collecting = plan.learning_rate(number), plan.collects(number)
    flat = torch.from_numpy(np.concatenate([arrays[entry.name].ravel() for entry in plan.model.arrays]))
    start = flat.to(wide(data.device)).double()
    update, velocity, spare = torch.zeros_like(start), torch.zeros_like(start), torch.empty_like(start)
    for step in range(mine.local_steps):
        demand_wanted()
        gradient.set_parameters(torch.add(start, update, out=spare)[:size], collecting=collecting)
        noisy = private_step(gradient, data, mine, key, step=step, size=len(start))
        velocity.mul_(plan.optimizer.momentum).add_(noisy)
        update -= torch.mul(velocity, rate, out=spare)
    ends = np.cumsum([entry.size for entry in plan.model.arrays])
    parts = np.split(update.float().cpu().numpy(), ends[:-1])
    return {
        entry.name: part.reshape(entry.shape) for entry, part in zip(plan.model.arrays, parts, strict=True)
    }


def private_step(
    gradient: VehicleGradient | Shared,
    data: VehicleData,
    mine: RegionPlan,
    key: RoundKey,
    *,
    step: int,
    size: int,
) -> torch.Tensor:
    """One noisy mean gradient, (size,) float64: the only place where data turns into an output.

    The witness block takes the entries past the model's own; its gradient is always zero.
    """
    slots = sample_vehicles(key.stream("vehicles", step), data.slots, mine.sample_rate)
    window, taken = choose_windows(
        key.stream("windows", step), slots, data.counts[slots], mine.windows_per_vehicle
    )
    noise, clip = mine.noise, mine.max_grad_norm
    if noise is not None:  # None in mode none alone
        clip = noise.clipping_norm(key.round, roster=mine.vehicles, size=size)
    sums = (
        gradient.clipped_sum(
            data,
            slots[chosen],
            window[chosen, :places],
            taken[chosen, :places],
            max_grad_norm=clip,
            sample_rate=mine.sample_rate,
            vehicles=vehicles,
            length=size,
        )
        for chosen, places, vehicles in _arranged(mine, taken, gradient.through, data.device)
    )
    total = next(sums, None)
    if total is None:  # nobody has a window
        total = torch.zeros(size, dtype=torch.float64, device=wide(data.device))
    for other in sums:
        total += other
    if clip is not None:
        total = within(total, mine.vehicles * clip)
    if noise is not None:
        total = noise.noised(total, noises.of_step(key, step, total.device), round=key.round)
    return total.div_(mine.divisor)


def lanes_of(mine: RegionPlan, through: int, device: torch.device) -> tuple[Lane, ...]:
    """The shapes into which a region's windows are packed; ``through``: of the ``VehicleGradient``."""
    return lanes(mine.roster, mine.sample_rate, mine.windows_per_vehicle, through, batch_cost(device))


def _arranged(
    mine: RegionPlan, taken: np.ndarray, through: int, device: torch.device
) -> Iterator[tuple[np.ndarray | slice, int, int | None]]:
    """Who goes into micro-batches of one shape: the vehicles, the places of each, vehicles a micro-batch."""
    if not mine.packed:
        yield slice(None), taken.shape[1], None
        return
    for lane, chosen in pack(lanes_of(mine, through, device), taken):
        if len(chosen):
            yield chosen, lane.places, lane.vehicles


def model_on(
    model: nn.Module,
    loss: Loss,
    device: torch.device,
    precision: Precision = "float32",
    *,
    behind_trunk: bool = False,
    engine: GradientEngine = "auto",
    canaries: Canaries | None = None,
) -> VehicleGradient:
    """``model`` on ``device``, in training mode with dropout off, ready for per-vehicle gradients.

    Args:
        behind_trunk: it will be given what its frozen trunk makes of the inputs.
        canaries: who will be beside the vehicles.
    """
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        elif isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            module.dropout = 0.0
    whole = trunk.Head(model) if behind_trunk else model
    if canaries is not None:
        whole, loss = canaries.accompany(whole, loss)
    backbone.still(whole.to(device))
    return VehicleGradient(whole, loss, precision, engine=engine)
