"""Rows as tracks in time order, so that each check is a few array operations: some recordings at a time.

Shapes: N rows with finite time and position, K tracks (one vehicle in one recording), P places
(one recording of one source in one region).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa

from fedfsd.drive.rate import grouped_median, off, steady, sureness
from fedfsd.drive.table import NUMBER_COLUMNS, Coded

NAMES = ("region", "source", "city", "recording", "vehicle")
# A step is a gap when it is longer than this many periods.
GAP_PERIODS = 1.5
# Faster than any vehicle on a road.
MAX_SPEED_MPS = 70.0
MOVING_MPS = 2.0
_SHARED = 2  # pieces that two parts need, kept for the second


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
    # The periods that sure tracks keep (``rate.sureness``), ascending; None: those of these tracks.
    known: np.ndarray | None = None

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
    def travelled(self) -> tuple[np.ndarray, np.ndarray]:
        """Displacement since the row before, (N,) and (N,) m; NaN at the start of a track."""
        return self.since("x"), self.since("y")

    @cached_property
    def moved(self) -> np.ndarray:
        """Distance since the row before, (N,) m; NaN at the start of a track."""
        return lengths(*self.travelled)

    @cached_property
    def turned(self) -> tuple[np.ndarray, np.ndarray]:
        """Change of the step to a row against the one before, x and y (N,) m; NaN where one is irregular."""
        x, y = (difference(np.where(self.regular, step, np.nan)) for step in self.travelled)
        return x, y

    @cached_property
    def bent(self) -> np.ndarray:
        """Length of ``turned``, (N,) m."""
        return lengths(*self.turned)

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
        kept = steady(self.elapsed[steps], self.owner[steps], self.step, self.known)
        wrong: np.ndarray = ~(self.rate > 0) | off(kept * self.rate)
        wrong |= off(self.step * self.rate) & off(ofplace)[self.place]
        wrong &= np.isfinite(self.step)
        return wrong

    @cached_property
    def sureness(self) -> tuple[np.ndarray, np.ndarray]:
        """See ``rate.sureness``."""
        steps = self.elapsed > 0
        return sureness(self.elapsed[steps], self.owner[steps], self.step)

    @property
    def undecided(self) -> bool:
        """Whether it may depend on other tracks' periods which rates are wrong."""
        with np.errstate(invalid="ignore"):
            return bool((self.sureness[1] & off(self.step * self.rate)).any())

    @cached_property
    def period(self) -> np.ndarray:
        """Time between samples, (K,) s: as stated, or as measured where the statement is wrong."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.misrated, self.step, 1 / np.where(self.rate > 0, self.rate, 1.0))

    @cached_property
    def speed(self) -> np.ndarray:
        """Speed over the step to each row, (N,) m/s; NaN where there is none or no time passed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            speed = np.hypot(*self.travelled) / self.elapsed
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
        found = difference(self.number[name])
        found[self.start[:-1]] = np.nan
        return found

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


_Where = tuple[str, str, str]  # region, source, recording


class Source(Protocol):
    """A table, in memory or as a file."""

    @property
    def num_rows(self) -> int: ...
    @property
    def pieces(self) -> Sequence[object]: ...
    @property
    def identity(self) -> str: ...
    @property
    def origin(self) -> str: ...
    def read(self, pieces: Sequence[int], *, columns: Sequence[str]) -> Iterator[pa.Table]: ...


