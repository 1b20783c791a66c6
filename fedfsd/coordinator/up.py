"""``fedfsd coordinator up``: Flower's engine on loopback and the gate before it, kept running."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fedfsd.coordinator.folder import SETTINGS, Coordinator, CoordinatorSettings
from fedfsd.coordinator.standing import STATUS
from fedfsd.errors import NotReadyError
from fedfsd.flower.engine import Engine
from fedfsd.service import address, lock
from fedfsd.service.child import Process, python
from fedfsd.service.journal import journal
from fedfsd.service.supervise import LOCK, STATE, Supervisor

WHAT = "fedfsd coordinator up"
ENDING_SECONDS = 5.0
"""What an earlier ``up`` ran was killed before its lock was free: only the system still closes its ports."""
LOOPBACK = "127.0.0.1"


def up(coordinator: Coordinator, *, say: Callable[[str], None]) -> None:
    """Keep SuperLink, SuperExec and gate running until SIGTERM or Ctrl-C; ``say`` reports when all are up.

    Raises:
        NotReadyError: a second ``up`` on one folder, or a port that something else listens on.
    """
    os.umask(0o077)
    with lock.hold(coordinator.folder / LOCK, what=WHAT):
        _demand_ports(coordinator)
        engine = Engine(coordinator.flower, coordinator.settings.flower_port)
        engine.prepare()
        settings = coordinator.settings
        where = f"regions call {settings.address}, new ones join at {settings.join_address}"
        Supervisor(
            processes(coordinator, engine),
            log=journal("up", coordinator.folder, echo=True),
            state=coordinator.folder / STATE,
            on_ready=lambda seconds: say(
                f"coordinator {coordinator.name} is ready after {seconds:.1f} s: {where}"
            ),
        ).run()


def _demand_ports(coordinator: Coordinator) -> None:
    """Refuse ports in use, but wait for an earlier ``up`` that is still ending."""
    deadline = time.monotonic() + ENDING_SECONDS
    while taken := taken_ports(coordinator.settings):
        if time.monotonic() > deadline:
            raise NotReadyError(
                str(coordinator.folder / SETTINGS),
                got=f"{', '.join(taken)}, which are not available",
                expected="an address of this machine with free ports",
                hint="stop the process that listens there, or choose other ports",
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


def taken_ports(settings: CoordinatorSettings) -> list[str]:
    """The ports that are not available here, each as its key in coordinator.toml and its number."""
    hosts = {"port": settings.listen, "join_port": settings.listen, "flower_port": LOOPBACK}
    wanted = [(key, getattr(settings, key)) for key in hosts]
    return [f"{key} {port}" for key, port in wanted if not address.may_listen(hosts[key], port)]


def answers(host: str, port: int) -> bool:
    """Whether something listens there; ``host`` is the server's listen address."""
    try:
        socket.create_connection((address.from_here(host), port), timeout=3.0).close()
    except OSError:
        return False
    return True
