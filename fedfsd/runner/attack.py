"""Attacks on what a plan releases, each beside a control without noise that must succeed.

*Membership*: canaries that the attacker knows, each in or out by a coin, as strong as a vehicle can be (their
clipped gradients have norm C and are orthogonal to everybody else's). The attacker sees every released update
and calls a canary in where its likelihood ratio, against the distribution of those out (LiRA, offline), is
above a threshold. True positives at a rate of false positives cannot exceed what epsilon and delta allow, nor
what the plan's own trade-off curve does.

*Membership of made-up vehicles* (``shadow``): the same question with shadow models, asked of the released
model and of all updates.

*Gradient inversion*: the input of a linear layer with a bias is one of the gradient's rows over the bias's
entry (Zhu et al. 2019; Fowl et al. 2022). The attacker is handed a step in which one made-up vehicle alone
has one example, and knows it was drawn: the best case that there is.

Nothing here reads data. An attack that fails shows nothing about a better one; that its control succeeds
shows that it is one.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp, sqrt
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor, nn

from fedfsd.audit.lower_bound import LEAST, binomial, curve_of
from fedfsd.engine import local
from fedfsd.engine.device import resolve
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import VehicleData
from fedfsd.errors import AccountingError
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.plan.plan import Plan, RegionPlan
from fedfsd.runner import canary, shadow
from fedfsd.task import registry
from fedfsd.task.task import Task

CANARIES = "every update, of canaries"
RATES = (0.001, 0.01)
"""Of false positives."""
DELTAS = (1e-6, 1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.2, 0.4)
"""At which the plan's trade-off curve is computed; between them it is bounded from above."""
QUIET = 1e-3
"""Of the noise, in a control."""
VEHICLES = 24
FOUND = 0.95
"""Cosine between an input and its reconstruction from which it counts as found."""
CONFIDENCE = 0.999


@dataclass(frozen=True)
class Membership:
    """One attack at one rate of false positives."""

    attacker: str
    """What it has."""
    false_positives: float
    true_positives: float
    at_least: float
    """Of true positives, with 99.9% confidence (Clopper and Pearson 1934)."""
    by_epsilon: float | None
    """True positives that the plan's epsilon and delta allow; None where it promises none."""
    by_curve: float | None
    control: float
    """True positives without noise; of shadow models with every vehicle drawn in each step."""

    @property
    def exceeds(self) -> bool:
        """Whether it shows more than is allowed."""
        allowed = [one for one in (self.by_epsilon, self.by_curve) if one is not None]
        return bool(allowed) and self.at_least > min(allowed)


@dataclass(frozen=True)
class Inversion:
    """Made-up vehicles whose example was found in a step, with the plan's noise and without any."""

    layer: str
    tried: int
    found: int
    control: int


