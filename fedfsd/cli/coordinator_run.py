"""``fedfsd coordinator run``: the run that ``simulate`` shows, over real regions."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.config import Experiment, Overrides
from fedfsd.cli.extra import extra
from fedfsd.cli.folder import HERE, CoordinatorFolder
from fedfsd.cli.simulate import told
from fedfsd.cli.watch import Watch
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.coordinator.folder import Coordinator
    from fedfsd.plan.build import Roster
    from fedfsd.report.run_folder import Folder as RunFolder


def run(
    experiment: Experiment,
    coordinator: CoordinatorFolder = HERE,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="The run folder; a new one under runs/ if left out."
        ),
    ] = None,
    approval_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long the regions have to approve the plan.")
    ] = 86_400.0,
    _json: Json = False,
) -> Answer:
    """Train over real regions, write a report.

    EXPERIMENT is a TOML file as for simulate. Roster and identity of each region are what its policy
    declares; an experiment that names no region is for all that joined. The plan is offered to the regions,
    and the run begins when all have answered. Needs coordinator up.
    """
    from fedfsd.config.experiment import Experiment as Model
    from fedfsd.config.load import load
    from fedfsd.errors import UsageError

    loaded = load(Model, experiment, overrides=overrides or [])
    if loaded.sweep:
        raise UsageError(
            "sweep",
            got="a [sweep] table",
            expected="one run",
            hint="search with fedfsd simulate, on public tables",
        )
    with extra("node"):
        from fedfsd.coordinator import run as runs
        from fedfsd.coordinator.folder import open_coordinator
        from fedfsd.flower.engine import Engine
        from fedfsd.report import run_folder
        from fedfsd.simulation import real
        from fedfsd.simulation.run import Run
    hub = open_coordinator(coordinator)
    engine = Engine(hub.flower, hub.settings.flower_port)
    runs.demand_up(hub, engine)
    if output is None:
        output = (run_folder.newest if resume else run_folder.free)(Path("runs"), loaded.name)
    loaded = real.completed(loaded, real.planned(output) if resume else _offered(hub))
    runs.demand_joined(hub, sorted(real.rosters_of(loaded)))
    _say(f"{loaded.name}: " + ("reading the run" if resume else "preparing model and noise"))
    where, plan = (real.again if resume else real.begin)(loaded, output)
    if plan.model.backbone is not None and plan.model.backbone.source == "file":
        _say(
            f"frozen weights: {where.backbone} (SHA-256 {plan.model.backbone.sha256}); each region needs this"
            " file in its runner's folder of backbones, and the hash under backbones in its policy"
        )
    with _ended_as_by_ctrl_c(), Watch() as watch, runs.offered(hub, plan):
        runs.await_answers(hub, plan, timeout=approval_timeout, say=_say)
        conductor = runs.Conductor(
            folder=where.path,
            complete=lambda: where.complete,
            stopped=lambda: real.stopped(where),
            rounds=lambda: len(where.rounds()),
            alive=lambda: real.is_conducted(where),
            watch=_look(where, watch),
        )
        runs.follow(engine, conductor, coordinator=hub, say=_say)
    made = Run(where.path)
    note = "figures on the coordinator's own table; the regions' own measurements never leave them"
    return Answer(made.metrics, f"{note}\n{told(made.path)}")


def _offered(hub: Coordinator) -> dict[str, Roster]:
    """What the regions that joined declared of themselves."""
    from fedfsd.coordinator import declaration
    from fedfsd.plan.build import Roster

    told = {name: declaration.read(hub, name) for name in hub.regions()}
    found = ((name, one) for name, one in told.items() if one is not None)
    return {name: Roster(one.roster, one.identity, counted=False) for name, one in found}


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM and a closed terminal withdraw the offer and stop the run, too, so that it can be continued."""
    ends = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) == signal.SIG_DFL]
    for one in ends:
        signal.signal(one, signal.default_int_handler)
    try:
        yield
    finally:
        for one in ends:
            signal.signal(one, signal.SIG_DFL)


def _look(where: RunFolder, watch: Watch) -> Callable[[], None]:
    """Shows each progress that the conductor of the run writes, once, as ``simulate`` shows it."""
    from fedfsd.simulation import real

    last: list[object] = [None]

    def look() -> None:
        found = real.progress(where)
        if found is not None and found != last[0]:
            last[0] = found
            watch(found)

    return look


def _say(text: str) -> None:
    print(plain(text), file=sys.stderr, flush=True)
