"""Private names of Flower 1.41 that our grids need, each wrapped once."""

from __future__ import annotations

import logging
from itertools import repeat
from typing import Any
from uuid import uuid4

import httpx
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE_ID = 1
_FIRST_WAIT, _LONGEST_WAIT = 0.01, 0.25
_RETRY_SECONDS = 0.5
# The rest of a reply comes over loopback; later than this, whoever sent it is gone, and it is asked again.
_ARRIVAL_SECONDS = 30.0


def become(run_id: int, node_id: int = SERVER_NODE_ID) -> None:
    """Give this process the identity without which no ``Message`` can be made."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, 1


def number(message: Message) -> str:
    """Give an instruction message its id, as a SuperLink would, and return it."""
    message_id = uuid4().hex
    message.metadata.__dict__["_message_id"] = message_id
    return message_id


def empty_run(run_id: int) -> Run:
    """A run that no SuperLink knows."""
    return Run.create_empty(run_id)


def hasten() -> None:
    """A reply shows up before its objects do: look for those again in 10 ms, where Flower waits 1 s."""
    defaults = inflatable_utils.pull_objects.__kwdefaults__
    if defaults is not None and "initial_backoff" in defaults:
        # Flower gives up after 500 looks or two hours; with shorter waits only time may end it.
        defaults |= {
            "initial_backoff": _FIRST_WAIT,
            "backoff_cap": _LONGEST_WAIT,
            "max_tries_per_object": None,
            "max_time": _ARRIVAL_SECONDS,
        }


class Outage:
    """Whether calls of a SuperLink's grid failed and were repeated; a failed TLS handshake is repeated too.

    Flower takes a connection that breaks in the handshake, as when a SuperLink is killed, for a wrong
    certificate, and gives up the run. A grid of another kind has no outages.
    """

    def __init__(self, grid: Grid) -> None:
        self._seen = False
        invoker = getattr(grid, "_retry_invoker", None)
        if invoker is None:
            return
        note, give_up = invoker.on_backoff, invoker.should_giveup

        def on_backoff(state: Any) -> None:
            self._seen = True
            note(state)

        invoker.on_backoff = on_backoff
        invoker.wait_gen_factory = lambda: repeat(_RETRY_SECONDS)
        invoker.should_giveup = lambda error: isinstance(error, httpx.HTTPStatusError) and give_up(error)

    def is_over(self) -> bool:
        """Whether there was one since the last time this was asked."""
        seen, self._seen = self._seen, False
        return seen


def quiet() -> None:
    """Flower logs every round to the console; our own progress takes its place."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
