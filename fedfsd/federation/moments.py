"""From regions' noised moments to a model: one ridge regression for all, or a region's own mix.

Everything here is post-processing of what was released: it costs nothing, and who does it may be anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import sqrt
from typing import Any

import numpy as np
from torch import nn

from fedfsd.engine import backbone
from fedfsd.flower.moments import Moments
from fedfsd.mechanism.kind import gains
from fedfsd.plan.plan import STATISTICS, Arrays, Plan


def bind(strategy: object, plan: Plan, model: nn.Module) -> None:
    """Let the strategy ``moments`` solve with ``model``, the plan's as it starts; others are left alone."""
    if isinstance(strategy, Moments):
        strategy.solve = partial(_solved, plan, model, strategy.ridge)


def solved(
    plan: Plan,
    model: nn.Module,
    start: Arrays,
    means: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    *,
    ridge: float,
) -> dict[str, np.ndarray]:
    """The arrays of ``start`` with the head that ``weights`` of the regions' released moments make.

    Args:
        model: the plan's. means: by region, (S,) as ``released`` gives them. weights: by region; any scale.
    """
    total = sum(weights.values())
    mean = sum(weights[name] / total * means[name] for name in weights)
    noise = sqrt(sum((weights[name] / total * noise_std(plan, name)) ** 2 for name in weights))
    return _shifted(model, start, np.asarray(mean), noise=noise, ridge=ridge)


def mixed(
    plan: Plan,
    model: nn.Module,
    start: Arrays,
    means: Mapping[str, np.ndarray],
    region: str,
    *,
    own: float,
    ridge: float,
) -> dict[str, np.ndarray]:
    """``solved`` with a region's own mix: the share ``own`` of its moments, the rest as the plan weighs all.

    From releases alone, so it costs nothing and reveals nothing beyond them. ``own`` is public: a share
    chosen on a region's vehicles would be one more look at them.
    """
    total = sum(plan.region(name).weight for name in means)
    weights = {name: (1 - own) * plan.region(name).weight / total for name in means}
    weights[region] += own
    return solved(plan, model, start, means, weights, ridge=ridge)


def released(plan: Plan, region: str, update: Arrays) -> np.ndarray:
    """A region's noised mean moments, (S,), from the update of its first round."""
    return -update[STATISTICS].ravel().astype(np.float64) / _reach(plan, region)


def noise_std(plan: Plan, region: str) -> float:
    """Standard deviation of the noise in each of a region's mean moments: from public constants."""
    mine = plan.region(region)
    if mine.noise is None:
        return 0.0
    steps = _gains(plan, region)
    return mine.noise.witness_std(1, steps, divisor=mine.divisor) / float(np.sum(steps))


def _solved(
    plan: Plan, model: nn.Module, ridge: float, start: Arrays, means: Arrays
) -> dict[str, np.ndarray]:
    """For the strategy: ``means`` is the weighted mean of the regions' models, as Flower averages them."""
    total = sum(mine.weight for mine in plan.regions.values())
    shares = {name: mine.weight / total for name, mine in plan.regions.items()}
    # Updates count by step, so a region's reach times its scale is the same everywhere.
    reach = sum(share * plan.scale(name) * _reach(plan, name) for name, share in shares.items())
    mean = (start[STATISTICS] - means[STATISTICS]).ravel().astype(np.float64) / reach
    noise = sqrt(sum((share * noise_std(plan, name)) ** 2 for name, share in shares.items()))
    return _shifted(model, start, mean, noise=noise, ridge=ridge)


def _shifted(
    model: Any, start: Arrays, mean: np.ndarray, *, noise: float, ridge: float
) -> dict[str, np.ndarray]:
    backbone.put_arrays(model, start)
    model.shift(model.moments.solve(mean, noise=noise, ridge=ridge))
    mine = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
    kept = mean.reshape(start[STATISTICS].shape).astype(np.float32)
    return {name: mine.get(name, array) for name, array in start.items()} | {STATISTICS: kept}


def _gains(plan: Plan, region: str) -> np.ndarray:
    return gains(
        learning_rate=plan.learning_rate(1),
        momentum=plan.optimizer.momentum,
        local_steps=plan.region(region).local_steps,
    )


def _reach(plan: Plan, region: str) -> float:
    return float(np.sum(_gains(plan, region)))
