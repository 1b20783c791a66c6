"""What a run would promise, cost and need, told before any training."""

from __future__ import annotations

from dataclasses import asdict
from math import sqrt
from typing import Any

from fedfsd.config.experiment import Experiment
from fedfsd.gate.gate import unnoticed
from fedfsd.gate.policy import objections, warnings
from fedfsd.mechanism.calibration import noise_multiplier
from fedfsd.mechanism.renyi import best_order, epsilon_lifetime, nano_nats
from fedfsd.mechanism.statement import Claim, paragraph, sentence
from fedfsd.plan.plan import Plan
from fedfsd.runner.region import RegionConfig, policy_of
from fedfsd.simulation import enough
from fedfsd.simulation.prepare import Prepared, prepare

# Resident memory of a worker process before it has data: Python, torch, opacus, flwr (measured).
PROCESS_BYTES = 450 * 2**20
# Larger draws are trained in parts whose gradients take no more (see training.gradient).
GRADIENT_BYTES = 256 * 2**20
FLOAT32, FLOAT64 = 4, 8
UNPROTECTED = {
    "rehearsal": "No guarantee: a rehearsal, whose noise key is known.",
    "none": "Not private: no clipping and no noise.",
}


def preview(experiment: Experiment) -> dict[str, Any]:
    """The plan of ``experiment`` in numbers and words, per region; plain values throughout.

    Initial weights are not made, so the plan's hash is not the run's and is not part of the answer.
    ``noise_to_signal`` is the Euclidean norm to expect of one step's noise in the model's parameters
    over the largest norm the signal can have: (sigma C sqrt(d) / (q N)) / C, with d parameters
    without the witness block. The signal reaches C only when the clipped gradients of all vehicles
    agree; noise to signal falls with the square root of the steps in which the signal keeps its
    direction. At the top level stands the same for the weighted mean over regions.

    Raises:
        FedfsdError: whatever the run itself would refuse about experiment, data and model.
    """
    # One step on one window refuses what pre-training would refuse, without the wait.
    chosen = experiment.pretraining
    brief = chosen.model_copy(update={"steps": min(chosen.steps, 1), "batch_size": 1})
    prepared = prepare(experiment.model_copy(update={"pretraining": brief}))
    plan = prepared.plan
    regions = {name: _region(prepared, name) for name in plan.regions}
    first = next(iter(plan.regions.values()))
    claims = _claims(plan)
    release = FLOAT32 * plan.model.size
    return {
        "name": plan.name,
        "mode": plan.mode,
        "strategy": plan.strategy,
        "num_rounds": plan.num_rounds,
        "local_steps": max(mine.local_steps for mine in plan.regions.values()),
        "sample_rate": first.sample_rate,
        "parameters": _parameters(plan),
        "frozen_parameters": 0 if plan.model.backbone is None else plan.model.backbone.size,
        "witness_size": plan.model.witness_size,
        "unnoticed": None if plan.mode == "none" else unnoticed(plan.model.witness_size),
        "bytes_in": release + len(plan.document().encode()),
        "bytes_out": release,
        "noise_to_signal": _averaged(plan),
        "enough": enough.said(plan),
        "crossing": prepared.crossing and asdict(prepared.crossing),
        "statement": paragraph(claims, prepared.crossing) if claims else UNPROTECTED[plan.mode],
        "regions": regions,
    }


