"""Messages out, replies back, over any Flower grid; a reply may also come long after its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedfsd.flower.polled import PolledGrid

# The grid is asked less and less often while nothing comes; one over HTTP takes its time by itself.
_POLL_SECONDS, _SLOWEST_SECONDS = 0.005, 0.02
K = TypeVar("K")


class Post(Generic[K]):
    """Sends messages under keys and hands out their replies under the same keys.

    Flower's own send_and_receive sleeps 3 s between looks, and forgets what is late.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._expected: dict[str, K] = {}

    @property
    def expected(self) -> list[K]:
        """Whose reply is still to come."""
        return list(self._expected.values())

    def send(self, messages: Mapping[K, Message]) -> None:
        """Send; a message that the grid does not take is never answered."""
        ids = self.grid.push_messages(list(messages.values()))
        self._expected |= {one: key for one, key in zip(ids, messages, strict=True) if one}

    def collect(
        self, timeout: float, enough: Callable[[Mapping[K, Message]], bool] = lambda _: False
    ) -> dict[K, Message]:
        """All replies that come until ``enough`` says so, none is expected or ``timeout`` seconds are up."""
        deadline, pause = time.monotonic() + timeout, _POLL_SECONDS
        replies: dict[K, Message] = {}
        while self._expected and not enough(replies) and time.monotonic() < deadline:
            found = list(self.grid.pull_messages(sorted(self._expected)))
            for message in found:
                # By what it answers: a reply that Flower itself makes up names no node.
                key = self._expected.pop(message.metadata.reply_to_message_id, None)
                if key is not None:
                    replies[key] = message
            pause = _POLL_SECONDS if found else min(pause * 1.3, _SLOWEST_SECONDS)
            if not found and not isinstance(self.grid, PolledGrid):  # ours has waited by itself
                time.sleep(pause)
        return replies

    def abandon(self) -> None:
        """Expect nothing more, where the grid can free what still works on the unanswered."""
        if self._expected and (abandon := getattr(self.grid, "abandon", None)):
            abandon()
            self._expected.clear()


class Roll:
    """Which node is which region; nodes come and go, and only new ones are asked."""

    def __init__(self, grid: Grid, regions: Iterable[str]) -> None:
        self._grid, self._regions = grid, frozenset(regions)
        self._post: Post[int] = Post(grid)
        self._names: dict[int, str] = {}

    def call(self, *, quorum: int, timeout: float, patience: float = 0.0) -> dict[str, int]:
        """The node of each region: of all of them, or at least ``quorum`` once ``patience`` is at an end.

        After ``timeout`` seconds those that are there; a node that has not said its name is left out.
        """
        start = time.monotonic()
        while True:
            found = self._look()
            waited = time.monotonic() - start
            # With patience, whoever was asked is also waited for: it may only be slow to start.
            enough = len(found) >= quorum and waited >= patience and not (patience and self._post.expected)
            if len(found) == len(self._regions) or enough:
                return found
            if waited >= timeout:
                self._post.abandon()
                return found

    def _look(self) -> dict[str, int]:
        nodes = set(self._grid.get_node_ids())
        self._names = {node: name for node, name in self._names.items() if node in nodes}
        new = sorted(nodes - set(self._names) - set(self._post.expected))
        self._post.send({node: Message(RecordDict(), node, "query.region") for node in new})
        answers = self._post.collect(_SLOWEST_SECONDS)
        self._names |= {node: name for node, message in answers.items() if (name := _name(message))}
        return {name: node for node, name in self._names.items() if name in self._regions}


def _name(message: Message) -> str:
    """The region that a node says it is; empty where it says nothing."""
    record = message.content.config_records.get("region") if message.has_content() else None
    return str(record.get("name", "")) if record else ""
