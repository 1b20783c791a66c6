"""``python -m experiments.resident``: each region's own model beside what it could train without the others.

One federation a seed, each followed by what its regions make of the model for themselves ([resident], as
shipped), and one training a region and seed of that region alone without noise, as in ``four_regions``.
Writes results.csv and table.md; an interrupted command continues.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from experiments.four_regions import cli
from experiments.four_regions.page import put
from experiments.four_regions.study import QUICKSTART, SETTINGS
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.report.run_folder import Folder
from fedfsd.simulation import run as simulation

HERE = Path(__file__).parent
COLUMNS = {
    "constant velocity": "constant_velocity_fde_m",
    "public start": "start_fde_m",
    "shared, epsilon 4": "fde_m",
    "stays home": "stays_home_fde_m",
    "alone, the same training": "alone_fde_m",
}
ALONE = "alone, not private"
_FEW = "server.evaluate_every=1000000"  # the learning curve is not what is asked
Found = dict[str, dict[str, float]]
"""FDE in m by column and region."""


def measure(data: str, seed: int, output: Path, overrides: Sequence[str] = ()) -> Found:
    """One seed; a complete run is not run again."""
    own = ["privacy.target_epsilon=4.0", "resident.held_out=0.2"]
    regions = _run(data, seed, [*own, *overrides], output / f"seed={seed}")
    found = {name: {region: one[key] for region, one in regions.items()} for name, key in COLUMNS.items()}
    rate = SETTINGS["learning_rate_not_private"]["alone"]
    found[ALONE] = {}
    for region in regions:
        changes = ['mode="none"', f"training.learning_rate={rate}", f'data.regions=["{region}"]', *overrides]
        alone = _run(data, seed, changes, output / f"alone={region}" / f"seed={seed}")
        found[ALONE][region] = alone[region]["fde_m"]
    return found


def table(by_seed: Mapping[int, Found]) -> str:
    """Means over seeds, then how far each region's own model is from training alone."""
    first = next(iter(by_seed.values()))
    regions = list(first[ALONE])
    lines = [["", *regions, "mean"], ["---"] * (len(regions) + 2)]
    for name in first:
        means = [fmean(one[name][region] for one in by_seed.values()) for region in regions]
        lines.append([name, *(f"{value:.3f}" for value in (*means, fmean(means)))])
    for name in (ALONE, "alone, the same training"):
        gains = [
            fmean(one["stays home"][region] - one[name][region] for one in by_seed.values())
            for region in regions
        ]
        signed = [f"{value:+.3f}".replace("-", "−") for value in (*gains, fmean(gains))]
        lines.append([f"stays home less {name}", *signed])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _run(data: str, seed: int, changes: Sequence[str], output: Path) -> Mapping[str, Mapping[str, float]]:
    chosen = [f"data.path={json.dumps(data)}", f"seed={seed}", _FEW, *changes]
    experiment = load(Experiment, QUICKSTART, overrides=chosen)
    folder = Folder(output)
    if not folder.complete:
        begun = (output / "plan.json").exists()
        print(f"{output}", file=sys.stderr, flush=True)
        simulation.run(experiment, engine="local", output=output, resume=begun, progress=lambda _: None)
    found: Mapping[str, Mapping[str, float]] = folder.read("metrics.json")["regions"]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.resident",
        description="What a region makes of the shared model for itself.",
    )
    given = cli.parse(parser, arguments, seeds=[1, 2, 3], study="resident")

    def work() -> None:
        place = given.output
        by_seed = {seed: measure(given.data, seed, place, given.overrides) for seed in given.seeds}
        text = table(by_seed)
        place.mkdir(parents=True, exist_ok=True)
        with (place / "results.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("seed", "rung", "region", "fde_m"))
            for seed, found in by_seed.items():
                for name, values in found.items():
                    writer.writerows((seed, name, region, f"{value:.4f}") for region, value in values.items())
        (place / "table.md").write_text(f"{text}\n", encoding="utf-8")
        if given.publish:
            put(HERE / "README.md", "embedded" if given.data == "embedded" else "recordings", text)
        print(text)

    return cli.answer(work)


if __name__ == "__main__":
    raise SystemExit(main())
