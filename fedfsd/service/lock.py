"""One process a folder: a lock that ends with its holder, however that ends. The file says who it is."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedfsd.errors import NotReadyError
from fedfsd.service.owner import give


@contextmanager
def hold(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` while inside; ``what`` names the folder's process for people.

    Raises:
        NotReadyError: another process holds it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        give(file, path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotReadyError(
                str(path.parent),
                got=f"{what} is already running",
                expected="one per folder",
                hint="stop the other one, or name another folder",
            ) from None
        os.ftruncate(file, 0)
        os.write(file, b"%d\n" % os.getpid())
        yield
    finally:
        os.close(file)


def holder(path: Path) -> list[int]:
    """The process that holds the lock, as far as the file says it."""
    try:
        return [int(path.read_text(encoding="ascii"))]
    except (OSError, ValueError):
        return []


def held(path: Path) -> bool:
    """Whether some process holds the lock."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
