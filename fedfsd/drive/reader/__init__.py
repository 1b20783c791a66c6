"""Recordings in other people's formats, read into the one table.

``READERS`` holds the built-in formats; a package of your own adds one as an entry point of the
group ``fedfsd.readers`` that names a ``Reader``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa

from fedfsd.drive import table
from fedfsd.drive.reader import apolloscape, argoverse2, columns, commonroad, interaction, join, scenarionet
from fedfsd.drive.reader.drive import (
    ARCHIVES,
    ENDINGS,
    MAX_NAME,
    NUMBERS,
    Drive,
    Options,
    Reader,
    bare,
    drive,
    renamed,
    together,
)
from fedfsd.drive.reader.mapping import Mapping
from fedfsd.drive.table import Identity, LeftOut, Origin, Table
from fedfsd.errors import DataError, UsageError

__all__ = ["READERS", "Drive", "Options", "Reader", "drive", "import_drives", "resolve"]

READERS: dict[str, Reader] = {
    "apolloscape": apolloscape.READER,
    "argoverse2": argoverse2.READER,
    "columns": columns.READER,
    "commonroad": commonroad.READER,
    "interaction": interaction.READER,
    "scenarionet": scenarionet.READER,
}
GROUP = "fedfsd.readers"
# float32 holds a millimetre up to here.
FAR_M = 10_000.0
# Two rows of one vehicle at one time are one point where they are no further apart: rounding, smoothing.
SAME_M = 0.05


def resolve(name: str) -> Reader:
    """The reader of that name: a built-in one, or one that an installed package registers.

    Raises:
        UsageError: nothing of that name, or an entry point that gives no ``Reader``.
    """
    if name in READERS:
        return READERS[name]
    found = {entry.name: entry for entry in metadata.entry_points(group=GROUP)}
    if name not in found:
        raise UsageError(
            "format",
            got=repr(name),
            expected=" | ".join(sorted({*READERS, *found})),
            hint="choose one of them, or install the package that registers it",
        )
    reader = found[name].load()
    if not isinstance(reader, Reader):
        raise UsageError(
            f"format {name}",
            got=f"an entry point to {type(reader).__name__}",
            expected="fedfsd.drive.reader.Reader",
            hint="let the entry point name a Reader(read=..., files=...)",
        )
    return reader


def import_drives(
    paths: str | Path | Sequence[str | Path],
    *,
    format: str,
    region: str,
    licence: str,
    identity: Identity,
    origin: Origin,
    source: str | None = None,
    country: str | None = None,
    city: str | None = None,
    hz: float | None = None,
    skip_unfit: bool = False,
    mapping: Mapping | None = None,
) -> Table:
    """Read files, and folders of files, of one source into one table.

    Keys are ``source/reader's key``, but all tracks of the recording car in one source and city
    share ``source/city/ego`` (the region stands in for an unknown city), so that its owner is one
    vehicle. The split follows from the keys. A recording that is named after its file keeps the
    name of the folder that was given. ``t`` starts at 0 in each recording: its start is subtracted
    in float64. Coordinates beyond 10 km are shifted by whole kilometres, one shift a city, to keep
    millimetres in float32. A row that repeats another of its vehicle's is dropped, and recordings
    that are cuts of one are joined where they overlap. Everything that is left out is counted in
    ``left_out``. ``source`` defaults to the format, ``city`` to what the file says; ``hz`` is for
    formats that do not state a rate, ``mapping`` for the format ``columns``. With ``skip_unfit``
    files and rows that cannot be read are left out instead of refused.

    Raises:
        DataError: files that are not what their format says (all of them at once), no file, one
            recording twice, a rate that contradicts the file's.
        UsageError: an unknown format.
    """
    reader = columns.reader(mapping) if format == "columns" and mapping else resolve(format)
    source = source or format
    chosen = [paths] if isinstance(paths, str | Path) else list(paths)
    drives, left_out = _read([Path(path) for path in chosen], reader, hz, skip_unfit=skip_unfit)
    drives = [_without_repeats(each) for each in join.joined(drives)]
    cities = [city or found.city for found in drives]
    shifts = {
        place: _shift([d for d, c in zip(drives, cities, strict=True) if c == place]) for place in {*cities}
    }
    parts: dict[str, list[np.ndarray]] = {}
    for found, place in zip(drives, cities, strict=True):
        for name, values in _columns(found, source, place or region, shifts[place]).items():
            parts.setdefault(name, []).append(values)
        rows = len(found.vehicle)
        constants = {"region": region, "source": source, "country": country, "city": place}
        for name, value in constants.items():
            parts.setdefault(name, []).append(np.full(rows, value, dtype=object))
    made: dict[str, object] = {name: np.concatenate(values) for name, values in parts.items()}
    counted = _summed([*left_out, *(each for found in drives for each in found.left_out)])
    return table.of_rows(made, licence=licence, identity=identity, origin=origin, left_out=counted)


def _read(
    paths: list[Path], reader: Reader, hz: float | None, *, skip_unfit: bool
) -> tuple[list[Drive], list[LeftOut]]:
    """Every recording in the files, and the unfit files skipped; or all that is unfit in one error."""
    drives: list[Drive] = []
    unfit: list[tuple[Path, DataError]] = []
    origin_of: dict[str, Path] = {}
    files = _files(paths, reader)
    for file, name in files:
        try:
            found = reader.read(file, Options(recording=name, hz=hz))
            wrong = [error for each in found for error in each.unfit]
            if wrong and not skip_unfit:
                raise together(wrong, str(file))
            for each in found:
                _check(each, file, origin_of, hz)
        except DataError as error:
            unfit.append((file, error))
        else:
            origin_of |= {each.recording: file for each in found}
            drives += found
    if unfit and not (skip_unfit and drives):
        raise together([error for _, error in unfit], f"{len(unfit)} of {len(files)} files")
    return drives, [
        LeftOut(f"unfit file {file.name}{_inside(error, file)}: {error.got}"[:MAX_NAME], 0, 0, files=1)
        for file, error in unfit
    ]


def _inside(error: DataError, file: Path) -> str:
    """The part of the file that an error names."""
    return error.place.removeprefix(str(file)) if error.place.startswith(str(file)) else ""


def _files(paths: list[Path], reader: Reader) -> list[tuple[Path, str]]:
    """Each file once, with a name for its recording: its path from above the folder that was given."""
    patterns = (reader.files,) if isinstance(reader.files, str) else reader.files
    files: list[Path] = []
    tops: list[str] = []
    for path in (Path(os.path.abspath(path)) for path in paths):
        found = [path] if not path.is_dir() else []
        for endings in (("", *ENDINGS), ARCHIVES):
            names = [f"{pattern}{ending}" for pattern in patterns for ending in endings]
            found = found or sorted({file for name in names for file in path.rglob(name)})
        if not path.exists():
            raise DataError(
                str(path), got="no readable file", expected="a recording, or a folder", hint="check the path"
            )
        if not found:
            raise DataError(
                str(path),
                got=f"no file named {' or '.join(patterns)}",
                expected="at least one",
                hint="name the files one by one, or check the format",
            )
        files += found
        tops.append(str(path.parent if path.is_dir() else path.parent.parent))
    if not files:
        raise DataError("paths", got="none", expected="at least one file", hint="name a file or a folder")
    top = os.path.commonpath(tops)
    return [
        (file, file.with_name(bare(file.name)).relative_to(top).with_suffix("").as_posix())
        for file in dict.fromkeys(files)
    ]


def _check(found: Drive, file: Path, origin_of: dict[str, Path], hz: float | None) -> None:
    """One recording stands in one file, and its rate is the one that was said."""
    if found.recording in origin_of:
        raise DataError(
            str(file),
            got=f"a recording that {origin_of[found.recording].name} holds too",
            expected="each recording once",
            hint="leave one of the two files out",
        )
    rates = np.unique(found.hz)
    if hz is not None and (np.abs(rates - hz) > 0.01 * hz).any():
        raise DataError(
            f"{file}: frames a second",
            got=f"{', '.join(f'{rate:g}' for rate in rates[:5])} in the file",
            expected=f"{hz:g} as given",
            hint="leave hz out: this format states its rate",
        )


def _without_repeats(found: Drive) -> Drive:
    """One row for each vehicle and time; one that is elsewhere than the first is kept, for the data check."""
    vehicle = np.asarray(pa.array(found.vehicle).dictionary_encode().indices)
    t, x, y = (found.columns[name] for name in ("t", "x", "y"))
    order = np.lexsort((t, vehicle))
    new = np.r_[True, (np.diff(vehicle[order]) != 0) | (np.diff(t[order]) != 0)]
    if new.all():
        return found
    # The fullest row first.
    empty = np.sum([np.isnan(found.columns[name]) for name in NUMBERS], axis=0)
    order = order[np.lexsort((empty[order], np.cumsum(new)))]
    first = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    near = np.hypot(x[order] - x[first], y[order] - y[first]) <= SAME_M
    repeat = np.zeros(len(vehicle), bool)
    repeat[order] = ~new & near
    if not repeat.any():
        return found
    counted = LeftOut("repeated row", int(repeat.sum()), len(np.unique(vehicle[repeat])))
    return replace(_chosen(found, ~repeat), left_out=(*found.left_out, counted))


def _chosen(found: Drive, rows: np.ndarray) -> Drive:
    return replace(
        found,
        hz=np.broadcast_to(found.hz, len(rows))[rows],
        vehicle=found.vehicle[rows],
        type=found.type[rows],
        columns={name: values[rows] for name, values in found.columns.items()},
        ego=found.ego[rows],
    )


def _summed(left_out: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """One count for each reason, the most rows first."""
    sums: dict[str, LeftOut] = {}
    for each in left_out:
        before = sums.get(each.why, LeftOut(each.why, 0, 0))
        sums[each.why] = LeftOut(
            each.why,
            before.rows + each.rows,
            before.vehicles + each.vehicles,
            before.files + each.files,
        )
    return tuple(sorted(sums.values(), key=lambda each: (-each.rows, each.why)))


def _shift(drives: list[Drive]) -> tuple[float, float]:
    """Whole kilometres to subtract from x and y, the same for all recordings of a city."""
    shift = []
    for name in ("x", "y"):
        values = np.concatenate([found.columns[name] for found in drives])
        values = values[np.isfinite(values)]
        far = len(values) and np.abs(values).max() > FAR_M
        shift.append(float(1000 * np.round(np.median(values) / 1000)) if far else 0.0)
    return shift[0], shift[1]


def _columns(found: Drive, source: str, place: str, shift: tuple[float, float]) -> dict[str, np.ndarray]:
    """The columns that differ from row to row."""
    own = renamed(found.vehicle, lambda key: f"{source}/{key}")
    numbers = {name: found.columns[name] for name in NUMBERS}
    times = numbers["t"][np.isfinite(numbers["t"])]
    return {
        **numbers,
        "t": numbers["t"] - times.min(initial=np.inf if len(times) else 0.0),
        "x": numbers["x"] - shift[0],
        "y": numbers["y"] - shift[1],
        "recording": np.full(len(own), found.recording, dtype=object),
        "vehicle": np.where(found.ego, f"{source}/{place}/ego", own).astype(object),
        "type": found.type.astype(object),
        "hz": np.broadcast_to(found.hz, len(own)),
    }
