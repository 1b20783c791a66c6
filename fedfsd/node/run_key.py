"""A plan's run key belongs to the runner: made, committed to and destroyed through the running gate.

If no gate is running, it is made directly in the runner's folder, if that is ``train`` in the region's folder
and writable for this user; a region that joined no federation keeps its run keys in its own folder.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fedfsd.engine import randomness
from fedfsd.errors import NotReadyError
from fedfsd.ledger import digest
from fedfsd.node import control
from fedfsd.node.node import Node
from fedfsd.service import lock

_GATE_LOCK = Path("run") / "gate.pid"


def commitment(node: Node, plan_hash: str) -> str:
    """Make the plan's run key if there is none; the commitment for the ledger entry (hex).

    Raises:
        NotReadyError: no gate with a runner, and no folder of run keys for this user.
    """
    if _runs(node):
        return str(control.ask(node, {"op": "commit", "plan": plan_hash})["commitment"])
    folder = _folder(node)
    if folder is None:
        raise NotReadyError(
            f"run key of plan {plan_hash[:8]}",
            got="no running gate, and no runner's folder of this user",
            expected="the region's gate and runner, which makes the key",
            hint="fedfsd region up, then approve the plan",
        )
    return digest.key_commitment(randomness.run_key(folder, plan_hash))


def forget(node: Node, plan_hash: str) -> None:
    """Have the plan's run key destroyed; a runner that is away does it at its next start."""
    if _runs(node):
        with suppress(NotReadyError):
            control.ask(node, {"op": "settle", "plan": plan_hash})
    for folder in {node.keys, _folder(node) or node.keys}:
        randomness.destroy_run_key(folder, plan_hash)


def is_lost(node: Node, plan_hash: str) -> bool:
    """Whether it is known that there is no run key of the plan any more."""
    folder = None if _runs(node) else _folder(node)
    return folder is not None and not (folder / f"{plan_hash}.key").exists()


def _runs(node: Node) -> bool:
    return lock.held(node.folder / _GATE_LOCK)


def _folder(node: Node) -> Path | None:
    """The run keys' folder, where this user may write to it."""
    train = node.folder / "train"
    if os.access(train / "train.toml", os.R_OK) and os.access(train, os.W_OK):
        return train / "keys"
    return None if (node.folder / "tls").exists() else node.keys
