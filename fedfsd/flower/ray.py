"""Flower's own simulation engine, which is Ray: many regions over many cores or machines."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import TypeVar

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedfsd.errors import NotReadyError, install
from fedfsd.flower import private

T = TypeVar("T")


def run(client: ClientApp, *, nodes: int, work: Callable[[Grid], T]) -> T:
    """Start ``nodes`` simulated nodes that run ``client`` and return what ``work`` makes of the grid.

    Raises:
        NotReadyError: Ray is not installed. Whatever ``work`` raises.
    """
    if importlib.util.find_spec("ray") is None:
        raise NotReadyError(
            "--engine ray", got="no ray installed", expected="the ray extra", hint=install("ray")
        )
    # Ray otherwise reports usage over the network, and warns of a change to come.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from flwr.simulation import run_simulation

    private.quiet()
    server, results = ServerApp(), []

    @server.main()
    def main(grid: Grid, _: Context) -> None:
        results.append(work(grid))

    run_simulation(
        server,
        client,
        num_supernodes=nodes,
        # One core a region at a time, as in the in-process grid.
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    return results[0]
