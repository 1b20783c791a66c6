"""Memory that was freed, and that a process of many threads would otherwise keep."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h


def give_back(large: int = 2**20) -> None:
    """Return freed blocks of ``large`` bytes or more to the system at once; call it before anything else.

    glibc keeps what its threads free, a model for each of them, and never returns most of it. With another
    C library this does nothing.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, large)
        library.mallopt(_M_ARENA_MAX, 2)
