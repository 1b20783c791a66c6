"""Any table of track points, CSV or Parquet, by a mapping of its columns (``mapping.Mapping``).

The mapping says which column is what and in which unit; columns that stand in a companion table beside the
file (types and sizes of the tracks, the frame rate) are joined by key.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedfsd.drive import rate
from fedfsd.drive.reader import delimited
from fedfsd.drive.reader import mapping as mappings
from fedfsd.drive.reader.delimited import Cells
from fedfsd.drive.reader.drive import (
    ENDINGS,
    Drive,
    Options,
    Reader,
    bare,
    damaged,
    drive,
    renamed,
    together,
    types_left_out,
)
from fedfsd.drive.reader.mapping import LENGTHS, SPEEDS, TIMES, Companion, Mapping, Proposal, shipped
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError, NotReadyError, install

# Rows that --guess looks at.
GUESS_ROWS = 5000


def reader(mapping: Mapping) -> Reader:
    """The reader of tables with that mapping."""
    return Reader(read=lambda path, options: read(path, options, mapping), files=mapping.files)


def read(path: Path, options: Options, mapping: Mapping) -> list[Drive]:
    """Read one table; each value of the column ``recording``, if there is one, is a recording."""
    cells = _cells(path, mapping)
    left_out = _keep_vehicles(cells, mapping)
    vehicle = cells.key("vehicle").dictionary_encode()
    recording = (
        cells.key("recording").dictionary_encode()
        if "recording" in cells.rows.column_names
        else pa.array([""] * len(vehicle)).dictionary_encode()
    )
    owner = np.asarray(recording.indices, np.int64) * len(vehicle.dictionary) + np.asarray(vehicle.indices)
    hz = _stated_rate(cells, mapping, options)
    columns = _columns(cells, mapping, hz)
    left_out += delimited.left_out(cells, owner)
    rows = np.flatnonzero(~cells.unfit)
    case = np.asarray(recording.indices)[rows]
    rows, case = rows[np.argsort(case, kind="stable")], np.sort(case, kind="stable")
    if not len(rows) and cells.errors:
        raise together(cells.errors, str(path))
    if mapping.units.time != "frame" or hz is None:
        rates = rate.rates(owner[rows], columns["t"][rows])
        hz = hz if rates is None else rates
    if hz is None and len(rows):
        raise damaged(path, "no vehicle seen twice", "vehicles that move on, or hz in the mapping")
    every = np.broadcast_to(np.nan if hz is None else hz, len(rows))
    names = np.asarray(vehicle.dictionary).astype(np.str_)[np.asarray(vehicle.indices)]
    kinds = np.asarray(_types(cells, mapping)[0]).astype(np.str_)
    drives: list[Drive] = []
    starts = np.flatnonzero(np.diff(case, prepend=-1))
    for start, stop in zip(starts, (*starts[1:], len(rows)), strict=True) if len(rows) else ((0, 0),):
        here = rows[start:stop]
        name = recording.dictionary[int(case[start])].as_py() if len(rows) else ""
        key = f"{options.recording}/{name}" if name else options.recording
        drives.append(
            drive(
                path,
                key,
                hz=every[start:stop],
                vehicle=names[here] if mapping.vehicle_is_unique else renamed(names[here], f"{key}/".__add__),
                type=kinds[here],
                columns={column: values[here] for column, values in columns.items()},
                ego=names[here] == mapping.ego if mapping.ego else None,
                left_out=() if drives else left_out,
                unfit=() if drives else cells.errors,
                time_column=mapping.columns.time,
            )
        )
    return drives


def _cells(path: Path, mapping: Mapping) -> Cells:
    """The mapped columns under the names of their meanings, those of the companions joined."""
    wanted = {name: column for name, column in mapping.columns.model_dump().items() if column is not None}
    if mapping.hz_column:
        wanted["hz"] = mapping.hz_column
    own = ["vehicle", "time", *(("x", "y") if mapping.columns.x else ("latitude", "longitude"))]
    keys = [each.key for each in mapping.companions if each.key]
    # A column of the file may have several meanings; each is read once.
    required = list(dict.fromkeys([*(wanted[name] for name in own), *keys]))
    cells = delimited.read(path, required, [column for column in wanted.values() if column not in required])
    for companion in mapping.companions:
        needed = [c for c in dict.fromkeys(wanted.values()) if c not in cells.rows.column_names]
        if needed:
            _join(path, cells, companion, needed)
    missing = [column for column in wanted.values() if column not in cells.rows.column_names]
    if missing:
        beside = " and its companions" if mapping.companions else ""
        raise damaged(path, f"no column {', '.join(missing)}{beside}", ", ".join(wanted.values()))
    cells.rows = pa.table({name: cells.rows[column] for name, column in wanted.items()})
    return cells


def _join(path: Path, cells: Cells, companion: Companion, needed: Sequence[str]) -> None:
    """The columns of a companion that are needed, row by row of the file."""
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
    other = delimited.read(beside, [companion.key] if companion.key else [], needed)
    if companion.key:
        at = pc.index_in(cells.text(companion.key), value_set=other.text(companion.key))
    elif other.rows.num_rows == 1:
        at = pa.array(np.zeros(cells.rows.num_rows, np.int32))
    else:
        raise damaged(beside, f"{other.rows.num_rows} rows", "one row, or a key in the mapping")
    for column in needed:
        if column in other.rows.column_names:
            cells.rows = cells.rows.append_column(column, other.text(column).take(at).fill_null(""))


def _types(cells: Cells, mapping: Mapping) -> tuple[pa.Array, pa.Array]:
    """What each row is, null where that is no vehicle, and what the file calls it."""
    if "type" not in cells.rows.column_names:
        same = pa.array([mapping.type] * cells.rows.num_rows, pa.string())
        return same, same
    given = pc.utf8_lower(cells.text("type"))
    known = {name.lower(): kind for name, kind in mapping.types.items()}
    if not known:
        return given, given
    at = pc.index_in(given, value_set=pa.array(list(known), pa.string()))
    return pa.array(list(known.values()), pa.string()).take(at), given


def _keep_vehicles(cells: Cells, mapping: Mapping) -> list[LeftOut]:
    """Go on with the rows of vehicles; what the others are."""
    kinds, given = _types(cells, mapping)
    known = np.asarray(pc.is_valid(kinds))
    others = pa.array(~known)
    track = cells.text("vehicle")
    if "recording" in cells.rows.column_names:
        track = pc.binary_join_element_wise(cells.text("recording"), track, "/")
    left_out = types_left_out(given.filter(others), track.filter(others))
    cells.keep(known)
    return list(left_out)


def _stated_rate(cells: Cells, mapping: Mapping, options: Options) -> np.ndarray | float | None:
    """Frames a second as stated: by who imports, the mapping, or the file."""
    if options.hz is not None or mapping.hz is not None:
        return options.hz if options.hz is not None else mapping.hz
    if "hz" in cells.rows.column_names and cells.rows.num_rows:
        rates = cells.number("hz")
        return float(rates[0]) if (rates == rates[0]).all() else rates
    if mapping.units.time == "frame" and cells.rows.num_rows:
        raise damaged(cells.path, "times in frames without a rate", "hz or hz_column in the mapping, or --hz")
    return None


def _columns(cells: Cells, mapping: Mapping, hz: np.ndarray | float | None) -> dict[str, np.ndarray]:
    """The numbers in the units and axes of the table."""
    names, units = set(cells.rows.column_names), mapping.units
    found = {"t": _times(cells, mapping, hz)}
    found |= _positions(cells, mapping)
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


def _positions(cells: Cells, mapping: Mapping) -> dict[str, np.ndarray]:
    if mapping.columns.x:
        factor = LENGTHS[mapping.units.position]
        return {name: factor * cells.number(name) for name in ("x", "y")}
    try:
        from pyproj import Transformer
    except ModuleNotFoundError:
        raise NotReadyError(
            "longitude and latitude",
            got="no module pyproj",
            expected="the extra projection",
            hint=install("projection"),
        ) from None
    latitude, longitude = cells.number("latitude"), cells.number("longitude")
    plane = mapping.projection or _zone(latitude, longitude)
    x, y = Transformer.from_crs("EPSG:4326", plane, always_xy=True).transform(longitude, latitude)
    return {"x": np.where(np.isfinite(x), x, np.nan), "y": np.where(np.isfinite(y), y, np.nan)}


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
        UsageError: nothing in it that could be vehicle, time and position.
    """
    patterns = [f"{pattern}{end}" for pattern in READER.files for end in ("", *ENDINGS)]
    for path in paths:
        found = sorted({f for name in patterns for f in path.rglob(name)}) if path.is_dir() else [path]
        for file in found:
            return file, _known(file) or _proposed(file)
    raise damaged(paths[0], "no table", f"a file named {' or '.join(READER.files)}")


def _known(path: Path) -> Proposal | None:
    """The shipped mapping whose columns and companions are all there."""
    for name in shipped():
        try:
            rows = _cells(path, mappings.read(name)).rows
        except DataError:
            continue
        if rows.num_rows and any(fnmatch(bare(path.name), each) for each in mappings.read(name).files):
            return Proposal(mappings.text(name), {f"shipped mapping {name}": 0.95})
    return None


def _proposed(path: Path) -> Proposal:
    header = delimited.header(path)
    cells = delimited.read(path, header)
    first = pa.array(np.arange(min(GUESS_ROWS, cells.rows.num_rows)))
    values = {name: np.asarray(cells.text(name).take(first)) for name in header}
    return mappings.propose(header, values)


def _without_mapping(path: Path, options: Options) -> list[Drive]:  # noqa: ARG001 - the Reader's signature
    raise DataError(
        "--mapping",
        got="none",
        expected=f"a mapping file, or one of {', '.join(shipped())}",
        hint="give one, or let --guess propose one",
    )


READER = Reader(read=_without_mapping, files=Mapping.model_fields["files"].default)
