"""What a reader gives: the vehicle rows of one recording, in the units of the table.

Shapes: R rows, one for each (vehicle, time).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fedfsd.drive.reader.recognise import recognise
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError, NotReadyError, install

MAX_BYTES = 256 * 2**20
MAX_NAME = 200
NUMBERS = ("t", "x", "y", "vx", "vy", "heading", "length", "width")
# Frames a second of any recording of traffic; what is outside has its times in another unit.
RATES = (0.2, 1000.0)
USUAL_RATES = (0.5, 120.0)
# How many times too fast a recording is whose times are in another unit.
_SWAPPED_UNITS = {
    1e3: "s were given for ms",
    1e6: "s were given for us",
    1e9: "s were given for ns",
    1e-3: "us were given for ms",
    1e-6: "ns were given for ms",
    1e-9: "ns were given for s",
}
# How a file begins that was compressed as a whole, and the ending that its name has then.
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
ENDINGS = (".gz", ".bz2", ".zst", ".zstd", ".lz4")
ARCHIVES = (".zip", ".xz", ".7z", ".tar")  # looked for only to say that they have to be unpacked
_NAMED = 20  # unfit files or parts that the text of an error names; its document has them all


@dataclass(frozen=True)
class Options:
    """What the person who imports knows and a file may not say."""

    recording: str  # name for the recording, used where the file has none of its own
    hz: float | None = None  # frames a second, where the format does not say
    scratch: Path | None = None  # a folder for what does not fit into memory; the system's if None
    topic: str | None = None  # of a bag, where several have odometry
    vehicle: str | None = None  # of a bag: the name of the car that recorded it


@dataclass(frozen=True)
class Drive:
    """The vehicles of one recording; pedestrians, cyclists and objects are left out, and counted.

    ``vehicle`` is the key inside the source: where the source gives a car the same id in several
    recordings, its reader gives it the same key. ``t`` may start anywhere: the import subtracts
    the recording's start before anything is rounded. A recording that is too long to be held may come
    in several drives, one after the other, each with whole vehicles.
    """

    recording: str
    hz: float | np.ndarray  # of the recording, or (R,) of each row's track
    vehicle: np.ndarray | pa.DictionaryArray  # (R,) str
    type: np.ndarray | pa.DictionaryArray  # (R,) str, lower case, as in the source
    columns: dict[str, np.ndarray]  # NUMBERS, each (R,) float64: s, m, m/s, rad; NaN where unknown
    ego: np.ndarray  # (R,) bool: the car that carried the sensors
    city: str | None = None
    left_out: tuple[LeftOut, ...] = ()  # rows of the file that are not in the columns, unfit ones included
    unfit: tuple[DataError, ...] = ()  # what is wrong with the unfit ones
    part_of: str | None = None  # recordings with one name here may overlap; those that do are joined
    country: str | None = None  # ISO 3166 code of three letters, where the file says where it was recorded


@dataclass(frozen=True)
class Reader:
    """One format: how to read a file of it, and which files of a folder are of it.

    A package of your own adds one under the entry point group ``fedfsd.readers``:
    ``myformat = "mypackage.module:READER"``. A ``read`` that yields its drives one by one keeps the
    import's memory to one of them.
    """

    read: Callable[[Path, Options], Iterable[Drive]]
    files: str | tuple[str, ...]  # patterns of the file names, searched in folders at any depth
    about: str = ""  # what the format is of, for people who choose one
    download: str = ""  # what to fetch, and from where
    licence: str = ""  # of the data, as their publisher states it


class UnfitError(DataError):
    """Several files, or parts of files, that cannot be read, all at once."""

    def __init__(self, errors: Sequence[DataError], place: str) -> None:
        self.errors = tuple(errors)
        named = [f"{each.place}: {each.got}" for each in errors[:_NAMED]]
        more = [f"{len(errors) - _NAMED} more (--json names them)"] if len(errors) > _NAMED else []
        super().__init__(
            place,
            got="; ".join(named + more),
            expected=" | ".join(dict.fromkeys(str(each.expected) for each in errors)),
            hint="mend them or leave them out, or import the rest with --skip-unfit",
        )

    def document(self) -> dict[str, Any]:
        """With a document of each."""
        return super().document() | {"unfit": [each.document() for each in self.errors]}

    def __reduce__(self) -> tuple[Any, ...]:
        return UnfitError, (self.errors, self.place)


def together(errors: Sequence[DataError], place: str) -> DataError:
    """One error for all of them: itself where it is alone."""
    flat = [one for each in errors for one in (each.errors if isinstance(each, UnfitError) else (each,))]
    return flat[0] if len(flat) == 1 else UnfitError(flat, place)


def drive(
    path: Path,
    recording: str,
    *,
    hz: float | np.ndarray,
    vehicle: Iterable[object] | pa.DictionaryArray,
    type: Iterable[object] | pa.DictionaryArray,
    columns: Mapping[str, Iterable[float]],
    ego: Iterable[bool] | None = None,
    city: str | None = None,
    left_out: Iterable[LeftOut] = (),
    unfit: Iterable[DataError] = (),
    part_of: str | None = None,
    country: str | None = None,
    time_column: str | None = None,
) -> Drive:
    """A checked ``Drive``; columns that are not given are NaN.

    Args:
        hz: of the recording, or one value a row.
        time_column: where the file has the times, for the error about their unit.

    Raises:
        DataError: no vehicle in it, columns of different lengths, a rate that is no rate.
    """
    left_out, unfit = tuple(left_out), tuple(unfit)
    keys, kinds = _names(path, vehicle), _names(path, type, str.lower)
    if not len(keys) and unfit:
        raise together(unfit, str(path))
    if not len(keys):
        raise no_vehicle(path, left_out)
    numbers = {name: np.asarray(columns.get(name, np.full(len(keys), np.nan)), float) for name in NUMBERS}
    egos = np.zeros(len(keys), bool) if ego is None else np.asarray(ego, bool)
    rows = (len(keys),)
    uneven = [name for name, values in numbers.items() if values.shape != rows]
    if np.shape(hz) not in ((), rows):
        uneven.append("hz")
    if uneven or len(kinds) != len(keys) or egos.shape != rows:
        raise DataError(
            f"{path}: {', '.join(uneven) or 'type'}",
            got="another number of values",
            expected=f"{len(keys)}, one a row",
            hint="check that the file is complete",
        )
    _check_rate(path, np.reshape(hz, -1), time_column)
    if not np.isfinite(numbers["t"]).any():
        raise damaged(path, "no time", "a time for each row")
    return Drive(recording, hz, keys, kinds, numbers, egos, city, left_out, unfit, part_of, country)


def no_vehicle(path: Path, left_out: Iterable[LeftOut] = ()) -> DataError:
    """The refusal of a file in which nothing is a vehicle; ``left_out`` is what else was in it."""
    others = ", ".join(dict.fromkeys(each.why for each in left_out))
    hint = "leave this file out, or check that the format is the right one"
    if any(each.why.startswith("type ") for each in left_out):
        hint += "; a mapping (--format columns) can say which types are vehicles"
    return DataError(
        str(path),
        got=f"no vehicle track (but {others})" if others else "no vehicle track",
        expected="cars, trucks, buses or motorcycles",
        hint=hint,
    )


def no_rate(path: Path, rows: int, vehicles: int) -> DataError:
    """The refusal of a file in whose times nothing moves on."""
    if rows == vehicles:
        return damaged(path, "no vehicle seen twice", "vehicles that move on, or a rate (hz)")
    return DataError(
        str(path),
        got=f"times that stand still in most of {rows} rows of {vehicles} vehicles",
        expected="a time for each row",
        hint="write the times with all their digits, or check which column has them",
    )


def remainder(recording: str, left_out: Iterable[LeftOut] = (), unfit: Iterable[DataError] = ()) -> Drive:
    """A drive without rows: what a reader that yields drives one by one left out, or found unfit."""
    none = np.empty(0)
    return Drive(
        recording,
        1.0,
        none.astype(np.str_),
        none.astype(np.str_),
        dict.fromkeys(NUMBERS, none),
        none.astype(bool),
        left_out=tuple(left_out),
        unfit=tuple(unfit),
    )


def _names(
    path: Path, names: Iterable[object] | pa.DictionaryArray, change: Callable[[str], str] = str
) -> np.ndarray | pa.DictionaryArray:
    """Names as text, each distinct one changed; one long name would make every cell as long."""
    found: np.ndarray | pa.DictionaryArray
    if isinstance(names, pa.DictionaryArray):
        listed = [change(name) for name in names.dictionary.to_pylist()]
        distinct = pa.array(listed, pa.string()).dictionary_encode()
        found = pa.DictionaryArray.from_arrays(distinct.indices.take(names.indices), distinct.dictionary)
        longest = max(map(len, listed), default=0)
    else:
        if not (isinstance(names, np.ndarray) and names.dtype.kind == "U"):
            names = np.array([str(name)[: MAX_NAME + 1] for name in names], dtype=np.str_)
        found = names if change is str else renamed(names, change)
        longest = np.char.str_len(found).max(initial=0) if found.dtype.itemsize > 4 * MAX_NAME else 0
    if longest > MAX_NAME:
        raise DataError(
            f"{path}: names of vehicles and types",
            got="a name that is no name",
            expected=f"at most {MAX_NAME} characters",
            hint="check that the file is whole and of this format",
        )
    return found


def encoded(names: np.ndarray | pa.DictionaryArray) -> pa.DictionaryArray:
    """Names (R,) as the distinct ones and the number of each row's."""
    return names if isinstance(names, pa.DictionaryArray) else pa.array(names).dictionary_encode()


