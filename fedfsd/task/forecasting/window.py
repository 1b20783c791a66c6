"""Cut training examples from tracks: split at gaps, interpolate, slide, drop what stands or jumps.

Shapes: W windows, H history points (the present included), F future points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # a model needs the spec alone
    from fedfsd.drive.table import Table

View = Callable[[np.ndarray], tuple[np.ndarray, ...]]
COLUMNS = ("region", "recording", "vehicle", "t", "x", "y", "test")
"""What windows are cut from."""
TIMELESS = "points without a time"
_PART = 2**17  # rows that are cut at a time
_ROUNDING = 1e-3  # s, or a share of a period: float32 times fall a hair short or long


@dataclass(frozen=True)
class WindowSpec:
    """How windows are cut; every number is public and part of the plan."""

    history_seconds: float = 2.0
    future_seconds: float = 3.0
    period_seconds: float = 0.5
    max_gap_seconds: float = 0.75
    min_travel_m: float = 3.0
    max_step_m: float = 25.0

    @property
    def history(self) -> int:
        """H: points up to and including the present."""
        return round(self.history_seconds / self.period_seconds) + 1

    @property
    def future(self) -> int:
        """F: points to forecast."""
        return round(self.future_seconds / self.period_seconds)


@dataclass(frozen=True)
class Windows:
    """The windows of an ordered list of vehicles, those without any included."""

    vehicles: tuple[str, ...]
    points: np.ndarray  # (W, H + F, 2) float64, m, local plane of the recording
    owner: np.ndarray  # (W,) int64, index into vehicles, ascending
    dropped: dict[str, np.ndarray] = field(default_factory=dict)  # (V,) int64 each, by rule in words

    def __len__(self) -> int:
        return len(self.points)


def cut(tables: Iterable[Table], spec: WindowSpec, *, test: bool) -> Windows:
    """All windows of the test (or training) vehicles, vehicles in key order.

    A row with a non-finite time, and every window that a non-finite position touches, yields
    nothing; its vehicle stays in ``vehicles``.
    """
    vehicles, owner, (points,), dropped = collect(tables, spec, lambda points: (points,), test=test)
    return Windows(vehicles, points, owner, dropped)


def collect(
    tables: Iterable[Table], spec: WindowSpec, view: View, *, test: bool
) -> tuple[tuple[str, ...], np.ndarray, tuple[np.ndarray, ...], dict[str, np.ndarray]]:
    """``cut``, whose points become what ``view`` makes of them: a part at a time, so that they need not all
    be in memory.

    Args:
        view: points (W, H + F, 2) -> arrays (W, ...), each row from its own points alone.

    Returns:
        vehicles, owner, arrays of the view, dropped; the first two and the last as in ``Windows``.
    """
    from fedfsd.drive.table import vehicles

    tables = [table for table in tables if table.rows.num_rows]
    keys = vehicles(tables, test=test)
    slot = {key: index for index, key in enumerate(keys)}
    owners = [np.empty(0, np.int64)]
    views = [view(np.empty((0, spec.history + spec.future, 2)))]
    dropped: dict[str, np.ndarray] = {}
    for table in tables:
        for owner, points, counts in _parts(table, spec, slot, test=test):
            owners.append(owner)
            views.append(view(points))
            for what, count in counts.items():
                dropped[what] = dropped.get(what, 0) + count
    owner, arrays = np.concatenate(owners), [np.concatenate(parts) for parts in zip(*views, strict=True)]
    del owners, views
    if (np.diff(owner) < 0).any():
        order = np.argsort(owner, kind="stable")
        owner, arrays = owner[order], [array[order] for array in arrays]
    return keys, owner, tuple(arrays), dropped


def agent_frame(points: np.ndarray, history: int) -> tuple[np.ndarray, np.ndarray]:
    """Shift each window to its present and turn it so that the history runs along +x.

    Returns:
        history (W, H, 2) and future (W, F, 2), float32, m.
    """
    local = points - points[:, history - 1 : history]
    travelled = 0.0 - local[:, 0]  # not -0.0, which would turn a standing history by pi
    angle = np.arctan2(travelled[:, 1], travelled[:, 0])
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = local[..., 0], local[..., 1]
    turned = np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1).astype(np.float32)
    return turned[:, :history], turned[:, history:]


def _parts(
    table: Table, spec: WindowSpec, slot: Mapping[str, int], *, test: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """Owners (W,), points (W, H + F, 2) and what was dropped of each vehicle (V,), some runs at a time.

    A run is the rows of a vehicle in a recording, in time order, without a gap.
    """
    t = table.floats("t")
    mine = table.test == test
    vehicle, recording = (table.coded(name) for name in ("vehicle", "recording"))
    of_slot = np.array([slot.get(name, -1) for name in vehicle.names], np.int64)
    timeless = mine & ~np.isfinite(t)
    if timeless.any():
        count = np.bincount(of_slot[vehicle.codes[timeless]], minlength=len(slot))
        yield np.empty(0, np.int64), np.empty((0, spec.history + spec.future, 2)), {TIMELESS: count}
    rows = np.flatnonzero(mine & ~timeless)
    if not len(rows):
        return
    # One number for vehicle and recording, in the order of both.
    group = of_slot[vehicle.codes[rows]] * len(recording.names) + recording.ranks[recording.codes[rows]]
    order = np.argsort(group, kind="stable")
    if _backward(t[rows[order]], group[order]):
        order = np.lexsort((t[rows], group))
    group, rows = group[order], rows[order]
    del order
    times = t[rows].astype(np.float64)
    apart = (np.diff(group) != 0) | (np.diff(times) > spec.max_gap_seconds + _ROUNDING)
    start = np.r_[0, np.flatnonzero(apart) + 1, len(rows)]
    owner = group[start[:-1]] // len(recording.names)
    x, y = table.floats("x"), table.floats("y")
    size = spec.history + spec.future
    windows = (times[start[1:] - 1] - times[start[:-1]]) / spec.period_seconds
    # Runs share a part as long as their rows and their windows' points are few.
    weight = np.r_[0, np.cumsum(np.diff(start) + windows * size / 4)]
    first = 0
    while first < len(owner):
        last = max(first + 1, int(np.searchsorted(weight, weight[first] + _PART, side="right")) - 1)
        chosen = slice(start[first], start[last])
        track = _Runs(
            owner[first:last],
            start[first : last + 1] - start[first],
            times[chosen],
            *_positions(x[rows[chosen]], y[rows[chosen]]),
        )
        yield _slide(track, spec, len(slot))
        first = last


def _positions(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As float64, both NaN where one is not finite."""
    unknown = ~(np.isfinite(x) & np.isfinite(y))
    x, y = x.astype(np.float64), y.astype(np.float64)
    x[unknown] = y[unknown] = np.nan
    return x, y


