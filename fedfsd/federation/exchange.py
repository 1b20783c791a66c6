"""Messages out, replies back, over any Flower grid."""

from __future__ import annotations

import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

_POLL_SECONDS = 0.005


def exchange(grid: Grid, messages: Iterable[Message], *, timeout: float) -> list[Message]:
    """Send and collect replies until all are there or time is up.

    Flower's own send_and_receive sleeps 3 s between looks.
    """
    waiting = set(grid.push_messages(messages))
    deadline = time.monotonic() + timeout
    replies: list[Message] = []
    while waiting and time.monotonic() < deadline:
        found = list(grid.pull_messages(sorted(waiting)))
        replies += found
        waiting -= {message.metadata.reply_to_message_id for message in found}
        if waiting and not found:
            time.sleep(_POLL_SECONDS)
    if waiting and (abandon := getattr(grid, "abandon", None)):
        abandon()  # a grid of ours frees what still works on the unanswered
    return replies


def roll_call(grid: Grid, *, nodes: int, timeout: float) -> dict[int, str]:
    """Which region each node of the grid is, once ``nodes`` of them are there or time is up.

    Nodes that do not answer are left out.
    """
    deadline = time.monotonic() + timeout
    while len(list(grid.get_node_ids())) < nodes and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    messages = [Message(RecordDict(), node, "query.region") for node in sorted(grid.get_node_ids())]
    return {
        message.metadata.src_node_id: str(message.content.config_records["region"]["name"])
        for message in exchange(grid, messages, timeout=timeout)
        if message.has_content()
    }
