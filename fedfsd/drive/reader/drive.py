"""What a reader gives: the vehicle rows of one recording, in the units of the table.

Shapes: R rows, one for each (vehicle, time).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedfsd.errors import DataError

MAX_BYTES = 256 * 2**20
MAX_NAME = 200
NUMBERS = ("t", "x", "y", "vx", "vy", "heading", "length", "width")


@dataclass(frozen=True)
class Options:
    """What the person who imports knows and a file may not say."""

    recording: str  # name for the recording, used where the file has none of its own
    hz: float | None = None  # frames a second, where the format does not say


@dataclass(frozen=True)
class Drive:
    """The vehicles of one recording; pedestrians, cyclists and objects are left out.

    ``vehicle`` is the key inside the source: where the source gives a car the same id in several
    recordings, its reader gives it the same key.
    """

    recording: str
    hz: float
    vehicle: np.ndarray  # (R,) str
    type: np.ndarray  # (R,) str, lower case, as in the source
    columns: dict[str, np.ndarray]  # NUMBERS, each (R,) float64: s, m, m/s, rad; NaN where unknown
    ego: np.ndarray  # (R,) bool: the car that carried the sensors
    city: str | None = None


@dataclass(frozen=True)
class Reader:
    """One format: how to read a file of it, and which files of a folder are of it.

    A package of your own adds one under the entry point group ``fedfsd.readers``:
    ``myformat = "mypackage.module:READER"``.
    """

    read: Callable[[Path, Options], Sequence[Drive]]
    files: str  # pattern of the file names, searched in folders at any depth


def drive(
    path: Path,
    recording: str,
    *,
    hz: float,
    vehicle: Iterable[object],
    type: Iterable[object],
    columns: Mapping[str, Iterable[float]],
    ego: Iterable[bool] | None = None,
    city: str | None = None,
) -> Drive:
    """A checked ``Drive``; columns that are not given are NaN.

    Raises:
        DataError: no vehicle in it, columns of different lengths, a rate that is no rate.
    """
    names, types = [str(name) for name in vehicle], [str(name).lower() for name in type]
    if not names:
        raise DataError(
            str(path),
            got="no vehicle track",
            expected="cars, trucks, buses or motorcycles",
            hint="leave this file out, or check that the format is the right one",
        )
    # One long name would make every cell of the arrays below as long.
    if max(map(len, (*names, *types))) > MAX_NAME:
        raise DataError(
            f"{path}: names of vehicles and types",
            got="a name that is no name",
            expected=f"at most {MAX_NAME} characters",
            hint="the file is damaged; fetch it again",
        )
    keys, kinds = np.array(names), np.array(types)
    if not (np.isfinite(hz) and 0 < hz <= 1000):
        raise DataError(
            f"{path}: frames a second",
            got=f"{hz:g}",
            expected="more than 0",
            hint="check the times in the file",
        )
    numbers = {name: np.asarray(columns.get(name, np.full(len(keys), np.nan)), float) for name in NUMBERS}
    egos = np.zeros(len(keys), bool) if ego is None else np.asarray(list(ego), bool)
    uneven = [name for name, values in numbers.items() if values.shape != keys.shape]
    if uneven or kinds.shape != keys.shape or egos.shape != keys.shape:
        raise DataError(
            f"{path}: {', '.join(uneven) or 'type'}",
            got="another number of values",
            expected=f"{len(keys)}, one a row",
            hint="the file is damaged; fetch it again",
        )
    return Drive(recording, float(hz), keys, kinds, numbers, egos, city)


def content(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """The bytes of one input file.

    Raises:
        DataError: not a readable file, empty, or larger than ``limit`` bytes.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if 0 < size <= limit else b""
    except OSError:
        raise DataError(
            str(path), got="no readable file", expected="a recording", hint="check the path"
        ) from None
    if size > limit:
        raise DataError(
            str(path),
            got=f"{size} bytes",
            expected=f"at most {limit}",
            hint="split the recording into smaller files",
        )
    if not data:
        raise DataError(str(path), got="an empty file", expected="a recording", hint="fetch the file again")
    return data


def damaged(path: Path, what: str, expected: str) -> DataError:
    """The refusal of a file that is not what its format says."""
    return DataError(
        str(path), got=what, expected=expected, hint="fetch the file again, or name its real format"
    )


def central_differences(
    vehicle: np.ndarray, t: np.ndarray, values: np.ndarray, *, max_gap_seconds: float
) -> np.ndarray:
    """Rate of change of ``values`` (R,) along each vehicle's rows, (R,), in units a second.

    (next - previous) / (time between); at the two ends of an uninterrupted run the one-sided
    difference; NaN for a run of one row. A run ends where the next row is more than
    ``max_gap_seconds`` later. Rows may come in any order.
    """
    _, owner = np.unique(vehicle, return_inverse=True)
    order = np.lexsort((t, owner))
    owner, t, values = owner[order], t[order], values[order]
    step = np.diff(t)
    joined = (np.diff(owner) == 0) & (step > 0) & (step <= max_gap_seconds)
    row = np.arange(len(t))
    before = row - np.r_[False, joined]
    after = row + np.r_[joined, False]
    span = t[after] - t[before]
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(span > 0, (values[after] - values[before]) / span, np.nan)
    result = np.empty(len(rate))
    result[order] = rate
    return result
