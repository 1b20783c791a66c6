"""Find what recordings get wrong, and say it; nothing is repaired here.

False alarms to know: a vehicle that drives backwards looks like a reversed heading; a platoon of
one type on a test track like an assumed size; a car that stands in for the recording car under
a name of its own is not found, because only its name could tell. Interpolation is found where it
is linear. Single frames that are wrong in a standing track are not looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from fedfsd.drive.check import key, motion, position, size, unit
from fedfsd.drive.check.finding import Finding
from fedfsd.drive.check.position import Points
from fedfsd.drive.check.track import Tracks, index
from fedfsd.drive.check.unit import Scale
from fedfsd.drive.stored import Stored
from fedfsd.drive.table import Table

__all__ = ["CHECKS", "Finding", "check"]

CHECKS: tuple[Callable[[Tracks], Iterator[Finding]], ...] = (
    motion.velocity,
    motion.heading,
    position.not_finite,
    position.one_point,
    position.repeated_time,
    position.stated_rate,
    position.gaps,
    position.jumps,
    position.jitter,
    position.interpolated,
    size.sizes,
)
"""What is found in each recording by itself; keys, copies and units need all of them."""
ORDER = {"error": 0, "warning": 1, "note": 2}
PART = 2**17  # rows in memory at a time, or one recording where it has more


def check(tables: Iterable[Table | Stored]) -> list[Finding]:
    """Everything found in the tables together, the gravest first, then by place.

    Memory is that of the largest recording, and about 30 bytes a row. An empty list is the answer for clean
    recordings.
    """
    given = list(tables)
    findings = list(files(given))
    filled = [table for table in given if table.num_rows]
    if filled:
        findings += _recordings(filled)
    return sorted(
        findings,
        key=lambda f: (ORDER[f.severity], f.region, f.source, f.name, f.recording or ""),
    )


def _recordings(tables: Sequence[Table | Stored]) -> Iterator[Finding]:
    """What is found in the rows, some recordings at a time."""
    whole = index(tables)
    points: list[Points] = []
    scales: dict[int, Scale] = {}
    periods = [np.empty(0)]
    waiting: list[range] = []
    first_track = 0
    for part in whole.parts(PART):
        tracks = whole.tracks(part)
        points.append(Points.of(tracks, first_place=part.start, first_track=first_track))
        first_track += len(tracks.size)
        periods.append(np.unique(tracks.step[tracks.sureness[0]]))
        if tracks.undecided:
            waiting.append(part)  # until all periods are known
            continue
        scales[part.start] = Scale.of(tracks, first_place=part.start)
        yield from (finding for one in CHECKS for finding in one(tracks))
    known = np.unique(np.concatenate(periods))
    for part in waiting:
        tracks = whole.tracks(part, known)
        scales[part.start] = Scale.of(tracks, first_place=part.start)
        yield from (finding for one in CHECKS for finding in one(tracks))
    del tracks
    whole = replace(whole, place=(), vehicle=())  # what was as long as the table
    yield from key.keys(whole)
    yield from position.copies(whole, points)
    yield from unit.units(whole, [scale for _, scale in sorted(scales.items())])


def files(tables: Sequence[Table | Stored]) -> Iterator[Finding]:
    """Files without a row, and what was left out of a file on reading."""
    for table in tables:
        regions, file, rows = ", ".join(table.regions), Path(table.name).name, table.num_rows
        for fault in table.faults:
            fix = f"left out (column {fault.column}): {fault.hint}"
            others = rows if fault.unit == "rows" else len(_vehicles(table))
            total = others + fault.count
            yield Finding(fault.name, "error", regions, file, None, fault.count, total, fault.unit, fix)
        if not rows and not table.faults:
            fix = "take the file away, or import its recordings again"
            yield Finding("empty-table", "error", regions, file, None, 0, 0, "rows", fix)


def _vehicles(table: Table | Stored) -> set[str]:
    """The keys that occur."""
    pieces = table.read(range(len(table.pieces)), columns=("vehicle",))
    return {key for rows in pieces for key in pc.unique(rows["vehicle"]).to_pylist()}
