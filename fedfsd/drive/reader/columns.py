"""Any table of track points, CSV or Parquet, by a mapping of its columns (``mapping.Mapping``).

The mapping says which column is what and in which unit; columns that stand in a companion table beside the
file (types and sizes of the tracks, the frame rate) are joined by key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedfsd.drive import rate
from fedfsd.drive.reader import delimited
from fedfsd.drive.reader import mapping as mappings
from fedfsd.drive.reader.delimited import Cells, Layout, NoNumberError
from fedfsd.drive.reader.drive import (
    ENDINGS,
    Drive,
    Options,
    Reader,
    bare,
    damaged,
    drive,
    no_rate,
    optional,
    remainder,
    types_left_out,
)
from fedfsd.drive.reader.mapping import LENGTHS, SPEEDS, TIMES, Companion, Mapping, Proposal, shipped
from fedfsd.drive.reader.recognise import format_of
from fedfsd.drive.reader.spool import Parts
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError, UsageError

# Rows and files that --guess looks at.
GUESS_ROWS, GUESS_FILES = 5000, 100


@dataclass(frozen=True)
class _Source:
    """What is the same for all rows of one table."""

    mapping: Mapping
    options: Options
    layout: Layout
    wanted: dict[str, str]  # meaning -> column, of the table or of a companion
    companions: tuple[tuple[str | None, Cells], ...]  # the key and the wanted columns of each
    plane: str | None = None  # into which latitude and longitude are projected


@dataclass(frozen=True)
class _Part:
    """Rows of whole vehicles, in the order of their recordings."""

    cells: Cells
    left_out: list[LeftOut]
    vehicles: list[str]
    recordings: list[str]
    vehicle: np.ndarray  # (R,) number of each row's
    recording: np.ndarray  # (R,) number of each row's
    kinds: list[str]
    kind: np.ndarray  # (R,) number of each row's
    columns: dict[str, np.ndarray]  # each (R,)
    hz: np.ndarray | float | None  # (R,), or of all; None if no vehicle is seen twice


def reader(mapping: Mapping) -> Reader:
    """The reader of tables with that mapping."""
    return replace(READER, read=lambda path, options: read(path, options, mapping), files=mapping.files)


def read(path: Path, options: Options, mapping: Mapping, *, names: Sequence[str] = ()) -> Iterator[Drive]:
    """Read one table of any size; each value of the column ``recording``, if there is one, is a recording.

    A table that is too large to be held is spread into parts, each with all rows of its vehicles.

    Args:
        names: of the columns of a file without a header, whose cells are separated by spaces.
    """
    source = _source(path, options, mapping, names)
    usual: float | None = None
    waiting: list[_Part] = []
    with ExitStack() as stack:
        try:
            parts = _parts(source, stack)
        except NoNumberError:  # again, to name the cells, or to take decimal commas
            source = replace(source, layout=replace(source.layout, numbers=frozenset()))
            parts = _parts(source, stack)
        for rows in parts:
            part = _part(source, rows)
            if part.hz is None and len(part.vehicle):
                waiting.append(part)
            else:
                yield from _drives(source, part, part.hz)
                usual = usual or (float(np.median(part.hz)) if part.hz is not None else None)
    for part in waiting:
        if usual is None:
            raise no_rate(path, len(part.vehicle), len(np.unique(part.vehicle)))
        yield from _drives(source, part, usual)
    yield remainder(
        options.recording, delimited.ragged_left_out(source.layout), delimited.ragged(source.layout)
    )


def _parts(source: _Source, stack: ExitStack) -> Parts:
    """All rows of the table, by vehicle."""
    parts = stack.enter_context(Parts(source.layout.path, source.options.scratch))
    for rows in source.layout.batches():
        parts.add(rows, *Cells(source.layout, rows).coded(source.mapping.columns.vehicle))
    return parts


def _source(path: Path, options: Options, mapping: Mapping, names: Sequence[str] = ()) -> _Source:
    """The table's layout, and the companions beside it, which are small."""
    wanted = {name: column for name, column in mapping.columns.model_dump().items() if column is not None}
    if mapping.hz_column:
        wanted["hz"] = mapping.hz_column
    own = ["vehicle", "time", *(("x", "y") if mapping.columns.x else ("latitude", "longitude"))]
    keys = [each.key for each in mapping.companions if each.key]
    # A column of the file may have several meanings; each is read once.
    own = own if mapping.companions else list(wanted)
    required = list(dict.fromkeys([*(wanted[name] for name in own), *keys]))
    others = [column for column in dict.fromkeys(wanted.values()) if column not in required]
    layout = delimited.layout(path, required, others, scratch=options.scratch, names=names)
    texts = {wanted.get(name) for name in ("vehicle", "recording", "type")} | set(keys)
    texts |= {wanted["time"]} if mapping.units.time == "iso" else set()
    layout = replace(layout, numbers=frozenset(layout.wanted) - texts)
    needed = [column for column in others if column not in layout.wanted]
    companions = []
    for each in mapping.companions:
        if needed:
            companions.append((each.key, _companion(path, each, needed)))
            needed = [column for column in needed if column not in companions[-1][1].layout.wanted]
    if needed:
        raise damaged(path, f"no column {', '.join(needed)}, nor in its companions", ", ".join(needed))
    source = _Source(mapping, options, layout, wanted, tuple(companions), mapping.projection)
    if mapping.columns.x or mapping.projection:
        return source
    as_text = replace(layout, numbers=frozenset())
    first = _cells(source, next(as_text.batches(), _nothing(layout)))
    return replace(source, plane=_zone(first.number("latitude"), first.number("longitude")))