def _region(prepared: Prepared, name: str) -> dict[str, Any]:
    plan, mine = prepared.plan, prepared.plan.region(name)
    file = (written := prepared.experiment.regions.get(name)) and written.policy
    policy = policy_of(RegionConfig(name, data_path="", folder="", policy=file or "", simulated=True))
    refusals = objections(policy, plan, name)
    return {
        "vehicles": mine.roster,
        "with_window": prepared.surveys[name].with_window,
        "windows": prepared.surveys[name].windows,
        "dropped": [asdict(rule) for rule in prepared.surveys[name].rules],
        "roster_counted": prepared.rosters[name].counted,
        "identity": mine.identity,
        "licence": prepared.licences[name],
        "origin": prepared.origins[name],
        "local_steps": mine.local_steps,
        "noise_multiplier": plan.noise_multiplier(name),
        "noise": plan.noise_words(name),
        "noise_ends": _ends(plan, name),
        "noise_saved": _saved(plan, name),
        "max_grad_norm": mine.max_grad_norm,
        "target_epsilon": mine.target_epsilon,
        "epsilon": mine.epsilon,
        "epsilon_lifetime": _lifetime(plan, name),
        "delta": None if mine.epsilon is None else mine.target_delta,
        "statement": UNPROTECTED[plan.mode]
        if mine.epsilon is None or plan.mode != "private"
        else sentence(mine.epsilon, mine.target_delta),
        "weight": mine.weight,
        "noise_to_signal": _noise(plan, name) / (mine.max_grad_norm or 1.0),
        "memory_bytes": _memory(plan, name),
        "accepted": not refusals,
        "objections": refusals,
        "round_seconds": policy.round_seconds if file else None,
        "warnings": warnings(plan, name),
    }


def _lifetime(plan: Plan, name: str) -> float | None:
    """What a grant of the best order for this plan is charged; adaptive composition costs a little more."""
    mine = plan.region(name)
    if mine.epsilon is None:
        return None
    events = plan.events(name)
    alpha = best_order(events, mine.target_delta)
    return epsilon_lifetime(nano_nats(events, alpha), alpha=alpha, delta=mine.target_delta)


def _noise(plan: Plan, name: str) -> float:
    """Norm to expect of the noise that one step of a region adds to the model's parameters.

    Where noise differs by round: of flat noise that leaves as much in the released model.
    """
    mine = plan.region(name)
    std = plan.effective_noise(name) * (mine.max_grad_norm or 0.0)
    return std * sqrt(_parameters(plan)) / mine.divisor


def _ends(plan: Plan, name: str) -> list[float]:
    """The noise multipliers of the first and the last round."""
    noise = plan.region(name).noise
    return [noise.noise_multiplier(round) if noise else 0.0 for round in (1, plan.rounds_of(name))]


def _saved(plan: Plan, name: str) -> float | None:
    """By how much less noise by round leaves in the released model than flat noise; None for flat noise."""
    mine = plan.region(name)
    if mine.mechanism is None or mine.target_epsilon is None:
        return None
    flat = noise_multiplier(
        target_epsilon=mine.target_epsilon,
        target_delta=mine.target_delta,
        sample_rate=mine.sample_rate,
        steps=mine.local_steps * plan.rounds_of(name),
    )
    return 1 - plan.effective_noise(name) / flat


def _averaged(plan: Plan) -> float:
    """Noise to signal of the weighted mean: noise adds in squares, signals that agree add up."""
    noise = sqrt(sum((mine.weight * _noise(plan, name)) ** 2 for name, mine in plan.regions.items()))
    return noise / (sum(mine.weight * (mine.max_grad_norm or 0.0) for mine in plan.regions.values()) or 1.0)


def _claims(plan: Plan) -> list[Claim]:
    """What the plan promises, region by region; nothing where it is not private."""
    return [
        Claim(name, mine.epsilon, mine.target_delta, mine.roster, mine.identity)
        for name, mine in plan.regions.items()
        if plan.mode == "private" and mine.epsilon is not None
    ]


def _parameters(plan: Plan) -> int:
    """d, what the model has without the witness block."""
    return plan.model.parameters


def _memory(plan: Plan, name: str) -> int:
    """An estimate of one region's process: itself, per-window gradients, flat copies of the model."""
    mine = plan.region(name)
    windows = mine.sample_rate * mine.roster * mine.windows_per_vehicle
    gradients = min(FLOAT64 * _parameters(plan) * windows, GRADIENT_BYTES)
    copies = 8 * FLOAT64 * plan.model.size  # start, update, momentum, noise, arrays in and out
    return round(PROCESS_BYTES + gradients + copies)
