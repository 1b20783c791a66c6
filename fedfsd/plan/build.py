"""From an experiment, public rosters and a model to the plan: calibrate, weigh, refuse."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from statistics import median
from typing import Any, Literal

from pydantic import ValidationError

from fedfsd import canonical
from fedfsd.config.experiment import Experiment, Region
from fedfsd.errors import PlanError
from fedfsd.mechanism import influence, kind
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.calibration import noise_multiplier, noise_multipliers
from fedfsd.mechanism.event import delta_fault, small_delta
from fedfsd.plan.plan import ModelPlan, OptimizerPlan, Plan, RegionPlan, TaskPlan, influences, read
from fedfsd.plan.written import MOMENTS


@dataclass(frozen=True)
class Roster:
    """What is public about a region's data: N, what its keys identify, whether N was counted."""

    size: int
    identity: Literal["physical", "recording"]
    counted: bool


@dataclass(frozen=True)
class Limit:
    """What a grant has left: ``rho`` in nano-nats at order ``alpha``."""

    rho: int
    alpha: int


def _run_id(experiment: Experiment) -> str:
    """A new id for a private run; that of a rehearsal or a run without privacy can be repeated."""
    if experiment.mode == "private":
        return secrets.token_hex(16)
    return canonical.digest(experiment.document())[:32]


def build(
    experiment: Experiment,
    rosters: Mapping[str, Roster],
    task: TaskPlan,
    model: ModelPlan,
    *,
    run: str | None = None,
    limits: Mapping[str, Limit] | None = None,
) -> Plan:
    """The plan of ``experiment``.

    Args:
        task: with every option, those that the experiment leaves out included. model: as it starts.
        run: the id of a run to be resumed; by default a new one.
        limits: by region, what a grant has left; where it is less than target_epsilon costs, sigma grows.

    Raises:
        PlanError: no region, delta too large for a roster.
        AccountingError: no noise reaches target_epsilon, or the accountants disagree.
    """
    if not rosters:
        raise PlanError(
            "regions",
            got="no region",
            expected="at least one region with training vehicles",
            hint="check data.path and [regions]",
        )
    try:
        steps, turns = local_steps(experiment, rosters), rounds(experiment, rosters)
        training, privacy = experiment.training, experiment.privacy
        optimizer = OptimizerPlan(
            learning_rate=training.learning_rate, momentum=training.momentum, schedule=training.schedule
        )
        moved = influences(
            optimizer,
            num_rounds=training.num_rounds,
            strategy=experiment.server.strategy,
            options=experiment.server.options,
            average_last=experiment.server.average_last,
        )
        noise = {
            name: _noise(
                experiment,
                name,
                roster,
                steps[name],
                [moved[number - 1] for number in turns[name] or range(1, len(moved) + 1)],
                (limits or {}).get(name),
                collects=experiment.server.strategy == MOMENTS and (turns[name] or (1,))[0] == 1,
            )
            for name, roster in rosters.items()
        }
        most = max(steps.values())
        shares = weights(
            {name: roster.size for name, roster in rosters.items()},
            # Updates count as if all had made the same steps; what is left of the noise of more is less.
            {name: one.effective * sqrt(most / steps[name]) for name, one in noise.items()},
            max_weight=experiment.server.max_weight,
        )
        plan = Plan(
            name=experiment.name,
            run=run or _run_id(experiment),
            mode=experiment.mode,
            num_rounds=training.num_rounds,
            regions={
                name: RegionPlan(
                    roster=roster.size,
                    identity=roster.identity,
                    sample_rate=privacy.sample_rate,
                    noise_multiplier=noise[name].flat,
                    mechanism=noise[name].by_round,
                    max_grad_norm=_clip(experiment, noise[name].effective),
                    local_steps=steps[name],
                    windows_per_vehicle=privacy.windows_per_vehicle,
                    weight=shares[name],
                    target_delta=privacy.target_delta,
                    target_epsilon=noise[name].target_epsilon,
                    epsilon=noise[name].epsilon,
                    rounds=turns[name],
                    packed=privacy.pack_windows,
                    canaries=canaries(experiment, roster),
                )
                for name, roster in sorted(rosters.items())
            },
            model=model,
            task=task,
            optimizer=optimizer,
            precision=training.precision,
            seed=experiment.seed,
            strategy=experiment.server.strategy,
            strategy_options=experiment.server.options,
            quorum=experiment.server.quorum,
            late_updates=experiment.server.late_updates,
            average_last=experiment.server.average_last,
        )
        same = read(plan.document()) == plan
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        raise PlanError(
            ".".join(map(str, first["loc"])),
            got="a value out of range",
            expected=first["msg"].removeprefix("Input should be "),
        ) from None
    if not same:
        raise PlanError(
            "options",
            got="values that change on the way, such as dates or NaN",
            expected="plain values",
            hint="check model.options and server.options",
        )
    return plan


