"""The folder of what only saves time: this user's alone, and safe to delete at any moment."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def folder() -> Path:
    """``fedfsd`` in the user's cache (XDG_CACHE_HOME, or ~/.cache); nothing is made yet."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # a user without a home, as in some containers
        home = Path(tempfile.gettempdir()) / f"cache-{os.geteuid()}"
    return home / "fedfsd"


def is_own(path: Path) -> bool:
    """Whether nobody but this user, or root, can have written the file. OSError where there is none."""
    stat = path.stat()
    return stat.st_uid in (0, os.geteuid()) and not stat.st_mode & 0o022


def keep(path: Path, content: bytes) -> None:
    """Write ``path`` whole, for this user alone. OSError where that is impossible."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except OSError:
        Path(part).unlink(missing_ok=True)
        raise
