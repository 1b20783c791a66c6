"""Private names of Flower 1.41 that an in-process grid needs, each wrapped once."""

from __future__ import annotations

import logging
from uuid import uuid4

from flwr.app import Message
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE_ID = 1


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


def quiet() -> None:
    """Flower logs every round to the console; our own progress takes its place."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
