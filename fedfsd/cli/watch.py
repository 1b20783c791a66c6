"""Live progress on stderr: one line that stays in place on a terminal, else a line now and then."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedfsd.simulation.trail import Progress

_EVERY_SECONDS = 5.0


STAGES = logging.getLogger("fedfsd.progress")
"""Tells what happens before the first round: each stage at INFO, parts of a long one at DEBUG."""


class Watch(logging.Handler):
    """Call it with each ``Progress``, inside a ``with``."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
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
        STAGES.setLevel(logging.DEBUG)
        STAGES.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        STAGES.removeHandler(self)
        if self._live:
            self._live.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a stage."""
        self._show(record.getMessage(), now=record.levelno >= logging.INFO)

    def __call__(self, progress: Progress) -> None:
        self._headline = progress.headline or self._headline  # not every round is evaluated
        text = progress.told(self._headline)
        self._show(text, now=progress.round in (1, progress.num_rounds))

    def _show(self, text: str, *, now: bool) -> None:
        if self._live:
            from rich.text import Text

            self._live.update(Text(text), refresh=True)
            return
        moment = time.monotonic()
        if now or moment - self._printed >= _EVERY_SECONDS:
            self._printed = moment
            print(text, file=sys.stderr, flush=True)