def renamed(names: np.ndarray, change: Callable[[str], str]) -> np.ndarray:
    """Names (R,) as text, each distinct one changed once."""
    encoded = pa.array(names).dictionary_encode()
    changed = np.array([change(name) for name in encoded.dictionary.to_pylist()], np.str_)
    found: np.ndarray = changed[np.asarray(encoded.indices)]
    return found


def _check_rate(path: Path, rates: np.ndarray, time_column: str | None) -> None:
    """Frames a second outside of any recording's mean times in another unit."""
    wrong = rates[~((rates >= RATES[0]) & (rates <= RATES[1]))]
    if not len(wrong):
        return
    rate, hint = float(wrong[0]), "check the times in the file"
    for factor, swap in _SWAPPED_UNITS.items():
        if USUAL_RATES[0] <= rate / factor <= USUAL_RATES[1]:
            size = f"{factor:,.0f} times too small" if factor > 1 else f"{1 / factor:,.0f} times too large"
            hint = f"the times look {size}, as if {swap}: convert them"
    raise DataError(
        f"{path}: {f'column {time_column}' if time_column else 'frames a second'}",
        got=f"{rate:g} frames a second",
        expected=f"{RATES[0]:g} to {RATES[1]:g}",
        hint=hint,
    )


def types_left_out(kinds: Sequence[str] | np.ndarray | pa.Array, owner: object) -> tuple[LeftOut, ...]:
    """Count what is no vehicle by its type.

    Args:
        kinds: (R,) type of each row left out.
        owner: (R,) its track: numbers or text.
    """
    if not len(kinds):
        return ()
    rows = pa.table({"kind": pa.array(kinds), "owner": pa.array(owner)})
    tracks = rows.group_by(["kind", "owner"]).aggregate([([], "count_all")])
    return tracks_left_out(zip(tracks["kind"].to_pylist(), tracks["count_all"].to_pylist(), strict=True))


