"""What a region allows at all, whatever a coordinator proposes: a TOML file a data officer can read."""

from __future__ import annotations

from math import inf
from typing import Annotated

from pydantic import Field

from fedfsd.config.experiment import Mode
from fedfsd.config.load import Frozen
from fedfsd.errors import RefusedError
from fedfsd.plan.plan import Plan
from fedfsd.privacy.accountant import epsilon_pld


class Policy(Frozen):
    """Floors and caps. The defaults are wide enough for the shipped experiments and refuse nonsense."""

    modes: tuple[Mode, ...] = ("private",)
    min_noise_multiplier: Annotated[float, Field(gt=0)] = 0.5
    max_epsilon: Annotated[float, Field(gt=0)] = 10.0
    max_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    max_sample_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 10.0
    max_steps: Annotated[int, Field(ge=1)] = 100_000
    max_rounds: Annotated[int, Field(ge=1)] = 10_000
    max_release_bytes: Annotated[int, Field(ge=1)] = 500_000_000
    max_inbound_magnitude: Annotated[float, Field(gt=0)] = 1e6

    def demand(self, plan: Plan, region: str) -> None:
        """RefusedError with every objection, or nothing."""
        reasons = objections(self, plan, region)
        if reasons:
            raise RefusedError(
                f"plan for {region}",
                got="; ".join(reasons),
                expected="a plan within the region's policy",
                hint="run fedfsd plan to see what the policy accepts",
            )


def objections(policy: Policy, plan: Plan, region: str) -> list[str]:
    """Why this region would refuse the plan; empty when it accepts. One sentence a rule."""
    mine = plan.region(region)
    steps = mine.local_steps * plan.num_rounds
    found = []

    def demand(holds: bool, text: str) -> None:
        if not holds:
            found.append(text)

    demand(plan.mode in policy.modes, f"mode {plan.mode} is not among {', '.join(policy.modes)}")
    if plan.mode != "none":
        sigma, clip = mine.noise_multiplier, mine.max_grad_norm
        # The plan's own epsilon is the coordinator's word: the region computes it again.
        epsilon = epsilon_pld([plan.event(region)], mine.target_delta) if sigma else inf
        demand(
            sigma >= policy.min_noise_multiplier,
            f"noise_multiplier {sigma:g} is below the floor {policy.min_noise_multiplier:g}",
        )
        demand(
            clip is not None and clip <= policy.max_grad_norm,
            f"max_grad_norm {clip} is above the cap {policy.max_grad_norm:g}",
        )
        demand(
            epsilon <= policy.max_epsilon,
            f"epsilon {epsilon:.3g} is above the cap {policy.max_epsilon:g}",
        )
    demand(
        mine.target_delta <= policy.max_delta,
        f"target_delta {mine.target_delta:g} is above the cap {policy.max_delta:g}",
    )
    demand(
        mine.sample_rate <= policy.max_sample_rate,
        f"sample_rate {mine.sample_rate:g} is above the cap {policy.max_sample_rate:g}",
    )
    demand(steps <= policy.max_steps, f"{steps} steps are above the cap {policy.max_steps}")
    demand(
        plan.num_rounds <= policy.max_rounds,
        f"{plan.num_rounds} rounds are above the cap {policy.max_rounds}",
    )
    size = 4 * plan.model.size
    demand(
        size <= policy.max_release_bytes,
        f"a release of {size} bytes is above the cap {policy.max_release_bytes}",
    )
    return found
