"""One round, run again on neighbouring tables with the same keys: is the mechanism the planned one?

Everything that enters or leaves the private step is written down: draws, slots, windows, the sum that gets
noise, the noised sum, the result, and the shape of every batch that the model sees. Between a table and its
neighbour, in which one vehicle is zeroed out, all of it must be equal bit by bit but that sum, and that may
differ by at most C. What the plan's constants and the run key make of a round is computed here a second time,
so that what both runs do alike and wrong is found too. The idea is that of recorded mechanisms (arXiv
2602.17454); no statistics are needed.

Tables and round are small, whatever the plan's are: its constants are kept but for the number of vehicles and
steps. The tables are made up by the task, as they are for the probe: nothing of the region's data is read, so
that a refusal tells nothing about anybody, and a replay is free. Keys are fresh random ones, thrown away.

What it cannot see: code that behaves differently on real data or in other rounds on purpose, and everything
outside the private step and its round.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import nn

from fedfsd import canonical
from fedfsd.engine import backbone, canary, local
from fedfsd.engine.device import resolve, wide
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.noise import DeviceNoise
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import VehicleData
from fedfsd.errors import RefusedError
from fedfsd.gate.policy import ModelPin
from fedfsd.plan.plan import BLOCKS, Arrays, Plan, RegionPlan
from fedfsd.task import registry
from fedfsd.task.task import Task

VEHICLES, DRAWN, STEPS, CANARIES = 64, 8, 3, 8
"""At most STEPS local steps, of a roster cut down to VEHICLES, or to what draws DRAWN of them on average,
and CANARIES beside them."""
SIZES = (1.0, 30.0, 1e3, 1e5)
"""How many times as large as usual the vehicle's values are in one table after another."""
CHUNK = 1 << 16
"""Normal values that a stream makes at a time; of a large model only some such parts are computed again."""
CHUNKS = 8
_ROUNDING = 1e-6
"""Of C: float64 sums in another order stay far below."""
_GROUPED = 1e-4
"""Of C: where gradients are summed as products, a group's float32 rounding depends on all who are in it, and
``engine.clip`` keeps C / 256 for that; what many alike vehicles were seen to make is a hundredth of this."""
REFUSED = "replay"


@dataclass(frozen=True)
class Replayed:
    """What came of a replay: ``faults`` is empty where the mechanism is the planned one."""

    faults: tuple[str, ...]
    runs: int
    """Private steps that were run."""
    seconds: float


@dataclass
class Record:
    """What entered or left the private step, in its order."""

    draws: list[tuple[Any, ...]] = field(default_factory=list)
    """(label, step, what, how many, digest) of everything drawn."""
    slots: list[np.ndarray] = field(default_factory=list)
    taken: list[np.ndarray] = field(default_factory=list)
    batches: list[tuple[Any, ...]] = field(default_factory=list)
    """Shapes of what the model was given, call by call."""
    totals: list[np.ndarray] = field(default_factory=list)
    """Clipped sums as they got their noise."""
    noised: list[np.ndarray] = field(default_factory=list)
    results: list[np.ndarray] = field(default_factory=list)


class _Tap:
    """Stands before an object: what is not written down is the object's own."""

    def __init__(self, what: Any, record: Record) -> None:
        self._what, self._record = what, record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._what, name)


class _StreamTap(_Tap):
    def __init__(self, what: Any, record: Record, label: str, step: int) -> None:
        super().__init__(what, record)
        self._about = label, step

    def _drawn(self, what: str, count: int, block: int, values: np.ndarray) -> np.ndarray:
        digest = hashlib.sha256(np.ascontiguousarray(values).view(np.uint8).data).hexdigest()
        self._record.draws.append((*self._about, what, count, block, digest))
        return values

    def bits(self, count: int, *, block: int = 0) -> np.ndarray:
        return self._drawn("bits", count, block, self._what.bits(count, block=block))

    def uniform(self, count: int, *, block: int = 0) -> np.ndarray:
        return self._drawn("uniform", count, block, self._what.uniform(count, block=block))


