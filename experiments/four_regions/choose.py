"""``python -m experiments.four_regions.choose``: the recipe's settings, chosen on generated traffic alone.

Nobody drove that traffic, so a search of any length costs nobody anything: whoever runs the recipe on
vehicles on which nothing was tried pays the epsilon of that one run. The traffic is the embedded one, two of
its regions joined at a time, so that each has about a thousand training vehicles; the start is pre-trained on
traffic of the profile PUBLIC.

Successive halving at epsilon 1: settings drawn at random from ``GRIDS`` get one run each, the better ones one
more run each time with another start and other noise; ties go to the setting that can move the model
farthest. Then the rate is chosen again for each weaker promise.
The score is the mean over regions of FDE over constant velocity's FDE. Writes recipe.toml, and recipe.csv
with every run.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.four_regions import cli
from experiments.four_regions.drives import joined
from experiments.four_regions.study import QUICKSTART
from experiments.four_regions.trial import Stage
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import embedded, table
from fedfsd.plan.written import MOMENTS

HERE = Path(__file__).parent
BOTH: Mapping[str, tuple[Any, ...]] = {
    "training.learning_rate": (0.015, 0.03, 0.06, 0.12),
    "privacy.max_grad_norm": (1.0, 2.5, 5.0, 10.0),
    "server.average_last": (0.0, 0.25, 0.5),
    "model.options.width": (8, 16),
}
GRIDS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "FedAvgM": {
        **BOTH,
        "training.num_rounds": (30, 60),
        "privacy.noise_schedule": ("flat", "by_influence"),
    },
    "moments": {
        **BOTH,
        "training.num_rounds": (1, 11, 31),
        "server.options.share": (0.3, 0.5, 0.7),
        "server.options.ridge": (0.3, 1.0, 3.0),
        "model.options.moments": (12, 24, 48),
        "model.options.second_moments": (0.2, 0.5, 1.0),
        "model.options.moments_length": (1.0, 2.5, 5.0, 10.0),
    },
}
"""By strategy: what settings are drawn from. Every other setting is that of quickstart.toml."""
REGIONS = {"CN": "A", "SG": "A", "EU": "B", "US": "B"}
RATE = "training.learning_rate"
EPSILON = 1.0
WEAKER: Mapping[str, tuple[float, ...]] = {"2": (1, 2), "4": (1, 2, 4), "8": (1, 2, 4)}
"""By epsilon: what the rate at epsilon 1 is multiplied by. A run without noise does not clip either."""
NOT_PRIVATE = (0.03, 0.1, 0.3)
TIE = 0.004
"""By so much the score of one setting differs from run to run."""
ALWAYS: Mapping[str, Any] = {"privacy.max_noise_std": 1e9}
"""The clip is what the recipe says."""
Setting = Mapping[str, Any]


@dataclass
class Search:
    """A search as it goes: every run that was made (``log``: a line each), and the starts that they share."""

    tables: str
    overrides: Sequence[str]
    log: Path
    lines: list[dict[str, Any]] = field(default_factory=list)
    _stage: Stage | None = None

    def score(self, setting: Setting, seed: int, epsilon: str) -> float:
        """Of one run, which is made once; with epsilon ``none`` nothing is clipped or noised."""
        asked = {"epsilon": epsilon, **setting, "seed": seed}
        for line in self._logged():
            if asked.items() <= line.items():
                self.lines.append(line)
                return float(line["score"])
        mode = ['mode="none"'] if epsilon == "none" else [f"privacy.target_epsilon={float(epsilon)}"]
        written = [f"{key}={json.dumps(value)}" for key, value in {**ALWAYS, **setting}.items()]
        changes = [f"data.path={json.dumps(self.tables)}", f"seed={seed}", *written, *mode, *self.overrides]
        experiment = load(Experiment, QUICKSTART, overrides=changes)
        self._stage = stage = self._stage or Stage.of(experiment)
        started = time.monotonic()
        start, found = stage.run(experiment)
        line = {
            **asked,
            "score": round(fmean(fde / stage.baseline[name] for name, fde in found.items()), 4),
            "start": round(fmean(fde / stage.baseline[name] for name, fde in start.items()), 4),
            **{f"fde_m/{name}": round(fde, 4) for name, fde in found.items()},
        }
        self.lines.append(line)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        took = time.monotonic() - started
        print(f"{line} in {took:.0f} s", file=sys.stderr, flush=True)
        return float(line["score"])

    def _logged(self) -> list[dict[str, Any]]:
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def halving(self, settings: Sequence[Setting], keep: Sequence[int]) -> Setting:
        """The best of ``settings``: of those left, as many as ``keep`` says get a run more each time.

        Of those that are as good as the best, the one that can move the model farthest: recordings differ
        more from the public start than generated regions do.
        """
        left = [(setting, [self.score(setting, 1, f"{EPSILON:g}")]) for setting in settings]
        for number, most in enumerate(keep):
            left = sorted(left, key=lambda one: fmean(one[1]))[:most]
            seed = number + 2
            for setting, scores in left:
                scores.append(self.score(setting, seed, f"{EPSILON:g}"))
        best = min(fmean(scores) for _, scores in left)
        return max((setting for setting, scores in left if fmean(scores) <= best + TIE), key=_reach)

    def rate(self, setting: Setting, rates: Sequence[float], epsilon: str) -> float:
        """The learning rate with the least score."""
        return min(rates, key=lambda rate: self.score({**setting, RATE: rate}, 1, epsilon))


def _reach(setting: Setting) -> float:
    """How far clipped gradients could move the model."""
    return float(setting[RATE] * setting["privacy.max_grad_norm"] * (setting["training.num_rounds"]))


def drawn(grids: Mapping[str, Mapping[str, tuple[Any, ...]]], count: int, *, seed: int) -> list[Setting]:
    """So many different settings of each strategy."""
    random = np.random.default_rng(seed)
    found: list[Setting] = []
    for number, (strategy, grid) in enumerate(grids.items(), start=1):
        while len(found) < number * count:
            one = {key: values[int(random.integers(len(values)))] for key, values in grid.items()}
            if one["training.num_rounds"] == 1:
                one |= {"server.average_last": 0.0}
            if (one := {"server.strategy": strategy, **one}) not in found:
                found.append(one)
    return found


def traffic(path: Path) -> str:
    """The embedded traffic as a file of two regions; one that is there is taken as it is."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write(joined(embedded.load("traffic"), REGIONS), path)
    return str(path)