def local_steps(experiment: Experiment, names: Iterable[str]) -> dict[str, int]:
    """Steps of a round by region: written ones, else training.local_steps scaled down to its speed."""
    written = {name: experiment.regions.get(name, Region()) for name in names}
    speeds = {name: region.speed or 1.0 for name, region in written.items()}
    most, fastest = experiment.training.local_steps, max(speeds.values())
    return {
        name: region.local_steps or max(1, round(most * speeds[name] / fastest))
        for name, region in written.items()
    }


def canaries(experiment: Experiment, roster: Roster) -> int:
    """Canaries of a region; none without privacy, which leaves nothing to audit.

    Raises:
        PlanError: some with the strategy moments.
    """
    share = experiment.audit.canaries
    if share and experiment.server.strategy == MOMENTS:
        raise PlanError(
            "audit.canaries",
            got=f"{share:g} with the strategy {MOMENTS}",
            expected="0: what its first round releases is no gradient, which a canary's would be",
            hint="audit canaries trains canaries alone with any plan's constants",
        )
    return 0 if experiment.mode == "none" else ceil(share * roster.size)


def rounds(experiment: Experiment, names: Iterable[str]) -> dict[str, tuple[int, ...] | None]:
    """The rounds in which each region is asked; None: in all.

    A round asks those that were asked least often so far, and of equals those that the seed puts first: by
    public constants alone, so that a region's budget is exact before the first round. That a region is not
    asked in some round is known to everybody, and hides nobody in it: no epsilon is smaller for it.

    Raises:
        PlanError: too few rounds for every region to be asked once.
    """
    regions, size = sorted(names), experiment.server.regions_per_round
    if size is None or size >= len(regions):
        return dict.fromkeys(regions)
    number_of_rounds = experiment.training.num_rounds
    if size * number_of_rounds < len(regions):
        raise PlanError(
            "server.regions_per_round",
            got=f"{size} in each of {number_of_rounds} rounds",
            expected=f"each of {len(regions)} regions asked at least once",
            hint="raise it, or training.num_rounds",
        )
    asked: dict[str, list[int]] = {name: [] for name in regions}
    for number in range(1, number_of_rounds + 1):
        lot = {name: canonical.digest([experiment.seed, number, name]) for name in regions}
        for name in sorted(regions, key=lambda one: (len(asked[one]), lot[one]))[:size]:
            asked[name].append(number)
    return {name: tuple(numbers) for name, numbers in asked.items()}


