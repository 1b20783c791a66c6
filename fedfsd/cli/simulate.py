"""``fedfsd simulate``: run a federation on this machine and print the path of the report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json, table
from fedfsd.cli.config import Experiment, Overrides
from fedfsd.cli.extra import extra
from fedfsd.plain_text import plain

STAYS = "stays home, alone: trained on by each region for itself, from the model or its start; not private\n"


class EngineOption(StrEnum):
    """What carries the messages."""

    local = "local"
    ray = "ray"


def simulate(
    experiment: Experiment,
    overrides: Overrides = None,
    engine: Annotated[
        EngineOption, typer.Option(help="Worker processes of this machine, or Flower's engine on Ray.")
    ] = EngineOption.local,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="The run folder; a new one under runs/ if left out."
        ),
    ] = None,
    ledgers: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the regions' ledgers here over runs; fresh ones if left out."),
    ] = None,
    _json: Json = False,
) -> Answer:
    """Train across regions, write a report.

    EXPERIMENT is a TOML file; its [sweep] table, if any, runs every combination of its values.
    """
    from fedfsd.config.experiment import Experiment as Model
    from fedfsd.config.load import load

    loaded = load(Model, experiment, overrides=overrides or [])
    print(f"{loaded.name}: preparing data, model and noise", file=sys.stderr, flush=True)
    with extra(engine if engine == EngineOption.ray else "simulation"):
        from fedfsd.cli.watch import Watch
        from fedfsd.simulation import run, sweep

        with Watch() as watch:
            options: Any = {
                "engine": engine.value,
                "output": output,
                "resume": resume,
                "ledgers": ledgers,
                "progress": watch,
            }
            found = sweep.sweep(loaded, **options) if loaded.sweep else [run.run(loaded, **options)]
    metrics = [one.metrics for one in found]
    text = "\n\n".join(told(one.path) for one in found)
    return Answer({"runs": metrics} if loaded.sweep else metrics[0], text)


def told(folder: Path) -> str:
    """A finished run as text: one line per region with the headline, and the path of the report."""
    from fedfsd.report.page import crossing_of, listed, read_run, worse_than_start
    from fedfsd.report.words import HEADINGS, amount, gain, gained, titled

    run = read_run(folder)
    headline, baseline = run.headline, run.baseline_key
    rows = [
        {
            "region": name,
            titled(headline): amount(region[headline.key], headline.unit, bare=True),
            run.task.baseline: amount(region[baseline], headline.unit, bare=True),
            "better by": gained(headline, gain(headline, region[headline.key], region[baseline])),
            "since start": gained(headline, gain(headline, region[headline.key], region[run.start_key])),
            **{what: amount(region[key], headline.unit, bare=True) for what, key in run.beside.items()},
            "epsilon": region["epsilon"],
            "charged": _charged(region),
            "vehicles": region["vehicles"],
        }
        for name, region in run.regions.items()
    ]
    if all(row["charged"] is None for row in rows):  # a region's grant is its own business
        for row in rows:
            del row["charged"]
    mode = HEADINGS[run.plan.mode]
    crossing = crossing_of(run)
    harmed = worse_than_start(run)
    warning = (
        f"training did not help in {listed(harmed)}: the start is as good there, or better\n"
        if harmed
        else ""
    )
    return (
        f"{table(rows)}\n"
        f"{warning}"
        f"{plain(crossing.sentence) + chr(10) if crossing else ''}"
        f"{STAYS if run.beside else ''}"
        f"{run.plan.num_rounds} rounds in {run.metrics['seconds']:.0f} s{f' ({mode})' if mode else ''}\n"
        f"report: {plain(folder / 'report.html')}"
    )


def _charged(region: Mapping[str, Any]) -> str | None:
    """What the grant was charged in epsilon, of how much."""
    if region.get("epsilon_lifetime") is None:
        return None
    return f"{region['epsilon_lifetime']:.2f} of {region['epsilon_grant']:.2f}"
