"""``python -m experiments.four_regions.release --data TABLES``: one release of moments, several seeds.

The settings are those of moments.toml, chosen on generated traffic (``choose --strategy moments``). Runs are
made in one process (``trial``): the step, noise, plan and strategy of every run, without ledger or folder, so
for development data. OWN is the share of its own release that a region mixes with all, fixed beforehand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from experiments.four_regions import cli, page
from experiments.four_regions.fresh import recipe
from experiments.four_regions.study import QUICKSTART
from experiments.four_regions.trial import Stage
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load

HERE = Path(__file__).parent
EPSILONS = (1.0, 4.0)
OWN = 0.5


def measured(
    data: str, path: Path, overrides: Sequence[str], seeds: Sequence[int]
) -> dict[str, list[dict[str, float]]]:
    """By row of the table, FDE by region and pooled, m, a seed each."""
    chosen, stage = recipe(path), None
    settings = {**chosen["recipe"], "training.learning_rate": chosen["learning_rate"]["1"], "data.path": data}
    found: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        for epsilon in EPSILONS:
            changes = {**settings, "seed": seed, "privacy.target_epsilon": epsilon}
            written = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
            experiment = load(Experiment, QUICKSTART, overrides=[*written, *overrides])
            stage = stage or Stage.of(experiment, recorded=True)
            windows = {name: len(one) for name, one in stage.tests.items()}
            start, shared = stage.run(experiment)
            rows = {f"moments, epsilon {epsilon:g}": shared}
            rows[f"moments, epsilon {epsilon:g}, a region's own mix"] = stage.run(experiment, own=OWN)[1]
            if epsilon == EPSILONS[0]:
                rows = {"public start": start, **rows}
            for row, errors in rows.items():
                found.setdefault(row, []).append(_with_pooled(errors, windows))
            print(f"seed {seed}, epsilon {epsilon:g}: {found}", file=sys.stderr, flush=True)
    return found


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Means over seeds with their standard deviation."""
    places = list(next(iter(found.values()))[0])
    lines = [["", *places], ["---"] * (len(places) + 1)]
    lines += [
        [row, *(_figure([one[place] for one in errors]) for place in places)] for row, errors in found.items()
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _with_pooled(errors: Mapping[str, float], windows: Mapping[str, int]) -> dict[str, float]:
    pooled = sum(errors[name] * count for name, count in windows.items()) / sum(windows.values())
    return {**errors, "pooled": pooled}


def _figure(values: Sequence[float]) -> str:
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.four_regions.release",
        description="One release of moments, at epsilon 1 and 4.",
    )
    given = cli.parse(parser, arguments, seeds=[1, 2, 3])

    def work() -> None:
        text = table(measured(given.data, HERE / "moments.toml", given.overrides, given.seeds))
        if given.publish:
            page.put(HERE / "README.md", "moments", text)
        print(text)

    return cli.answer(work)


if __name__ == "__main__":
    raise SystemExit(main())