class _KeyTap(_Tap):
    def key(self, label: str, step: int) -> bytes:
        found: bytes = self._what.key(label, step)
        self._record.draws.append((label, step, "key", len(found), 0, hashlib.sha256(found).hexdigest()))
        return found

    def stream(self, label: str, step: int) -> _StreamTap:
        return _StreamTap(self._what.stream(label, step), self._record, label, step)


class _GradientTap(_Tap):
    def clipped_sum(
        self, data: VehicleData, slots: np.ndarray, window: np.ndarray, taken: np.ndarray, **rest: Any
    ) -> Any:
        self._record.slots.append(np.array(slots))
        self._record.taken.append(np.array(taken))
        return self._what.clipped_sum(data, slots, window, taken, **rest)


class _MechanismTap(_Tap):
    def noised(self, total: Any, stream: Any, *, round: int) -> Any:
        self._record.totals.append(_numbers(total).copy())
        found = self._what.noised(total, stream, round=round)
        self._record.noised.append(_numbers(found).copy())
        return found


class _RegionTap(_Tap):
    @property
    def noise(self) -> _MechanismTap:
        return _MechanismTap(self._what.noise, self._record)


def demand(
    gradient: VehicleGradient, model: nn.Module, task: Task, plan: Plan, region: str, arrays: Arrays
) -> None:
    """Refuse to train where a replay finds a fault.

    Raises:
        RefusedError: names the first fault.
    """
    found = replay(gradient, model, task, plan, region, arrays)
    if found.faults:
        raise RefusedError(
            REFUSED,
            got=found.faults[0],
            expected="the mechanism of the plan",
            hint="install the reviewed program again (fedfsd config code), then fedfsd audit replay",
        )


def replay(
    gradient: VehicleGradient,
    model: nn.Module,
    task: Task,
    plan: Plan,
    region: str,
    arrays: Arrays,
    *,
    as_if: RegionPlan | None = None,
) -> Replayed:
    """Run a round of ``plan`` on made-up tables and their neighbours, and compare.

    Args:
        gradient: of ``model``, as training uses it. arrays: those that a round starts from.
        as_if: constants to run with instead of the plan's: to see that a wrong mechanism is found.
    """
    started = time.monotonic()
    # The second round where there is one: what takes every round for the first is found.
    rounds = {min(2, plan.rounds_of(region))} | ({1} if plan.collects(plan.round_of(region, 1)) else set())
    stages = [_Stage(gradient, model, task, plan, region, arrays, as_if, one) for one in sorted(rounds)]
    faults = tuple(dict.fromkeys(fault for stage in stages for fault in stage.faults()))
    return Replayed(faults, sum(stage.runs for stage in stages), time.monotonic() - started)


def of_plan(
    plan: Plan,
    region: str,
    device: str,
    *,
    pin: ModelPin | None = None,
    task_pin: ModelPin | None = None,
    as_if: RegionPlan | None = None,
) -> Replayed:
    """A replay of a plan's round from its model as it is initialised; this process computes in one thread.

    Args:
        pin, task_pin: what model and task of another package must be; None: what is installed is believed.

    Raises:
        PlanError: a plan without that region, or without privacy.
        FedfsdError: a task, model or device that is not here.
    """
    plan.mechanism(region)
    torch.set_num_threads(1)  # small steps: more threads would mostly wait for each other
    task = registry.of(plan.task.name, plan.task.options, reviewed=task_pin)
    model = task.model(plan.model.name, plan.model.options, seed=plan.seed, reviewed=pin)
    if plan.model.backbone is not None:  # frozen, whatever its values are
        backbone.freeze(model, [one.name for one in plan.model.arrays])
    learning = ((name, one) for name, one in model.named_parameters() if one.requires_grad)
    arrays = {name: one.detach().numpy().copy() for name, one in learning}
    arrays |= {one.name: np.zeros(one.shape, np.float32) for one in plan.model.arrays if one.name in BLOCKS}
    gradient = local.model_on(
        model, task.loss, resolve(device), plan.precision, canaries=canary.of(plan, region)
    )
    return replay(gradient, model, task, plan, region, arrays, as_if=as_if)


