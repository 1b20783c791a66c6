"""Noise by round against flat noise: the quickstart at epsilon 2, the same seeds, all else the same.

    python -m experiments.noise_schedule ~/fedfsd-runs/noise --seeds 1 2 3 4 5 --workers 2

Finished runs are not run again. Prints, and writes to results.json in that folder, the headline error of
every run by region and pooled, its mean by kind, the mean difference over seeds with its standard error, and
the noise in the released model that the plans predict.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fedfsd.plan import plan as plans

QUICKSTART = Path(__file__).parents[1] / "quickstart.toml"
EPSILON = 2.0
KINDS = ("flat", "by_influence")
HEADLINE = "fde_m"


def main() -> None:
    """Run what is missing and compare."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    arguments.add_argument("--workers", type=int, default=min(2, multiprocessing.cpu_count()))
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    cases = [(seed, kind) for seed in given.seeds for kind in KINDS]
    with ThreadPoolExecutor(given.workers) as pool:
        list(pool.map(lambda case: _run(given.folder, *case), cases))
    found = compare(given.folder, given.seeds)
    (given.folder / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(text(found))


def compare(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """All figures of finished runs, plain values."""
    errors = {kind: {seed: _errors(folder / f"{kind}-{seed}") for seed in seeds} for kind in KINDS}
    places = list(errors[KINDS[0]][seeds[0]])
    noise = {kind: _noise(folder / f"{kind}-{seeds[0]}") for kind in KINDS}
    rows = {}
    for place in places:
        flat, varied = ([errors[kind][seed][place] for seed in seeds] for kind in KINDS)
        differences = [b - a for a, b in zip(flat, varied, strict=True)]
        rows[place] = {
            "flat_m": mean(flat),
            "by_influence_m": mean(varied),
            "difference_m": mean(differences),
            "standard_error_m": stdev(differences) / sqrt(len(seeds)) if len(seeds) > 1 else None,
            "better_in": sum(one < 0 for one in differences),
        }
    return {"epsilon": EPSILON, "seeds": seeds, "errors_m": errors, "noise": noise, "places": rows}


def text(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"epsilon {found['epsilon']:g}, {len(found['seeds'])} seeds, {HEADLINE} in metres"]
    for place, row in found["places"].items():
        error = "" if row["standard_error_m"] is None else f" (standard error {row['standard_error_m']:.4f})"
        lines.append(
            f"{place:8} flat {row['flat_m']:.4f}  by influence {row['by_influence_m']:.4f}  "
            f"difference {row['difference_m']:+.4f}{error}, better in {row['better_in']}"
        )
    for name, flat in found["noise"]["flat"].items():
        varied = found["noise"]["by_influence"][name]
        saved = 1 - varied["effective"] / flat["effective"]
        lines.append(
            f"{name:8} noise {flat['words']}; {varied['words']}: {100 * saved:.1f}% less in the model"
        )
    return "\n".join(lines)


def _run(folder: Path, seed: int, kind: str) -> None:
    """One run in a process of its own, unless it is there."""
    output = folder / f"{kind}-{seed}"
    if (output / "metrics.json").exists():
        return
    changes = {"seed": seed, "privacy.target_epsilon": EPSILON, "privacy.noise_schedule": f'"{kind}"'}
    command = [sys.executable, "-c", "from fedfsd.cli.main import run; run()", "simulate", str(QUICKSTART)]
    command += [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    subprocess.run([*command, "-o", str(output)], check=True, capture_output=True)


def _errors(run: Path) -> dict[str, float]:
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    places = {**metrics["regions"], "pooled": metrics["pooled"]}
    return {name: one[HEADLINE] for name, one in places.items()}


def _noise(run: Path) -> dict[str, dict[str, Any]]:
    """By region, the noise of a run's plan and what flat noise would leave as much in the model."""
    plan = plans.read((run / "plan.json").read_text(encoding="utf-8"))
    return {
        name: {"words": plan.noise_words(name), "effective": plan.effective_noise(name)}
        for name in plan.regions
    }


if __name__ == "__main__":
    main()