@dataclass(frozen=True)
class Index:
    """Whose every row is, so that the rows of some recordings can be read without the others.

    Takes 8 bytes a row; names and pairs are as many as there are vehicles and recordings.
    """

    sources: tuple[Source, ...]
    places: tuple[Place, ...]
    """In order of region, source and recording."""
    vehicles: tuple[str, ...]
    """By first row."""
    place: tuple[np.ndarray, ...]
    """Of each row of a piece, int32; the pieces of all sources one after the other."""
    vehicle: tuple[np.ndarray, ...]
    seen: np.ndarray
    """(M, 2) int, distinct (place, vehicle) of all rows."""
    declared: dict[str, tuple[str, str]]
    """source -> identity, origin."""

    @cached_property
    def rows(self) -> np.ndarray:
        """How many each place has, (P,)."""
        return sum(
            (np.bincount(piece, minlength=len(self.places)) for piece in self.place),
            np.zeros(len(self.places), np.int64),
        )

    @cached_property
    def _shared(self) -> dict[int, pa.Table]:
        """Pieces with rows of the next part, too."""
        return {}

    @cached_property
    def _bounds(self) -> list[tuple[int, int]]:
        """The first and the last place of each piece."""
        return [(int(piece.min()), int(piece.max())) if len(piece) else (0, -1) for piece in self.place]

    def parts(self, most: int) -> Iterator[range]:
        """All places in order, as many together as have up to ``most`` rows, but one at least."""
        sums, first = np.r_[0, np.cumsum(self.rows)], 0
        while first < len(self.places):
            last = max(first + 1, int(np.searchsorted(sums, sums[first] + most, side="right")) - 1)
            yield range(first, last)
            first = last

    def tracks(self, part: range, known: np.ndarray | None = None) -> Tracks:
        """The tracks of the places of ``part``; a (recording, vehicle) met in two tables is one track.

        Args:
            known: see ``Tracks.known``.
        """
        found = list(self._read(part))
        place, vehicle = (np.concatenate([one[n] for one in found]).astype(np.int64) for n in (0, 1))
        kinds: dict[str, int] = {}
        kind = np.concatenate([_numbered(Coded.of(rows["type"]), kinds) for *_, rows in found])
        number = {
            name: np.concatenate([rows[name].to_numpy() for *_, rows in found]) for name in NUMBER_COLUMNS
        }
        finite = np.isfinite(number["t"]) & np.isfinite(number["x"]) & np.isfinite(number["y"])
        pairs = (place - part.start) * len(self.vehicles) + vehicle
        order = np.flatnonzero(finite)
        sorted_ = order[np.argsort(pairs[order], kind="stable")]
        if ((np.diff(pairs[sorted_]) == 0) & (np.diff(number["t"][sorted_]) < 0)).any():
            sorted_ = order[np.lexsort((number["t"][order], pairs[order]))]
        order = sorted_
        start = np.flatnonzero(np.diff(pairs[order], prepend=-1))
        first = order[start]
        return Tracks(
            places=self.places[part.start : part.stop],
            vehicles=self.vehicles,
            place=place[first] - part.start,
            vehicle=vehicle[first],
            kinds=tuple(kinds),
            kind=kind[first].astype(np.int64),
            start=np.r_[start, len(order)],
            number={name: values[order].astype(np.float64) for name, values in number.items()},
            not_finite=np.bincount(place[~finite] - part.start, minlength=len(part)),
            known=known,
        )

    def _read(self, part: range) -> Iterator[tuple[np.ndarray, np.ndarray, pa.Table]]:
        """Place, vehicle and the columns of the part's rows, a piece at a time."""
        begin = 0
        for source in self.sources:
            end = begin + len(source.pieces)
            touched = [
                number
                for number, (low, high) in enumerate(self._bounds[begin:end], begin)
                if low < part.stop and high >= part.start
            ]
            new = [number for number in touched if number not in self._shared]
            pieces = source.read([number - begin for number in new], columns=("type", *NUMBER_COLUMNS))
            for number in touched:
                place, vehicle = self.place[number], self.vehicle[number]
                mine = (place >= part.start) & (place < part.stop)
                rows = self._shared.pop(number) if number not in new else _filled(next(pieces), ("type",))
                if self._bounds[number][1] >= part.stop and len(self._shared) < _SHARED:
                    self._shared[number] = rows
                if not mine.all():
                    place, vehicle, rows = place[mine], vehicle[mine], rows.filter(pa.array(mine))
                yield place, vehicle, rows
            begin = end


def index(sources: Sequence[Source]) -> Index:
    """Looks at the keys of every row, a piece at a time."""
    places: dict[_Where, int] = {}
    cities: list[str] = []
    vehicles: dict[str, int] = {}
    place_of, vehicle_of, seen = [], [], [np.empty(0, np.int64)]
    declared: dict[str, tuple[str, str]] = {}
    for source in sources:
        names: set[str] = set()
        for rows in source.read(range(len(source.pieces)), columns=NAMES):
            code = {name: Coded.of(column) for name, column in _keys(rows).items()}
            place = _places(code, places, cities)
            vehicle = _numbered(code["vehicle"], vehicles)
            place_of.append(place)
            vehicle_of.append(vehicle)
            at = _changes(place, vehicle)
            seen.append(_pairs(place[at], vehicle[at]))
            names.update(code["source"].names[n] for n in np.unique(code["source"].codes))
        _declare(declared, names, source)
    order = sorted(range(len(places)), key=list(places).__getitem__)
    keys, rank = list(places), np.empty(len(places), np.int32)
    rank[order] = np.arange(len(places))
    for place in place_of:
        place[:] = rank[place]
    place, vehicle = np.divmod(np.concatenate(seen), 2**32)
    place, vehicle = np.divmod(_pairs(rank[place], vehicle), 2**32)
    return Index(
        tuple(sources),
        tuple(Place(*keys[place], cities[place]) for place in order),
        tuple(vehicles),
        tuple(place_of),
        tuple(vehicle_of),
        np.stack([place, vehicle], axis=1),
        declared,
    )


