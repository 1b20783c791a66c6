"""Faults of the private step, each as a change of its own code.

A patch is given something with ``setattr(object or dotted name, ...)``, as pytest's MonkeyPatch is, which
takes its changes back afterwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedfsd.engine import local
from fedfsd.engine.clip import MicroBatch
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.noise import HostNoise
from fedfsd.engine.randomness import RoundKey, Stream
from fedfsd.mechanism import kind
from fedfsd.mechanism.kind import Mechanism

WITNESS_SIZE = 4096
"""Of every plan in which faults are planted."""
ORIGINAL_SUM = VehicleGradient.clipped_sum
ORIGINAL_STREAM, ORIGINAL_NOISED = RoundKey.stream, kind.Gaussian.noised
ORIGINAL_STEP, ORIGINAL_WINDOWS = local.private_step, local.choose_windows
ORIGINAL_TRAIN = local.train
Patch = Callable[[pytest.MonkeyPatch], None]


def noise(change: Callable[[np.ndarray], np.ndarray]) -> Patch:
    """Another noise than the stream's."""

    def patch(at: pytest.MonkeyPatch) -> None:
        def noised(self, total, stream, *, round):
            grid = self.grid(round, size=len(total))
            drawn = change((self.std(round) * stream.normal(len(total))).numpy())
            return ((total / grid).round() + torch.from_numpy(drawn / grid).round()) * grid

        at.setattr(Mechanism, "noised", noised)

    return patch


def normals(make: Callable[[int], np.ndarray]) -> Patch:
    def whole(_: HostNoise, count: int, scale: float) -> torch.Tensor:
        return torch.from_numpy(np.rint(scale * make(count)))

    return lambda at: at.setattr(HostNoise, "whole", whole)


def stream(**changes) -> Patch:
    """Streams under a key that leaves something out."""

    def patch(at: pytest.MonkeyPatch) -> None:
        def of(self, label, step):
            found = {name: value for name, value in changes.items() if name not in ("step", "label")}
            if changes.get("label") not in (None, label):
                return ORIGINAL_STREAM(self, label, step)
            return ORIGINAL_STREAM(dataclasses.replace(self, **found), label, changes.get("step", step))

        at.setattr(RoundKey, "stream", of)

    return patch


def vehicles(choose: Callable[[Stream, int, float], np.ndarray]) -> Patch:
    return lambda at: at.setattr(local, "sample_vehicles", choose)


def clipped(**rest) -> Patch:
    """The sum of vehicles clipped to something else."""

    def patch(at: pytest.MonkeyPatch) -> None:
        def clipped_sum(self, *given, max_grad_norm, **more):
            changed = rest["norm"](max_grad_norm)
            return ORIGINAL_SUM(self, *given, max_grad_norm=changed, **more)

        at.setattr(VehicleGradient, "clipped_sum", clipped_sum)

    return patch


def by_vehicle(combine: Callable[[torch.Tensor, float, list[int]], torch.Tensor]) -> Patch:
    """The sum made in another way from the vehicles' mean gradients, (V, P)."""

    def patch(at: pytest.MonkeyPatch) -> None:
        def clipped_sum(self, data, slots, window, taken, *, max_grad_norm, length=None, **_):
            index = torch.from_numpy(data.first[slots, None] + window)
            inputs, targets = data.inputs_of(index), data.targets_of(index)
            means = self.mean_by_vehicle(inputs, targets, torch.from_numpy(taken))
            means = torch.where(means.isfinite().all(1, keepdim=True), means, 0.0)
            total = combine(means.double(), max_grad_norm, self._sizes)
            return functional.pad(total, (0, (length or self.size) - self.size))

        at.setattr(VehicleGradient, "clipped_sum", clipped_sum)

    return patch


def shorten(values: torch.Tensor, norm: torch.Tensor, bound: float) -> torch.Tensor:
    return values * torch.clamp(bound / norm.clamp(min=1e-30), max=1.0)


def per_tensor(means, bound, sizes):
    parts = means.split(sizes, dim=1)
    return torch.cat([shorten(part, part.norm(dim=1, keepdim=True), bound) for part in parts], 1).sum(0)


def largest_entry(means, bound, sizes):
    return shorten(means, means.abs().amax(1, keepdim=True), bound).sum(0)


def of_the_sum(means, bound, sizes):
    return shorten(means.sum(0), means.sum(0).norm(), bound)


def per_window(at: pytest.MonkeyPatch) -> None:
    """Every example is clipped, as if it were a vehicle of its own."""

    def clipped_sum(self, data, slots, window, taken, **rest):
        total = 0
        for place in range(window.shape[1]):
            total = total + ORIGINAL_SUM(self, data, slots, window[:, [place]], taken[:, [place]], **rest)
        return total

    at.setattr(VehicleGradient, "clipped_sum", clipped_sum)


def one_example_more(at: pytest.MonkeyPatch) -> None:
    at.setattr(
        local,
        "choose_windows",
        lambda stream, slots, counts, k: ORIGINAL_WINDOWS(stream, slots, counts, k + 1),
    )


def divided(by: Callable[[np.ndarray, object, object], float]) -> Patch:
    def patch(at: pytest.MonkeyPatch) -> None:
        def private_step(gradient, data, mine, key, *, step, size):
            found = ORIGINAL_STEP(gradient, data, mine, key, step=step, size=size)
            slots = local.sample_vehicles(key.stream("vehicles", step), data.slots, mine.sample_rate)
            return found * mine.divisor / by(slots, data, mine)

        at.setattr(local, "private_step", private_step)

    return patch


