"""``python -m experiments.resident``: each region's own model beside what it could train without the others.

One federation a seed at epsilon 4, by the quickstart's recipe, with what its regions make of the model for
themselves ([resident] as shipped). Writes results.csv and table.md; an interrupted command continues.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from experiments.four_regions import cli
from experiments.four_regions.page import put
from experiments.four_regions.study import run
from fedfsd.report.run_folder import Folder

HERE = Path(__file__).parent
HOME, ALONE = "stays home", "alone"
COLUMNS = {
    "constant velocity": "constant_velocity_fde_m",
    "public start": "start_fde_m",
    "shared, epsilon 4": "fde_m",
    ALONE: "alone_fde_m",
    HOME: "stays_home_fde_m",
}
_CHANGES = ("privacy.target_epsilon=4.0", "server.evaluate_every=1000000", "resident.held_out=0.2")
Found = dict[str, dict[str, float]]
"""FDE in m by rung and region."""


def measure(data: str, seed: int, output: Path, overrides: Sequence[str] = ()) -> Found:
    """One seed; a complete run is not run again."""
    output = output / f"seed={seed}"
    print(output, file=sys.stderr, flush=True)
    run(data, [f"seed={seed}", *_CHANGES, *overrides], output)
    regions = Folder(output).read("metrics.json")["regions"]
    return {name: {region: one[key] for region, one in regions.items()} for name, key in COLUMNS.items()}


def table(by_seed: Mapping[int, Found]) -> str:
    """Means over seeds, and how far each region's own model is from training alone."""
    regions = list(next(iter(by_seed.values()))[HOME])
    lines = [["rung", *regions, "mean"], ["---"] * (len(regions) + 2)]
    for name in COLUMNS:
        means = [fmean(one[name][region] for one in by_seed.values()) for region in regions]
        lines.append([name, *(f"{value:.3f}" for value in (*means, fmean(means)))])
    gains = [fmean(one[HOME][region] - one[ALONE][region] for one in by_seed.values()) for region in regions]
    signed = [f"{value:+.3f}".replace("-", "−") for value in (*gains, fmean(gains))]
    lines.append([f"{HOME} less {ALONE}", *signed])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.resident",
        description="What a region makes of the shared model for itself.",
    )
    given = cli.parse(parser, arguments, seeds=[1, 2, 3], study="resident")

    def work() -> None:
        by_seed = {seed: measure(given.data, seed, given.output, given.overrides) for seed in given.seeds}
        text = table(by_seed)
        with (given.output / "results.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("seed", "rung", "region", "fde_m"))
            for seed, found in by_seed.items():
                for name, values in found.items():
                    writer.writerows((seed, name, region, f"{value:.4f}") for region, value in values.items())
        (given.output / "table.md").write_text(f"{text}\n", encoding="utf-8")
        if given.publish:
            put(HERE / "README.md", "embedded" if given.data == "embedded" else "recordings", text)
        print(text)

    return cli.answer(work)


if __name__ == "__main__":
    raise SystemExit(main())
