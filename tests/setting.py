"""Short settings for CI of what could go on for hours; FEDFSD_LONG=1 takes the long ones."""

from __future__ import annotations

import os

LONG = "FEDFSD_LONG" in os.environ
EXAMPLES = 100 if LONG else 25
"""Of a property, where its test names no number of its own."""


def examples(number: int) -> int:
    """How many examples of a property are tried; in CI a quarter of ``number``."""
    return number if LONG else max(1, number // 4)