@dataclass(frozen=True)
class Attacked:
    """Both attacks; empty or None where one cannot be made: few vehicles; a frozen part, no linear layer."""

    membership: tuple[Membership, ...]
    inversion: Inversion | None

    @property
    def valid(self) -> bool:
        """Whether every control succeeded."""
        members = all(one.control > 0.5 for one in self.membership)
        return members and (self.inversion is None or self.inversion.control > VEHICLES // 2)

    @property
    def exceeds(self) -> bool:
        """Whether an attack did better than the plan allows, or found somebody's example."""
        members = any(one.exceeds for one in self.membership)
        return members or (self.inversion is not None and self.inversion.found > VEHICLES // 4)


def attack(plan: Plan, region: str, device: str = "cpu") -> Attacked:
    """Attack what a region of ``plan`` would release.

    Raises:
        PlanError: a plan without that region, or without privacy.
    """
    plan.mechanism(region)
    torch.set_num_threads(1)
    return Attacked(tuple(_membership(plan, region, device)), _inversion(plan, region, device))


def quieter(mine: RegionPlan, factor: float) -> RegionPlan:
    """The same constants with noise multiplied by ``factor``."""
    if mine.mechanism is None:
        return mine.model_copy(update={"noise_multiplier": float(mine.noise_multiplier or 0.0) * factor})
    noise = tuple(factor * sigma for sigma in mine.mechanism.noise_multipliers)
    mechanism = mine.mechanism.model_copy(update={"noise_multipliers": noise})
    return mine.model_copy(update={"mechanism": mechanism})


def _membership(plan: Plan, region: str, device: str) -> Iterator[Membership]:
    mine = plan.region(region)
    curve, quiet = _curve(plan, region), quieter(mine, QUIET)
    tried: shadow.Scores = {}
    controls: shadow.Scores = {}
    if mine.roster >= LEAST:
        tried[CANARIES] = canary.trained(plan, region, device).scores
        controls[CANARIES] = canary.trained(plan, region, device, as_if=quiet).scores
    # A vehicle that is seldom drawn is no control of whether the attack sees one.
    always = quiet.model_copy(update={"sample_rate": 1.0})
    tried |= shadow.scores(plan, region, device)
    controls |= shadow.scores(plan, region, device, as_if=always)
    for attacker, (inside, outside) in tried.items():
        for rate in RATES:
            hits = inside > _threshold(outside, rate)
            control = controls[attacker][0] > _threshold(controls[attacker][1], rate)
            yield Membership(
                attacker=attacker,
                false_positives=rate,
                true_positives=float(hits.mean()),
                at_least=_at_least(int(hits.sum()), len(hits)),
                by_epsilon=_allowed(mine, rate),
                by_curve=None if curve is None else 1 - curve(1 - rate),
                control=float(control.mean()),
            )


def _allowed(mine: RegionPlan, rate: float) -> float | None:
    if mine.epsilon is None:
        return None
    return min(1.0, exp(min(mine.epsilon, 700.0)) * rate + mine.target_delta)


def _threshold(outside: np.ndarray, rate: float) -> float:
    """The score that those out exceed at most at that rate, as a normal distribution that is fitted to them.

    Three of the fit's own standard errors are added; the likelihood ratio is monotone in the score.
    """
    z = NormalDist().inv_cdf(1 - rate)
    z += 3 * sqrt((1 + z * z / 2) / len(outside))
    return float(outside.mean()) + z * float(outside.std())


def _curve(plan: Plan, region: str) -> Callable[[float], float] | None:
    """x -> f(1 - x) of the plan's mechanism; None where no accountant computes it."""
    try:
        return curve_of([(epsilon_pld(plan.events(region), delta), delta) for delta in DELTAS])
    except AccountingError:
        return None


def _at_least(hits: int, count: int) -> float:
    """A lower bound on a rate from ``hits`` of ``count``, by bisection of the binomial's tail."""
    low, high = 0.0, hits / count
    for _ in range(50):
        middle = (low + high) / 2
        reached = middle > 0 and float(binomial(count, middle)[hits:].sum()) >= 1 - CONFIDENCE
        low, high = (low, middle) if reached else (middle, high)
    return low


def _inversion(plan: Plan, region: str, device: str) -> Inversion | None:
    task = registry.of(plan.task.name, plan.task.options)
    model = task.model(plan.model.name, plan.model.options, seed=plan.seed)
    if plan.model.backbone is not None:
        return None  # its frozen weights are elsewhere, and shape what the layers are given
    with torch.no_grad():  # as initialised a zero head may hide what comes before it
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    name = next((one for one, layer in model.named_modules() if _is_open(layer)), None)
    if name is None:
        return None
    mine = plan.region(region).model_copy(update={"sample_rate": 1.0, "roster": 1, "windows_per_vehicle": 1})
    counts = [
        sum(_finds(model, name, task, constants, region, device, number) for number in range(VEHICLES))
        for constants in (mine, quieter(mine, QUIET**2))
    ]
    return Inversion(name, VEHICLES, counts[0], counts[1])


def _is_open(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and layer.bias is not None


def _finds(
    model: nn.Module, name: str, task: Task, mine: RegionPlan, region: str, device: str, number: int
) -> bool:
    """Whether the layer's input for one made-up vehicle can be read from a step in which it is alone."""
    where = resolve(device)
    inputs, targets = (
        {key: values[:1, 0] for key, values in part.items()}
        for part in task.synthetic(torch.Generator().manual_seed(100 + number))
    )
    seen: list[Tensor] = []
    mine_model = copy.deepcopy(model)
    hook = mine_model.get_submodule(name).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    mine_model.eval()(*inputs.values())
    hook.remove()
    truth = seen[0].detach().reshape(-1, seen[0].shape[-1]).double().numpy()
    gradient = local.model_on(mine_model, task.loss, where)
    padded = [_padded(part, where) for part in (inputs, targets)]
    data = VehicleData(padded[0], padded[1], np.array([0]), np.array([1]), where)
    key = RoundKey(os.urandom(32), region, 64 * "0", 1, hashlib.sha256().hexdigest())
    step = local.private_step(gradient, data, mine, key, step=0, size=gradient.size)
    parts = torch.as_tensor(step).detach().cpu().double().split([one.numel() for one in gradient.parameters])
    by_name = {key: part.numpy() for (key, _), part in zip(mine_model.named_parameters(), parts, strict=True)}
    bias = by_name[f"{name}.bias"]
    weight = by_name[f"{name}.weight"].reshape(len(bias), -1)
    row = int(np.abs(bias).argmax())
    guess = weight[row] / bias[row] if bias[row] else weight[row]
    lengths = np.linalg.norm(truth, axis=1) * np.linalg.norm(guess)
    cosines = (truth @ guess) / np.where(lengths > 0, lengths, 1.0)
    return bool(np.abs(cosines).max() >= FOUND)


def _padded(part: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.cat([values, torch.zeros_like(values)]).to(device) for name, values in part.items()}
