"""Memory: how much there is, and what a process of many threads would otherwise keep of what it freed."""

from __future__ import annotations

import ctypes
import math
from contextlib import suppress
from pathlib import Path

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


def free(proc: Path = Path("/proc"), control: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that this machine, or this container (control groups, version 2), can still give; infinite where
    nothing says so."""
    found = [math.inf]
    with suppress(OSError, ValueError, StopIteration):
        lines = (proc / "meminfo").read_text(encoding="utf-8").splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    with suppress(OSError, ValueError, StopIteration):
        most, used = (
            int((control / f"memory.{name}").read_text(encoding="utf-8")) for name in ("max", "current")
        )
        lines = (control / "memory.stat").read_text(encoding="utf-8").splitlines()
        files = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        found.append(most - used + files)
    return min(found)
