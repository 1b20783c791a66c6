"""The sides of a federation as Flower apps.

``flwr run . local`` comes in through server/app.py and clients/app.py; ``server`` is what a coordinator's
own SuperLink runs. A simulation's workers load ``runner.client.simulated``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.flower import private
from fedfsd.flower.link_grid import LinkGrid
from fedfsd.plain_text import plain
from fedfsd.runner.region import RegionConfig
from fedfsd.simulation import real
from fedfsd.simulation.prepare import regions_of, task_of
from fedfsd.simulation.run import node_config, run_on

server = ServerApp()


@server.main()
def coordinate(grid: Grid, context: Context) -> None:
    """Conduct the run that the run configuration names, over the regions behind a coordinator's gate."""
    private.quiet()
    run, coordinator = (Path(str(context.run_config[key])) for key in ("run", "coordinator"))
    real.serve(LinkGrid(grid, database=coordinator / "flower" / "state.db"), run, coordinator)


def serve(grid: Grid, context: Context, root: Path) -> None:
    """Run the experiment of the run configuration (a path below ``root``) on a grid that Flower made."""
    folder = _folder(context)
    print(f"run folder: {plain(folder)}", flush=True)  # Flower's log shows it
    run_on(grid, _experiment(context, root), output=folder)
    print(f"report: {plain(folder / 'report.html')}", flush=True)


def numbered_region(context: Context, root: Path) -> RegionConfig:
    """The region of a node that Flower's simulation engine numbered, in the order of the experiment."""
    experiment = _experiment(context, root)
    name = _names(experiment.model_dump_json())[int(context.node_config["partition-id"])]
    return RegionConfig(**node_config(experiment, _folder(context), name), simulated=True)


@cache
def _names(experiment_json: str) -> list[str]:
    experiment = Experiment.model_validate_json(experiment_json)
    return regions_of(experiment, task_of(experiment).tables(experiment.data.path))


def _experiment(context: Context, root: Path) -> Experiment:
    return load(Experiment, root / str(context.run_config["experiment"]))


def _folder(context: Context) -> Path:
    """A folder for this run, the same for its server and its nodes."""
    return Path(str(context.run_config["folder"])).expanduser() / f"run-{context.run_id}"
