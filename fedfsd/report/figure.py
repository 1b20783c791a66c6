"""The pictures of a run as SVG text: learning curves, privacy spent, utility against epsilon.

The same values give the same bytes. What is measured is the task's headline; a task draws its own examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedfsd.canvas import DASHED, INK, PAPER, SHOWN, as_svg, colours, columns, grid, note, style
from fedfsd.report.words import SHARE, amount, titled
from fedfsd.task.task import Metric, Task, headline, key_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_START_ROOM = {1: 0.08, 2: 0.18, 3: 0.34}  # left of round 0, for the words beside it; by panels in a row
_SHARE_ROOM = 1.5  # the sign of a percentage is wide
_START: dict[str, Any] = {"marker": "D", "markersize": 7, "markerfacecolor": PAPER, "zorder": 3}


@dataclass(frozen=True)
class Point:
    """One setting in one region: the headline over seeds; epsilon is None where nothing is guaranteed."""

    epsilon: float | None
    value: float
    deviation: float | None
    guaranteed: bool


def learning(
    rounds: Sequence[Mapping[str, Any]],
    regions: Mapping[str, Mapping[str, Any]],
    task: Task,
    *,
    heading: str = "",
) -> str:
    """The headline by round, a panel a region, beside the task's baseline and the start.

    ``rounds`` are the lines of rounds.jsonl, ``regions`` those of metrics.json; ``heading`` is printed
    on the picture (a mode that protects nothing must say so wherever the picture goes).
    """
    with style() as figure_of:
        names = list(regions)[:SHOWN]
        figure, panels = grid(figure_of, names, 2.9, heading, ("round", titled(headline(task))))
        last = max([1, *(line["round"] for line in rounds)])
        room = _START_ROOM[columns(names)] * (_SHARE_ROOM if headline(task).unit == SHARE else 1)
        for name, axes in panels.items():
            mine = [(line["round"], line["regions"].get(name) or {}) for line in rounds]
            _learning_panel(axes, mine, regions[name], task, colours(names)[name])
            axes.set_xlim(-room * last, 1.03 * last)
            axes.set_xticks(_whole(axes.get_xticks(), last))
        return as_svg(figure)


def privacy(
    regions: Mapping[str, Mapping[str, Any]], targets: Mapping[str, float | None], *, heading: str = ""
) -> str:
    """Epsilon spent by round against the target; regions that spend alike share one line."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name, region in regions.items():
        spent = tuple((int(n), round(float(e), 3)) for n, e in region.get("epsilon_by_round") or ())
        if spent:
            alike.setdefault((spent, targets.get(name)), []).append(name)
    lines = sorted(
        ((spent, target, names) for (spent, target), names in alike.items()), key=lambda x: x[0][-1][1]
    )
    with style() as figure_of:
        figure = figure_of(10, 3.4, heading)
        axes = figure.add_subplot()
        for height, (spent, target, names) in zip(_apart([x[0][-1][1] for x in lines]), lines, strict=True):
            colour = colours(list(regions))[names[0]] if len(names) == 1 else INK
            steps, values = zip((0, 0.0), *spent, strict=True)
            axes.plot(steps, values, color=colour, linewidth=2.2, marker="o", markersize=4, clip_on=False)
            if target is not None:
                axes.axhline(target, color=colour, **DASHED)
                note(axes, f"target {target:g}", (0, target), (4, 4))
            note(axes, _listed(names), (steps[-1], height), (12, -4), color=colour)
        axes.set(xlabel="round", ylabel="epsilon spent")
        axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.06)
        axes.margins(x=0)
        axes.set_xticks(_whole(axes.get_xticks(), axes.get_xlim()[1]))
        axes.grid(axis="y")
        return as_svg(figure)


