"""``python -m experiments.enough``: forecasting error against the number of vehicles and epsilon.

One region of generated traffic that trains the quickstart's recipe, N vehicles at a time. What the mechanism
does to a step depends on N by the noise on the mean gradient alone, sigma C / (q N), once there are enough
vehicles that their mean gradient no longer changes. So more than ``MOST`` vehicles are had by that many, and
noise that is MOST / N of the plan's; ``CHECKED`` are trained both ways.

Writes enough.toml, which ``fedfsd plan`` reads once it is published (``--publish``), table.md and a figure.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from experiments.four_regions.drives import POOLED, as_one_region
from experiments.four_regions.page import put
from experiments.four_regions.study import QUICKSTART
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import table
from fedfsd.engine import backbone, local, vehicle
from fedfsd.engine.randomness import RoundKey
from fedfsd.plan.build import Roster, build
from fedfsd.plan.plan import Plan
from fedfsd.simulation import enough
from fedfsd.simulation.prepare import model_with, public_of, start_of, task_of, task_plan
from fedfsd.task.gather import gather
from fedfsd.task.task import Examples, Task

HERE = Path(__file__).parent
EPSILONS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
VEHICLES = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
MOST = 1_000
CHECKED = ((1.0, 1_900), (4.0, 1_900))
"""Epsilon and vehicles that are also trained on as many vehicles as there are."""
DELTA = 1e-6  # below 1 / (10 N) at every N here
_NOISELESS = 10**9  # vehicles


@dataclass(frozen=True)
class World:
    """What all points share at one seed."""

    task: Task
    experiment: Experiment
    initial: dict[str, np.ndarray]
    training: Examples
    test: Examples
    model: Any

    def fde(self, arrays: dict[str, np.ndarray]) -> float:
        """On the test vehicles, m."""
        net = self.task.model(self.model.name, self.model.options, seed=1)
        backbone.put_arrays(net, arrays)
        return float(self.task.scores(net.eval(), self.test).values["fde_m"].mean())


def opened(seed: int, *more: str) -> World:
    """The embedded traffic as one region, and the start that its public part gives; ``more`` overrides."""
    torch.set_num_threads(1)
    experiment = load(
        Experiment,
        QUICKSTART,
        overrides=[f"seed={seed}", "model.witness_size=0", f"privacy.target_delta={DELTA}", *more],
    )
    task = task_of(experiment)
    initial, _, model = start_of(experiment, task, public_of(experiment, task), {})
    tables = (as_one_region(task.tables("embedded")),)
    training, _ = gather(task, tables, POOLED)
    test = task.examples(table.in_region(tables, POOLED), test=True)
    return World(task, experiment, initial, training, test, model)


def plan_for(world: World, epsilon: float) -> Plan:
    """As ``fedfsd plan`` would make it for one region; nothing but the roster depends on its vehicles."""
    privacy = world.experiment.privacy.model_copy(update={"target_epsilon": epsilon})
    experiment = world.experiment.model_copy(update={"privacy": privacy})
    roster = Roster(max(VEHICLES), "physical", counted=False)
    return build(experiment, {POOLED: roster}, task_plan(world.task), world.model)


def trained(world: World, plan: Plan, vehicles: int, *, most: int, seed: int) -> float:
    """FDE after the plan on ``vehicles`` vehicles, of which at most ``most`` are there."""
    there = min(vehicles, most)
    mine = plan.region(POOLED)
    scaled = mine.model_copy(
        update={"roster": there, "noise_multiplier": (mine.noise_multiplier or 0.0) * there / vehicles}
    )
    plan = plan.model_copy(update={"regions": {POOLED: scaled}})
    net = model_with(plan, world.task, world.initial, None)
    gradient = local.model_on(net, world.task.loss, torch.device("cpu"), plan.precision)
    data = vehicle.place(_some(world.training, there, seed), roster=there, device=torch.device("cpu"))
    secret, momentum = os.urandom(32), plan.strategy_options["server_momentum"]
    arrays, velocity = world.initial, dict.fromkeys(world.initial, np.float32(0))
    for round in range(1, plan.num_rounds + 1):
        key = RoundKey(secret, POOLED, "0" * 64, round, "0" * 64)
        update = local.train(gradient, data, arrays, plan, key)
        velocity = {name: np.float32(momentum) * velocity[name] + one for name, one in update.items()}
        arrays = {name: array + velocity[name] for name, array in arrays.items()}
    return world.fde(arrays)


def _some(examples: Examples, count: int, seed: int) -> Examples:
    """The examples of ``count`` training vehicle keys, those without an example among them."""
    keys = np.sort(np.random.default_rng(seed).permutation(len(examples.vehicles))[:count])
    slot = np.full(len(examples.vehicles), -1)
    slot[keys] = np.arange(len(keys))
    mine = slot[examples.owner] >= 0
    return replace(
        examples,
        vehicles=tuple(examples.vehicles[key] for key in keys),
        owner=slot[examples.owner[mine]],
        inputs={name: array[mine] for name, array in examples.inputs.items()},
        targets={name: array[mine] for name, array in examples.targets.items()},
        dropped={},
    )


def measure(
    seeds: Sequence[int], epsilons: Sequence[float] = EPSILONS, vehicles: Sequence[int] = VEHICLES
) -> dict[str, Any]:
    """What enough.toml says: FDE in m by epsilon and number of vehicles, means over seeds."""
    worlds = {seed: opened(seed) for seed in seeds}
    begun, first = time.monotonic(), worlds[seeds[0]]
    plans: dict[float, Plan] = {}

    def mean(epsilon: float, count: int, most: int = MOST) -> float:
        plan = plans.get(epsilon) or plans.setdefault(epsilon, plan_for(first, epsilon))
        print(
            f"epsilon {epsilon:g}, {count} vehicles ({time.monotonic() - begun:.0f} s)",
            file=sys.stderr,
            flush=True,
        )
        return round(
            fmean(trained(one, plan, count, most=most, seed=seed) for seed, one in worlds.items()), 4
        )

    keys = len(first.training.vehicles)
    return {
        "format": 1,
        "rests_on": "generated traffic, one region, the quickstart's recipe with the model mlp",
        "delta": DELTA,
        "seeds": list(seeds),
        "start_fde_m": round(fmean(one.fde(one.initial) for one in worlds.values()), 4),
        "noiseless_fde_m": mean(max(epsilons), _NOISELESS),
        "vehicles": list(vehicles),
        "point": [
            {"epsilon": epsilon, "fde_m": [mean(epsilon, count) for count in vehicles]}
            for epsilon in epsilons
        ],
        "check": [
            {
                "epsilon": epsilon,
                "vehicles": min(count, keys),
                "scaled_fde_m": mean(epsilon, min(count, keys)),
                "full_fde_m": mean(epsilon, min(count, keys), keys),
            }
            for epsilon, count in CHECKED
            if epsilon in epsilons
        ],
    }


def written(found: dict[str, Any]) -> str:
    """As TOML."""
    lines = []
    for key, value in found.items():
        if key in ("point", "check"):
            for one in value:
                lines += ["", f"[[{key}]]", *(f"{name} = {inner}" for name, inner in one.items())]
        else:
            lines.append(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}")
    return "\n".join(lines) + "\n"


def text(known: enough.Enough) -> str:
    """The table, the rule of thumb, and what the scaling was held against."""
    lines = [["epsilon", *(f"{count:,}" for count in known.vehicles), "for half", "for 90%"]]
    lines.append(["---"] * len(lines[0]))
    for epsilon, errors in known.errors.items():
        needed = [known.needed(share, epsilon) for share in (0.5, 0.9)]
        said = [enough.counted(one) for one in needed]
        lines.append([f"{epsilon:g}", *(f"{one:.2f}" for one in errors), *said])
    head = (
        f"FDE in m by number of vehicles and epsilon (delta {known.delta:g}), mean over {len(known.seeds)} "
        f"seeds. Before training {known.start:.2f} m; without noise {known.noiseless:.2f} m. The last "
        "columns: how many vehicles keep half, and 90%, of what training without noise gains."
    )
    checks = "; ".join(
        f"epsilon {one['epsilon']:g}, {one['vehicles']:,} vehicles: {one['full_fde_m']:.3f} m on all of them,"
        f" {one['scaled_fde_m']:.3f} m by the scaling"
        for one in known.checks
    )
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{head}\n\n{rows}\n\n{known.rule()}\n\nThe scaling held against more vehicles: {checks}."


def figure(known: enough.Enough) -> str:
    """FDE against the number of vehicles, a line an epsilon, as SVG; what is far above the start is cut."""
    from fedfsd.canvas import COLOURS, DASHED, FAINT, INK, as_svg, style

    gain = known.start - known.noiseless
    low, high = known.noiseless - 0.2 * gain, known.start + 0.8 * gain
    with style() as figure_of:
        drawn = figure_of(7, 4.5, "")
        axes = drawn.subplots()
        for (epsilon, errors), colour in zip(known.errors.items(), COLOURS, strict=False):
            axes.plot(known.vehicles, errors, color=colour, marker="o", markersize=4, label=f"ε {epsilon:g}")
        for value, word in ((known.start, "before training"), (known.noiseless, "without noise")):
            axes.axhline(value, color=FAINT, **DASHED)
            axes.annotate(word, (known.vehicles[0], value), (2, 4), textcoords="offset points", color=INK)
        axes.set(xscale="log", xlabel="vehicles of the region", ylabel="FDE, m", ylim=(low, high))
        axes.set_xticks(known.vehicles, [f"{count:,}" for count in known.vehicles])
        axes.minorticks_off()
        axes.legend(frameon=False, loc="upper right")
        return as_svg(drawn)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.enough", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="SEED")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/enough"), metavar="DIR")
    parser.add_argument("--publish", action="store_true", help="also write into fedfsd and this folder")
    given = parser.parse_args(arguments)
    content = written(measure(given.seeds))
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "enough.toml").write_text(content, encoding="utf-8")
    known = enough.read(content)
    (given.output / "table.md").write_text(text(known) + "\n", encoding="utf-8")
    (given.output / "enough.svg").write_text(figure(known), encoding="utf-8")
    if given.publish:
        enough.FILE.write_text(content, encoding="utf-8")
        shown = f"{text(known)}\n\n![FDE by number of vehicles, a line an epsilon](enough.svg)"
        put(HERE / "README.md", "table", shown)
        (HERE / "enough.svg").write_text(figure(known), encoding="utf-8")
    print(text(known))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
