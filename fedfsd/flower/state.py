"""The SuperLink's own database: written to hand out unconfirmed instructions again, read to poll less often.

Flower marks an instruction as delivered before it answers; a process that dies in that moment loses it.
Every request costs the SuperLink about 5 ms of its one thread, also one that finds nothing: three regions
and a ServerApp that poll often keep it busy with empty answers. Here a look takes some 20 microseconds.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

# Its objects are still there, so no node has confirmed it; it has no answer, so none is under way.
_REOPEN = """
UPDATE message_ins SET delivered_at = ''
WHERE delivered_at <> ''
  AND message_id IN (SELECT object_id FROM objects)
  AND message_id NOT IN (SELECT reply_to_message_id FROM message_res)
"""


def reopen(database: Path) -> int:
    """Offer every instruction again that was neither confirmed nor answered, and return how many.

    To be called before nodes pull: when the SuperLink starts, and when the gate that holds the nodes does.
    The SuperLink may run. A database not made yet has none.
    """
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'message_ins'").fetchone() is None:
            return 0
        return connection.execute(_REOPEN).rowcount


class Mailbox:
    """Whether it is worth asking the SuperLink; at the least it is from time to time.

    One thread uses it. Where the database cannot be read it is always worth asking.
    """

    def __init__(self, database: Path | None, *, seldom: float = 0.5) -> None:
        """``seldom``: seconds after which it is worth asking anyhow. No ``database``: always."""
        self._database, self._seldom = database, seldom
        self._connection: sqlite3.Connection | None = None
        self._asked = 0.0

    def has_instruction(self, node_id: int) -> bool:
        """Whether there is an instruction for a node that was not handed out yet."""
        signed = node_id - 2**64 if node_id >= 2**63 else node_id
        return self._is_worth(
            "SELECT 1 FROM message_ins WHERE dst_node_id = ? AND delivered_at = '' LIMIT 1", [signed]
        )

    def has_reply(self, message_ids: Collection[str]) -> bool:
        """Whether there is a reply to any of these messages that was not handed out yet."""
        marks = ", ".join("?" * len(message_ids))
        return self._is_worth(
            f"SELECT 1 FROM message_res WHERE reply_to_message_id IN ({marks}) AND delivered_at = '' LIMIT 1",
            list(message_ids),
        )

    def close(self) -> None:
        """Close the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _is_worth(self, question: str, values: list[int] | list[str]) -> bool:
        worth = time.monotonic() - self._asked >= self._seldom or self._found(question, values)
        if worth:
            self._asked = time.monotonic()
        return worth

    def _found(self, question: str, values: list[int] | list[str]) -> bool:
        if self._database is None:
            return True
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    f"{self._database.absolute().as_uri()}?mode=ro",
                    uri=True,
                    timeout=0,
                    check_same_thread=False,
                )
            return bool(self._connection.execute(question, values).fetchall())
        except sqlite3.Error:  # not made yet, locked, or in a state that only its owner can mend
            self.close()
            return True