def _nothing(layout: Layout) -> pa.Table:
    return pa.table({name: pa.array([], pa.string()) for name in (*layout.wanted, delimited.ROW)})


def _companion(path: Path, companion: Companion, needed: Sequence[str]) -> Cells:
    """The needed columns of the table beside ``path`` that the mapping names."""
    stem = Path(bare(path.name)).stem
    name = companion.file.format(stem=stem, prefix=stem.rpartition("_")[0])
    beside = next((p for p in (path.with_name(name + end) for end in ("", *ENDINGS)) if p.exists()), None)
    if beside is None:
        raise DataError(
            str(path),
            got=f"no file {name} beside it",
            expected="the companion that the mapping names",
            hint="put it there, or change companions in the mapping",
        )
    found = delimited.read(beside, [companion.key] if companion.key else [], needed)
    if not companion.key and found.rows.num_rows != 1:
        raise damaged(beside, f"{found.rows.num_rows} rows", "one row, or a key in the mapping")
    return found


def _cells(source: _Source, rows: pa.Table) -> Cells:
    """The mapped columns of some rows under the names of their meanings, those of the companions joined."""
    own = Cells(source.layout, rows)
    columns = {column: rows[column] for column in source.layout.wanted}
    for key, other in source.companions:
        # Each row's row of the companion; its last one, which is empty, where there is none.
        last = other.rows.num_rows
        at = pa.array(np.zeros(rows.num_rows, np.int32))
        if key:
            names, codes = own.coded(key)
            place = pc.index_in(names, value_set=other.text(key)).fill_null(last)
            at = place.take(pa.array(codes))
        for column in other.layout.wanted:
            if column not in columns:
                cells = pa.concat_arrays([other.text(column), pa.array([""])])
                columns[column] = pa.chunked_array([cells.take(at)])
    found = {meaning: columns[column] for meaning, column in source.wanted.items()}
    rows = pa.table({**found, delimited.ROW: rows[delimited.ROW]})
    return Cells(source.layout, rows, titles=source.wanted)


def _part(source: _Source, rows: pa.Table) -> _Part:
    """Some whole vehicles in the units of the table."""
    cells = _cells(source, rows)
    mapping = source.mapping
    kinds, kind, left_out = _keep_vehicles(cells, mapping)
    vehicles, vehicle = cells.key("vehicle")
    recordings, recording = [""], np.zeros(len(vehicle), np.int64)
    if "recording" in cells.rows.column_names:
        recordings, recording = cells.key("recording")
    owner = recording.astype(np.int64) * len(vehicles) + vehicle
    hz = _stated_rate(cells, source)
    columns = _columns(cells, mapping, hz, source.plane)
    left_out += delimited.left_out(cells, owner)
    fit: np.ndarray | slice = slice(None)
    if cells.unfit.any() or (np.diff(recording) < 0).any():
        fit = np.flatnonzero(~cells.unfit)
        fit = fit[np.argsort(recording[fit], kind="stable")]
    if mapping.units.time != "frame" or hz is None:
        rates = rate.rates(owner[fit], columns["t"][fit]) if len(owner[fit]) else None
        hz = hz if rates is None else rates
    elif isinstance(hz, np.ndarray):
        hz = hz[fit]
    return _Part(
        cells,
        left_out,
        vehicles,
        recordings,
        vehicle[fit],
        recording[fit],
        kinds,
        kind[fit],
        {name: values[fit] for name, values in columns.items()},
        hz,
    )