class _Stage:
    """One replay."""

    def __init__(
        self,
        gradient: VehicleGradient,
        model: nn.Module,
        task: Task,
        plan: Plan,
        region: str,
        arrays: Arrays,
        as_if: RegionPlan | None,
        round: int,
    ) -> None:
        self._gradient, self._model, self._plan = gradient, model, _short(plan, region, plan.region(region))
        self._mine: RegionPlan = self._plan.region(region)
        self._run = _short(plan, region, as_if or plan.region(region))
        self._arrays = arrays
        self._round = round
        self._key = RoundKey(os.urandom(32), region, plan.hash, self._round, hashlib.sha256().hexdigest())
        self._device = gradient.parameters[0].device
        beside = canary.of(plan, region)
        self._beside = beside and replace(beside, count=self._mine.canaries)
        self._last = plan.region(region).canaries - 1  # whose gradient is not finite
        self._coins = np.arange(self._mine.canaries) % 3 < 2
        self._own = gradient.size - plan.model.canaries
        inputs, targets = task.synthetic(torch.Generator().manual_seed(0))
        self._usual = [{name: value[0] for name, value in part.items()} for part in (inputs, targets)]
        self._start = np.concatenate([arrays[entry.name].ravel() for entry in plan.model.arrays]).astype(
            np.float64
        )
        self.runs = 0

    # What is compared.

    def faults(self) -> Iterator[str]:
        """Every fault, in the order of the argument; what cannot run at all is one."""
        try:
            yield from self._round_faults()
            yield from self._neighbour_faults()
        except RefusedError:
            raise
        except Exception as error:  # a replay is for code that may be wrong
            yield f"a private step that fails ({type(error).__name__})"

    def _round_faults(self) -> Iterator[str]:
        """A whole round: each step against the plan's constants and key, then their sum."""
        data = self._table()
        buffers = [buffer.clone() for buffer in self._model.buffers()]
        update, velocity = np.zeros_like(self._start), np.zeros_like(self._start)
        rate = self._plan.learning_rate(self._plan.round_of(self._key.region, self._round))
        for step in range(self._mine.local_steps):
            record = self._step(data, step, self._start + update)
            yield from self._step_faults(record, data, step)
            velocity = self._plan.optimizer.momentum * velocity + record.results[0]
            update -= rate * velocity
        trained = [np.concatenate([part.ravel() for part in self._trained(data).values()]) for _ in range(2)]
        if not np.array_equal(trained[0], trained[1]):
            yield "two runs of one round on one table with one key that differ"
        # float32 of the release, and a last bit for the order of additions.
        close = np.abs(trained[0] - update) <= 2.0**-22 * np.abs(update) + 1e-6 * float(np.abs(update).max())
        if not close.all():
            yield "an update that is not the optimizer's of the planned number of noisy steps"
        if any(
            not torch.equal(before, after)
            for before, after in zip(buffers, self._model.buffers(), strict=True)
        ):
            yield "a buffer of the model that moves"

    def _step_faults(self, record: Record, data: VehicleData, step: int) -> Iterator[str]:
        """One step against what the plan and the run key make of it."""
        mine, noise = self._mine, self._mine.noise
        if len(record.totals) != 1 or noise is None:
            yield "a sum that gets noise more or less often than once a step"
            return
        total, noised, result = record.totals[0], record.noised[0], record.results[0]
        expected = _slots(self._secret("vehicles", step), data.slots, mine.sample_rate)
        if mine.packed:  # those with an example, by the number of their windows
            expected = expected[data.counts[expected] > 0]
        drawn = np.concatenate([expected[:0], *record.slots])
        if (len(record.slots) != 1 and not mine.packed) or not np.array_equal(np.sort(drawn), expected):
            yield "other vehicles than those that the run key draws with the planned probability"
        k = mine.windows_per_vehicle
        counts = np.concatenate([drawn[:0], *(taken.sum(axis=1) for taken in record.taken)])
        if not np.array_equal(counts, np.minimum(data.counts[drawn], k)) or (
            not mine.packed and [taken.shape[1] for taken in record.taken] != [k]
        ):
            yield "more or fewer examples of a vehicle than planned"
        if total[self._gradient.size :].any():
            yield "a gradient in the noise witness block"
        yield from self._canary_faults(total[self._own : self._gradient.size], drawn)
        grid = noise.grid(self._round, size=len(total))
        if np.any(noised != np.rint(noised / grid) * grid):
            yield "a noised sum beside the public grid"
        std = mine_std(mine, self._round)
        yield from self._noise_faults(noised - np.rint(total / grid) * grid, step, std=std, grid=grid)
        if not np.allclose(result, noised / (mine.sample_rate * mine.roster), rtol=1e-12, atol=0):
            yield "a noised sum that is divided by something else than the plan's q N"

    def _canary_faults(self, block: np.ndarray, drawn: np.ndarray) -> Iterator[str]:
        """The canaries that are in and drawn, and whose gradient is finite, each move their entry by C."""
        if self._beside is None:
            return
        moving = [one for one in drawn if one < len(self._coins) and self._coins[one] and one != self._last]
        inside = np.zeros(len(block), bool)
        inside[moving] = True
        if block[~inside].any():
            yield "an entry of the canaries' block that nobody's gradient should move"
        if np.any(np.abs(block[inside] / self._beside.max_grad_norm - 0.995) > 0.005 + _ROUNDING):
            yield "a canary that moves the sum by something else than C"

    def _noise_faults(self, added: np.ndarray, step: int, *, std: float, grid: float) -> Iterator[str]:
        """What was added, against the run key's own normal numbers; parts of it in a large model."""
        starts, host = range(0, len(added), CHUNK), np.empty(0)
        if wide(self._device).type != "cpu":
            secret = self._secret("noise, chacha20", step)
            host = DeviceNoise(secret, torch.device("cpu")).normal(len(added)).numpy()
        for start in starts[:: max(1, -(-len(starts) // CHUNKS))]:
            count = min(CHUNK, len(added) - start)
            if wide(self._device).type == "cpu":
                normals = _normals(self._secret("noise", step), start, count)
            else:  # the same cipher, on the host
                normals = host[start : start + count]
            if np.any(np.abs(added[start : start + count] - std * normals) > 2 * grid):
                yield "noise other than the plan's standard deviation times what the run key draws"
                return

    def _neighbour_faults(self) -> Iterator[str]:
        """One step on each table and on its neighbour."""
        step = next((one for one in range(self._mine.local_steps) if len(self._drawn(one))), 0)
        drawn = set(self._drawn(step).tolist())
        own = range(self._mine.canaries, self._mine.vehicles)
        inside = next((slot for slot in own if slot in drawn), own[0])
        outside = next((slot for slot in own if slot not in drawn), None)
        bound = self._mine.max_grad_norm
        without = self._step(self._table(without=inside), step, self._start)
        if len(without.totals) != 1 or bound is None:
            return
        nobody = self._step(self._table(others=False), step, self._start)
        yield from _differing(without, nobody, packed=self._mine.packed)
        if nobody.totals[0][: self._own].any():
            yield "a sum that is not zero where no vehicle has an example"
        for size in SIZES:
            record = self._step(self._table(vehicle=inside, size=size), step, self._start)
            yield from _differing(without, record, packed=self._mine.packed)
            if not self._within(without.totals[0], record.totals[0], bound):
                yield "a vehicle that moves the sum by more than C"
            alone = self._step(self._table(vehicle=inside, size=size, others=False), step, self._start)
            moved = record.totals[0] - without.totals[0] - alone.totals[0] + nobody.totals[0]
            if not np.linalg.norm(moved) <= _GROUPED * bound:
                yield "a vehicle that moves the sum by what depends on the others"
        record = self._step(self._table(vehicle=inside, size=math.nan), step, self._start)
        yield from _differing(without, record, packed=self._mine.packed)
        moved = record.totals[0] - without.totals[0]
        # Where windows are packed, others take other places, and their sum is added up in another order.
        if not np.linalg.norm(moved) <= (_ROUNDING * bound if self._mine.packed else 0):
            yield "a vehicle without a finite gradient that moves the sum"
        if outside is not None:
            one = self._step(self._table(vehicle=outside, size=SIZES[0]), step, self._start)
            other = self._step(self._table(vehicle=outside, size=SIZES[-1]), step, self._start)
            yield from _differing(one, other, packed=self._mine.packed)
            if not np.array_equal(one.totals[0], other.totals[0]):
                yield "a vehicle that was not drawn and moves the sum"

    def _within(self, one: np.ndarray, other: np.ndarray, bound: float) -> bool:
        noise = self._mine.noise
        assert noise is not None
        grid = noise.grid(self._round, size=len(one))
        return bool(np.linalg.norm((np.rint(one / grid) - np.rint(other / grid)) * grid) <= bound)

    # How it is run.

    def _step(self, data: VehicleData, step: int, weights: np.ndarray) -> Record:
        """One private step at these weights, written down."""
        self.runs += 1
        record = Record()
        flat = torch.from_numpy(weights[: self._gradient.size].astype(np.float32))
        collecting = self._plan.collects(self._plan.round_of(self._key.region, self._round))
        self._gradient.set_parameters(flat.to(self._device), collecting=collecting)
        seen = self._model.register_forward_pre_hook(
            lambda _, given: record.batches.append(tuple((tuple(one.shape), str(one.dtype)) for one in given))
        )
        try:
            result = local.private_step(
                _GradientTap(self._gradient, record),  # type: ignore[arg-type]
                data,
                _RegionTap(self._run.region(self._key.region), record),  # type: ignore[arg-type]
                _KeyTap(self._key, record),  # type: ignore[arg-type]
                step=step,
                size=len(weights),
            )
        finally:
            seen.remove()
        record.results.append(_numbers(result))
        return record

    def _trained(self, data: VehicleData) -> dict[str, np.ndarray]:
        self.runs += self._mine.local_steps
        return local.train(self._gradient, data, self._arrays, self._run, self._key)

    def _table(
        self,
        *,
        without: int | None = None,
        vehicle: int | None = None,
        size: float = 1.0,
        others: bool = True,
    ) -> VehicleData:
        """Vehicles of usual examples, every seventh without one; one zeroed out, or of another size.

        The one of another size has one example, k + 1 times, so that its gradients add up.
        """
        k, roster = self._mine.windows_per_vehicle, self._mine.roster
        some = np.arange(roster if others else 0)
        counts = np.zeros(roster, np.int64)
        counts[some] = np.where(some % 7 == 6, 0, 1 + some % (k + 1))
        slot = vehicle if vehicle is not None else without
        odd = None if slot is None else slot - self._mine.canaries
        if odd is not None:
            counts[odd] = k + 1 if vehicle is not None else 0
        first = np.cumsum(counts) - counts
        count = int(counts.sum())
        owned = slice(0, 0)
        if odd is not None and vehicle is not None:
            owned = slice(int(first[odd]), int(first[odd]) + k + 1)
        owner = np.repeat(np.arange(roster), counts)
        inputs, targets = (
            {name: self._examples(values, owner, owned, size) for name, values in part.items()}
            for part in self._usual
        )
        first = np.where(counts > 0, first, count)
        data = VehicleData(inputs, targets, first, counts, self._device)
        return data if self._beside is None else canary.tossed(self._beside.beside(data), self._coins)

    def _examples(self, values: torch.Tensor, owner: np.ndarray, owned: slice, size: float) -> torch.Tensor:
        """(W + 1, ...): of every owner a usual example, a little changed; the padding example last."""
        rows = torch.from_numpy(owner % len(values))
        found = values[rows].clone()
        if found.is_floating_point():
            shape = (-1, *[1] * (found.dim() - 1))
            found *= (1 + 0.01 * torch.from_numpy(owner % 13).to(found.dtype)).view(shape)
            found[owned] = values[0] * size
        return torch.cat([found, torch.zeros_like(values[:1])]).to(self._device)

    def _drawn(self, step: int) -> np.ndarray:
        return _slots(self._secret("vehicles", step), self._mine.vehicles, self._mine.sample_rate)

    def _secret(self, label: str, step: int) -> bytes:
        """The key of one purpose in one step: HKDF-SHA-256 (RFC 5869) of the run key."""
        info = {
            "label": label,
            "region": self._key.region,
            "plan": self._key.plan_hash,
            "round": self._round,
            "step": step,
            "arrays": self._key.arrays_sha256,
        }
        secret = hmac.digest(bytes(32), self._key.run_key, hashlib.sha256)
        return hmac.digest(secret, canonical.encode(info) + b"\x01", hashlib.sha256)


def _short(plan: Plan, region: str, mine: RegionPlan) -> Plan:
    """A plan with fewer vehicles and steps than ``mine``: a replay takes as long whatever a round takes."""
    roster = min(mine.roster, max(VEHICLES, math.ceil(DRAWN / mine.sample_rate)))
    less = mine.model_copy(
        update={
            "roster": roster,
            "local_steps": min(mine.local_steps, STEPS),
            "canaries": min(mine.canaries, CANARIES),
        }
    )
    return plan.model_copy(update={"regions": {**plan.regions, region: less}})


def mine_std(mine: RegionPlan, round: int) -> float:
    """Sigma C of a round, from the plan's fields alone."""
    sigmas = (mine.noise_multiplier,) if mine.mechanism is None else mine.mechanism.noise_multipliers
    return float(sigmas[(round - 1) % len(sigmas)] or 0.0) * float(mine.max_grad_norm or 0.0)


def _differing(one: Record, other: Record, *, packed: bool) -> Iterator[str]:
    """What differs between two neighbours and may not; packed windows show who has how many."""
    if one.draws != other.draws:
        yield "a draw that depends on a vehicle"
    if not packed:
        if not _equal(one.slots, other.slots):
            yield "a choice of vehicles that depends on a vehicle"
        if [taken.shape for taken in one.taken] != [taken.shape for taken in other.taken]:
            yield "a shape that depends on a vehicle"
        if one.batches != other.batches:
            yield "a number or shape of batches that depends on a vehicle"
    if len(one.totals) != len(other.totals):
        yield "a number of noised sums that depends on a vehicle"
    if one.results[0].shape != other.results[0].shape:
        yield "a size of the result that depends on a vehicle"


def _equal(ones: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return len(ones) == len(others) and all(map(np.array_equal, ones, others))


def _numbers(values: Any) -> np.ndarray:
    """An array or tensor as float64 on the host."""
    found: np.ndarray = torch.as_tensor(values).detach().to("cpu", torch.float64).numpy()
    return found


def _words(secret: bytes, first: int, count: int) -> np.ndarray:
    """64-bit words of AES-256 in counter mode from a word of even number on."""
    start = (first // 2).to_bytes(16, "big")
    encryptor = Cipher(algorithms.AES(secret), modes.CTR(start)).encryptor()
    return np.frombuffer(encryptor.update(bytes(8 * count)), dtype="<u8")


def _uniforms(secret: bytes, first: int, count: int) -> np.ndarray:
    """Their upper 53 bits, in [0, 1)."""
    found: np.ndarray = (_words(secret, first, count) >> np.uint64(11)) / 2.0**53
    return found


def _slots(secret: bytes, slots: int, rate: float) -> np.ndarray:
    """Slot i is drawn where the i-th uniform is below the rate."""
    return np.flatnonzero(_uniforms(secret, 0, slots) < rate)


def _normals(secret: bytes, start: int, count: int) -> np.ndarray:
    """A part of the stream by Box and Muller: n radii and n angles give n cosines and then n sines."""
    pairs = (count + 1) // 2
    uniforms = _uniforms(secret, start, 2 * pairs)
    radius, angle = np.sqrt(-2 * np.log(1 - uniforms[:pairs])), 2 * np.pi * uniforms[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
