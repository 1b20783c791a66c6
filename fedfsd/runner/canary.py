"""A training of canaries alone, with a plan's constants: what does this program's mechanism give away?

Canaries are synthetic vehicles, each in or out by a fair coin of its own. Each pushes one parameter of an
audit block and no other, far beyond C, so that what a release shows of it is what the mechanism lets through
and nothing else. They fill the plan's roster and go through the same sampler, gradient, clipping, sum, noise
and divisor as vehicles do, for as many rounds and steps; nothing of the region's data is read and nothing is
released, so it costs no budget. From the results come checks of the mechanism's constants, and lower bounds
on epsilon to stand beside the plan's claim.

Whoever wants to check the coins later gets ``Trial.seed``, to which ``Trial.commitment`` committed before the
first step.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np
import torch
from torch import Tensor, nn

from fedfsd.audit.lower_bound import LEAST, Bounds, bounds
from fedfsd.engine import local
from fedfsd.engine.device import resolve
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import VehicleData
from fedfsd.mechanism import watch
from fedfsd.mechanism.watch import Sight, State
from fedfsd.plan.plan import Plan, RegionPlan
from fedfsd.task.task import Tensors

MOST = 4096
"""Canaries: of a larger roster the first so many slots have one."""
WITNESS_SIZE = 4096
NORM = 20.0
"""Of a canary's gradient, in units of C."""
SURE = 1e-6
"""A check fails where a correct mechanism would give its figure less often than this, and about as often"""
_Z = 6.0
"""where it is a sum of squares (Laurent and Massart 2000: exp(-18), with room for what is not normal)."""


@dataclass(frozen=True)
class Check:
    """One figure of a trial beside what it should be."""

    name: str
    found: float
    expected: float
    fails: bool
    meaning: str


@dataclass(frozen=True)
class Trial:
    """What came of it. ``alarm`` is what statistics of the released values found, if anything."""

    checks: tuple[Check, ...]
    bounds: Bounds | None
    """None with fewer canaries than a bound needs."""
    alarm: str | None
    steps: int
    seconds: float
    commitment: str
    seed: str

    @property
    def faults(self) -> tuple[str, ...]:
        """What is not as the plan says, in words."""
        failed = tuple(f"{one.name}: {one.meaning}" for one in self.checks if one.fails)
        return failed + ((self.alarm,) if self.alarm else ())


class _Block(nn.Module):
    """The audit block: canary i moves entry i alone; the padding example moves none."""

    def __init__(self, canaries: int) -> None:
        super().__init__()
        self.block = nn.Embedding(canaries + 1, 1, padding_idx=canaries)
        nn.init.zeros_(self.block.weight)

    def forward(self, canary: Tensor) -> Tensor:
        out: Tensor = self.block(canary)
        return out


def trial(
    plan: Plan,
    region: str,
    device: str = "cpu",
    *,
    as_if: RegionPlan | None = None,
    seed: bytes | None = None,
) -> Trial:
    """Train canaries for the whole of ``plan`` and look at what comes out.

    Args:
        as_if: constants to run with instead of the plan's: to see that a wrong mechanism is found.
        seed: of the coins, 32 secret bytes; by default fresh ones.

    Raises:
        PlanError: a plan without that region, or without privacy.
    """
    started = time.monotonic()
    plan.mechanism(region)
    torch.set_num_threads(1)  # small steps: more threads would mostly wait for each other
    secret = seed or os.urandom(32)
    run = _Run(plan, region, as_if or plan.region(region), resolve(device), secret)
    run.go()
    inside, outside = run.scores[run.coins], run.scores[~run.coins]
    mine = plan.region(region)
    enough = len(run.coins) >= LEAST and len(inside) > 1 and len(outside) > 1
    return Trial(
        checks=tuple(run.checks()),
        bounds=bounds(inside, outside, delta=mine.target_delta) if enough else None,
        alarm=run.alarm,
        steps=run.steps,
        seconds=time.monotonic() - started,
        commitment=hashlib.sha256(b"fedfsd/canaries/v1\n" + secret).hexdigest(),
        seed=secret.hex(),
    )


