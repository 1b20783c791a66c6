"""Windows cut run by run, in the plainest way: what ``window.cut`` must equal to the bit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from fedfsd.drive.table import Table
from fedfsd.task.forecasting.window import _ROUNDING, Windows, WindowSpec


def cut(tables: Iterable[Table], spec: WindowSpec, *, test: bool) -> Windows:
    """All windows of the test (or training) vehicles, vehicles in key order.

    A row with a non-finite time, and every window that a non-finite position touches, yields
    nothing; its vehicle stays in ``vehicles``.
    """
    tables = [table for table in tables if table.rows.num_rows]
    keys = sorted({key for table in tables for key in np.unique(table.text("vehicle")[table.test == test])})
    slot = {key: index for index, key in enumerate(keys)}
    points: list[np.ndarray] = [np.empty((0, spec.history + spec.future, 2))]
    owner: list[np.ndarray] = [np.empty(0, np.int64)]
    dropped: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(keys), np.int64))
    for table in tables:
        timeless = (table.test == test) & ~np.isfinite(table.number("t"))
        for vehicle in table.text("vehicle")[timeless]:
            dropped["points without a time"][slot[vehicle]] += 1
        for vehicle, times, positions in _runs(table, spec, test=test):
            found, left_out = _slide(times, positions, spec)
            points.append(found)
            owner.append(np.full(len(found), slot[vehicle]))
            for what, count in left_out.items():
                dropped[what][slot[vehicle]] += count
    owners = np.concatenate(owner)
    order = np.argsort(owners, kind="stable")
    return Windows(tuple(keys), np.concatenate(points)[order], owners[order], dict(dropped))


def _runs(table: Table, spec: WindowSpec, *, test: bool) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(vehicle, times, positions) of each uninterrupted run, in time order."""
    keep = (table.test == test) & np.isfinite(table.number("t"))
    names, vehicle = np.unique(table.text("vehicle")[keep], return_inverse=True)
    _, recording = np.unique(table.text("recording")[keep], return_inverse=True)
    times = table.number("t")[keep]
    positions = np.stack([table.number("x")[keep], table.number("y")[keep]], axis=1)
    positions[~np.isfinite(positions).all(axis=1)] = np.nan
    order = np.lexsort((times, recording, vehicle))
    vehicle, recording, times, positions = (
        vehicle[order],
        recording[order],
        times[order],
        positions[order],
    )
    if not len(times):
        return
    new_run = (
        (np.diff(vehicle) != 0)
        | (np.diff(recording) != 0)
        | (np.diff(times) > spec.max_gap_seconds + _ROUNDING)
    )
    bounds = np.flatnonzero(new_run) + 1
    for start, stop in zip(np.r_[0, bounds], np.r_[bounds, len(times)], strict=True):
        yield names[vehicle[start]], times[start:stop], positions[start:stop]


def _slide(times: np.ndarray, positions: np.ndarray, spec: WindowSpec) -> tuple[np.ndarray, dict[str, int]]:
    """Every window of one run that moves and does not jump, (W, H + F, 2); how many were dropped, and why."""
    size = spec.history + spec.future
    count = int((times[-1] - times[0]) / spec.period_seconds + _ROUNDING) + 1
    if count < size:
        seconds = (size - 1) * spec.period_seconds
        short = f"stretches shorter than {seconds:g} s (a gap of over {spec.max_gap_seconds:g} s ends one)"
        return np.empty((0, size, 2)), {short: 1}
    grid = times[0] + spec.period_seconds * np.arange(count)
    track = np.stack([np.interp(grid, times, positions[:, axis]) for axis in (0, 1)], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(track, size, axis=0).transpose(0, 2, 1)
    travel = np.linalg.norm(windows[:, -1] - windows[:, 0], axis=1)
    steps = np.linalg.norm(np.diff(windows, axis=1), axis=2).max(axis=1)
    unknown = ~np.isfinite(travel) | ~np.isfinite(steps)
    jumps = ~unknown & (steps > spec.max_step_m)
    stands = ~unknown & ~jumps & (travel < spec.min_travel_m)
    dropped = {
        "windows with a position that is not a number": unknown,
        f"windows that jump over {spec.max_step_m:g} m in {spec.period_seconds:g} s": jumps,
        f"windows that travel less than {spec.min_travel_m:g} m": stands,
    }
    left_out = {what: int(hit.sum()) for what, hit in dropped.items() if hit.any()}
    return windows[~(unknown | jumps | stands)].copy(), left_out
