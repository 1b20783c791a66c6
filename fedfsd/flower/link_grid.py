"""The grid that a ServerApp gets from a SuperLink, made fast; the nodes are ``fleet.FleetNode``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedfsd.flower import flat, private
from fedfsd.flower.polled import PolledGrid
from fedfsd.flower.state import Mailbox

# Between two looks. Without the database every look is a request, and the SuperLink serves one at a time.
_GLANCE_SECONDS, _LOOK_SECONDS = 0.01, 0.03
_LOST = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)


class LinkGrid(PolledGrid):
    """A grid over ``grid`` whose messages travel flat and whose looks for replies are not too many.

    It outlives its SuperLink: what that had handed out or was handing over when it died is asked again,
    under the same id. A region asked twice answers the same, at no cost in budget.
    """

    def __init__(self, grid: Grid, *, database: Path | None = None) -> None:
        """``database``: the SuperLink's own, where it can be read: it is then asked when that is worth it."""
        private.hasten()
        self._grid, self._looked = grid, 0.0
        self._mailbox, self._pause = Mailbox(database), _GLANCE_SECONDS if database else _LOOK_SECONDS
        self._outage = private.Outage(grid)
        self._waiting: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """As the grid's own."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """As the grid's own."""
        return self._grid.run

    def get_node_ids(self) -> Iterable[int]:
        """As the grid's own."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """As the grid's own; each has a node_id and a public_key."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send; what several messages share is made and sent once."""
        made: dict[int, RecordDict] = {}
        ready = []
        for message in messages:
            content = message.content
            if content and id(content) not in made:
                made[id(content)] = flat.wrap(flat.records_of(content))
            ready.append(make_message(message.metadata, content=made.get(id(content), content)))
        names = list(self._grid.push_messages(ready))
        self._waiting |= {name: message for name, message in zip(names, ready, strict=False) if name}
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there; waits a moment when it is asked again and again."""
        asked = set(message_ids)
        # What is no longer asked for is given up.
        self._waiting = {name: message for name, message in self._waiting.items() if name in asked}
        time.sleep(max(0.0, self._looked + self._pause - time.monotonic()))
        try:
            if not self._mailbox.has_reply(asked):
                return []
            found = list(self._grid.pull_messages(asked))
        finally:
            self._looked = time.monotonic()
        replies, lost = [], set()
        for message in found:
            name = message.metadata.reply_to_message_id
            if message.has_error() and message.error.code in _LOST and self._is_worth_asking(name):
                lost.add(name)
                continue
            self._waiting.pop(name, None)
            if message.has_content() and flat.FLAT in message.content:
                message.content = _unwrapped(message.content)
            replies.append(message)
        if self._outage.is_over():
            lost |= set(self._waiting)
        if lost:
            self._grid.push_messages([self._waiting[name] for name in sorted(lost)])
        return replies

    def _is_worth_asking(self, name: str) -> bool:
        """Whether a message is known and not too old for an answer."""
        message = self._waiting.get(name)
        return message is not None and message.metadata.created_at + message.metadata.ttl > time.time()


def _unwrapped(content: RecordDict) -> RecordDict:
    """The unwrapped reply; a damaged one is returned as it is, and refused later."""
    try:
        inner: Any = content[flat.FLAT][flat.FLAT]
        blob: Any = inner if isinstance(inner, bytes) else inner.data
        records = flat.unwrap({flat.FLAT: {flat.FLAT: blob}})
        return flat.plain(records) if records is not None else content
    except (ValueError, KeyError, TypeError, AttributeError):
        return content