def difference(values: np.ndarray) -> np.ndarray:
    """To the row before, (N,); NaN in the first row."""
    found = np.empty(len(values))
    found[:1] = np.nan
    np.subtract(values[1:], values[:-1], out=found[1:])
    return found


def lengths(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of vectors, (N,)."""
    found: np.ndarray = np.sqrt(x * x + y * y)
    return found


def tracks(sources: Sequence[Source]) -> Tracks:
    """All tracks together."""
    found = index(sources)
    return found.tracks(range(len(found.places)))


def _keys(rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns that say whose a row is; an unknown city or source is an empty text."""
    empty = pa.chunked_array([pa.array([""] * rows.num_rows)])
    filled = _filled(rows, [name for name in ("source", "city") if name in rows.column_names])
    return {
        name: filled[name] if name in filled.column_names else empty
        for name in ("region", "source", "recording", "city", "vehicle")
    }


def _filled(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Empty cells of text as empty texts."""
    for name in columns:
        if rows[name].null_count:
            place = rows.column_names.index(name)
            rows = rows.set_column(place, name, rows[name].cast(pa.string()).fill_null(""))
    return rows


def _changes(*codes: np.ndarray) -> np.ndarray:
    """The rows at which one of the codes is another than in the row before."""
    new = np.ones(len(codes[0]), bool)
    new[1:] = np.logical_or.reduce([code[1:] != code[:-1] for code in codes])
    return np.flatnonzero(new)


def _places(code: Mapping[str, Coded], places: dict[_Where, int], cities: list[str]) -> np.ndarray:
    """The place of each row, int32; new ones are added to ``places`` with the city of their first row."""
    parts = [code[name] for name in ("region", "source", "recording")]
    at = _changes(*(part.codes for part in parts))
    joint = np.zeros(len(at), np.int64)
    for part in parts:
        joint = joint * len(part.names) + part.codes[at]
    _, first, which = np.unique(joint, return_index=True, return_inverse=True)
    number, city = np.empty(len(first), np.int32), code["city"]
    for here in np.argsort(first).tolist():  # in the order of their rows
        row = int(at[first[here]])
        region, source, recording = (part.names[part.codes[row]] for part in parts)
        key = (region, source, recording)
        if key not in places:
            places[key] = len(places)
            cities.append(city.names[city.codes[row]])
        number[here] = places[key]
    return np.repeat(number[which], np.diff(np.r_[at, len(parts[0].codes)]))


def _pairs(place: np.ndarray, vehicle: np.ndarray) -> np.ndarray:
    """Each pair once, as one number, ascending."""
    return np.unique((place.astype(np.int64) << 32) | vehicle)


def _numbered(column: Coded, known: dict[str, int]) -> np.ndarray:
    """Each row's name by its number in ``known``, int32; new ones are added in the order of their rows."""
    first = np.full(len(column.names), len(column.codes))
    first[column.codes[::-1]] = np.arange(len(column.codes))[::-1]
    number = np.zeros(len(column.names), np.int32)
    for code in np.argsort(first, kind="stable").tolist():
        if first[code] < len(column.codes):
            number[code] = known.setdefault(column.names[code], len(known))
    numbered: np.ndarray = number[column.codes]
    return numbered


def _declare(declared: dict[str, tuple[str, str]], names: set[str], table: Source) -> None:
    """What a table declares of its sources; where two differ, the more careful identity."""
    for name in names:
        before = declared.get(name, ("physical", table.origin))
        identity = "recording" if "recording" in (table.identity, before[0]) else "physical"
        declared[name] = (identity, table.origin)
