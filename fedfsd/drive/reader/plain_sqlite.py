"""SQLite files of other people: read without a lock and without writing beside them, whole or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from fedfsd.drive.reader.drive import damaged
from fedfsd.errors import DataError

MAGIC = b"SQLite format 3\x00"


@contextmanager
def connected(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, to a file that nobody changes meanwhile (sqlite3.Error)."""
    # Immutable: no lock is taken, no journal is looked for.
    uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as base:
        yield base


def demand_whole(file: Path, path: Path, tables: Iterable[str]) -> None:
    """Refuse a database of which rows are missing, which SQLite itself reads as far as it goes.

    Args:
        file: the database.
        path: what to call it: the compressed file from which it was unpacked, or itself.
        tables: those that are read.

    Raises:
        DataError: shorter than its header says, rows that still wait beside it, or a view or virtual table in
            place of a table, whose rows are computed and may never end.
    """
    waiting = path.with_name(path.name + "-wal")
    if waiting.exists() and waiting.stat().st_size:
        raise DataError(
            str(path),
            got=f"rows that still wait in {waiting.name}",
            expected="a database that no program has open",
            hint=f"close that program, or run: sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'",
        )
    with file.open("rb") as opened:
        head = opened.read(100)
    # https://sqlite.org/fileformat2.html: page size, pages, and whether the count of pages is current.
    size, pages = int.from_bytes(head[16:18], "big"), int.from_bytes(head[28:32], "big")
    current = head[24:28] == head[92:96]
    if head.startswith(MAGIC) and current and file.stat().st_size < pages * (65536 if size == 1 else size):
        raise damaged(path, "a database that is cut short", f"{pages} pages, as its header says")
    if head.startswith(MAGIC):
        with suppress(sqlite3.Error), connected(file) as base:
            for name, kind, page in base.execute("SELECT name, type, rootpage FROM sqlite_master").fetchall():
                if name in tables and (kind not in ("table", "index") or not page):
                    raise damaged(path, f"{name} that is no table but computed", "a table with rows")
