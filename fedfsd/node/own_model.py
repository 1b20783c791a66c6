"""``fedfsd region adapt``: have the runner make the region's own model, which never leaves it.

Nothing of it goes through the gate, into the ledger or over the border. What is left to be seen from outside:
while it trains, a round of another plan takes longer, unless the policy's ``round_seconds`` hides that; so it
waits for the region's open plans to end, unless it is told not to. And whoever asks the coordinator's people
for a run's files tells them that the region has a use for the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from fedfsd.config.experiment import Resident
from fedfsd.config.load import load
from fedfsd.errors import NotReadyError, RefusedError
from fedfsd.gate.policy import code_objections
from fedfsd.gate.resident import demand_shareable
from fedfsd.node import approve, separation
from fedfsd.node.node import Node

PLAN, SHARED, START = "plan.json", "model.safetensors", "start.safetensors"
"""Of a run folder."""


def adapt(
    node: Node, train: Path, named: str, *, settings: Iterable[str] = (), now: bool = False
) -> dict[str, Any]:
    """The card of the region's own model, made by a process of the runner's user.

    Args:
        named: a folder with a run's plan.json and model.safetensors, or a plan as for ``approve.named``: then
            its model is the one that the runner was last sent.
        settings: ``key=value`` of ``Resident``.
        now: also while a plan of this region is open.

    Raises:
        NotReadyError: an open plan, no model of the plan here, or a user who cannot start a runner.
        RefusedError: the policy knows nothing of the plan's code, or the model is a region's own.
        ConfigError, PlanError: settings or files that are no such.
    """
    chosen = load(Resident, {}, overrides=settings)
    folder = Path(named)
    plan = approve.read(folder / PLAN) if folder.is_dir() else approve.named(node, named)
    plan.region(node.settings.name)
    policy = node.policy()
    if reasons := code_objections(policy, plan):
        raise RefusedError(
            f"plan {plan.hash[:8]}",
            got="; ".join(reasons),
            expected="code that was reviewed",
            hint="see policy.toml",
        )
    if not now:
        _demand_none_open(node)
    files = _files(folder) if folder.is_dir() else {}
    task = plan.task.name
    pins = {"model": policy.pin(plan.model.name, task), "task": policy.pin_task(task)}
    asked = {
        "plan": plan.document(),
        "settings": chosen.model_dump(),
        "pins": {key: pin and pin.model_dump() for key, pin in pins.items()},
        "sizes": {name: len(content) for name, content in files.items()},
    }
    return separation.own_model(train, json.dumps(asked).encode() + b"\n" + b"".join(files.values()))


def _files(folder: Path) -> dict[str, bytes]:
    """The model of a run, and what it started from where that is there."""
    try:
        found = {"shared": (folder / SHARED).read_bytes()}
    except OSError as error:
        raise NotReadyError(
            str(folder / SHARED), got=error.strerror, expected="the model of a complete run"
        ) from None
    demand_shareable(found["shared"], place=str(folder / SHARED))
    return found | ({"start": (folder / START).read_bytes()} if (folder / START).exists() else {})


def _demand_none_open(node: Node) -> None:
    with closing(node.open_ledger()) as ledger:
        still = [plan for plan, run in ledger.state.runs.items() if not run.settled]
    if still:
        raise NotReadyError(
            f"plan {still[0][:8]}",
            got="an open plan, whose rounds would take longer meanwhile, which can be seen outside",
            expected="no open plan",
            hint="wait for its end, or add --now",
        )
