"""The product of a ``[sweep]`` table: one run for each combination of its values."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load, set_key
from fedfsd.report import run_folder
from fedfsd.report.run_folder import Folder
from fedfsd.simulation.run import Engine, Run, run
from fedfsd.simulation.trail import Progress


def combinations(experiment: Experiment) -> dict[str, Experiment]:
    """The runs of a sweep by label, such as ``epsilon=4,seed=1``, all checked before the first starts.

    Raises:
        ConfigError: a key that is none, or a value it cannot have.
    """
    found = {}
    for values in itertools.product(*experiment.sweep.values()):
        document = experiment.model_dump(mode="json", exclude={"sweep"})
        for key, value in zip(experiment.sweep, values, strict=True):
            set_key(document, Experiment.current(key), value)
        parts = [
            f"{key.rpartition('.')[2]}={value}" for key, value in zip(experiment.sweep, values, strict=True)
        ]
        found[",".join(parts).replace("/", "_")] = load(Experiment, document)
    return found


def sweep(
    experiment: Experiment,
    *,
    engine: Engine = "local",
    output: str | Path | None = None,
    resume: bool = False,
    ledgers: str | Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> list[Run]:
    """Run every combination into a folder of its own; a resumed sweep keeps the runs that are complete."""
    runs = combinations(experiment)
    if output is None:
        output = run_folder.free(Path("runs"), experiment.name)
    if not resume:
        for label in runs:
            run_folder.demand_new(Path(output) / label)  # all of them, before the first
    done = []
    for label, one in runs.items():
        place = Path(output) / label
        if resume and Folder(place).complete:
            done.append(Run(place))
            continue
        begun = resume and (place / "plan.json").exists()
        done.append(run(one, engine=engine, output=place, resume=begun, ledgers=ledgers, progress=progress))
    return done
