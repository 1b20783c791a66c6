"""Recordings in other people's formats, read into the one table.

``READERS`` holds the built-in formats; a package of your own adds one as an entry point of the
group ``fedfsd.readers`` that names a ``Reader``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from fedfsd.drive import table
from fedfsd.drive.reader import apolloscape, argoverse2, commonroad, interaction, scenarionet
from fedfsd.drive.reader.drive import NUMBERS, Drive, Options, Reader, drive
from fedfsd.drive.table import Identity, Origin, Table
from fedfsd.errors import DataError, UsageError

__all__ = ["READERS", "Drive", "Options", "Reader", "drive", "import_drives", "resolve"]

READERS: dict[str, Reader] = {
    "apolloscape": apolloscape.READER,
    "argoverse2": argoverse2.READER,
    "commonroad": commonroad.READER,
    "interaction": interaction.READER,
    "scenarionet": scenarionet.READER,
}
GROUP = "fedfsd.readers"
# float32 holds a millimetre up to here.
FAR_M = 10_000.0


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
) -> Table:
    """Read files, and folders of files, of one source into one table.

    Keys are ``source/reader's key``, but all tracks of the recording car in one source and city
    share ``source/city/ego`` (the region stands in for an unknown city), so that its owner is one
    vehicle. The split follows from the keys. Coordinates beyond 10 km are shifted by whole
    kilometres, one shift a city, to keep millimetres in float32. ``source`` defaults to the
    format, ``city`` to what the file says; ``hz`` is for formats that do not state a rate.

    Raises:
        DataError: a file that is not what its format says, no file, one recording twice, a rate
            that contradicts the file's.
        UsageError: an unknown format.
    """
    reader = resolve(format)
    source = source or format
    chosen = [paths] if isinstance(paths, str | Path) else list(paths)
    files = _files([Path(path) for path in chosen], reader)
    drives: list[Drive] = []
    origin_of: dict[str, Path] = {}
    top = Path(os.path.commonpath([file.parent for file in files]))
    for file in files:
        name = file.relative_to(top).with_suffix("").as_posix()
        for found in reader.read(file, Options(recording=name, hz=hz)):
            _check(found, file, origin_of, hz)
            drives.append(found)
    cities = [city or found.city for found in drives]
    shifts = {
        place: _shift([d for d, c in zip(drives, cities, strict=True) if c == place]) for place in {*cities}
    }
    columns: dict[str, list[np.ndarray]] = {}
    for found, place in zip(drives, cities, strict=True):
        for name, values in _columns(found, source, place or region, shifts[place]).items():
            columns.setdefault(name, []).append(values)
        rows = len(found.vehicle)
        constants = {"region": region, "source": source, "country": country, "city": place}
        for name, value in constants.items():
            columns.setdefault(name, []).append(np.full(rows, value, dtype=object))
    joined: dict[str, object] = {name: np.concatenate(parts) for name, parts in columns.items()}
    return table.of_rows(joined, licence=licence, identity=identity, origin=origin)


def _files(paths: list[Path], reader: Reader) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        found = sorted(path.rglob(reader.files)) if path.is_dir() else [path]
        if not found:
            raise DataError(
                str(path),
                got=f"no file named {reader.files}",
                expected="at least one",
                hint="name the files one by one, or check the format",
            )
        files += [file.absolute() for file in found]
    if not files:
        raise DataError("paths", got="none", expected="at least one file", hint="name a file or a folder")
    return list(dict.fromkeys(files))


def _check(found: Drive, file: Path, origin_of: dict[str, Path], hz: float | None) -> None:
    """One recording stands in one file, and its rate is the one that was said."""
    if found.recording in origin_of:
        raise DataError(
            str(file),
            got=f"a recording that {origin_of[found.recording].name} holds too",
            expected="each recording once",
            hint="leave one of the two files out",
        )
    origin_of[found.recording] = file
    if hz is not None and abs(found.hz - hz) > 0.01 * hz:
        raise DataError(
            f"{file}: frames a second",
            got=f"{found.hz:g} in the file",
            expected=f"{hz:g} as given",
            hint="leave hz out: this format states its rate",
        )


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
    own = np.char.add(f"{source}/", found.vehicle)
    numbers = {name: found.columns[name] for name in NUMBERS}
    return {
        **numbers,
        "x": numbers["x"] - shift[0],
        "y": numbers["y"] - shift[1],
        "recording": np.full(len(own), found.recording, dtype=object),
        "vehicle": np.where(found.ego, f"{source}/{place}/ego", own).astype(object),
        "type": found.type.astype(object),
        "hz": np.full(len(own), found.hz),
    }
