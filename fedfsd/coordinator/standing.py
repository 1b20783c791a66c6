"""``status.json``: the gate's state, for ``fedfsd coordinator status``; rewritten when it changed."""

from __future__ import annotations

import os
from typing import Any

from fedfsd import canonical
from fedfsd.coordinator.folder import Coordinator
from fedfsd.coordinator.hall import Hall, RegionStation

STATUS = "status.json"


class Standing:
    """Writes the file of one gate."""

    def __init__(self, coordinator: Coordinator, hall: Hall) -> None:
        self._path, self._hall = coordinator.folder / STATUS, hall
        self._written = b""

    def write(self) -> None:
        """Write it if anything changed; a full disk leaves the old one. It need not survive a power cut."""
        content = canonical.encode(document(self._hall))
        if content != self._written:
            draft = self._path.with_name(STATUS + ".draft")
            try:
                draft.write_bytes(content)
                draft.replace(self._path)
            except OSError:
                return
            self._written = content


def document(hall: Hall) -> dict[str, Any]:
    """The gate's state as JSON: every region it has heard of or works for, every plan on offer."""
    plans = hall.board.plans
    return {
        "pid": os.getpid(),
        "regions": {station.name: _region(station) for station in hall.stations},
        "plans": {
            hash: {
                "name": plan.name,
                "regions": {name: hall.board.answer_of(name, hash) for name in sorted(plan.regions)},
            }
            for hash, plan in sorted(plans.items())
        },
    }


def _region(station: RegionStation) -> dict[str, Any]:
    task = station.desk.task
    return {
        "seen": None if station.presence.seen is None else int(station.presence.seen),
        "doubled": None if station.presence.doubled is None else int(station.presence.doubled),
        "task": task and {"plan": task.plan, "round": task.round, "stage": task.stage},
        "last": station.last or None,
        "refusals": dict(station.refusals),
        "objection": station.objection,
    }