def _backward(times: np.ndarray, group: np.ndarray) -> bool:
    """Whether time goes back anywhere within a group."""
    return bool(((np.diff(group) == 0) & (np.diff(times) < 0)).any())


@dataclass(frozen=True)
class _Runs:
    """Some runs, one after the other. Shapes: R runs, N rows."""

    owner: np.ndarray  # (R,)
    start: np.ndarray  # (R + 1,)
    times: np.ndarray  # (N,) s
    x: np.ndarray  # (N,) m
    y: np.ndarray  # (N,) m


def _slide(runs: _Runs, spec: WindowSpec, slots: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Every window that moves and does not jump, with its owner; how much was dropped of whom, and why."""
    size = spec.history + spec.future
    length = runs.times[runs.start[1:] - 1] - runs.times[runs.start[:-1]]
    count = (length / spec.period_seconds + _ROUNDING).astype(np.int64) + 1
    long = count >= size
    seconds = (size - 1) * spec.period_seconds
    short = f"stretches shorter than {seconds:g} s (a gap of over {spec.max_gap_seconds:g} s ends one)"
    end = np.cumsum(np.where(long, count, 0))
    begin = end - np.where(long, count, 0)
    track = _on_grid(runs, spec, long, begin, count)
    # The windows' first points on the grid, and the run of each.
    several = np.where(long, count - size + 1, 0)
    run = np.repeat(np.arange(len(count)), several)
    first = np.arange(len(run)) - np.repeat(np.cumsum(several) - several, several) + begin[run]
    travel = _length(track[first + size - 1] - track[first])
    steps = _longest(_length(np.diff(track, axis=0)), size - 1)[first]
    unknown = ~np.isfinite(travel) | ~np.isfinite(steps)
    jumps = ~unknown & (steps > spec.max_step_m)
    stands = ~unknown & ~jumps & (travel < spec.min_travel_m)
    reasons = (
        (short, np.flatnonzero(~long)),
        ("windows with a position that is not a number", run[unknown]),
        (f"windows that jump over {spec.max_step_m:g} m in {spec.period_seconds:g} s", run[jumps]),
        (f"windows that travel less than {spec.min_travel_m:g} m", run[stands]),
    )
    # In the order in which one who takes run after run would meet them.
    met = sorted((hit[0], place) for place, (_, hit) in enumerate(reasons) if len(hit))
    dropped = {
        reasons[place][0]: np.bincount(runs.owner[reasons[place][1]], minlength=slots) for _, place in met
    }
    kept = ~(unknown | jumps | stands)
    return runs.owner[run[kept]], track[first[kept, None] + np.arange(size)], dropped


def _on_grid(
    runs: _Runs, spec: WindowSpec, long: np.ndarray, begin: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """Positions (G, 2) at each period from the start of every long run, to the bit as ``np.interp`` has them.

    Args:
        long: which runs, (R,) bool. begin, count: where the points of each begin, and how many, (R,).
    """
    start, count, begin = runs.start[:-1][long], count[long], begin[long]
    rows = runs.start[1:][long] - start
    zero = runs.times[start]
    grid = np.repeat(zero, count) + spec.period_seconds * (np.arange(count.sum()) - np.repeat(begin, count))
    row = np.arange(rows.sum()) + np.repeat(start - (np.cumsum(rows) - rows), rows)
    times, zero = runs.times[row], np.repeat(zero, rows)
    # The first point that is not before each row: rounding may put the quotient on either side of one.
    point = np.ceil((times - zero) / spec.period_seconds).astype(np.int64)
    while (late := (point > 0) & (zero + spec.period_seconds * (point - 1) >= times)).any():
        point -= late
    while (early := zero + spec.period_seconds * point < times).any():
        point += early
    # How many rows of all runs are at or before each point, and so the last one of its own run.
    inside = point < np.repeat(count, rows)
    passed = np.bincount((np.repeat(begin, rows) + point)[inside], minlength=len(grid)).cumsum()
    at = passed + np.repeat(start - 1 - np.r_[0, passed][begin], count)
    after = np.minimum(at + 1, np.repeat(start + rows - 1, count))
    since = grid - runs.times[at]
    # A point at a row, or past the last one, has the row's position.
    between = (since != 0) & (after > at)
    step = np.where(between, runs.times[after] - runs.times[at], 1.0)
    track = np.empty((len(grid), 2))
    for axis, values in enumerate((runs.x, runs.y)):
        slope = (values[after] - values[at]) / step
        track[:, axis] = np.where(between, slope * since + values[at], values[at])
    return track


def _length(vectors: np.ndarray) -> np.ndarray:
    """Of each row, (N, 2) -> (N,)."""
    return np.sqrt(vectors[:, 0] * vectors[:, 0] + vectors[:, 1] * vectors[:, 1])


def _longest(values: np.ndarray, length: int) -> np.ndarray:
    """The largest of ``length`` values from each on, (N,) -> (N - length + 1,); NaN where one is."""
    if not length:
        return np.zeros(len(values) + 1)
    width = 1
    while 2 * width <= length:
        values = np.maximum(values[: len(values) - width], values[width:])
        width *= 2
    rest = length - width
    return np.maximum(values[: len(values) - rest], values[rest:])