def scores(
    plan: Plan, region: str, device: str = "cpu", *, as_if: RegionPlan | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What an attacker who knows every canary sees of each at the end: of those in, and of those out.

    In units of the planned noise of one round. Arguments and errors as of ``trial``.
    """
    plan.mechanism(region)
    torch.set_num_threads(1)
    run = _Run(plan, region, as_if or plan.region(region), resolve(device), os.urandom(32))
    run.go()
    return run.scores[run.coins], run.scores[~run.coins]


class _Run:
    """One training of canaries."""

    def __init__(
        self, plan: Plan, region: str, mine: RegionPlan, device: torch.device, secret: bytes
    ) -> None:
        self._plan, self._region, self._mine, self._planned = plan, region, mine, plan.region(region)
        count = min(self._planned.roster, MOST)
        self.coins = np.unpackbits(_stretched(secret, count))[:count].astype(bool)
        model = _Block(count)
        k = mine.windows_per_vehicle
        # A mean over k equal examples has the gradient of one.
        push = NORM * float(self._planned.max_grad_norm or 1.0)
        self._gradient = local.model_on(model, lambda out, _: push * out[:, 0], device)
        self._size = count + 1 + WITNESS_SIZE
        self._data = _table(self.coins, self._planned.roster, k, device)
        self._key = os.urandom(32)
        self.scores = np.zeros(count)
        self.steps = 0
        self.alarm: str | None = None
        self._outside, self._weight, self._squares = 0.0, 0.0, 0.0

    def go(self) -> None:
        """All rounds; every step at zero weights, since the loss is linear in them."""
        zeros = torch.zeros(self._gradient.size, device=self._data.device)
        state: State = State()
        for round in range(1, self._plan.rounds_of(self._region) + 1):
            key = RoundKey(self._key, self._region, self._plan.hash, round, hashlib.sha256().hexdigest())
            total = np.zeros(self._size)
            for step in range(self._planned.local_steps):
                self._gradient.set_parameters(zeros)
                noisy = local.private_step(
                    self._gradient, self._data, self._mine, key, step=step, size=self._size
                )
                total += torch.as_tensor(noisy).detach().to("cpu", torch.float64).numpy()
                self.steps += 1
            state = self._look(state, round, total * self._planned.divisor)

    def _look(self, state: State, round: int, total: np.ndarray) -> State:
        """``total``: the round's noisy sums, added up."""
        noise = self._planned.noise
        assert noise is not None
        std = noise.std(round) * sqrt(self._planned.local_steps)
        self.scores += total[: len(self.coins)] / std  # rounds of less noise tell more
        self._weight, self._squares = self._weight + 1 / std, self._squares + std**-2
        quiet = total[: len(self.coins)][~self.coins] / std
        self._outside += float(quiet @ quiet)
        sight = Sight(round, total[len(self.coins) + 1 :] / std, (("canaries", quiet),) if len(quiet) else ())
        after, alarm = watch.look(state, sight, rounds=self._plan.rounds_of(self._region), regions=1)
        self.alarm = self.alarm or (None if alarm is None else str(alarm))
        return after

    def checks(self) -> Iterator[Check]:
        """The constants of the mechanism, each from what canaries show of it."""
        mine = self._planned
        bound, steps = float(mine.max_grad_norm or 0.0), mine.local_steps
        rounds = self._plan.rounds_of(self._region)
        inside, outside = self.scores[self.coins], self.scores[~self.coins]
        if not len(inside) or not len(outside):
            return
        # Of an included canary: C times how often it was drawn, over the noise of each round.
        moved = (float(inside.mean()) - float(outside.mean())) / (bound * steps * self._weight)
        noise = sqrt(rounds * (1 / len(inside) + 1 / len(outside))) / (bound * steps * self._weight)
        drawn = sqrt(mine.sample_rate * (1 - mine.sample_rate) / (steps * rounds * len(inside)))
        z = (moved - mine.sample_rate) / sqrt(noise**2 + drawn**2)
        yield Check(
            "sensitivity and sampling",
            moved,
            mine.sample_rate,
            _tail(abs(z)) < SURE / 2,
            "an included canary moves the sum by C times the sample rate, on average",
        )
        freedom = rounds * len(outside)
        z = (self._outside - freedom) / sqrt(2 * freedom)
        yield Check(
            "noise on parameters",
            self._outside / freedom,
            1.0,
            z < -_Z or z > _Z + _Z**2 / sqrt(2 * freedom),
            "the mean square of what nobody moves, in units of the planned noise",
        )
        if len(inside) < LEAST:
            return
        draws = steps * mine.sample_rate * (1 - mine.sample_rate) * bound**2 * self._squares
        ratio = float(inside.var(ddof=1)) / (rounds + draws)
        yield Check(
            "independent draws",
            ratio,
            1.0,
            abs(ratio - 1) > _Z * sqrt(2 / (len(inside) - 1)),
            "the variance between included canaries, over that of independent draws and noise",
        )


def _table(coins: np.ndarray, roster: int, k: int, device: torch.device) -> VehicleData:
    """Canary i owns k examples in slot i if its coin says in; every other slot is empty."""
    counts = np.zeros(roster, np.int64)
    counts[: len(coins)] = k * coins
    first = np.cumsum(counts) - counts
    owner = np.repeat(np.arange(roster), counts)
    canary = torch.from_numpy(np.append(owner, len(coins)))
    inputs: Tensors = {"canary": canary.to(device)}
    targets: Tensors = {"none": torch.zeros(len(canary), 1, device=device)}
    return VehicleData(inputs, targets, np.where(counts > 0, first, len(owner)), counts, device)


def _stretched(secret: bytes, bits: int) -> np.ndarray:
    """At least so many secret bits, as bytes."""
    content = hashlib.shake_256(b"fedfsd/coins/v1\n" + secret).digest(-(-bits // 8))
    return np.frombuffer(content, np.uint8)


def _tail(z: float) -> float:
    return erfc(z / sqrt(2)) / 2
