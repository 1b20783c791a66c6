"""Two clocks compared: the coordinator's, which says the time, and this machine's.

>>> print(str(objection(7260.0)).partition(";")[0])
not_ready: clock: got 2 h 1 min ahead of the coordinator's, expected within 5 min of it
>>> objection(-299.0) is None
True
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fedfsd.errors import NotReadyError

LIMIT_SECONDS = 300.0


def offset(ask: Callable[[], int]) -> float:
    """Seconds by which this machine's clock is ahead of the one that ``ask`` reads, in whole seconds."""
    began, since = time.time(), time.monotonic()
    there = ask()
    # The middle of the call, by a clock that nobody sets meanwhile. Whole seconds were cut off there.
    return began + 0.5 * (time.monotonic() - since) - (there + 0.5)


def objection(offset: float) -> NotReadyError | None:
    """What to say of clocks ``offset`` seconds apart; None where that does no harm."""
    if abs(offset) <= LIMIT_SECONDS:
        return None
    minutes = round(abs(offset) / 60)
    apart = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    return NotReadyError(
        "clock",
        got=f"{apart} {'ahead of' if offset > 0 else 'behind'} the coordinator's",
        expected=f"within {LIMIT_SECONDS / 60:.0f} min of it",
        hint="set the clock of the one that is wrong (timedatectl set-ntp true): certificates and permissions"
        " end by it",
    )
