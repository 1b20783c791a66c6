"""All rows of all tables as tracks in time order, so that each check is a few array operations.

Shapes: N rows with finite time and position, K tracks (one vehicle in one recording), P places
(one recording of one source in one region), A rows as given (the non-finite ones included).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from fedfsd.drive.rate import grouped_median, off, steady
from fedfsd.drive.table import NUMBER_COLUMNS, Table

NAMES = ("region", "source", "city", "recording", "vehicle", "type")
# A step is a gap when it is longer than this many periods.
GAP_PERIODS = 1.5
# Faster than any vehicle on a road.
MAX_SPEED_MPS = 70.0
MOVING_MPS = 2.0


@dataclass(frozen=True)
class Place:
    """Where a recording belongs."""

    region: str
    source: str
    recording: str
    city: str


@dataclass(frozen=True)
class Tracks:
    """Rows sorted by place, vehicle and time."""

    places: tuple[Place, ...]  # P
    vehicles: tuple[str, ...]  # key of each vehicle code
    place: np.ndarray  # (K,) int, index into places
    vehicle: np.ndarray  # (K,) int, index into vehicles
    kinds: tuple[str, ...]  # the type of each code
    kind: np.ndarray  # (K,) int, code of the track's first type
    start: np.ndarray  # (K + 1,) int, where each track begins in the rows
    number: dict[str, np.ndarray]  # NUMBER_COLUMNS, each (N,) float64
    not_finite: np.ndarray  # (P,) int, rows left out of N
    # What each source declares, and the vehicles of rows left out count as seen all the same.
    declared: dict[str, tuple[str, str]]  # source -> identity, origin
    seen: np.ndarray  # (M, 2) int, distinct (place, vehicle) of all A rows

    @cached_property
    def size(self) -> np.ndarray:
        """Rows of each track, (K,)."""
        return np.diff(self.start)

    @cached_property
    def owner(self) -> np.ndarray:
        """Track of each row, (N,)."""
        return np.repeat(np.arange(len(self.size)), self.size)

    @cached_property
    def follows(self) -> np.ndarray:
        """Whether a row has a row of the same track before it, (N,) bool."""
        follows = np.ones(len(self.owner), bool)
        follows[self.start[:-1]] = False
        return follows

    @cached_property
    def elapsed(self) -> np.ndarray:
        """Time since the row before, (N,) s; NaN at the start of a track."""
        return self.since("t")

    @cached_property
    def travelled(self) -> np.ndarray:
        """Displacement since the row before, (N, 2) m; NaN at the start of a track."""
        return np.stack([self.since("x"), self.since("y")], axis=1)

    @cached_property
    def rate(self) -> np.ndarray:
        """Stated rate of each track, (K,) Hz."""
        stated: np.ndarray = self.number["hz"][self.start[:-1]]
        return stated

    @cached_property
    def step(self) -> np.ndarray:
        """The usual time between two rows of each track, (K,) s; NaN where there are no two."""
        return self.median(self.elapsed, self.elapsed > 0)

    @cached_property
    def misrated(self) -> np.ndarray:
        """Whether the steps contradict the stated rate, (K,) bool: those of a track that keeps another one,
        or those of a track and of its whole recording."""
        steps = self.elapsed > 0
        ofplace = grouped_median(
            (self.elapsed * self.rate[self.owner])[steps], self.place[self.owner[steps]], len(self.places)
        )
        kept = steady(self.elapsed[steps], self.owner[steps], self.step)
        wrong: np.ndarray = ~(self.rate > 0) | off(kept * self.rate)
        wrong |= off(self.step * self.rate) & off(ofplace)[self.place]
        wrong &= np.isfinite(self.step)
        return wrong

    @cached_property
    def period(self) -> np.ndarray:
        """Time between samples, (K,) s: as stated, or as measured where the statement is wrong."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.misrated, self.step, 1 / np.where(self.rate > 0, self.rate, 1.0))

    @cached_property
    def speed(self) -> np.ndarray:
        """Speed over the step to each row, (N,) m/s; NaN where there is none or no time passed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            speed = np.hypot(*self.travelled.T) / self.elapsed
        return np.where(self.elapsed > 0, speed, np.nan)

    @cached_property
    def too_fast(self) -> np.ndarray:
        """Whether most moving tracks of a recording are faster than any vehicle, (P,) bool: no m, or no s."""
        with np.errstate(invalid="ignore"):
            fast, moving = (self.by_track(self.speed > bound) for bound in (MAX_SPEED_MPS, MOVING_MPS))
        steps = self.by_track(np.isfinite(self.speed))
        found: np.ndarray = self.by_place(2 * fast > steps) > self.by_place(2 * moving > steps) / 2
        return found

    @cached_property
    def gap(self) -> np.ndarray:
        """Whether the step to a row skips at least one sample, (N,) bool."""
        late: np.ndarray = self.elapsed > GAP_PERIODS * self.period[self.owner]
        return late

    @cached_property
    def regular(self) -> np.ndarray:
        """Whether the step to a row is an ordinary one: neither gap nor repeated time, (N,) bool."""
        ordinary: np.ndarray = (self.elapsed > 0) & ~self.gap
        return ordinary

    def since(self, name: str) -> np.ndarray:
        """Difference to the row before, (N,); NaN at the start of a track."""
        values = self.number[name]
        return np.where(self.follows, np.diff(values, prepend=np.nan), np.nan)

    def chord(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows about ``seconds`` before and after each row, inside its track, (N,) and (N,)."""
        row = np.arange(len(self.owner))
        reach = np.maximum(1, np.round(seconds / self.period)).astype(int)[self.owner]
        return (
            np.maximum(row - reach, self.start[self.owner]),
            np.minimum(row + reach, self.start[self.owner + 1] - 1),
        )

    def by_track(self, rows: np.ndarray) -> np.ndarray:
        """How many of the chosen rows ((N,) bool) each track has, (K,)."""
        return np.bincount(self.owner[rows], minlength=len(self.size))

    def by_place(self, counts: np.ndarray) -> np.ndarray:
        """Sum of a count of each track, (K,), over the tracks of a place, (P,)."""
        return np.bincount(self.place, weights=counts, minlength=len(self.places)).astype(int)

    def median(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Median of ``values`` (N,) over the chosen rows of each track, (K,); NaN where none is chosen."""
        return grouped_median(values[rows], self.owner[rows], len(self.size))


def tracks(tables: Sequence[Table]) -> Tracks:
    """The tracks of all tables together; a (recording, vehicle) met in two tables is one track."""
    rows = pa.concat_tables([_named(table) for table in tables])
    code, names = {}, {}
    for name in NAMES:
        encoded = rows[name].combine_chunks().dictionary_encode()
        code[name] = np.asarray(encoded.indices, dtype=np.int64)
        names[name] = encoded.dictionary.to_pylist()
    number = {name: rows[name].to_numpy().astype(np.float64) for name in NUMBER_COLUMNS}
    place, places = _places(code, names)
    finite = np.isfinite(number["t"]) & np.isfinite(number["x"]) & np.isfinite(number["y"])
    pairs = place * len(names["vehicle"]) + code["vehicle"]
    seen = np.unique(pairs)
    order = np.flatnonzero(finite)
    order = order[np.lexsort((number["t"][order], pairs[order]))]
    start = np.flatnonzero(np.diff(pairs[order], prepend=-1))
    return Tracks(
        places=places,
        vehicles=tuple(names["vehicle"]),
        place=place[order][start],
        vehicle=code["vehicle"][order][start],
        kinds=tuple(names["type"]),
        kind=code["type"][order][start],
        start=np.r_[start, len(order)],
        number={name: values[order] for name, values in number.items()},
        not_finite=np.bincount(place[~finite], minlength=len(places)),
        declared=_declared(tables),
        seen=np.stack(np.divmod(seen, len(names["vehicle"])), axis=1),
    )


def _named(table: Table) -> pa.Table:
    """The columns the checks need, an unknown city as empty text."""
    rows = table.rows
    city = rows["city"].fill_null("") if "city" in rows.column_names else pa.array([""] * rows.num_rows)
    rows = rows.drop_columns(["city"]) if "city" in rows.column_names else rows
    rows = rows.append_column("city", city)
    for name in ("source", "type"):
        rows = rows.set_column(rows.column_names.index(name), name, rows[name].fill_null(""))
    return rows.select([*NAMES, *NUMBER_COLUMNS])


def _places(code: dict[str, np.ndarray], names: dict[str, list[str]]) -> tuple[np.ndarray, tuple[Place, ...]]:
    """The place of each row, and the places in order of region, source and recording."""
    parts = ("region", "source", "recording")
    joint = np.zeros(len(code["region"]), np.int64)
    for name in parts:
        joint = joint * len(names[name]) + code[name]
    _, first, index = np.unique(joint, return_index=True, return_inverse=True)
    found = [Place(**{name: names[name][code[name][row]] for name in (*parts, "city")}) for row in first]
    order = sorted(range(len(found)), key=lambda i: (found[i].region, found[i].source, found[i].recording))
    rank = np.empty(len(found), np.int64)
    rank[order] = np.arange(len(found))
    return rank[index], tuple(found[i] for i in order)


def _declared(tables: Sequence[Table]) -> dict[str, tuple[str, str]]:
    """What the tables declare of each source; where two differ, the more careful identity."""
    declared: dict[str, tuple[str, str]] = {}
    for table in tables:
        for source in table.rows["source"].unique().to_pylist():
            before = declared.get(source or "", ("physical", table.origin))
            identity = "recording" if "recording" in (table.identity, before[0]) else "physical"
            declared[source or ""] = (identity, table.origin)
    return declared
