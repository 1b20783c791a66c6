"""A region's processes seen and ended from outside them: what runs, pause, resume and stop."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedfsd.errors import NotReadyError
from fedfsd.node import control
from fedfsd.node.node import Node
from fedfsd.node.station import PAUSED
from fedfsd.service import lock, patience
from fedfsd.service.supervise import LOCK, STATE, read, standing

STOP_SECONDS = 20.0
FIGURES = "figures.jsonl"
_LAST_BYTES = 65_536

Document = dict[str, Any]


def hold(node: Node, *, paused: bool) -> bool:
    """Set or remove the pause flag; whether a running gate has seen it."""
    flag = node.folder / PAUSED
    if paused:
        flag.touch(mode=0o600)
    else:
        flag.unlink(missing_ok=True)
    try:
        control.ask(node, {"op": "pause" if paused else "resume"}, seconds=5.0)
    except NotReadyError:
        return False
    return True


def halt(node: Node) -> None:
    """End ``fedfsd region up`` with all it runs, or a gate that runs alone.

    Raises:
        NotReadyError: nothing runs, or it does not end.
    """
    supervised = node.folder / LOCK
    if lock.held(supervised):
        state = read(node.folder / STATE) or {}
        with suppress(ProcessLookupError):
            os.kill(int(state["pid"]), signal.SIGTERM)
    else:
        control.ask(node, {"op": "stop"})
        supervised = node.folder / "run" / "gate.pid"
    ended = patience.until(
        lambda: not lock.held(supervised), seconds=STOP_SECONDS, pids=lambda: lock.holder(supervised)
    )
    if not ended:
        raise NotReadyError(
            f"region {node.settings.name}",
            got="processes still running, and idle",
            expected="their end",
        )


def live(node: Node, train: Path) -> Document:
    """The part of ``fedfsd region status`` that is not in the ledger.

    Returns:
        ``ready``: connected and with a runner. ``up``: the supervised processes, None where no ``region up``
        runs. ``gate``: the running gate's report, None if it does not answer. ``own``: the region's last
        figures on its own test vehicles, None where there are none or ``train`` cannot be read.
    """
    try:
        gate = control.ask(node, {"op": "status"}, seconds=5.0)
    except NotReadyError:
        gate = None
    ready = gate is not None and gate.get("connection") == "open" and bool(gate.get("runner"))
    return {"ready": ready, "up": standing(node.folder), "gate": gate, "own": _own(train)}


def _own(train: Path) -> Document | None:
    """The last line of the runner's figures."""
    try:
        with (train / FIGURES).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - _LAST_BYTES, 0))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError):
            continue  # still being written
    return None
