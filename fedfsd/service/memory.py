"""What a process of many threads does not keep: memory that was freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_LARGE = 2**20


def give_back() -> None:
    """Let freed arrays go back to the system at once; called first of all, where the C library can do so.

    glibc keeps what its threads free, a model for each of them, and never returns most of it.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_M_ARENA_MAX, 2)
