"""How often a right plan is called wrong, by gates or by canaries, in many plans of 20 rounds.

    python -m experiments.planted.alarms                # 1,000 plans, some minutes of one core
    python -m experiments.planted.alarms --plans 100 --regions 1

Every plan has its own run keys and coins. Its releases are made by the mechanism itself on a signal that
drifts, beside canaries that are drawn, through the optimizer, at float32, for several regions; one local step
(so that values lie on the public grid) and three in turn. Each is judged as at the coordinator's gate, beside
the other regions' witness blocks, and as by the runner for its canaries. The bound is one plan in 1,000, and
one in 10,000 more for canaries. A replay is exact and has no false alarms; a training of canaries alone is
called wrong by chance in four of a million or less.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch

from fedfsd.engine.noise import Noise, of_step
from fedfsd.engine.randomness import RoundKey
from fedfsd.gate.watch import OTHER_ROUNDS, sight
from fedfsd.mechanism import watch
from fedfsd.mechanism.canary import coins as tosses
from fedfsd.mechanism.canary import findings, pulls_of, verdict
from fedfsd.mechanism.kind import Gaussian, GaussianByRound, Mechanism, gains
from fedfsd.mechanism.watch import State
from fedfsd.plan.plan import CANARIES, WITNESS

ROUNDS, WITNESS_SIZE, COUNT, RATE, MOMENTUM, DIVISOR = 20, 4096, 60, 0.03, 0.5, 239.0
SHAPES = {"body.weight": (16, 12), "body.bias": (16,), "head.weight": (40, 16), "head.bias": (40,)}


def mechanism(number: int) -> Mechanism:
    """One of four in turn: flat or by round, one local step or three."""
    steps = 1 if number % 2 else 3
    constants = {"sample_rate": 0.5, "max_grad_norm": 3.0, "local_steps": steps}
    if number % 4 < 2:
        return Gaussian(**constants, sigma=3.0)
    return GaussianByRound(**constants, sigmas=tuple(2.0 + 0.25 * (round % 8) for round in range(ROUNDS)))


def releases(
    noise: Mechanism, key: RoundKey, random: np.random.Generator, inside: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    """What a region releases, round by round; ``inside``: the coins of its canaries."""
    size = sum(int(np.prod(shape)) for shape in SHAPES.values())
    moving = noise.max_grad_norm * np.append(inside[:-1], False)
    signal = random.normal(0, 0.05 * noise.max_grad_norm * DIVISOR / np.sqrt(size), size)
    for round in range(1, ROUNDS + 1):
        signal = 0.95 * signal + 0.1 * random.normal(0, signal.std(), size)
        velocity = update = np.zeros(size + COUNT + WITNESS_SIZE)
        for step in range(noise.local_steps):
            stream = _at(key, round, step)
            # In every third round the gradient takes back all that the steps before have moved.
            back = (update if round % 3 == 0 else np.zeros_like(update))[:size] / RATE * DIVISOR
            drawn = moving * (random.random(COUNT) < noise.sample_rate)
            total = torch.from_numpy(np.concatenate([signal + back, drawn, np.zeros(WITNESS_SIZE)]))
            noised = noise.noised(total, stream, round=round).numpy()
            velocity = MOMENTUM * velocity + noised / DIVISOR
            update = update - RATE * velocity
        shapes = {**SHAPES, CANARIES: (COUNT,), WITNESS: (WITNESS_SIZE,)}
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
        parts = np.split(update.astype(np.float32), ends[:-1])
        yield {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def alarms(number: int, regions: int) -> list[str]:
    """What is found in one right plan."""
    noise, random = mechanism(number), np.random.default_rng(number)
    keys = [RoundKey(os.urandom(32), f"R{one}", f"{number:064x}", 0, "") for one in range(regions)]
    coins = [tosses(os.urandom(32), COUNT) for _ in keys]
    made = [releases(noise, key, random, inside) for key, inside in zip(keys, coins, strict=True)]
    states, found = [State() for _ in keys], []
    moved = gains(learning_rate=RATE, momentum=MOMENTUM, local_steps=noise.local_steps)
    blocks: list[list[np.ndarray]] = [[] for _ in keys]
    pulls: list[np.ndarray] = []
    for round, together in enumerate(zip(*made, strict=True), start=1):
        pulls.append(pulls_of(moved, noise.noise_multiplier(round)))
        std = noise.witness_std(round, moved, divisor=DIVISOR)
        for region, arrays in enumerate(together):
            blocks[region].append(-arrays[CANARIES].astype(np.float64) / std)
            letters = verdict(
                np.array(blocks[region]),
                coins[region],
                np.array(pulls),
                noise.sample_rate,
                looks=ROUNDS * regions,
            )
            found += findings(letters)
            seen = sight(arrays, noise, round, rate=RATE, momentum=MOMENTUM, divisor=DIVISOR)
            others = [one for other, one in enumerate(states) if other != region]
            near = [block for one in others for _, block in one.blocks[-OTHER_ROUNDS:]]
            states[region], alarm = watch.look(
                states[region], seen, rounds=ROUNDS, regions=regions, others=near
            )
            if alarm is not None:
                found.append(str(alarm))
    return found


def _at(key: RoundKey, round: int, step: int) -> Noise:
    return of_step(dataclasses.replace(key, round=round), step, torch.device("cpu"))


def main() -> int:
    """Try the plans; exit status 1 above two alarms in a thousand."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--plans", type=int, default=1000)
    arguments.add_argument("--regions", type=int, default=2)
    given = arguments.parse_args()
    started, wrong, codes = time.monotonic(), 0, Counter[str]()
    for number in range(given.plans):
        found = alarms(number, given.regions)
        wrong += bool(found)
        codes.update(one.partition(":")[0] for one in found)
        if (number + 1) % 50 == 0:
            print(
                f"{number + 1} plans, {wrong} with an alarm, {time.monotonic() - started:.0f} s", flush=True
            )
    print(f"{wrong} of {given.plans} right plans of {ROUNDS} rounds called wrong {dict(codes) or ''}")
    return int(wrong > max(2, 0.002 * given.plans))


if __name__ == "__main__":
    sys.exit(main())
