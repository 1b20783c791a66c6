"""What root writes into another user's folder belongs to that user."""

from __future__ import annotations

import os
from pathlib import Path


def give(descriptor: int, path: Path) -> None:
    """Of root: give the open file ``path`` to the owner of the folder it lies in. Of others: nothing."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.fchown(descriptor, folder.st_uid, folder.st_gid)
