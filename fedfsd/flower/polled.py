"""What our grids share: an instruction is Flower's own, and a reply is looked for again and again."""

from __future__ import annotations

import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid


class PolledGrid(Grid):
    """A grid whose ``pull_messages`` waits a moment where there is nothing to pull."""

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """An instruction, as Flower's interface wants it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send, and collect replies until all are there or ``timeout`` seconds are up.

        For strategies that run themselves. Flower's own sleeps 3 s between looks.
        """
        waiting = {name for name in self.push_messages(messages) if name}
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (deadline is None or time.monotonic() < deadline):
            found = list(self.pull_messages(sorted(waiting)))
            replies += found
            waiting -= {message.metadata.reply_to_message_id for message in found}
        return replies