def _drives(source: _Source, part: _Part, hz: np.ndarray | float | None) -> Iterator[Drive]:
    """Each recording's rows, and what was left out."""
    mapping, path = source.mapping, source.layout.path
    yield remainder(source.options.recording, part.left_out, part.cells.errors)
    if not len(part.vehicle):
        return
    every = np.broadcast_to(np.nan if hz is None else hz, len(part.vehicle))
    starts = np.flatnonzero(np.diff(part.recording, prepend=-1))
    for start, stop in zip(starts, (*starts[1:], len(part.vehicle)), strict=True):
        name = part.recordings[part.recording[start]]
        key = f"{source.options.recording}/{name}" if name else source.options.recording
        # Counting is several times faster than sorting.
        here = part.vehicle[start:stop]
        present = np.flatnonzero(np.bincount(here, minlength=len(part.vehicles)))
        place = np.zeros(len(part.vehicles), np.int32)
        place[present] = np.arange(len(present))
        vehicle = place[here]
        names = [part.vehicles[number] for number in present]
        keys = names if mapping.vehicle_is_unique else [f"{key}/{each}" for each in names]
        yield drive(
            path,
            key,
            hz=every[start:stop],
            vehicle=pa.DictionaryArray.from_arrays(vehicle, keys),
            type=pa.DictionaryArray.from_arrays(part.kind[start:stop], part.kinds),
            columns={column: values[start:stop] for column, values in part.columns.items()},
            ego=np.array([each == mapping.ego for each in names], bool)[vehicle] if mapping.ego else None,
            time_column=mapping.columns.time,
        )


def _keep_vehicles(cells: Cells, mapping: Mapping) -> tuple[list[str], np.ndarray, list[LeftOut]]:
    """Go on with the rows of vehicles: the kinds there are, the number of each row's, what the others are."""
    if "type" not in cells.rows.column_names:
        return [mapping.type], np.zeros(cells.rows.num_rows, np.int64), []
    names, code = cells.coded("type")
    given = pc.utf8_lower(names)
    known = {name.lower(): kind for name, kind in mapping.types.items()}
    kinds = [known.get(name) if known else name for name in given.to_pylist()]
    keep = np.array([kind is not None for kind in kinds], bool)[code]
    owner = cells.coded("vehicle")[1].astype(np.int64)
    if "recording" in cells.rows.column_names:
        recordings, recording = cells.coded("recording")
        owner = owner * len(recordings) + recording
    left_out = types_left_out(given.take(pa.array(code[~keep])), owner[~keep])
    cells.keep(keep)
    return [kind or "" for kind in kinds], code[keep], list(left_out)


def _stated_rate(cells: Cells, source: _Source) -> np.ndarray | float | None:
    """Frames a second as stated: by who imports, the mapping, or the file."""
    mapping, given = source.mapping, source.options.hz
    if given is not None or mapping.hz is not None:
        return given if given is not None else mapping.hz
    if "hz" in cells.rows.column_names and cells.rows.num_rows:
        rates = cells.number("hz")
        return float(rates[0]) if (rates == rates[0]).all() else rates
    if mapping.units.time == "frame" and cells.rows.num_rows:
        raise damaged(cells.path, "times in frames without a rate", "hz or hz_column in the mapping, or --hz")
    return None


def _columns(
    cells: Cells, mapping: Mapping, hz: np.ndarray | float | None, plane: str | None
) -> dict[str, np.ndarray]:
    """The numbers in the units and axes of the table."""
    names, units = set(cells.rows.column_names), mapping.units
    found = {"t": _times(cells, mapping, hz)}
    found |= _positions(cells, mapping, plane)
    for name, factor in (("length", LENGTHS[units.size]), ("width", LENGTHS[units.size])):
        if name in names:
            found[name] = cells.number(name) * factor
    if mapping.position_at == "upper-left":
        found["x"], found["y"] = found["x"] + found["length"] / 2, found["y"] + found["width"] / 2
    if "heading" in names:
        found["heading"] = _headings(cells.number("heading"), mapping)
    up = -1 if mapping.y_down else 1
    found["y"] = up * found["y"]
    speed = SPEEDS[units.speed]
    if {"vx", "vy"} <= names:
        found["vx"], found["vy"] = speed * cells.number("vx"), up * speed * cells.number("vy")
    elif {"speed", "heading"} <= names:
        along = speed * cells.number("speed")
        found["vx"], found["vy"] = along * np.cos(found["heading"]), along * np.sin(found["heading"])
    return found


def _headings(given: np.ndarray, mapping: Mapping) -> np.ndarray:
    """Counter-clockwise from x, rad, y up."""
    heading = np.radians(given) if mapping.units.heading == "deg" else given
    if mapping.heading_from == "north":
        return np.pi / 2 - heading
    return -heading if mapping.y_down else heading


