"""Find what recordings get wrong, and say it; nothing is repaired here.

False alarms to know: a vehicle that drives backwards looks like a reversed heading; a platoon of
one type on a test track like an assumed size; a car that stands in for the recording car under
a name of its own is not found, because only its name could tell. Interpolation is found where it
is linear. Single frames that are wrong in a standing track are not looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from fedfsd.drive.check import key, motion, position, size, unit
from fedfsd.drive.check.finding import Finding
from fedfsd.drive.check.track import Tracks, tracks
from fedfsd.drive.table import Table

__all__ = ["CHECKS", "Finding", "check"]

CHECKS: tuple[Callable[[Tracks], Iterator[Finding]], ...] = (
    key.keys,
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
    position.copies,
    size.sizes,
    unit.units,
)
ORDER = {"error": 0, "warning": 1, "note": 2}


def check(tables: Iterable[Table]) -> list[Finding]:
    """Everything found in the tables together, the gravest first, then by place.

    An empty list is the answer for clean recordings.
    """
    given = list(tables)
    findings = list(_files(given))
    filled = [table for table in given if table.rows.num_rows]
    if filled:
        found = tracks(filled)
        findings += [finding for one in CHECKS for finding in one(found)]
    return sorted(
        findings,
        key=lambda f: (ORDER[f.severity], f.region, f.source, f.name, f.recording or ""),
    )


def _files(tables: Sequence[Table]) -> Iterator[Finding]:
    """Files without a row, and what was left out of a file on reading."""
    for table in tables:
        regions, file, rows = ", ".join(table.regions), Path(table.name).name, table.rows.num_rows
        for fault in table.faults:
            fix = f"left out (column {fault.column}): {fault.hint}"
            total = (
                rows + fault.count if fault.unit == "rows" else len(set(table.text("vehicle"))) + fault.count
            )
            yield Finding(fault.name, "error", regions, file, None, fault.count, total, fault.unit, fix)
        if not rows and not table.faults:
            fix = "take the file away, or import its recordings again"
            yield Finding("empty-table", "error", regions, file, None, 0, 0, "rows", fix)
