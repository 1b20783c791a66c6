"""Bytes that are on the disk before a call returns."""

from __future__ import annotations

import errno
import mmap
import os
import sqlite3
import weakref
from pathlib import Path

from fedfsd.errors import NotReadyError

_FULL = {errno.ENOSPC, errno.EDQUOT}


class Mapped(mmap.mmap):
    """A file that nobody changes any more, read as it is looked at; ``descriptor`` is good as long as it."""

    descriptor: int

    def __new__(cls, path: Path) -> Mapped:
        """OSError where it cannot be read, ValueError where it is empty."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            made = super().__new__(cls, descriptor, 0, access=mmap.ACCESS_READ)
        except BaseException:
            os.close(descriptor)
            raise
        made.descriptor = descriptor
        weakref.finalize(made, os.close, descriptor)
        return made


def write_whole(path: Path, content: bytes | memoryview, *, private: bool = False) -> None:
    """Write ``path`` so that a crash leaves the old file or the whole new one.

    ``private``: for this process's user alone to read.

    Raises:
        NotReadyError: the disk is full or cannot be written.
    """
    draft = path.with_name(path.name + ".draft")
    try:
        # Root may write here in a folder of another user: never through a link of theirs.
        with open(draft, "wb", opener=_unlinked) as file:
            if private:
                os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None


def _unlinked(name: str, flags: int) -> int:
    """Open a file, and no link in its place."""
    return os.open(name, flags | os.O_NOFOLLOW, 0o666)


def unwritable(path: Path, error: OSError) -> NotReadyError:
    """A file that must be kept cannot be."""
    return NotReadyError(
        str(path), got=error.strerror, expected="a disk with room", hint="make room, then ask again"
    )


def sync_folder(folder: Path) -> None:
    """Make names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: BaseException | None) -> bool:
    """Whether ``error``, or what it was raised for, is a lack of room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if (
            isinstance(error, sqlite3.Error)
            and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
