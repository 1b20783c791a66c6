"""Live progress on stderr: one line that stays in place on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedfsd.simulation.trail import Progress

_EVERY_SECONDS = 5.0


class Watch:
    """Call it with each ``Progress``, inside a ``with``."""

    def __init__(self) -> None:
        self._live: Any = None
        self._printed = 0.0
        self._headline: Mapping[str, float] = {}

    def __enter__(self) -> Watch:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, markup=False, highlight=False, emoji=False)
            # Without a thread of its own: it changes when a round ends.
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        self._headline = progress.headline or self._headline  # not every round is evaluated
        text = progress.told(self._headline)
        if self._live:
            from rich.text import Text

            self._live.update(Text(text), refresh=True)
            return
        now, last = time.monotonic(), progress.round == progress.num_rounds
        if last or now - self._printed >= _EVERY_SECONDS:
            self._printed = now
            print(text, file=sys.stderr, flush=True)