def choose(search: Search, settings: Sequence[Setting], keep: Sequence[int]) -> dict[str, Any]:
    """The recipe: ``recipe`` for every run, ``learning_rate`` by promise."""
    best = search.halving(settings, keep)
    rest = {key: value for key, value in best.items() if key != RATE}
    rates = {f"{EPSILON:g}": best[RATE]}
    one_release = best["server.strategy"] == MOMENTS and best["training.num_rounds"] == 1
    for epsilon, factors in WEAKER.items():
        tried = factors[:1] if one_release else factors  # of one release no rate changes anything
        rates[epsilon] = search.rate(rest, [best[RATE] * factor for factor in tried], epsilon)
    rates["none"] = best[RATE] if one_release else search.rate(rest, NOT_PRIVATE, "none")
    return {"recipe": {**ALWAYS, **rest}, "learning_rate": rates}


def write(
    found: Mapping[str, Mapping[str, Any]], lines: Sequence[Mapping[str, Any]], folder: Path, name: str
) -> None:
    """``name``.toml and a line a run in ``name``.csv, both in ``folder``."""
    text = ["# Chosen on generated traffic alone by python -m experiments.four_regions.choose."]
    for heading, part in found.items():
        text += [
            "",
            f"[{heading}]",
            *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in part.items()),
        ]
    (folder / f"{name}.toml").write_text("\n".join(text) + "\n", encoding="utf-8")
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        columns = list(dict.fromkeys(key for line in lines for key in line))
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.four_regions.choose",
        description="Choose the recipe's settings on generated traffic alone.",
    )
    parser.add_argument("--settings", type=int, default=10, help="how many are drawn from each grid")
    parser.add_argument("--keep", type=int, nargs="*", default=[8], help="how many go on after each round")
    parser.add_argument("--strategy", nargs="+", choices=GRIDS, default=list(GRIDS), help="which are tried")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="KEY=[VALUE, ...]", help="in place of the grids'"
    )
    parser.add_argument("--name", default="recipe", help="of the files that are written")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/four_regions/choose"), metavar="DIR")
    parser.add_argument("--publish", action="store_true", help="also write into the study's own folder")
    given = parser.parse_args(arguments)

    def work() -> None:
        tables = traffic(given.output / "traffic.parquet")
        search = Search(tables, given.set, given.output / "runs.jsonl")
        only = {key: tuple(json.loads(value)) for key, _, value in (one.partition("=") for one in given.only)}
        grids = {strategy: {**GRIDS[strategy], **only} for strategy in given.strategy}
        found = choose(search, drawn(grids, given.settings, seed=1), given.keep)
        for folder in (given.output, HERE) if given.publish else (given.output,):
            write(found, search.lines, folder, given.name)
        print((given.output / f"{given.name}.toml").read_text(encoding="utf-8"))

    return cli.answer(work)


if __name__ == "__main__":
    raise SystemExit(main())
