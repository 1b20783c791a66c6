"""How often a lower bound on epsilon exceeds a true claim, and how near it comes.

    python -m experiments.planted.coverage                 # 200 trainings of canaries of each plan
    python -m experiments.planted.coverage --times 20      # some minutes of one core

Every repetition trains the canaries of ``audit canaries`` by the program's own private step, with fresh keys
and coins, and bounds epsilon from what was released. The claim is exact for the first plan, whose 20 steps
are not sampled, and an accountant's for the second. Exit status 1: a bound above the claim in more than one
of 20 repetitions, or, in the middle of the first plan's, below 1.2 (trade-off curves) or 3.3 (two Gaussians).
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

from fedfsd.audit.lower_bound import Bounds
from fedfsd.mechanism import accountant, calibration
from fedfsd.plan.plan import Plan
from fedfsd.runner import canary, selftest

BOUNDS = ("one_run", "one_run_f", "gaussian_pair")
LEAST = {"one_run_f": 1.2, "gaussian_pair": 3.3}
"""Of the middle, at epsilon 4 and 2,000 canaries."""
OFTEN = 0.05


def plans() -> dict[str, Plan]:
    """Both at epsilon 4: that of ``audit selftest``, and one that samples a fifth of its vehicles."""
    first = selftest.plan()
    mine = first.region(selftest.REGION)
    sampled = {"sample_rate": 0.2, "local_steps": 2}
    sigma = calibration.noise_multiplier(
        target_epsilon=selftest.EPSILON,
        target_delta=mine.target_delta,
        sample_rate=0.2,
        steps=2 * first.num_rounds,
    )
    second = first.model_copy(
        update={"regions": {selftest.REGION: mine.model_copy(update=sampled | {"noise_multiplier": sigma})}}
    )
    claim = accountant.epsilon_pld(second.events(selftest.REGION), mine.target_delta)
    stated = second.region(selftest.REGION).model_copy(update={"epsilon": claim})
    return {
        "every vehicle in each of 20 steps": first,
        "a fifth of them in each of 40": second.model_copy(update={"regions": {selftest.REGION: stated}}),
    }


def bounds(plan: Plan) -> Bounds:
    """Of one training."""
    found = canary.trial(plan, selftest.REGION).bounds
    assert found is not None
    return found


def main() -> int:
    """Repeat, and print a row for each plan and bound."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--times", type=int, default=200)
    given = arguments.parse_args()
    print("| plan | bound | least | middle | most | claim | above the claim |\n|---|---|---|---|---|---|---|")
    good = True
    for number, (name, plan) in enumerate(plans().items()):
        claim = float(plan.region(selftest.REGION).epsilon or 0.0)
        made = [bounds(plan) for _ in range(given.times)]
        for bound in BOUNDS:
            values = sorted(getattr(one, bound) for one in made)
            above = sum(value > claim for value in values)
            good = good and above <= OFTEN * len(values)
            good = good and (number > 0 or median(values) >= LEAST.get(bound, 0.0))
            figures = f"{values[0]:.2f} | {median(values):.2f} | {values[-1]:.2f} | {claim:.2f}"
            print(f"| {name} | {bound} | {figures} | {above} of {len(values)} |", flush=True)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
