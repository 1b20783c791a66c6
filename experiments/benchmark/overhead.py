"""What a warm round of four regions spends outside local training.

A round lasts from the moment its first message is taken up to the moment the next round's is: sending,
booking, hashing, releasing, checking, aggregating, the checkpoint and the test figures are all in it. Of
that, the busiest worker's seconds of local training are what had to be; the rest is overhead.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from experiments.benchmark.demo import QUICKSTART
from experiments.benchmark.row import Row
from experiments.benchmark.timed import FILE
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import source
from fedfsd.federation.grid import ProcessGrid
from fedfsd.report.run_folder import Folder
from fedfsd.simulation.prepare import regions_of
from fedfsd.simulation.run import node_config, run_on

_CLIENT = "experiments.benchmark.timed:client"
_WARM = 3  # the first rounds load data and packages


def overhead(output: Path, *, quick: bool) -> list[Row]:
    """What rounds spend outside training, as a share of it."""
    short = _rounds(output / "short", ["training.num_rounds=8" if quick else "training.num_rounds=60"])
    steps = 2 if quick else 100
    long = _rounds(output / "long", ["training.num_rounds=8", f"training.local_steps={steps}"])
    return [
        Row(
            "short_round_outside_to_training",
            median((wall - t) / t for wall, t in short),
            1,
            "times",
            "<=",
            f"{1000 * median(wall - t for wall, t in short):.0f} ms outside, "
            f"{1000 * median(t for _, t in short):.0f} ms of training",
        ),
        Row("long_round_outside_share", 100 * median(1 - t / wall for wall, t in long), 5, "%", "<"),
    ]


def _rounds(output: Path, overrides: Sequence[str]) -> list[tuple[float, float]]:
    """(wall, training) seconds of each warm round of the quickstart with ``overrides``."""
    experiment = load(Experiment, QUICKSTART, overrides=["pretraining.steps=100", *overrides])
    names = regions_of(experiment, source.tables(experiment.data.path))
    nodes = {number: node_config(experiment, output, name) for number, name in enumerate(names, start=2)}
    with ProcessGrid(_CLIENT, nodes) as grid:
        run_on(grid, experiment, output=output)
    started: dict[int, float] = {}
    training: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for name in names:
        lines = (Folder(output).region(name) / FILE).read_text(encoding="utf-8").splitlines()
        for line in map(json.loads, lines):
            number = line["round"]
            started[number] = min(line["started"], started.get(number, line["started"]))
            training[number][line["worker"]] += line["training"]
    return [
        (started[number + 1] - started[number], max(training[number].values()))
        for number in sorted(started)
        if number > _WARM and number + 1 in started
    ]
