"""What an operator's commands may ask of the running gate, each answered by a document."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from fedfsd.errors import NotReadyError, PlanError
from fedfsd.node import join
from fedfsd.node.control import Document
from fedfsd.node.courier import Courier
from fedfsd.node.station import PAUSED, GateStation, Trainer
from fedfsd.service.diagnosis import can_read


def operations(station: GateStation, courier: Courier) -> dict[str, Callable[[Document], Document]]:
    """What an operator's commands may ask."""
    flag = station.node.folder / PAUSED

    def status(_: Document) -> Document:
        return {
            **station.tally.document(),
            "region": station.region,
            "pid": os.getpid(),
            "runner": station.runner.connected,
            "program": program.model_dump() if (program := station.runner.program) else None,
            "working": station.working,
            "paused": station.paused,
            "outbox": len(station.waiting()),
            "pending": list(courier.pending),
            "certificate_days": join.peer(station.node).days_left,
            "test_only": "rehearsal" in station.gate.policy.modes,
        }

    def pause(_: Document) -> Document:
        flag.touch(mode=0o600)
        station.log.warning("paused")
        return {"paused": True}

    def resume(_: Document) -> Document:
        flag.unlink(missing_ok=True)
        station.log.info("resumed")
        return {"paused": False}

    def end(_: Document) -> Document:
        station.stop.set()
        return {"stopping": True}

    def commit(request: Document) -> Document:
        return {"commitment": _idle(station).commitment(_plan_of(request))}

    def decline(request: Document) -> Document:
        courier.decline(_plan_of(request))
        return {}

    def settle(request: Document) -> Document:
        _idle(station).settle(_plan_of(request))
        return {}

    def facts(request: Document) -> Document:
        """For the doctor: what runner and gate can do that they should not."""
        host, folder, data = (str(request.get(key) or "") for key in ("host", "folder", "data"))
        port = request.get("port")
        told = _idle(station).facts(host=host, port=port if isinstance(port, int) else 0, folder=folder)
        return {**told, "gate_reads_data": can_read(Path(data))} if data else told

    def look(_: Document) -> Document:
        station.look.set()
        return {}

    named = (status, pause, resume, commit, decline, settle, facts)
    return {one.__name__: one for one in named} | {"stop": end, "approve-notify": look}


def _idle(station: GateStation) -> Trainer:
    """The runner, where it has time."""
    if station.working:
        raise NotReadyError(
            "runner",
            got="a round in progress",
            expected="an idle runner",
            hint="ask again when the round is over",
        )
    return station.runner


def _plan_of(request: Document) -> str:
    plan = request.get("plan")
    if not isinstance(plan, str) or not re.fullmatch("[0-9a-f]{64}", plan):
        raise PlanError("plan", got="another value", expected="a plan's hash")
    return plan