def momentum_before_noise(at: pytest.MonkeyPatch) -> None:
    kept: dict[int, torch.Tensor] = {}

    def clipped_sum(self, *given, **rest):
        found = ORIGINAL_SUM(self, *given, **rest)
        kept[id(self)] = found + 0.9 * kept.get(id(self), torch.zeros_like(found))
        return kept[id(self)]

    at.setattr(VehicleGradient, "clipped_sum", clipped_sum)


def half_the_steps(at: pytest.MonkeyPatch) -> None:
    def train(gradient, data, arrays, plan, key, demand_wanted=lambda: None):
        mine = plan.region(key.region)
        twice = mine.model_copy(update={"local_steps": 2 * mine.local_steps})
        changed = plan.model_copy(update={"regions": {**plan.regions, key.region: twice}})
        return ORIGINAL_TRAIN(gradient, data, arrays, changed, key)

    at.setattr(local, "train", train)


def a_draw_of_the_batch(at: pytest.MonkeyPatch) -> None:
    """How much is drawn depends on who has examples."""

    def choose(stream, slots, counts, k):
        stream.uniform(int(counts.sum()))
        return ORIGINAL_WINDOWS(stream, slots, counts, k)

    at.setattr(local, "choose_windows", choose)


def packed(at: pytest.MonkeyPatch) -> None:
    """Vehicles without examples are left out before batches are cut."""

    def clipped_sum(self, data, slots, window, taken, **rest):
        some = taken.any(axis=1)
        return ORIGINAL_SUM(self, data, slots[some], window[some], taken[some], **rest)

    at.setattr(VehicleGradient, "clipped_sum", clipped_sum)
    at.setattr("fedfsd.engine.gradient.micro_batch", lambda *_: 4)


def not_finite_ends_it(at: pytest.MonkeyPatch) -> None:
    def clipped_sum(self, data, slots, window, taken, **rest):
        inputs = data.inputs_of(torch.from_numpy(data.first[slots]))
        if any(values.isnan().any() for values in inputs.values()):
            raise ValueError("not finite")
        return ORIGINAL_SUM(self, data, slots, window, taken, **rest)

    at.setattr(VehicleGradient, "clipped_sum", clipped_sum)


def not_finite_counts(at: pytest.MonkeyPatch) -> None:
    original = MicroBatch.clipped_sum

    def clipped_sum(self, *given):
        found = original(self, *given)
        found += 0.0 if self._squares.isfinite().all() else 1e-3
        return found

    at.setattr(MicroBatch, "clipped_sum", clipped_sum)


def rounded_by_batch(at: pytest.MonkeyPatch) -> None:
    def clipped_sum(self, data, slots, window, taken, **rest):
        found = ORIGINAL_SUM(self, data, slots, window, taken, **rest)
        return found * (1 + 2.0**-20 * int(data.counts.sum()))

    at.setattr(VehicleGradient, "clipped_sum", clipped_sum)


def one_tensor(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[:20] = 0
    return values


def model_only(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.concatenate([scale * values[:-WITNESS_SIZE], values[-WITNESS_SIZE:]])


def witness_again(values: np.ndarray) -> np.ndarray:
    """The model's noise is that of the first entries of the witness block."""
    return np.concatenate([values[-WITNESS_SIZE:][: len(values) - WITNESS_SIZE], values[-WITNESS_SIZE:]])


SHARED = np.random.default_rng(5)
BUGS: dict[str, Patch] = {
    "no noise": noise(lambda values: 0 * values),
    "noise x 0.5": noise(lambda values: 0.5 * values),
    "noise x 0.9": noise(lambda values: 0.9 * values),
    "noise x 0.95": noise(lambda values: 0.95 * values),
    "noise x 0.97": noise(lambda values: 0.97 * values),
    "noise on the witness block alone": noise(model_only(0.0)),
    "half noise on the model": noise(model_only(0.5)),
    "one tensor without noise": noise(one_tensor),
    "the same noise in each step": stream(step=0, label="noise"),
    "the same noise in each round": stream(round=1, arrays_sha256="", label="noise"),
    "the witness block's noise as the model's": noise(witness_again),
    "uniform noise": normals(lambda count: SHARED.uniform(-np.sqrt(3), np.sqrt(3), count)),
    "noise of 32 bits": normals(lambda count: torch.randn(count).double().numpy()),
    "a public noise key": stream(run_key=bytes(32), label="noise"),
    "another region's key": stream(region="EU"),
    "a public sampling key": stream(run_key=bytes(32), label="vehicles"),
    "no clipping": clipped(norm=lambda bound: 1e30),
    "clipping to 2 C": clipped(norm=lambda bound: 2 * bound),
    "every window clipped alone": per_window,
    "every tensor clipped alone": by_vehicle(per_tensor),
    "the largest entry clipped": by_vehicle(largest_entry),
    "the sum clipped": by_vehicle(of_the_sum),
    "one window more than planned": one_example_more,
    "twice the sample rate": vehicles(lambda one, count, q: np.flatnonzero(one.uniform(count) < 2 * q)),
    "a shuffled batch": vehicles(
        lambda one, count, q: np.sort(np.argsort(one.uniform(count))[: round(q * count)])
    ),
    "the same sample in each step": stream(step=0, label="vehicles"),
    "a fixed batch": vehicles(lambda one, count, q: np.arange(round(q * count))),
    "divided by the batch": divided(lambda slots, data, mine: max(1, len(slots))),
    "divided by the vehicles with windows": divided(
        lambda slots, data, mine: mine.sample_rate * max(1, np.count_nonzero(data.counts))
    ),
    "momentum before noise": momentum_before_noise,
    "rounding by the batch's content": rounded_by_batch,
    "a vehicle that is not finite ends the round": not_finite_ends_it,
    "a vehicle that is not finite counts": not_finite_counts,
    "steps counted by half": half_the_steps,
    "a draw that depends on another vehicle": a_draw_of_the_batch,
    "batches packed by who has examples": packed,
}
