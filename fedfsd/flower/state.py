"""The SuperLink's own database, touched for one thing: to hand out again what nobody is known to have.

Flower marks an instruction as delivered before it answers; a process that dies in that moment loses it.
"""

from __future__ import annotations

import sqlite3
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
