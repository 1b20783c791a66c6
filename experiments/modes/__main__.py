"""``python -m experiments.modes``: one path or six, three seconds ahead or six, by epsilon.

The quickstart's federation with the model gru, whose paths are free (mlp has one). Writes results.csv and
table.md; an interrupted command continues.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from experiments.four_regions import cli
from experiments.four_regions.page import put
from experiments.four_regions.study import SETTINGS, run

HERE = Path(__file__).parent
SECONDS, MODES = (3, 6), (1, 6)
_RATE = SETTINGS["learning_rate_not_private"]["federated"]
PROMISES = {
    "epsilon 1": ["privacy.target_epsilon=1.0"],
    "epsilon 8": ["privacy.target_epsilon=8.0"],
    "no noise": ['mode="none"', f"training.learning_rate={_RATE}"],
}
COLUMNS = {
    "FDE, m": ("fde_m", "{:.2f}"),
    "minFDE, m": ("min_fde_k_m", "{:.2f}"),
    "minADE, m": ("min_ade_k_m", "{:.2f}"),
    "missed": ("miss_rate", "{:.0%}"),
    "sure of the likeliest": ("confidence", "{:.0%}"),
    "it is the nearest": ("hit", "{:.0%}"),
    "calibration error": ("calibration", "{:.3f}"),
    "constant velocity, FDE": ("constant_velocity_fde_m", "{:.2f}"),
    "start, FDE": ("start_fde_m", "{:.2f}"),
}
Row = tuple[int, int, str]
"""Seconds ahead, paths, promise."""


def rows() -> Iterator[Row]:
    """In the order of the table."""
    return ((seconds, modes, promise) for seconds in SECONDS for modes in MODES for promise in PROMISES)


def measure(row: Row, seed: int, given: cli.Given) -> dict[str, float]:
    """The pooled figures of one run; a complete one is not run again."""
    seconds, modes, promise = row
    changes = [
        f"seed={seed}",
        'model.name="gru"',
        f"model.options.modes={modes}",
        f"task.options.future_seconds={seconds}",
        "server.evaluate_every=1000000",
        *PROMISES[promise],
        *given.overrides,
    ]
    output = given.output / f"seed={seed}" / f"{seconds}s-{modes}-{promise.replace(' ', '_')}"
    print(output, file=sys.stderr, flush=True)
    found = run(given.data, changes, output).metrics["pooled"]
    return {key: found[key] for key, _ in COLUMNS.values() if key in found}


def table(found: Mapping[Row, Sequence[Mapping[str, float]]]) -> str:
    """Means over seeds."""
    lines = [["ahead", "paths", "", *COLUMNS]]
    lines.append(["---"] * len(lines[0]))
    for (seconds, modes, promise), by_seed in found.items():
        figures = (
            form.format(fmean(one[key] for one in by_seed)) if key in by_seed[0] else ""
            for key, form in COLUMNS.values()
        )
        lines.append([f"{seconds} s", f"{modes}", promise, *figures])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.modes", description="One path or six, three seconds ahead or six."
    )
    given = cli.parse(parser, arguments, seeds=[1], study="modes")

    def work() -> None:
        found = {row: [measure(row, seed, given) for seed in given.seeds] for row in rows()}
        text = table(found)
        with (given.output / "results.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("seconds", "paths", "promise", "seed", "figure", "value"))
            for row, by_seed in found.items():
                for seed, one in zip(given.seeds, by_seed, strict=True):
                    writer.writerows((*row, seed, key, f"{value:.4f}") for key, value in one.items())
        (given.output / "table.md").write_text(f"{text}\n", encoding="utf-8")
        if given.publish:
            put(HERE / "README.md", "table", text)
        print(text)

    return cli.answer(work)


if __name__ == "__main__":
    raise SystemExit(main())
