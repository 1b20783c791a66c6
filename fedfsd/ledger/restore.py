"""Bringing one of a ledger's two copies back from the other; nothing is lost, so no entry tells of it."""

from __future__ import annotations

from pathlib import Path

from fedfsd.errors import NotReadyError
from fedfsd.ledger.ledger import OUTBOX
from fedfsd.ledger.mirror import Mirror
from fedfsd.ledger.store import DATABASE, Store


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
    path = folder / DATABASE
    if path.exists():
        old = folder / f"{DATABASE}.old"
        for suffix in ("", "-wal", "-shm"):
            if (folder / (DATABASE + suffix)).exists():
                (folder / (DATABASE + suffix)).replace(folder / (old.name + suffix))
    (folder / OUTBOX).mkdir(parents=True, exist_ok=True)
    Store.create(folder, mirror, lines)
    return len(lines)


def new_mirror(folder: Path, mirror: Path) -> None:
    """Begin a lost mirror again from the ledger; where both were lost, a backup needs a ``recover`` entry.

    Raises:
        NotReadyError: there is a mirror already, or no ledger.
    """
    Mirror.create(mirror)
    Store(folder, mirror).close()
