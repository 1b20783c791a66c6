"""The operator's own command, run when something needs a person: ``on_event`` in region.toml.

It gets one JSON document on its standard input: ``event``, ``region``, and what the event is about. Nothing
in it comes from the region's data.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any

from fedfsd.border.identity import WARN_DAYS
from fedfsd.ledger.ledger import Ledger
from fedfsd.node import approve
from fedfsd.node.node import Node
from fedfsd.node.outlook import LITTLE

SECONDS = 30.0
"""A command that takes longer is ended."""

Event = tuple[str, str, dict[str, Any]]
"""Its name, what it is about, and the rest of its document."""


class Hook:
    """Tells each event once, and again where it comes back after it was over."""

    def __init__(self, command: Sequence[str], node: Node, log: logging.Logger) -> None:
        self._command, self._node, self._log = list(command), node, log
        self._told: set[tuple[str, str]] | None = None
        self._queue: SimpleQueue[dict[str, Any]] = SimpleQueue()
        if command:  # in a thread of its own: a command that hangs must not hold up the gate
            threading.Thread(target=self._work, name="hook", daemon=True).start()

    def look(self, ledger: Ledger, *, pending: Sequence[str], days: int) -> None:
        """Run the command for whatever is new. It never raises for a command that fails."""
        if not self._command:
            return
        now = {(name, about): rest for name, about, rest in _events(self._node, ledger, pending, days)}
        # Runs that ended before this process began are old news; everything else is told at the start, too.
        told = {one for one in now if one[0] == "run_ended"} if self._told is None else self._told
        region = self._node.settings.name
        new = [
            {"event": name, "region": region, **rest}
            for (name, about), rest in now.items()
            if (name, about) not in told
        ]
        self._told = set(now)
        for document in new:
            self._queue.put(document)

    def _work(self) -> None:
        while True:
            self._run(self._queue.get())

    def _run(self, document: dict[str, Any]) -> None:
        name = document["event"]
        try:
            ended = subprocess.run(
                self._command,
                input=json.dumps(document, ensure_ascii=False).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self._log.error("hook_failed", extra={"kind": name, "error": type(error).__name__})
            return
        if ended.returncode:
            self._log.error("hook_failed", extra={"kind": name, "state": f"exit {ended.returncode}"})
        else:
            self._log.info("hook_told", extra={"kind": name})


def _events(node: Node, ledger: Ledger, pending: Sequence[str], days: int) -> Iterator[Event]:
    state = ledger.state
    for plan in pending:
        document = approve.read(node.folder / approve.OFFERED / f"{plan}.json")
        mine = document.region(node.settings.name)
        yield (
            "plan_waits",
            plan,
            {
                "plan": plan,
                "name": document.name,
                "epsilon": mine.epsilon,
                "delta": mine.target_delta,
                "rounds": document.rounds_of(node.settings.name),
                "show": f"fedfsd region plan {plan[:12]}",
            },
        )
    for plan, run in list(state.runs.items()):
        if run.settled:
            released = sum(one.release is not None for one in run.bookings.values())
            facts = {"plan": plan, "rounds": run.entry.rounds, "released": released}
            yield "run_ended", plan, facts
    for label, account in state.accounts.items():
        left = account.balance.left / account.grant.rho_max
        if left < LITTLE:
            yield "budget_low", label, {"data_set": label, "share_left": round(left, 6)}
    if behind := ledger.mirror_behind:
        yield "mirror_behind", "", {"mirror": str(node.mirror), "entries": behind}
    if days <= WARN_DAYS:
        yield "certificate_ends", str(days), {"days": days}
