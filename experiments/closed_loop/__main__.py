"""``python -m experiments.closed_loop``: collisions and comfort of a car that plans by a forecast.

Trains the quickstart's recipe on the embedded traffic at epsilon 1, epsilon 4 and without noise, then drives
the same episodes with each model and with constant velocity. Writes results.csv and table.md; trainings that
are complete are taken as they are.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import sqrt
from pathlib import Path

import numpy as np

from experiments.closed_loop import driving
from experiments.closed_loop.driving import SCENES, Drive, Forecaster
from experiments.four_regions.page import put
from experiments.four_regions.study import SETTINGS, run

HERE = Path(__file__).parent
SIMPLE = "constant velocity"
_RATE = SETTINGS["learning_rate_not_private"]["federated"]
MODELS = {
    "epsilon 1": ["privacy.target_epsilon=1.0"],
    "epsilon 4": ["privacy.target_epsilon=4.0"],
    "no noise": ['mode="none"', f"training.learning_rate={_RATE}"],
}
_Z = 1.96  # of a 95% interval
Driven = dict[str, dict[str, list[Drive]]]
"""Episodes by forecaster and scene."""


def forecasters(output: Path, overrides: Sequence[str] = ()) -> dict[str, Forecaster]:
    """Constant velocity and the three models, trained where they are not there."""
    found: dict[str, Forecaster] = {SIMPLE: driving.constant_velocity}
    for name, changes in MODELS.items():
        print(name, file=sys.stderr, flush=True)
        chosen = ["server.evaluate_every=1000000", *changes, *overrides]
        found[name] = driving.of_model(run(None, chosen, output / name.replace(" ", "_")).model())
    return found


def driven(by_name: Mapping[str, Forecaster], episodes: int) -> Driven:
    """All episodes; episode n begins alike for everybody."""
    found: Driven = {}
    for name, forecaster in by_name.items():
        print(f"driving by {name}", file=sys.stderr, flush=True)
        found[name] = {
            scene: [driving.drive(scene, seed, forecaster) for seed in range(episodes)] for scene in SCENES
        }
    return found


def table(found: Driven) -> str:
    """Collisions with Wilson intervals, comfort with normal ones, a line a scene and forecaster."""
    lines = [["scene", "forecast by", "collisions", "braked hard", "mean jerk, m/s³", "mean speed, m/s"]]
    lines.append(["---"] * len(lines[0]))
    for scene in SCENES:
        for name, by_scene in found.items():
            drives = by_scene[scene]
            shares = [wilson([getattr(one, key) for one in drives]) for key in ("collided", "hard")]
            means = [_mean([getattr(one, key) for one in drives]) for key in ("jerk", "speed")]
            lines.append([scene, name, *shares, *means])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def wilson(happened: Sequence[bool]) -> str:
    """A share with its 95% interval.

    Source: Wilson 1927.

    >>> wilson([True] * 5 + [False] * 95)
    '5% (2 to 11)'
    >>> wilson([False] * 60)
    '0% (0 to 6)'
    """
    count, share = len(happened), float(np.mean(happened))
    middle = share + _Z**2 / (2 * count)
    half = _Z * sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    low, high = ((middle + sign * half) / (1 + _Z**2 / count) for sign in (-1, 1))
    return f"{share:.0%} ({100 * max(low, 0):.0f} to {100 * high:.0f})"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f} ± {_Z * np.std(values, ddof=1) / sqrt(len(values)):.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.closed_loop", description=__doc__)
    parser.add_argument("--episodes", type=int, default=60, metavar="N", help="of each scene and forecaster")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/closed_loop"), metavar="DIR")
    parser.add_argument("--publish", action="store_true", help="also write into this folder's README")
    given = parser.parse_args(arguments)
    found = driven(forecasters(given.output), given.episodes)
    text = f"{given.episodes} episodes each.\n\n{table(found)}"
    with (given.output / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("scene", "forecast by", "episode", "collided", "hard", "jerk", "speed"))
        for name, by_scene in found.items():
            for scene, drives in by_scene.items():
                for number, one in enumerate(drives):
                    collided, hard, jerk, speed = asdict(one).values()
                    writer.writerow(
                        (scene, name, number, int(collided), int(hard), f"{jerk:.4f}", f"{speed:.4f}")
                    )
    (given.output / "table.md").write_text(f"{text}\n", encoding="utf-8")
    if given.publish:
        put(HERE / "README.md", "table", text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
