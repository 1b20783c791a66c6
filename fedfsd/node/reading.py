"""A ledger read where it cannot be opened: without its mirror, without its key, or out of its mirror."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from fedfsd.errors import FedfsdError, FormatError, NotReadyError
from fedfsd.ledger import entry
from fedfsd.ledger.mirror import Mirror
from fedfsd.ledger.state import State
from fedfsd.ledger.store import DATABASE, Store


def kept(folder: Path) -> list[bytes] | None:
    """The entries of the ledger in ``folder``, whatever its mirror says; None where none can be read."""
    if not (folder / DATABASE).exists():
        return None
    with tempfile.TemporaryDirectory() as name:
        mirror = Path(name) / "mirror"
        Mirror.create(mirror)
        try:
            with closing(Store(folder, mirror)) as store:
                return list(store.entries())
        except (NotReadyError, sqlite3.Error):
            return None


def mirrored(mirror: Path) -> list[bytes] | None:
    """The entries in a mirror; None where there is none."""
    return Mirror(mirror).lines() if mirror.exists() else None


def fold(contents: Iterable[bytes]) -> State:
    """What the entries say. NotReadyError where they break a rule, FormatError where they are newer."""
    state = State()
    for content in contents:
        try:
            state.apply(entry.parse(content, place=f"entry {state.size}"), content)
        except FormatError:
            raise
        except FedfsdError as error:
            raise NotReadyError(
                f"entry {state.size}",
                got=f"an entry that is not allowed here ({error})",
                expected="an unchanged ledger",
                hint="compare with another copy; an audit of a bundle shows details",
            ) from None
    return state
