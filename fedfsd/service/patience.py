"""How long a process is waited for: not by the clock, which a busy machine outruns, but by what it does.

A wait gives up where the process had time to work and did nothing for so long. While it computes, waits for
the disk, is held by somebody, or is ready to run and does not get a turn, no time is counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

BUSY = 0.05
"""Of the time that passed, spent computing: what only polls takes less."""
LOOK_SECONDS = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_HELD = frozenset("RDTt")
"""States of /proc: ready to run, waiting for the disk, stopped, traced. Others sleep, or are over."""


class Progress:
    """Whether processes, with all that they started, work; asked again and again."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        """``pids`` are asked each time: they come and go. This process itself is never among them."""
        self._pids = pids
        self._ticks: dict[int, int] = {}
        self._at = time.monotonic()

    def seen(self) -> bool:
        """Whether one of them did something since the last question, or could not."""
        now, before = time.monotonic(), self._ticks
        found = {pid: stat for pid, stat in _tree(self._pids()).items() if pid != os.getpid()}
        spent = sum(max(ticks - before.get(pid, ticks), 0) for pid, (_, ticks) in found.items())
        passed, self._at = now - self._at, now
        self._ticks = {pid: ticks for pid, (_, ticks) in found.items()}
        held = any(state in _HELD for state, _ in found.values())
        new = bool(before) and bool(found.keys() - before.keys())
        return held or new or spent / _TICKS > BUSY * passed


class Patience:
    """``seconds`` of idleness that a wait for ``progress`` can bear."""

    def __init__(self, seconds: float, progress: Progress) -> None:
        self._left, self._progress, self._at = seconds, progress, time.monotonic()

    def over(self) -> bool:
        """Whether it has been idle for so long, by now."""
        now = time.monotonic()
        # Never more than a few looks at once: this process may have been held itself.
        passed, self._at = min(now - self._at, 10 * LOOK_SECONDS), now
        if not self._progress.seen():
            self._left -= passed
        return self._left < 0


def until(holds: Callable[[], bool], *, seconds: float, pids: Callable[[], Iterable[int]]) -> bool:
    """Wait until it ``holds``, looking again and again; False where all of ``pids`` were idle for so long."""
    patience = Patience(seconds, Progress(pids))
    while not holds():
        if patience.over():
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _tree(pids: Iterable[int]) -> dict[int, tuple[str, int]]:
    """(state, ticks of computing) of each of ``pids`` and of their children, and theirs."""
    wanted, found = list(pids), dict[int, tuple[str, int]]()
    while wanted:
        pid = wanted.pop()
        if pid in found or pid <= 0:
            continue
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
            state, *numbers = fields.rpartition(")")[2].split()
            found[pid] = state, sum(map(int, numbers[10:14]))  # its own, and of children that ended
            for task in Path(f"/proc/{pid}/task").iterdir():
                wanted += map(int, (task / "children").read_text(encoding="ascii").split())
        except (OSError, ValueError):
            continue  # over, or another user's on a system that hides them
    return found