def weights(
    rosters: Mapping[str, int], noise_multipliers: Mapping[str, float], *, max_weight: float
) -> dict[str, float]:
    """Declared weights that sum to 1: proportional to N, less for a region noisier than the median.

    No share exceeds ``max_weight``, or 1/R where R regions cannot stay below it; what is cut off
    goes to the others in proportion.
    """
    usual = median(noise_multipliers.values())
    raw = {
        name: size * min(1.0, usual / noise_multipliers[name] if noise_multipliers[name] else 1.0)
        for name, size in rosters.items()
    }
    cap = max(max_weight, 1 / len(raw))
    capped: dict[str, float] = {}
    while True:
        left = 1.0 - cap * len(capped)
        total = sum(value for name, value in raw.items() if name not in capped)
        free = {name: left * value / total for name, value in raw.items() if name not in capped}
        over = {name: cap for name, share in free.items() if share > cap * (1 + 1e-12)}
        if not over:
            return {**capped, **free}
        capped |= over


@dataclass(frozen=True)
class _Noise:
    """The noise of one region and its promise."""

    flat: float | None
    by_round: kind.AnyPlan | None
    effective: float
    """The flat noise multiplier that would leave as much noise in the released model."""
    target_epsilon: float | None = None
    epsilon: float | None = None


def _clip(experiment: Experiment, effective: float) -> float | None:
    """C, from public constants alone and the same in every round."""
    if experiment.mode == "none":
        return None
    clip, limit = experiment.privacy.max_grad_norm, experiment.privacy.max_noise_std
    return clip if limit is None else min(clip, limit / effective)


def _noise(
    experiment: Experiment,
    name: str,
    roster: Roster,
    local_steps: int,
    moved: Sequence[float],
    limit: Limit | None,
    *,
    collects: bool,
) -> _Noise:
    """What one region adds and promises; ``collects``: its first round is one of moments."""
    if experiment.mode == "none":
        return _Noise(0.0, None, 0.0)
    privacy = experiment.privacy
    if delta_fault(privacy.target_delta, roster.size):
        raise PlanError(
            "privacy.target_delta",
            got=privacy.target_delta,
            expected=f"below 1 / number of vehicles in {name} (1/{roster.size})",
            hint=f"set privacy.target_delta = {small_delta(roster.size):g}",
        )
    region = experiment.regions.get(name)
    target = (region and region.target_epsilon) or privacy.target_epsilon
    shape = influence.shape(moved)
    split = collects and len(moved) > 1
    if split:  # a share of the loss for the moments, of which each round's is 1 / sigma^2
        share = float(experiment.server.options.get("share", 0.5))
        rounds = len(moved)
        later = [sqrt((rounds - 1) / (rounds * (1 - share)))] * (rounds - 1)
        shape = (sqrt(1 / (rounds * share)), *later)
    wanted: dict[str, Any] = {
        "target_epsilon": target,
        "target_delta": privacy.target_delta,
        "sample_rate": privacy.sample_rate,
        "rho_limit": limit.rho if limit else None,
        "alpha": limit.alpha if limit else None,
    }
    if privacy.noise_multiplier is not None:
        made = _Noise(privacy.noise_multiplier, None, privacy.noise_multiplier)
    else:
        sigma = noise_multiplier(steps=local_steps * len(moved), **wanted)
        made = _Noise(sigma, None, sigma, target)
        if (split or privacy.noise_schedule == "by_influence") and len(set(shape)) > 1:
            sigmas = noise_multipliers(shape, local_steps=local_steps, **wanted)
            by_round = kind.GaussianByRoundPlan(noise_multipliers=sigmas)
            varied = _Noise(None, by_round, influence.effective(sigmas, moved), target)
            # With little noise and sampling a step's loss grows faster than 1 / sigma^2: flat may be better.
            made = varied if split else min(made, varied, key=lambda one: one.effective)
    if experiment.mode == "rehearsal":  # the noise is known, so there is no epsilon to state
        return made
    mechanism = kind.of(
        sample_rate=privacy.sample_rate,
        max_grad_norm=privacy.max_grad_norm,
        local_steps=local_steps,
        noise_multiplier=made.flat,
        mechanism=made.by_round,
    )
    events = mechanism.events(range(1, len(moved) + 1))
    return replace(made, epsilon=epsilon_pld(events, privacy.target_delta))
