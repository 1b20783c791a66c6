"""Pause, resume and stop a region from outside its processes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from fedfsd.errors import NotReadyError
from fedfsd.node import control
from fedfsd.node.node import Node
from fedfsd.node.station import PAUSED
from fedfsd.service import lock
from fedfsd.service.supervise import LOCK, STATE, read

STOP_SECONDS = 20.0


def hold(node: Node, *, paused: bool) -> bool:
    """Set or take away the flag that holds the outbox; whether a gate runs that has seen it."""
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
        control.ask(node, {"op": "stop"}, seconds=5.0)
        supervised = node.folder / "run" / "gate.pid"
    deadline = time.monotonic() + STOP_SECONDS
    while lock.held(supervised):
        if time.monotonic() > deadline:
            raise NotReadyError(
                f"region {node.settings.name}", got="processes that go on", expected="their end within 20 s"
            )
        time.sleep(0.05)
