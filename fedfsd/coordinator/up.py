"""``fedfsd coordinator up``: Flower's engine on loopback and the gate before it, kept running."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fedfsd.coordinator import port
from fedfsd.coordinator.folder import SETTINGS, Coordinator
from fedfsd.coordinator.standing import STATUS
from fedfsd.errors import NotReadyError
from fedfsd.flower.engine import Engine
from fedfsd.service import lock
from fedfsd.service.child import Process, python
from fedfsd.service.journal import journal
from fedfsd.service.supervise import LOCK, STATE, Supervisor

WHAT = "fedfsd coordinator up"
ENDING_SECONDS = 5.0


def up(coordinator: Coordinator, *, say: Callable[[str], None]) -> None:
    """Keep SuperLink, SuperExec and gate running until SIGTERM or Ctrl-C; ``say`` is told when all are ready.

    Raises:
        NotReadyError: a second ``up`` on one folder, or a port that something else listens on.
    """
    os.umask(0o077)
    with lock.hold(coordinator.folder / LOCK, what=WHAT):
        _demand_ports(coordinator)
        engine = Engine(coordinator.flower, coordinator.settings.flower_port)
        engine.prepare()
        settings = coordinator.settings
        where = f"regions call {settings.host}:{settings.port}, new ones join at port {settings.join_port}"
        Supervisor(
            processes(coordinator, engine),
            log=journal("up", coordinator.folder, echo=True),
            state=coordinator.folder / STATE,
            on_ready=lambda seconds: say(
                f"coordinator {coordinator.name} is ready after {seconds:.1f} s: {where}"
            ),
        ).run()


def _demand_ports(coordinator: Coordinator) -> None:
    """Refuse ports that others hold, but not those of an earlier ``up`` that is still ending."""
    deadline = time.monotonic() + ENDING_SECONDS
    while taken := port.taken(coordinator.settings):
        if time.monotonic() > deadline:
            raise NotReadyError(
                str(coordinator.folder / SETTINGS),
                got=f"{', '.join(taken)}, which cannot be listened on",
                expected="an address of this machine, with free ports",
                hint="stop what listens there, or choose other ports",
            )
        time.sleep(0.1)


def processes(coordinator: Coordinator, engine: Engine) -> list[Process]:
    """The engine's processes, then the gate; each waits by itself for those it needs."""
    folder = str(coordinator.folder.absolute())
    answers: dict[str, Callable[[], bool]] = {"superlink": engine.ready}
    found = [
        Process(name, argv, env=env, ready=answers.get(name))
        for name, (argv, env) in engine.commands().items()
    ]
    gate = python("fedfsd.coordinator.coordinator_gate", "--coordinator", folder)
    return [*found, Process("gate", gate, ready=lambda: gate_runs(coordinator.folder))]


def gate_runs(folder: Path) -> bool:
    """Whether the gate that wrote status.json last is alive."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        os.kill(json.loads((folder / STATUS).read_bytes())["pid"], 0)
        return True
    return False
