"""One run from its first round to its report, on any grid, whoever keeps the evidence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Protocol

from flwr.serverapp import Grid

from fedfsd.federation import moments
from fedfsd.federation.strategy import PlannedStrategy
from fedfsd.flower import strategy as strategies
from fedfsd.gate.gate import WATCH
from fedfsd.gate.watch import Watcher
from fedfsd.plan.plan import Arrays, Plan
from fedfsd.report.page import write_report
from fedfsd.report.run_folder import Folder
from fedfsd.simulation import track
from fedfsd.simulation.prepare import Prepared, model_with
from fedfsd.simulation.trail import Progress, Trail, epsilon_check

_PROGRESS = logging.getLogger("fedfsd.progress")
Checks = dict[str, dict[str, float | None] | None]


class Keeper(Protocol):
    """Who keeps the evidence of a run."""

    def finish(self) -> dict[str, dict[str, Any]]:
        """Write it into the run folder; by region what its grant was charged, where that is known here."""


def checks_of(plan: Plan) -> Checks:
    """What other accountants say of each region. AccountingError where they disagree: ask before a run."""
    return {name: epsilon_check(plan, name) for name in plan.regions}


def conduct(
    prepared: Prepared,
    where: Folder,
    keeper: Keeper,
    on: Callable[[Callable[[Grid], Arrays]], Arrays],
    *,
    resume: bool,
    checks: Checks,
    progress: Callable[[Progress], None],
) -> None:
    """Run the plan over the grid that ``on`` lends, and leave model, metrics, evidence and report.

    Args:
        resume: go on from the checkpoint in the run folder, if there is one.

    Raises:
        NotReadyError: too few regions in a round; the run can be resumed.
    """
    started = time.monotonic()
    server = prepared.experiment.server
    inner = strategies.resolve(server.strategy, server.options)
    start = model_with(prepared.plan, prepared.task, prepared.initial, prepared.backbone)
    moments.bind(inner, prepared.plan, start)
    strategy = PlannedStrategy(
        inner,
        prepared.plan,
        round_timeout_seconds=server.round_timeout_seconds,
        watcher=Watcher(where.path / WATCH),
        keep=lambda region, round, update: where.keep_release(prepared.plan, region, round, update),
    )
    with track.following(where, prepared.experiment) as trackers:
        trail = Trail(where, prepared, strategy, checks, progress, trackers)
        with closing(trail):
            _PROGRESS.info("round 1 of %d: the regions load their data", prepared.plan.num_rounds)
            first, arrays = trail.begin(resume=resume)
            final = on(lambda grid: strategy.start(grid, arrays, first_round=first, on_round=trail.on_round))
            trail.settle()
            trail.finish(final, spent=keeper.finish(), seconds=time.monotonic() - started)
        trackers.end(trail.final, [where.path / "plan.json", write_report(where.path)])
