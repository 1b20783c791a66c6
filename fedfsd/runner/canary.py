"""A training of canaries alone, with a plan's constants: what does this program's mechanism give away?

The canaries of ``engine.canary``, as many as the plan's roster has vehicles and nobody beside them, go
through the same sampler, gradient, clipping, sum, noise and optimizer as vehicles do, for as many rounds.
Nothing of the region's data is read and nothing is released, so it costs no budget. From the results come
checks of the mechanism's constants (``mechanism.canary``), and lower bounds on epsilon to stand beside the
plan's claim.

Whoever wants to check the coins later gets ``Trial.seed``, to which ``Trial.commitment`` committed before the
first step.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedfsd.audit.lower_bound import Bounds, bounds_of
from fedfsd.engine import canary, local
from fedfsd.engine.device import resolve
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import VehicleData
from fedfsd.gate.watch import sight
from fedfsd.ledger.digest import coins_commitment
from fedfsd.mechanism import watch
from fedfsd.mechanism.canary import Check, checks, coins, pulls_of, scores
from fedfsd.mechanism.kind import gains
from fedfsd.mechanism.watch import State
from fedfsd.plan.plan import CANARIES, WITNESS, Arrays, ArraySchema, Plan, RegionPlan

MOST = 4096
"""Canaries, of a larger roster."""
WITNESS_SIZE = 4096


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


@dataclass(frozen=True)
class Trained:
    """What was released of a training of canaries.

    Shapes: T rounds, m canaries, S steps of a round; see ``mechanism.canary``.
    """

    seen: np.ndarray  # (T, m)
    coins: np.ndarray  # (m,)
    pulls: np.ndarray  # (T, S)
    alarm: str | None

    @property
    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """What an attacker who knows every canary sees of each at the end: of those in, of those out."""
        found = scores(self.seen, self.pulls)
        return found[:-1][self.coins[:-1]], found[:-1][~self.coins[:-1]]


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
    started, secret, mine = time.monotonic(), seed or os.urandom(32), plan.region(region)
    done = trained(plan, region, device, as_if=as_if, seed=secret)
    return Trial(
        checks=checks(done.seen, done.coins, done.pulls, mine.sample_rate),
        bounds=bounds_of(*done.scores, delta=mine.target_delta),
        alarm=done.alarm,
        steps=done.pulls.size,
        seconds=time.monotonic() - started,
        commitment=coins_commitment(secret),
        seed=secret.hex(),
    )


def trained(
    plan: Plan,
    region: str,
    device: str = "cpu",
    *,
    as_if: RegionPlan | None = None,
    seed: bytes | None = None,
) -> Trained:
    """The training itself. Arguments and errors as of ``trial``."""
    torch.set_num_threads(1)  # small steps: more threads would mostly wait for each other
    noise, mine, where = plan.mechanism(region), plan.region(region), resolve(device)
    count = min(mine.roster, MOST) + 1
    run = _alone(plan, region, as_if or mine, count)
    canaries = canary.of(run, region)
    assert canaries is not None
    inside = coins(seed or os.urandom(32), count)
    data = canary.tossed(canaries.beside(_nobody(where)), inside)
    gradient = local.model_on(_Nothing(), lambda made, _: made, where, canaries=canaries)
    arrays: Arrays = {one.name: np.zeros(one.shape, np.float32) for one in run.model.arrays}
    key, state = os.urandom(32), State()
    seen, pulls, alarm = [], [], None
    for round in range(1, plan.rounds_of(region) + 1):
        of = RoundKey(key, region, plan.hash, round, hashlib.sha256().hexdigest())
        update = local.train(gradient, data, arrays, run, of)
        rate, momentum = run.learning_rate(run.round_of(region, round)), run.optimizer.momentum
        one = sight(update, noise, round, rate=rate, momentum=momentum, divisor=mine.divisor)
        state, found = watch.look(state, one, rounds=plan.rounds_of(region), regions=1)
        alarm = alarm or (None if found is None else str(found))
        moved = gains(learning_rate=rate, momentum=momentum, local_steps=mine.local_steps)
        std = noise.witness_std(round, moved, divisor=mine.divisor)
        seen.append(-update[CANARIES].astype(np.float64) / std)
        pulls.append(pulls_of(moved, noise.noise_multiplier(round)))
    return Trained(np.array(seen), inside, np.array(pulls), alarm)


class _Nothing(nn.Module):
    """A model of no parameters."""

    def forward(self, nothing: Tensor) -> Tensor:
        return nothing


def _nobody(device: torch.device) -> VehicleData:
    """No vehicle, and the padding example."""
    nothing = torch.zeros(1, device=device)
    none = np.zeros(0, np.int64)
    return VehicleData({"nothing": nothing}, {"nothing": nothing}, none, none, device)


def _alone(plan: Plan, region: str, mine: RegionPlan, count: int) -> Plan:
    """The plan with nothing to train but the block of ``count`` canaries."""
    arrays = tuple(
        ArraySchema(name=name, shape=(size,)) for name, size in ((CANARIES, count), (WITNESS, WITNESS_SIZE))
    )
    model = plan.model.model_copy(update={"arrays": arrays, "witness_size": WITNESS_SIZE, "backbone": None})
    alone = mine.model_copy(update={"canaries": count})
    regions = {**plan.regions, region: alone}
    # What a strategy makes of updates is nothing to canaries; its own kinds of round would be.
    return plan.model_copy(update={"model": model, "regions": regions, "strategy": "FedAvg"})
