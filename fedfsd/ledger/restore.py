"""Bringing one of a ledger's two copies back from the other; nothing is lost, so no entry tells of it."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

from fedfsd.errors import NotReadyError
from fedfsd.ledger.ledger import OUTBOX
from fedfsd.ledger.mirror import Mirror
from fedfsd.ledger.store import DATABASE, Store, connect, contents


def from_mirror(folder: Path, mirror: Path) -> int:
    """Build the ledger in ``folder`` again from its mirror; the old file is kept beside it.

    Returns:
        The number of entries. Checkpoints are not in a mirror: they are signed anew when asked for.

    Raises:
        NotReadyError: no mirror, an empty one, or one that has less than the ledger.
    """
    lines = Mirror(mirror).lines()
    if not lines:
        raise NotReadyError(f"mirror {mirror.name}", got="no entry", expected="the ledger's mirror")
    kept = _readable(folder / DATABASE)
    if kept != lines[: len(kept)]:
        raise NotReadyError(
            f"mirror {mirror.name}",
            got="fewer entries than the ledger, or other ones",
            expected="all of the ledger's",
            hint="keep both files: what the ledger has beyond its mirror counts as spent",
        )
    for suffix in ("", "-wal", "-shm"):
        part = folder / (DATABASE + suffix)
        if part.exists():
            part.replace(folder / (f"{DATABASE}.old" + suffix))
    (folder / OUTBOX).mkdir(parents=True, exist_ok=True)
    Store.create(folder, mirror, lines)
    return len(lines)


def _readable(path: Path) -> list[bytes]:
    """What can still be read of a ledger's database, from the first entry on."""
    found: list[bytes] = []
    if path.exists():
        with suppress(NotReadyError), closing(connect(path)) as connection:
            found.extend(contents(connection))
    return found


def new_mirror(folder: Path, mirror: Path) -> None:
    """Begin a lost mirror again from the ledger; where both were lost, a backup needs a ``recover`` entry.

    Raises:
        NotReadyError: there is a mirror already, or no ledger.
    """
    Mirror.create(mirror)
    Store(folder, mirror).close()
