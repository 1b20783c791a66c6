"""New files belong to the owner of their folder and are readable by nobody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def give(descriptor: int, path: Path) -> None:
    """Of root: give the open file ``path`` to the owner of the folder it lies in. Of others: nothing."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.fchown(descriptor, folder.st_uid, folder.st_gid)


@contextmanager
def private() -> Iterator[None]:
    """New files and folders are for their owner alone; SQLite and the mirror go by the process's mask."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