def utility(
    points: Mapping[str, Sequence[Point]],
    baseline: Mapping[str, float],
    start: Mapping[str, float],
    task: Task,
) -> str:
    """The headline against epsilon, a panel a region; hollow points carry no guarantee."""
    metric = headline(task)
    names = list(points)[:SHOWN]
    spent = [point.epsilon for name in names for point in points[name] if point.epsilon is not None]
    ticks = sorted({_rounded(epsilon) for epsilon in spent})
    low, high = (float(np.log2(ticks[0])), float(np.log2(ticks[-1]))) if ticks else (0.0, 0.0)
    with style() as figure_of:
        figure, panels = grid(figure_of, names, 3.1, "", ("epsilon", titled(metric)))
        for name, axes in panels.items():
            colour = colours(names)[name]
            for point in points[name]:
                axes.errorbar(
                    high + 1.2 if point.epsilon is None else np.log2(point.epsilon),
                    point.value,
                    yerr=point.deviation,
                    color=colour,
                    **_START | {"marker": "o", "markerfacecolor": colour if point.guaranteed else PAPER},
                    capsize=3,
                )
            curve = sorted(
                (p.epsilon, p.value) for p in points[name] if p.epsilon is not None and p.guaranteed
            )
            if len({_rounded(epsilon) for epsilon, _ in curve}) == len(curve):  # else several lines in one
                axes.plot(
                    np.log2([epsilon for epsilon, _ in curve]), [value for _, value in curve], color=colour
                )
            if name in start:
                axes.plot(low - 1.2, start[name], **_START, color=colour)
            if name in baseline:
                _baseline(axes, baseline[name], task, colour)
            _scale(axes, metric)
            axes.set_xticks(
                [low - 1.2, *np.log2(ticks), high + 1.2],
                ["start\nε = 0", *(f"{tick:g}" for tick in ticks), "not\nprivate"],
            )
            axes.set_xlim(low - 1.8, high + 1.8)
            axes.margins(y=0.18)
        return as_svg(figure)


def _whole(ticks: Iterable[float], last: float) -> list[float]:
    """Those of ``ticks`` that are rounds."""
    return [tick for tick in ticks if 0 <= tick <= last and tick % 1 == 0]


def _learning_panel(
    axes: Axes,
    mine: Sequence[tuple[int, Mapping[str, Any]]],
    figures: Mapping[str, Any],
    task: Task,
    colour: str,
) -> None:
    """One region's curve with its end, its start and the rounds it missed."""
    metric = headline(task)
    curve = [(number, one[metric.key]) for number, one in mine if one.get(metric.key) is not None]
    simple = figures.get(key_of(task.baseline, metric))
    if simple is not None:
        _baseline(axes, simple, task, colour)
    if curve:
        (first, start), (last, end) = curve[0], curve[-1]
        axes.plot(*zip(*curve, strict=True), color=colour, linewidth=2.2)
        axes.plot(last, end, "o", color=colour, markersize=6)
        note(axes, amount(end, metric.unit), (last, end), (8, -4), weight="bold", color=INK)
        if first == 0:
            axes.plot(0, start, **_START, color=colour)
            words = f"start\n{amount(start, metric.unit, bare=True)}"
            note(axes, words, (0, start), (-9, 0), ha="right", va="center")
        _scale(axes, metric)
    else:
        note(axes, "no test vehicle here", (0.5, 0.5), (0, 0), xycoords="axes fraction", ha="center")
        axes.set_yticks([])
    axes.margins(y=0.2)
    missed = [number for number, one in mine if one.get("outcome", "released") != "released"]
    if missed:
        across = axes.get_xaxis_transform()
        axes.plot(missed, [0.03] * len(missed), "x", color=colour, markersize=6, transform=across)
        note(axes, "× round without this region", (0.99, 0.06), (0, 0), xycoords="axes fraction", ha="right")


def _baseline(axes: Axes, value: float, task: Task, colour: str) -> None:
    axes.axhline(value, color=colour, **DASHED)
    words, place = f"{task.baseline} {amount(value, headline(task).unit, bare=True)}", (1, value)
    note(axes, words, place, (0, 4), xycoords=("axes fraction", "data"), ha="right")


def _scale(axes: Axes, metric: Metric) -> None:
    """Ticks of a share in percent."""
    if metric.unit == SHARE:
        from matplotlib.ticker import PercentFormatter

        axes.yaxis.set_major_formatter(PercentFormatter(1))


def _rounded(epsilon: float) -> float:
    """Calibrated values of one target differ in the third digit."""
    return float(f"{epsilon:.2g}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _apart(heights: Sequence[float]) -> list[float]:
    """Ascending label heights, none closer than a line of type to the one below."""
    gap = max(heights, default=0.0) * 0.085
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    return placed
