"""``simulate``: an experiment in, a run folder with model, metrics and report out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flwr.serverapp import Grid
from torch import nn

from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.engine.device import demand_precision, resolve
from fedfsd.errors import UsageError
from fedfsd.federation.grid import ProcessGrid, warm
from fedfsd.flower import strategy as strategies
from fedfsd.plan.plan import Arrays
from fedfsd.report import notebook, run_folder
from fedfsd.report.page import read_run
from fedfsd.report.run_folder import Folder
from fedfsd.runner.client import numbered
from fedfsd.runner.region import RegionConfig, policy_of
from fedfsd.service import lock
from fedfsd.simulation import books, track
from fedfsd.simulation.books import Evidence
from fedfsd.simulation.conduct import checks_of, conduct
from fedfsd.simulation.prepare import prepare
from fedfsd.simulation.trail import Progress, load_model

# The app that worker processes load by name.
CLIENT = "fedfsd.runner.client:simulated"
NodeConfig = dict[str, Any]
Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Run:
    """A finished run; everything is read from its folder."""

    path: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures, as in metrics.json."""
        found: dict[str, Any] = Folder(self.path).read("metrics.json")
        return found

    @property
    def rounds(self) -> notebook.Rows:
        """A row a round and region: what was measured, outcome, hash and size of the update."""
        return notebook.rounds_of(Folder(self.path).rounds())

    @property
    def regions(self) -> notebook.Rows:
        """A row a region with its figures."""
        return notebook.regions_of(read_run(self.path))

    @property
    def figures(self) -> dict[str, notebook.Picture]:
        """The report's pictures by name, as SVG."""
        found = sorted((self.path / "figures").glob("*.svg"))
        return {path.stem: notebook.Picture(path.read_text(encoding="utf-8")) for path in found}

    def _repr_html_(self) -> str:
        return notebook.summary(read_run(self.path))

    @property
    def report(self) -> Path:
        """The page to read."""
        return self.path / "report.html"

    def model(self) -> nn.Module:
        """The trained model: history (B, H, 2) -> paths (B, K, F, 2), scores (B, K), all in m."""
        return load_model(Folder(self.path))


def simulate(
    experiment: str | Path | Mapping[str, Any],
    *,
    overrides: Iterable[str] = (),
    engine: Engine = "local",
    output: str | Path | None = None,
    resume: bool = False,
    ledgers: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Run ``experiment`` (a TOML file or a mapping) here and return its Run.

    Args:
        overrides: ``key=value`` with dotted keys, as for ``--set``.
        output: the run folder; by default a new one under ``runs/``.
        resume: continue the interrupted run in ``output``.
        ledgers: a folder where the regions' ledgers are kept over runs; by default each run has fresh ones.
        progress: called after each round; by default a notebook shows a line, anything else nothing.

    Raises:
        FedfsdError: bad input, or too few regions; an interrupted run can be resumed.
    """
    loaded = load(Experiment, experiment, overrides=overrides)
    watcher = progress or notebook.Shown()
    return run(loaded, engine=engine, output=output, resume=resume, ledgers=ledgers, progress=watcher)


def run(
    experiment: Experiment,
    *,
    engine: Engine,
    output: str | Path | None,
    resume: bool,
    ledgers: str | Path | None = None,
    progress: Callable[[Progress], None],
) -> Run:
    """``simulate`` for an experiment that is loaded already."""
    if experiment.sweep:
        raise UsageError(
            "sweep", got="a [sweep] table", expected="one run", hint="use fedfsd.simulation.sweep.sweep"
        )
    if output is None:
        output = (run_folder.newest if resume else run_folder.free)(Path("runs"), experiment.name)
    if engine == "local":
        warm(CLIENT)

    def on(nodes: list[NodeConfig], work: Callable[[Grid], Arrays]) -> Arrays:
        if engine == "ray":
            from fedfsd.flower import ray

            return ray.run(numbered(nodes), nodes=len(nodes), work=work)
        with ProcessGrid(CLIENT, dict(enumerate(nodes, start=2))) as grid:
            return work(grid)

    return _run(
        experiment,
        Path(output),
        on,
        resume=resume,
        ledgers=Path(ledgers) if ledgers else None,
        progress=progress,
    )


def run_on(grid: Grid, experiment: Experiment, *, output: Path) -> Run:
    """Run ``experiment`` on a grid whose nodes are regions already, as ``flwr run`` makes it."""
    return _run(
        experiment, output, lambda _, work: work(grid), resume=False, ledgers=None, progress=lambda _: None
    )


def node_config(experiment: Experiment, output: Path, name: str, ledgers: Path | None = None) -> NodeConfig:
    """What a simulated region knows about itself; see ``RegionConfig``."""
    region = experiment.regions.get(name)
    return {
        "name": name,
        "data_path": experiment.data.path,
        "folder": str((ledgers / name if ledgers else Folder(output).region(name)).resolve()),
        "device": (region and region.device) or experiment.training.device,
        "policy": (region and region.policy) or "",
        "noise_key": experiment.privacy.noise_key or "",
        "engine": experiment.training.engine,
        "backbones": str(Folder(output).backbone.resolve()),
    }


def _run(
    experiment: Experiment,
    output: Path,
    on: Callable[[list[NodeConfig], Callable[[Grid], Arrays]], Arrays],
    *,
    resume: bool,
    ledgers: Path | None,
    progress: Callable[[Progress], None],
) -> Run:
    if not resume:
        run_folder.demand_new(output)  # refused before the work, as is what follows
    strategies.resolve(experiment.server.strategy, experiment.server.options)
    track.of(experiment.track)
    limits = None if resume or ledgers is None else books.limits(ledgers)
    prepared = prepare(experiment, run=run_folder.run_of(output) if resume else None, limits=limits)
    nodes = {name: node_config(experiment, output, name, ledgers) for name in prepared.plan.regions}
    for name, node in nodes.items():
        demand_precision(resolve(node["device"]), prepared.plan.precision)
        policy_of(RegionConfig(**node, simulated=True)).demand(prepared.plan, name)
    checks = checks_of(prepared.plan)
    where = (run_folder.reopen if resume else run_folder.create)(output, experiment, prepared.plan)
    where.keep_backbone(prepared.backbone)
    keeper = Evidence(
        prepared,
        where,
        {name: Path(node["folder"]) for name, node in nodes.items()},
        coordinator=ledgers and ledgers / "coordinator",
    )
    with lock.hold(where.path / run_folder.CONDUCTED, what="this run"):
        keeper.begin(resume=resume)
        conduct(
            prepared,
            where,
            keeper,
            lambda work: on(list(nodes.values()), work),
            resume=resume,
            checks=checks,
            progress=progress,
        )
    return Run(where.path)
