"""Whether a failure means that a disk is full: then there is one thing to do, and afterwards all goes on."""

from __future__ import annotations

import errno
import sqlite3

_FULL = {errno.ENOSPC, errno.EDQUOT}


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
