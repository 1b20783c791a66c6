"""The ledger's bytes on two disks: SQLite in WAL mode, every commit synced, and a mirror file.

Writers commit to SQLite first and then to the mirror, so a crash or a full disk can only leave the mirror
behind; the next writer brings it what it lacks before it adds anything. A mirror that is ahead means that
SQLite was put back to an older state.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fedfsd.errors import NotReadyError
from fedfsd.ledger.disk import sync_folder
from fedfsd.ledger.mirror import RECOVER, Mirror

DATABASE = "ledger.sqlite"
SYNCHRONOUS = "FULL"
_SCHEMA = (
    "CREATE TABLE entry (seq INTEGER PRIMARY KEY, content BLOB NOT NULL)",
    "CREATE TABLE checkpoint (epoch INTEGER, size INTEGER, note TEXT NOT NULL, PRIMARY KEY (epoch, size))",
)
_BUSY_SECONDS = 60.0


class Store:
    """The two files of one ledger; open it anew after a fork."""

    def __init__(self, folder: Path, mirror: Path) -> None:
        self.mirror = Mirror(mirror)
        if not (folder / DATABASE).exists():
            raise NotReadyError(
                f"ledger in {folder.name}", got="no ledger", expected=DATABASE, hint="fedfsd region init"
            )
        self._added: dict[int, bytes] = {}
        self._connection = connect(folder / DATABASE)
        # Closed when forgotten, but not at exit: a forked child must leave its parent's database alone.
        weakref.finalize(self, self._connection.close).atexit = False
        with self._exclusive():
            self.mirror.begin(self.entries())

    @classmethod
    def create(cls, folder: Path, mirror: Path, contents: list[bytes]) -> None:
        """A new ledger of ``contents`` in ``folder``. NotReadyError where there is one already."""
        path = folder / DATABASE
        if path.exists():
            raise NotReadyError(f"ledger in {folder.name}", got="a ledger", expected="none yet")
        if not mirror.exists():
            Mirror.create(mirror)
        elif (lines := Mirror(mirror).lines()) != contents[: len(lines)]:
            raise NotReadyError(f"mirror {mirror.name}", got="another ledger's", expected="a new file")
        # Under another name until whole: a crash must not leave half a ledger that seems to be one.
        draft = path.with_name(path.name + ".draft")
        draft.unlink(missing_ok=True)
        with closing(connect(draft)) as connection:
            connection.execute("BEGIN")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.executemany("INSERT INTO entry VALUES (?, ?)", enumerate(contents))
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        draft.replace(path)
        sync_folder(folder)

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """Contents from entry ``start`` on."""
        yield from contents(self._connection, start)

    def checkpoints(self) -> list[tuple[int, int, str]]:
        """(epoch, size, note) of every checkpoint kept, ascending."""
        rows = self._run("SELECT epoch, size, note FROM checkpoint ORDER BY epoch, size").fetchall()
        return [(int(epoch), int(size), str(text)) for epoch, size, text in rows]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the only right to write; on leaving, what was added is on both disks.

        Raises:
            NotReadyError: the disk fails.
        """
        self._added.clear()
        with self._exclusive():
            yield
        if self._added:
            self.mirror.catch_up(self._added, self.entries)

    def demand_newest(self, count: int) -> None:
        """Let both disks have this ledger's ``count`` entries.

        Raises:
            NotReadyError: the mirror has more, or no room for those it lacks.
        """
        self.mirror.refresh()
        if self.mirror.count > count:
            raise self.mirror.ahead()
        if self.mirror.count < count:
            self.mirror.catch_up({}, self.entries)

    def add(self, seq: int, content: bytes) -> None:
        """Append an entry within a transaction."""
        self._run("INSERT INTO entry VALUES (?, ?)", (seq, content))
        self._added[seq] = content

    def keep(self, epoch: int, size: int, text: str) -> None:
        """Keep a checkpoint within a transaction."""
        self._run("INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?)", (epoch, size, text))

    def close(self) -> None:
        """Let go of the files."""
        self._connection.close()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._run("ROLLBACK")
            raise

    def _run(self, statement: str, values: tuple[int | str | bytes, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise _unusable(error) from None


def contents(connection: sqlite3.Connection, start: int = 0) -> Iterator[bytes]:
    """Contents from entry ``start`` on in a ledger's database. NotReadyError where it is damaged."""
    try:
        for (content,) in connection.execute(
            "SELECT content FROM entry WHERE seq >= ? ORDER BY seq", (start,)
        ):
            if not isinstance(content, bytes):
                raise _unusable("an entry of another type")
            yield content
    except sqlite3.Error as error:
        raise _unusable(error) from None


def connect(path: Path) -> sqlite3.Connection:
    """A ledger's database, every commit synced. NotReadyError where it cannot be opened."""
    try:
        connection = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
    except sqlite3.Error as error:
        raise _unusable(error) from None
    return connection


def _unusable(error: object) -> NotReadyError:
    return NotReadyError(DATABASE, got=error, expected="a ledger that can be read and written", hint=RECOVER)
