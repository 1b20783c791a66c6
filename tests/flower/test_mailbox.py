"""When the SuperLink is worth asking, by a look into its database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fedfsd.flower.state import Mailbox

NODE = 2**63 + 5  # Flower stores it signed


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "state of all.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE message_ins (dst_node_id INTEGER, delivered_at TEXT)")
        connection.execute("CREATE TABLE message_res (reply_to_message_id TEXT, delivered_at TEXT)")
    return path


def write(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


def test_it_is_worth_asking_when_something_lies_there(database: Path) -> None:
    with closing(Mailbox(database, seldom=1e9)) as mailbox:
        mailbox.has_instruction(NODE)  # the first time anyhow
        assert not mailbox.has_instruction(NODE)
        write(database, f"INSERT INTO message_ins VALUES ({NODE - 2**64}, '')")
        assert mailbox.has_instruction(NODE)
        assert not mailbox.has_instruction(7)
        write(database, "UPDATE message_ins SET delivered_at = 'now'")
        assert not mailbox.has_instruction(NODE)
        write(database, "INSERT INTO message_res VALUES ('b', ''), ('c', 'now')")
        assert mailbox.has_reply({"a", "b"})
        assert not mailbox.has_reply({"a", "c"})
        assert not mailbox.has_reply(set())


def test_it_is_worth_asking_from_time_to_time(database: Path) -> None:
    with closing(Mailbox(database, seldom=0.0)) as mailbox:
        assert mailbox.has_instruction(NODE)
        assert mailbox.has_instruction(NODE)


@pytest.mark.parametrize("content", [None, b"", b"no database at all, whatever its name says"])
def test_what_cannot_be_read_is_always_worth_asking(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.db"
    if content is not None:
        path.write_bytes(content)
    with closing(Mailbox(path, seldom=1e9)) as mailbox:
        assert all(mailbox.has_instruction(NODE) and mailbox.has_reply(["a"]) for _ in range(3))
    assert Mailbox(None, seldom=1e9).has_reply(["a"])