def _times(cells: Cells, mapping: Mapping, hz: np.ndarray | float | None) -> np.ndarray:
    kind = cells.rows["time"].type
    if pa.types.is_timestamp(kind):
        stamps = cells.rows["time"].cast(pa.timestamp("ns")).cast(pa.int64())
        return np.asarray(stamps.to_numpy(), np.float64) * 1e-9
    if mapping.units.time == "iso":
        return _iso(cells)
    times = cells.number("time")
    return times / hz if mapping.units.time == "frame" else times * TIMES[mapping.units.time]


def _iso(cells: Cells) -> np.ndarray:
    """Dates with times, with or without a zone, as seconds."""
    text = cells.text("time")
    for kind in (pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        try:
            return np.asarray(text.cast(kind).cast(pa.int64()).to_numpy(), np.float64) * 1e-9
        except pa.ArrowInvalid:
            continue
    raise damaged(cells.path, "a time that is no ISO 8601 date and time", "such as 2026-05-01T08:00:00.1")


def _positions(cells: Cells, mapping: Mapping, plane: str | None) -> dict[str, np.ndarray]:
    if mapping.columns.x:
        factor = LENGTHS[mapping.units.position]
        return {name: factor * cells.number(name) for name in ("x", "y")}
    x, y = projected(cells.number("latitude"), cells.number("longitude"), plane)
    return {"x": x, "y": y}


def projected(
    latitude: np.ndarray, longitude: np.ndarray, plane: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """x and y, (R,) m, of degrees, each (R,); without a plane in the UTM zone in which most of them lie."""
    with optional("longitude and latitude", "projection"):
        from pyproj import Transformer
    plane = plane or _zone(latitude, longitude)
    x, y = Transformer.from_crs("EPSG:4326", plane, always_xy=True).transform(longitude, latitude)
    return np.where(np.isfinite(x), x, np.nan), np.where(np.isfinite(y), y, np.nan)


def _zone(latitude: np.ndarray, longitude: np.ndarray) -> str:
    """The UTM zone in which most of it is."""
    known = np.isfinite(latitude) & np.isfinite(longitude)
    if not known.any():
        return "EPSG:32631"
    zone = int((np.median(longitude[known]) + 180) // 6) % 60 + 1
    return f"EPSG:{(32600 if np.median(latitude[known]) >= 0 else 32700) + zone}"


def guess(paths: Sequence[Path]) -> tuple[Path, Proposal]:
    """A mapping for the first table among the files and folders: a shipped one that fits, or a guess.

    Raises:
        DataError: no table there.
        UsageError: nothing in it that could be vehicle, time and position, or files of another format.
    """
    patterns = [f"{pattern}{end}" for pattern in READER.files for end in ("", *ENDINGS)]
    refused: UsageError | None = None
    for path in paths:
        found = sorted({f for name in patterns for f in path.rglob(name)}) if path.is_dir() else [path]
        found = found[:GUESS_FILES]
        for file in found:  # companions are tables, too
            if known := _known(file):
                return file, known
        if other := format_of(found[0] if found else path):
            raise UsageError(
                "--guess",
                got=f"files of the format {other} in {path}",
                expected="tables",
                hint=f"they need no mapping: import them with --format {other}",
            )
        for file in found:
            try:
                return file, _proposed(file)
            except UsageError as error:
                refused = refused or error
    raise refused or damaged(paths[0], "no table", f"a file named {' or '.join(READER.files)}")


def _known(path: Path) -> Proposal | None:
    """The shipped mapping whose columns and companions are all there."""
    for name in shipped():
        mapping = mappings.read(name)
        if not any(fnmatch(bare(path.name), each) for each in mapping.files):
            continue
        with suppress(DataError):
            if next(_source(path, Options(""), mapping).layout.batches(), None) is not None:
                return Proposal(mappings.text(name), {f"shipped mapping {name}": 0.95})
    return None


def _proposed(path: Path) -> Proposal:
    header = delimited.header(path)
    layout = delimited.layout(path, header)
    cells = Cells(layout, next(layout.batches(), _nothing(layout)).slice(0, GUESS_ROWS))
    return mappings.propose(header, {name: np.asarray(cells.text(name)) for name in header})


def _without_mapping(path: Path, options: Options) -> list[Drive]:  # noqa: ARG001 - the Reader's signature
    raise DataError(
        "--mapping",
        got="none",
        expected=f"a mapping file, or one of {', '.join(shipped())}",
        hint="give one, or let --guess propose one",
    )


READER = Reader(
    read=_without_mapping,
    files=Mapping.model_fields["files"].default,
    about=f"any table (CSV, Parquet) by a mapping; shipped: {', '.join(shipped())}",
    download="your own; levelxdata.com, data.transportation.gov (NGSIM) and others",
    licence="levelXdata: research on request; NGSIM: openly distributed by FHWA; others: theirs",
)
