"""How a task's figures are worded for people: on the page, in pictures, in tables, on a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedfsd.language import mark

if TYPE_CHECKING:
    from fedfsd.task.task import Metric

SHARE = "%"  # the unit of figures from 0 to 1
HEADINGS = {"private": "", "rehearsal": mark("rehearsal, no guarantee"), "none": mark("not private")}
"""By mode, what must be said of a run wherever it is shown."""


def amount(value: float | None, unit: str, *, bare: bool = False, like: float | None = None) -> str:
    """A figure with its unit.

    Args:
        bare: without the unit, where the place says it already.
        like: the figure beside it, whose decimals it takes.

    >>> amount(4.931, "m"), amount(0.0712, "m", bare=True, like=4.931), amount(0.0712, "m"), amount(0.55, "%")
    ('4.93 m', '0.07', '0.071 m', '55.0%')
    """
    if value is None:
        return "–"
    if unit == SHARE:
        return f"{value:.1%}"
    text = f"{value:.{_decimals(value if like is None else like)}f}"
    return text if bare or not unit else f"{text} {unit}"


def gain(metric: Metric, value: float | None, beside: float | None) -> float | None:
    """How much better ``value`` is than ``beside``, negative where it is worse.

    A difference where the metric is a share already, else a share of ``beside``.
    """
    if value is None or beside is None or (not beside and metric.unit != SHARE):
        return None
    better = beside - value if metric.lower_is_better else value - beside
    return better if metric.unit == SHARE else better / abs(beside)


def gained(metric: Metric, better: float | None) -> str:
    """A ``gain`` in words: 7.1%, or 7.1 points where the metric is a share."""
    if better is None:
        return "–"
    return f"{100 * better:.1f} points" if metric.unit == SHARE else f"{better:.1%}"


def titled(metric: Metric) -> str:
    """Name and unit, for the head of a column or an axis of bare figures."""
    return metric.name if metric.unit in ("", SHARE) else f"{metric.name}, {metric.unit}"


def _decimals(value: float) -> int:
    """Two, or as many as show two digits of a small figure."""
    return 2 if abs(value) >= 0.1 or not value else min(1 - math.floor(math.log10(abs(value))), 9)
