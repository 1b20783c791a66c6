"""Files of one source become one table, in two passes.

Pass 1 reads each recording, checks it and puts it aside; pass 2 knows all that is unfit, when each recording
starts and where each city lies, and makes the table's rows. Keys are ``source/reader's key``, but all tracks
of the recording car in one source and city share ``source/city/ego`` (the region stands in for an unknown
city), so that its owner is one vehicle. The split follows from the keys. A recording that is named after
its file keeps the name of the folder that was given; unless the data set was named, too, it has a mark of
what is in the file, as other places use the same names. ``t`` starts at 0 in each recording: its start is
subtracted in float64. One that goes on for so long, or by two clocks, that float32 cannot tell its times
apart is cut into several. Coordinates beyond 10 km are shifted by whole kilometres, one shift a city, to keep
millimetres in float32. A row that repeats another of its vehicle's is dropped, and recordings that are cuts
of one are joined where they overlap. Everything that is left out is counted.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from fedfsd.drive import table
from fedfsd.drive.reader import join
from fedfsd.drive.reader.drive import (
    ARCHIVES,
    ENDINGS,
    MAX_NAME,
    NUMBERS,
    Drive,
    Options,
    Reader,
    bare,
    encoded,
    no_vehicle,
    together,
)
from fedfsd.drive.reader.recognise import format_of
from fedfsd.drive.reader.spool import Spool, opened
from fedfsd.drive.sieve import MAX_TIME_STEP
from fedfsd.drive.table import Identity, LeftOut, Origin, Table
from fedfsd.errors import DataError

# float32 holds a millimetre up to here.
FAR_M = 10_000.0
# Two rows of one vehicle at one time are one point where they are no further apart: rounding, smoothing.
SAME_M = 0.05
# What a recording is cut into that is too long for float32: s.
PART_SECONDS = 2**14
# No time of anything: s.
NO_TIME_S = 1e15
# The share of a recording's rows that have another place at the same time, from which its times say nothing.
COLLAPSED = 0.5
# Bytes of a file that make its mark.
MARK_BYTES = 2**20
# Rows that become rows of the table together.
GROUP_ROWS = 2**18
# Recordings that are put aside together, so that a thousand small ones make few batches.
BATCH_ROWS = 2**16


@dataclass(frozen=True)
class Facts:
    """What is declared about the source; it does not stand in the files."""

    region: str
    licence: str
    identity: Identity
    origin: Origin
    source: str
    country: str | None = None  # where the files do not say
    city: str | None = None  # where the files do not say
    cities: tuple[str, ...] = ()  # only the recordings of these; of all if empty
    marked: bool = False  # whether recordings that are named after files have a mark of what is in them


@dataclass(frozen=True)
class Written:
    """What an import wrote."""

    rows: int
    vehicles: int
    recordings: int
    left_out: tuple[LeftOut, ...]


@contextmanager
def gathered(
    paths: list[Path], reader: Reader, facts: Facts, options: Options, *, skip_unfit: bool
) -> Iterator[Gathered]:
    """Every recording in the files, put aside.

    Raises:
        DataError: what is unfit, all of it at once; with ``skip_unfit`` only where nothing is fit.
    """
    with Spool(options.scratch) as spool:
        found = Gathered(facts, spool)
        found.read(files(paths, reader, marked=facts.marked), reader, options, skip_unfit=skip_unfit)
        yield found


@dataclass(slots=True)
class _Recording:
    """What pass 1 learns of one recording; there may be half a million."""

    name: str
    city: str | None
    country: str | None
    start: float = np.inf  # the first of its times, s
    stop: float = -np.inf  # the last, s
    hz: float = 0.0  # the largest rate in it
    unfit: bool = False


@dataclass
class _Place:
    """Where the rows of one city lie."""

    far: list[float] = field(default_factory=lambda: [0.0, 0.0])  # the largest |x| and |y|, m
    kilometres: tuple[Counter[int], Counter[int]] = field(default_factory=lambda: (Counter(), Counter()))
    """Rows by their x and their y in whole kilometres."""

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Take more rows into account."""
        for axis, name in enumerate(("x", "y")):
            values = columns[name][np.isfinite(columns[name])]
            self.far[axis] = float(np.abs(values).max(initial=self.far[axis]))
            cells, count = np.unique(np.round(values / 1000), return_counts=True)
            self.kilometres[axis].update(dict(zip(cells.tolist(), count.tolist(), strict=True)))

    def join(self, other: _Place) -> None:
        """Take the rows of another place into account."""
        self.far = [max(pair) for pair in zip(self.far, other.far, strict=True)]
        for mine, theirs in zip(self.kilometres, other.kilometres, strict=True):
            mine.update(theirs)

    def shift(self) -> tuple[float, float]:
        """Whole kilometres to subtract from x and y: the median's."""
        shift = [0.0, 0.0]
        for axis, cells in enumerate(self.kilometres):
            if self.far[axis] > FAR_M:
                ordered = sorted(cells)
                count = np.cumsum([cells[cell] for cell in ordered])
                shift[axis] = 1000.0 * ordered[int(np.searchsorted(count, (count[-1] + 1) // 2))]
        return shift[0], shift[1]


class Gathered:
    """The recordings of an import between its two passes."""

    def __init__(self, facts: Facts, spool: Spool) -> None:
        self._facts, self._spool = facts, spool
        self._recordings: list[_Recording] = []
        self._numbers: dict[str, int] = {}
        self._waiting: list[pa.RecordBatch] = []
        self._left_out: list[LeftOut] = []
        self._places: dict[str | None, _Place] = defaultdict(_Place)
        self._here: dict[str | None, _Place] = defaultdict(_Place)  # of the file that is being read

    def read(
        self, found: list[tuple[Path, str]], reader: Reader, options: Options, *, skip_unfit: bool
    ) -> None:
        """Pass 1. DataError for all that is unfit, or if nothing is left."""
        origin_of: dict[str, Path] = {}
        unfit: list[tuple[Path, DataError]] = []
        pieces: dict[str, list[Drive]] = {}
        # By name: the files of one place come one after the other, whatever folders they are in.
        for file, name in sorted(found, key=lambda each: each[0].name):
            first, counted = len(self._recordings), len(self._left_out)
            try:
                drives = reader.read(file, replace(options, recording=name))
                here = self._read_file(file, drives, origin_of, options.hz, skip_unfit=skip_unfit)
            except DataError as error:
                # Its traceback would keep the reader's files open.
                unfit.append((file, error.with_traceback(None)))
                for each in self._recordings[first:]:
                    each.unfit = True
                    del self._numbers[each.name]
                del self._left_out[counted:]
                self._here.clear()
            else:
                for place in [place for place in pieces if all(each.part_of != place for each in here)]:
                    self._join(pieces.pop(place))
                for piece in here:
                    pieces.setdefault(piece.part_of or "", []).append(piece)
                self._settle()
                origin_of |= {each.name: file for each in self._recordings[first:]}
                origin_of |= {each.recording: file for each in here}
        for waiting in pieces.values():
            self._join(waiting)
        fit = [each for each in self._recordings if not each.unfit]
        if unfit and not (skip_unfit and fit):
            raise together([error for _, error in unfit], f"{len(unfit)} of {len(found)} files")
        self._left_out += [
            LeftOut(f"unfit file {file.name}{_inside(error, file)}: {error.got}"[:MAX_NAME], 0, 0, files=1)
            for file, error in unfit
        ]
        _demand_one_country(fit)
        if not fit:
            raise DataError(
                "--city-only",
                got=f"only {', '.join(each.why for each in self._left_out if each.why.startswith('city '))}",
                expected=" or ".join(self._facts.cities),
                hint="name a city that is in the files",
            )

    def _read_file(
        self,
        file: Path,
        drives: Iterable[Drive],
        origin_of: dict[str, Path],
        hz: float | None,
        *,
        skip_unfit: bool,
    ) -> list[Drive]:
        """Put aside the recordings of one file but pieces, which wait for the others of their recording."""
        pieces: list[Drive] = []
        wrong: list[DataError] = []
        left_out: list[LeftOut] = []
        rows = 0
        for each in drives:
            wrong += each.unfit
            left_out += each.left_out
            rows += len(each.vehicle)
            if not len(each.vehicle) or (wrong and not skip_unfit):
                continue
            _check(each, file, origin_of, hz)
            if self._facts.cities and (each.city or "").lower() not in self._facts.cities:
                why = f"city {each.city or '(unknown)'}"
                left_out.append(LeftOut(why, len(each.vehicle), len(encoded(each.vehicle).unique())))
            elif each.part_of is None:
                self._put(each, file)
            else:
                pieces.append(each)
        if wrong and not (skip_unfit and rows):
            raise together(wrong, str(file))
        if not rows:
            raise no_vehicle(file, left_out)
        self._left_out += left_out
        return pieces

    def _put(self, found: Drive, file: Path | None = None) -> None:
        """Put the rows of one drive aside, without those that repeat another.

        Raises:
            DataError: most rows of ``file`` are elsewhere than another of their vehicle and time.
        """
        names, kinds = encoded(found.vehicle), encoded(found.type)
        owner = np.asarray(names.indices)
        repeat, elsewhere = _repeats(found, owner)
        if file is not None and elsewhere.sum() > COLLAPSED * len(owner):
            raise _collapsed(file, int(elsewhere.sum()), len(owner))
        if repeat.any():
            self._left_out.append(LeftOut("repeated row", int(repeat.sum()), len(np.unique(owner[repeat]))))
        facts = self._facts
        place = facts.city or found.city
        number = self._numbers.setdefault(found.recording, len(self._recordings))
        if number == len(self._recordings):
            self._recordings.append(_Recording(found.recording, place, facts.country or found.country))
        keys = [f"{facts.source}/{key}" for key in names.dictionary.to_pylist()]
        keys.append(f"{facts.source}/{place or facts.region}/ego")
        keep = np.flatnonzero(~repeat)
        columns = {name: found.columns[name][keep] for name in NUMBERS}
        recording, times = self._recordings[number], columns["t"][np.abs(columns["t"]) < NO_TIME_S]
        recording.start = float(times.min(initial=recording.start))
        recording.stop = float(times.max(initial=recording.stop))
        recording.hz = float(np.max(found.hz, initial=recording.hz))
        self._here[place].add(columns)
        self._waiting.append(
            pa.record_batch(
                {
                    "recording": np.full(len(keep), number, np.int32),
                    "vehicle": pa.array(keys).take(np.where(found.ego, len(keys) - 1, owner)[keep]),
                    "type": kinds.dictionary.cast(pa.string()).take(kinds.indices.take(pa.array(keep))),
                    "hz": np.broadcast_to(np.asarray(found.hz, float), len(repeat))[keep],
                    **columns,
                }
            )
        )
        if sum(each.num_rows for each in self._waiting) >= BATCH_ROWS:
            self._put_waiting()

    def _join(self, pieces: list[Drive]) -> None:
        """Put the recordings of one place aside."""
        for one in join.joined(pieces):
            self._put(one)
        self._settle()

    def _settle(self) -> None:
        """The file was fit: its rows count for where its cities lie."""
        for city, place in self._here.items():
            self._places[city].join(place)
        self._here.clear()

    def _put_waiting(self) -> None:
        if self._waiting:
            for batch in pa.Table.from_batches(self._waiting).combine_chunks().to_batches():
                self._spool.add(batch)
            self._waiting = []

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What is not in the rows, one count for each reason, the most rows first."""
        sums: dict[str, LeftOut] = {}
        for each in self._left_out:
            before = sums.get(each.why, LeftOut(each.why, 0, 0))
            sums[each.why] = LeftOut(
                each.why,
                before.rows + each.rows,
                before.vehicles + each.vehicles,
                before.files + each.files,
            )
        return tuple(sorted(sums.values(), key=lambda each: (-each.rows, each.why)))

    def table(self) -> Table:
        """Pass 2, all rows in memory."""
        return self._of_rows(pa.concat_tables(self._rows()))

    def write(self, output: Path) -> Written:
        """Pass 2, some rows in memory; DataError where rows cannot be used."""
        vehicles: set[str] = set()
        recordings: set[str] = set()
        rows = 0

        def groups() -> Iterator[pa.Table]:
            nonlocal rows
            for part in _grouped(self._rows()):
                made = self._of_rows(part).rows
                vehicles.update(made["vehicle"].unique().to_pylist())
                recordings.update(made["recording"].unique().to_pylist())
                rows += made.num_rows
                yield made

        facts = self._facts
        empty = Table(pa.table({}), facts.licence, facts.identity, facts.origin, left_out=self.left_out)
        table.write_parts(groups(), empty, output)
        return Written(rows, len(vehicles), len(recordings), self.left_out)

    def _of_rows(self, rows: pa.Table) -> Table:
        facts = self._facts
        return table.of_rows(
            dict(zip(rows.column_names, rows.columns, strict=True)),
            licence=facts.licence,
            identity=facts.identity,
            origin=facts.origin,
            left_out=self.left_out,
        )

    def _rows(self) -> Iterator[pa.Table]:
        """The rows that were put aside, from where their recording starts and their city lies."""
        self._put_waiting()
        found, names = self._recordings, [each.name for each in self._recordings]
        starts = np.array([each.start if np.isfinite(each.start) else 0.0 for each in found])
        shift = {city: place.shift() for city, place in self._places.items()}
        shifts = np.array([shift.get(each.city, (0.0, 0.0)) for each in found])
        fit = np.array([not each.unfit for each in found])
        long = np.array([_is_long(each) for each in found])
        texts = {
            "country": pa.array([each.country for each in found], pa.string()),
            "city": pa.array([each.city for each in found], pa.string()),
        }
        for batch in self._spool:
            rows = batch.filter(pa.array(fit[batch["recording"].to_numpy()]))
            number = rows["recording"].to_numpy()
            columns = {name: rows[name] for name in rows.schema.names}
            columns |= {name: values.take(rows["recording"]) for name, values in texts.items()}
            seconds = rows["t"].to_numpy() - starts[number]
            seconds = np.where(np.abs(seconds) < NO_TIME_S, seconds, np.nan)
            part = np.nan_to_num(seconds // PART_SECONDS).astype(np.int64) * long[number]
            columns |= {
                "recording": _named(number, part, names),
                "t": seconds - part * PART_SECONDS,
                "x": rows["x"].to_numpy() - shifts[number, 0],
                "y": rows["y"].to_numpy() - shifts[number, 1],
            }
            constants = {"region": self._facts.region, "source": self._facts.source}
            yield pa.table(
                columns | {name: pa.repeat(value, len(number)) for name, value in constants.items()}
            )


def _grouped(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows in tables of ``GROUP_ROWS``; the last one may have fewer."""
    waiting: list[pa.Table] = []
    for part in parts:
        waiting.append(part)
        if sum(each.num_rows for each in waiting) >= GROUP_ROWS:
            rows = pa.concat_tables(waiting)
            full = rows.num_rows // GROUP_ROWS * GROUP_ROWS
            for start in range(0, full, GROUP_ROWS):
                yield rows.slice(start, GROUP_ROWS)
            waiting = [rows.slice(full)]
    if any(each.num_rows for each in waiting):
        yield pa.concat_tables(waiting)


def _is_long(recording: _Recording) -> bool:
    """Whether float32 cannot tell its times apart."""
    span = recording.stop - recording.start
    return bool(np.spacing(np.float32(span if span > 0 else 0)) * recording.hz > MAX_TIME_STEP)


def _named(number: np.ndarray, part: np.ndarray, names: list[str]) -> pa.Array:
    """The recordings' names, (R,), with what was subtracted from the times of a later part."""
    if not part.any():
        return pa.array(names, pa.string()).take(pa.array(number))
    pairs, place = np.unique(np.stack([number, part]), axis=1, return_inverse=True)
    distinct = [names[n] + (f"+{p * PART_SECONDS}s" if p else "") for n, p in pairs.T.tolist()]
    return pa.array(distinct, pa.string()).take(pa.array(place.reshape(-1)))


def _collapsed(file: Path, count: int, rows: int) -> DataError:
    return DataError(
        f"{file}: times",
        got=f"{count} of {rows} rows whose vehicle is elsewhere at the same time",
        expected="one place of a vehicle at a time",
        hint="write the times with all their digits; or give what has one key and is several vehicles, or "
        "several recordings, keys of their own",
    )


def _demand_one_country(recordings: list[_Recording]) -> None:
    """A region's table has drives of one country alone, where the files say in which they were recorded."""
    cities: dict[str, set[str]] = defaultdict(set)
    for each in recordings:
        if each.country:
            cities[each.country].add(each.city or "?")
    if len(cities) > 1:
        named = (f"{country} ({', '.join(sorted(found))})" for country, found in sorted(cities.items()))
        raise DataError(
            "country",
            got=f"recordings of {', '.join(named)}",
            expected="those of one country: a region is one jurisdiction",
            hint=f"import each on its own, for example with --city-only {min(min(cities.values()))}",
        )


def _inside(error: DataError, file: Path) -> str:
    """The part of the file that an error names."""
    return error.place.removeprefix(str(file)) if error.place.startswith(str(file)) else ""


def files(paths: list[Path], reader: Reader, *, marked: bool = False) -> list[tuple[Path, str]]:
    """Each file once, with a name for its recording: its path from above the folder that was given.

    Args:
        marked: the names have a mark of what is in the file.
    """
    patterns = (reader.files,) if isinstance(reader.files, str) else reader.files
    files: list[Path] = []
    tops: list[str] = []
    for path in (Path(os.path.abspath(path)) for path in paths):
        found = [path] if not path.is_dir() else []
        for endings in (("", *ENDINGS), ARCHIVES):
            names = [f"{pattern}{ending}" for pattern in patterns for ending in endings]
            found = found or sorted({f for name in names for f in path.rglob(name) if not f.is_dir()})
        if not path.exists():
            raise DataError(
                str(path), got="no readable file", expected="a recording, or a folder", hint="check the path"
            )
        if not found:
            raise DataError(
                str(path),
                got=f"no file named {' or '.join(patterns)}",
                expected="at least one",
                hint=f"there are files of --format {other}"
                if (other := format_of(path))
                else "name the files one by one, or check the format",
            )
        files += found
        tops.append(str(path.parent if path.is_dir() else path.parent.parent))
    if not files:
        raise DataError("paths", got="none", expected="at least one file", hint="name a file or a folder")
    top = os.path.commonpath(tops)
    return [
        (file, _recording_of(file.with_name(bare(file.name)).relative_to(top), _mark(file) if marked else ""))
        for file in dict.fromkeys(files)
    ]


def _recording_of(path: Path, mark: str) -> str:
    name = path.with_suffix("")
    return name.as_posix() if name.parent == Path() else f"{name.parent.as_posix()}{mark}/{name.name}"


def _mark(file: Path) -> str:
    """What is in a file, however it is compressed; what cannot be read is said later."""
    try:
        with opened(file) as take:
            return f"@{hashlib.sha256(take(MARK_BYTES)).hexdigest()[:8]}"
    except DataError:
        return ""


def _check(found: Drive, file: Path, origin_of: dict[str, Path], hz: float | None) -> None:
    """One recording stands in one file, and its rate is the one that was said."""
    if found.recording in origin_of:
        raise DataError(
            str(file),
            got=f"a recording that {origin_of[found.recording].name} holds too",
            expected="each recording once",
            hint="leave one of the two files out",
        )
    if hz is not None and (np.abs(found.hz - hz) > 0.01 * hz).any():
        rates = np.unique(found.hz)
        raise DataError(
            f"{file}: frames a second",
            got=f"{', '.join(f'{rate:g}' for rate in rates[:5])} in the file",
            expected=f"{hz:g} as given",
            hint="leave hz out: this format states its rate",
        )


def _repeats(found: Drive, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows, (R,) bool, that repeat another of their vehicle and time, and those that are kept although their
    vehicle is elsewhere at that time, too.

    Args:
        owner: number of each row's vehicle.
    """
    t, x, y = (found.columns[name] for name in ("t", "x", "y"))
    order = np.lexsort((t, owner))
    new = np.r_[True, (np.diff(owner[order]) != 0) | (np.diff(t[order]) != 0)]
    repeat, elsewhere = np.zeros(len(owner), bool), np.zeros(len(owner), bool)
    if new.all():
        return repeat, elsewhere
    # The fullest row first.
    empty = np.sum([np.isnan(found.columns[name]) for name in NUMBERS], axis=0)
    order = order[np.lexsort((empty[order], np.cumsum(new)))]
    group = np.cumsum(new) - 1
    first = order[np.flatnonzero(new)[group]]
    distance = np.hypot(x[order] - x[first], y[order] - y[first])
    repeat[order] = ~new & (distance <= SAME_M)
    apart = np.bincount(group, distance > SAME_M) > 0
    elsewhere[order] = apart[group] & ~repeat[order]
    return repeat, elsewhere