def tracks_left_out(tracks: Iterable[tuple[object, int]]) -> tuple[LeftOut, ...]:
    """Count what is no vehicle by its type: the type and the rows of each track."""
    rows: dict[str, list[int]] = {}
    for kind, count in tracks:
        rows.setdefault(f"type {str(kind)[:MAX_NAME] or '(empty)'}", []).append(count)
    return tuple(LeftOut(why, sum(counts), len(counts)) for why, counts in rows.items())


def too_large(path: Path, got: str, limit: int) -> DataError:
    """The refusal of a file that would have to be held whole."""
    return DataError(
        str(path), got=got, expected=f"at most {limit}", hint="split the recording into smaller files"
    )


def bare(name: str) -> str:
    """A file's name without the ending of its compression.

    >>> bare("tracks.csv.gz"), bare("tracks.csv")
    ('tracks.csv', 'tracks.csv')
    """
    return next((name.removesuffix(end) for end in (*ENDINGS, *ARCHIVES) if name.endswith(end)), name)


def damaged(path: Path, what: str, expected: str) -> DataError:
    """The refusal of a file that is not what its format says, with what it looks like."""
    looks = recognise(path)
    hint = "check that the file is whole and of this format"
    if looks:
        also = "; if that is the format given, it is incomplete" if "--format" in looks else ""
        hint = f"the file looks like {looks}{also}"
    return DataError(str(path), got=what, expected=expected, hint=hint)


@contextmanager
def optional(what: str, extra: str) -> Iterator[None]:
    """Around imports that ``what`` alone needs: NotReadyError with the extra that brings them."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise NotReadyError(
            what,
            got=f"no module {error.name}",
            expected=f"the extra {extra}",
            hint=install(extra),
        ) from None


def yaw(w: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Heading of unit quaternions, each (R,), counter-clockwise from x, rad; NaN for one of length 0.

    >>> yaw(*np.array([[1.0, 0.5**0.5], [0, 0], [0, 0], [0, 0.5**0.5]])).round(3).tolist()
    [0.0, 1.571]
    """
    length = w * w + x * x + y * y + z * z
    heading: np.ndarray = np.arctan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z)
    return np.where(length > 0, heading, np.nan)


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
