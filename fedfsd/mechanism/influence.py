"""How much each round moves the model that is released, and the shape of noise that follows from it.

An error in the update of round t arrives in the released model multiplied by w_t, its influence. Noise of
variance s_t^2 in every round adds sum(w_t^2 s_t^2) to the model; the loss of many small steps grows with
sum(1 / s_t^2). At a fixed loss the noise in the model is smallest where s_t^2 is proportional to 1 / w_t
(Cauchy and Schwarz): loud rounds are those that hardly matter. Only public constants of the plan enter.

>>> [round(one, 2) for one in influence([1.0, 1.0, 0.5], averaged=2)]
[1.0, 1.0, 0.25]
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

WIDEST = 3.0
"""No round's noise is more than this many times, or less than this part of, that of a round of middling
influence. A wider range gains nothing (the best possible noise in the model is 0.2% less), and rounds of
almost no influence would get noise that is thousands of times larger."""
LEVELS = 8
"""Distinct noise multipliers: with sampling the accountants take a second for each, and 16 would lower the
noise in the model by 0.3% more."""


def influence(
    learning_rates: Sequence[float], *, averaged: int = 1, server_momentum: float = 0.0
) -> tuple[float, ...]:
    """What an error of size 1 in each round's mean gradient does to the released model, in proportion.

    The model is the mean over the last ``averaged`` rounds. The server adds updates (FedAvg) or their
    running sum with ``server_momentum`` (FedAvgM). Momentum inside a region starts anew each round and acts
    on every round alike; how the error changes later gradients is not public and is left out.
    """
    rounds = len(learning_rates)
    steps = np.arange(1, rounds + 1)
    # Round t's update counts 1 + m + m^2 + ... in the model `age` rounds later, itself included.
    reach = (1 - server_momentum**steps) / (1 - server_momentum)
    ends = range(rounds - averaged, rounds)
    found = [
        rate * sum(float(reach[end - start]) for end in ends if end >= start) / averaged
        for start, rate in enumerate(learning_rates)
    ]
    return tuple(found)


def shape(weights: Sequence[float]) -> tuple[float, ...]:
    """Noise of each round relative to flat noise of the same loss: the mean of 1 / shape^2 is 1.

    All ones where every round has the same influence.
    """
    usual = math.sqrt(sum(one * one for one in weights) / len(weights))
    if max(weights) <= min(weights) * (1 + 1e-9):
        return (1.0,) * len(weights)
    wanted = [
        WIDEST if one <= usual / WIDEST**2 else max(1 / WIDEST, math.sqrt(usual / one)) for one in weights
    ]
    low, high = min(wanted), max(wanted)
    width = math.log(high / low) / (LEVELS - 1)
    levels = [low * math.exp(round(math.log(one / low) / width) * width) for one in wanted]
    scale = math.sqrt(sum(1 / one**2 for one in levels) / len(levels))
    # Twelve digits: the last ones of logarithms differ between machines, and the plan is hashed.
    return tuple(float(f"{one * scale:.12g}") for one in levels)


def effective(noise: Sequence[float], weights: Sequence[float]) -> float:
    """The flat noise that would leave as much noise in the released model as ``noise`` by round does."""
    total = sum(weight * weight for weight in weights)
    return math.sqrt(sum((weight * one) ** 2 for weight, one in zip(weights, noise, strict=True)) / total)
