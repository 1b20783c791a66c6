"""What runs of a region at this moment, and the region's own last figure, which never leaves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedfsd.errors import NotReadyError
from fedfsd.node import control
from fedfsd.node.node import Node
from fedfsd.service.supervise import standing

FIGURES = "figures.jsonl"
_LAST_BYTES = 65_536

Document = dict[str, Any]


def live(node: Node, train: Path) -> Document:
    """The part of ``fedfsd region status`` that is not in the ledger.

    Returns:
        ``ready``: connected and with a runner. ``up``: the supervised processes, None where no ``region up``
        runs. ``gate``: what the running gate says, None where it does not answer. ``own``: the region's last
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
