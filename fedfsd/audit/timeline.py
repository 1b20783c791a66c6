"""What was spent against the grant, entry by entry, as numbers and as a drawing.

The axis across is the order of entries, because a ledger keeps no clock; the days of its bookings stand
below. The axis upwards is the Renyi loss, where spends simply add; it is labelled with the epsilon that a
loss amounts to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedfsd.audit.case import Case
from fedfsd.audit.chapter import Chapter, Point
from fedfsd.audit.loss import NANO, epsilon_lifetime
from fedfsd.audit.text import number
from fedfsd.audit.words import said
from fedfsd.errors import PlanError
from fedfsd.language import say

WIDTH, HEIGHT = 880, 284
LEFT, RIGHT, TOP, BOTTOM = 52, 140, 20, 60
MOST_POINTS, MOST_EVENTS, MOST_BANDS = 1200, 200, 200
_LABEL_HEIGHT, _DATE_WIDTH = 15, 76
_TICKS = (0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)


def timeline(case: Case, chapter: Chapter) -> dict[str, Any]:
    """Points (at most about a thousand), plans and events of one data set."""
    course, grant = case.course, chapter.grant
    events = [
        *((one.seq, say("request refused ({code})", code=one.code)) for one in course.refusals),
        *((one.seq, say("incident ({code})", code=one.code)) for one in course.incidents),
        *((one.seq, say("recovery from a backup")) for one in course.ledger.recoveries),
    ]
    claims = not chapter.rehearsal and not case.withheld
    return {
        "data_set": said(grant.data_set),
        "entries": len(course.ledger.lines),
        "alpha": grant.alpha,
        "delta": grant.delta,
        "guarantee": claims,
        "points": [
            {
                "entry": point.seq,
                "spent": point.spent,
                "held": point.held,
                "granted": point.grant.rho_max,
                "epsilon_spent": chapter.epsilon(point.spent, point.grant) if claims else None,
                "epsilon_lifetime": chapter.epsilon(point.spent + point.held, point.grant)
                if claims
                else None,
                "epsilon_grant": point.grant.epsilon if claims else None,
            }
            for point in _thinned(chapter.points)
        ],
        "plans": [{"entry": run.entry.seq, "plan": run.entry.plan} for run in chapter.runs],
        "events": [{"entry": seq, "what": what} for seq, what in sorted(events)],
        "dates": _dates(case),
    }


def _dates(case: Case) -> list[dict[str, Any]]:
    """The first entry of each day on which a round was booked, in the order of entries."""
    found: list[dict[str, Any]] = []
    reserves = [one for run in case.course.runs.values() for one in run.reserves.values()]
    for one in sorted(reserves, key=lambda one: one.seq):
        if not found or found[-1]["date"] != one.date:
            found.append({"entry": one.seq, "date": one.date})
    return found


def _thinned(points: list[Point]) -> list[Point]:
    """Every n-th point and the last; sums only move in between, so no spend is left out."""
    step = max(1, len(points) // MOST_POINTS)
    return [*points[:-1:step], *points[-1:]]


def drawing(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """Paths and labels for the SVG of a timeline; None where there is nothing to draw."""
    points = told["points"]
    top = max((max(one["granted"], one["spent"] + one["held"]) for one in points), default=0)
    if not top:
        return None
    first, end = points[0]["entry"], points[-1]
    last = max(told["entries"] - 1, end["entry"], first + 1)

    def across(seq: int) -> float:
        return float(round(LEFT + (WIDTH - LEFT - RIGHT) * (seq - first) / (last - first), 1))

    def up(nano: float) -> float:
        return float(round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * nano / (1.06 * top), 1))

    def steps(values: list[int]) -> str:
        path = f"M{across(first)} {up(values[0])}"
        for point, value in zip(points[1:], values[1:], strict=True):
            path += f"H{across(point['entry'])}V{up(value)}"
        return f"{path}H{across(last)}"

    floor = f"V{up(0)}H{across(first)}Z"
    spent, committed = [one["spent"] for one in points], [one["spent"] + one["held"] for one in points]
    labels = [
        ("granted", up(end["granted"]), _amount(end["granted"], end["epsilon_grant"])),
        ("charged", up(committed[-1]), _amount(committed[-1], end["epsilon_lifetime"])),
        ("spent", up(spent[-1]), _amount(spent[-1], end["epsilon_spent"])),
    ]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "floor": up(0),
        "top": TOP - 8,
        "spent": steps(spent) + floor,
        "held": steps(committed) + floor,
        "line": steps(spent),
        "grant": steps([one["granted"] for one in points]),
        "ticks": [(up(nano), epsilon) for epsilon, nano in _ticks(told, top)],
        # What is spent in full has one label, not two on one spot.
        "labels": _apart(labels if spent[-1] < committed[-1] else labels[:2]),
        "plans": _bands([(one["entry"], one["plan"][:8]) for one in told["plans"]], across, last),
        "dates": _spread([(across(one["entry"]), one["date"]) for one in told["dates"]]),
        "events": [
            (across(one["entry"]), say("entry {entry}: {what}", entry=one["entry"], what=one["what"]))
            for one in told["events"][:MOST_EVENTS]
            if first <= one["entry"] <= last
        ],
    }


def _ticks(told: Mapping[str, Any], top: int) -> list[tuple[float, float]]:
    """(epsilon, nano-nats) of a few round epsilons, above what the conversion adds to no loss at all."""
    try:
        nothing = epsilon_lifetime(0, alpha=told["alpha"], delta=told["delta"])
    except PlanError:
        return []
    step = next((one for one in _TICKS if top / NANO / one <= 5), top / NANO)
    places = range(int(nothing / step) + 1, int((nothing + top / NANO) / step) + 1)
    found = [(step * place, (step * place - nothing) * NANO) for place in places]
    return [(epsilon, nano) for epsilon, nano in found if nano > 0.1 * top and told["guarantee"]]


def _amount(nano: int, epsilon: float | None) -> str:
    """A loss by its epsilon, or plainly where no epsilon may be stated."""
    return say("{nats:.3g} nats", nats=nano / NANO) if epsilon is None else f"ε {number(epsilon)}"


def _spread(dates: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """As many dates along the axis as have room."""
    kept: list[tuple[float, str]] = []
    for at, date in dates:
        if (not kept or at - kept[-1][0] >= _DATE_WIDTH) and at <= WIDTH - RIGHT - _DATE_WIDTH / 2:
            kept.append((at, date))
    return kept


def _apart(rows: list[tuple[str, float, str]]) -> list[tuple[str, float, str]]:
    """Labels at the right, from top to bottom, none on another."""
    placed: list[tuple[str, float, str]] = []
    for word, height, amount in sorted(rows, key=lambda row: row[1]):
        low = placed[-1][1] + _LABEL_HEIGHT if placed else 0.0
        placed.append((word, max(height, low), amount))
    return placed


def _bands(
    plans: list[tuple[int, str]], across: Callable[[int], float], last: int
) -> list[tuple[float, str]]:
    """(start, name) of each plan, up to the next one; names only where there is room."""
    ends = [seq for seq, _ in plans[1:]] + [last]
    found = []
    for (start, name), end in zip(plans[:MOST_BANDS], ends, strict=False):
        width = round(across(end) - across(start), 1)
        found.append((across(start), name if width > 80 else ""))
    return found
