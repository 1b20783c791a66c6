"""What of a file's rows anybody can use: the rest is left out by its own vehicle's rows alone, and counted.

A file is sifted a piece at a time; each row is judged by itself, so the pieces make no difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedfsd.errors import DataError

KEYED = ("region", "recording", "vehicle", "test")
OPTIONAL_COLUMNS = ("country", "city")
# A step of float32 times this large against the sampling period: samples of a track fall together.
MAX_TIME_STEP = 0.5


@dataclass(frozen=True)
class Fault:
    """What was left out of a file on reading, as nobody can tell what it means: no row is a reason to stop.

    Whether a row is left out depends on the rows of its own vehicle alone, so what is read of a vehicle never
    depends on another one.
    """

    name: Literal["both-sides", "coarse-time", "no-key", "unfit-value"]
    column: str
    count: int
    unit: Literal["rows", "vehicles"]
    got: str
    expected: str
    hint: str


def split_fault(count: int) -> Fault:
    """Vehicles on both sides of the split, which would be trained on and tested on."""
    got, hint = f"{count} vehicles on both sides", "split by vehicle key"
    return Fault("both-sides", "test", count, "vehicles", got, "one value per vehicle", hint)


@dataclass
class Sieve:
    """Sifts the pieces of one file, and counts what is left out.

    Raises:
        DataError: a column missing.
    """

    place: str
    schema: pa.Schema
    given: pa.Schema
    """As the file has them."""
    unfit: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    coarse: int = 0
    keyed: int = 0
    """Rows with a key."""

    def __post_init__(self) -> None:
        missing = [
            name
            for name in self.schema.names
            if name not in self.given.names and name not in OPTIONAL_COLUMNS
        ]
        if missing:
            raise DataError(
                f"{self.place}: column {', '.join(missing)}",
                got="missing",
                expected=", ".join(self.schema.names),
                hint="see fedfsd data import --help",
            )

    @property
    def columns(self) -> list[str]:
        """Those of the schema that the file has, in the schema's order."""
        return [name for name in self.schema.names if name in self.given.names]

    @property
    def judged(self) -> list[str]:
        """The columns that have to be looked at to know what is left out: a number that is one fits."""
        return [
            name
            for name in self.columns
            if name in (*KEYED, "t", "hz")
            or not (is_number(self.given.field(name).type) and is_number(self.schema.field(name).type))
        ]

    def fitted(self, piece: pa.Table, columns: Sequence[str]) -> tuple[pa.Table, Counter[str]]:
        """Columns in the schema's types, text as a dictionary where it came as one; how many cells emptied.

        Raises:
            DataError: a column of a type that no value could be read from.
        """
        found, unfit = {}, Counter[str]()
        for name in columns:
            try:
                found[name], unfit[name] = _fitting(piece[name], self.schema.field(name).type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise DataError(
                    f"{self.place}: column {name}",
                    got=self.given.field(name).type,
                    expected=self.schema.field(name).type,
                    hint="write the column in that type",
                ) from None
        return pa.table(found), unfit

    def sift(self, piece: pa.Table) -> tuple[pa.Table, np.ndarray | None]:
        """A piece with at least the columns ``judged``: what is left of it, and which rows those were, None
        where all are."""
        rows, unfit = self.fitted(piece, [name for name in self.columns if name in piece.column_names])
        self.unfit += unfit
        keyed = [name for name in KEYED if name in rows.column_names]
        kept = None
        self.empty += Counter({name: rows[name].null_count for name in keyed})
        if any(rows[name].null_count for name in keyed):
            kept = reduce(np.logical_and, (pc.is_valid(rows[name]).to_numpy() for name in keyed))
            rows = rows.filter(pa.array(kept))
        self.keyed += rows.num_rows
        coarse = _coarse(rows)
        if coarse.any():
            rows = rows.filter(pa.array(~coarse))
            self.coarse += int(coarse.sum())
            kept = np.ones(len(coarse), bool) if kept is None else kept
            kept[np.flatnonzero(kept)] = ~coarse
        return rows, kept

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What was left out so far."""
        found = []
        for name in self.columns:
            if count := self.unfit[name]:
                got = f"{count} values of type {self.given.field(name).type} that do not fit"
                hint = "write the column in that type"
                expected = str(self.schema.field(name).type)
                found.append(Fault("unfit-value", name, count, "rows", got, expected, hint))
        for name in KEYED:
            if count := self.empty[name]:
                hint = "drop the rows or fill the key"
                found.append(Fault("no-key", name, count, "rows", "empty cells", "a value in each row", hint))
        if self.coarse:
            got = f"times in {self.coarse} of {self.keyed} rows too large for float32 to tell samples apart"
            expected = "seconds since the recording's start"
            hint = "subtract each recording's first time in float64, then write the table again"
            found.append(Fault("coarse-time", "t", self.coarse, "rows", got, expected, hint))
        return tuple(found)


def _coarse(rows: pa.Table) -> np.ndarray:
    """Rows with times of the day or of the epoch, at which several samples have one float32, (rows,) bool."""
    if not {"t", "hz"} <= set(rows.column_names):
        return np.zeros(rows.num_rows, bool)
    t, hz = (np.asarray(rows[name].to_numpy(), np.float32) for name in ("t", "hz"))
    with np.errstate(invalid="ignore", over="ignore"):
        coarse: np.ndarray = np.spacing(np.abs(t)) * hz > MAX_TIME_STEP
    return coarse


def _fitting(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.Array, int]:
    """A column as ``kind``, and how many of its values became empty because they cannot be that.

    Raises:
        pa.ArrowNotImplementedError: no value of the column's type can be.
    """
    if pa.types.is_dictionary(column.type):
        if column.type.value_type == kind and _sound(column):
            return column, 0
        column = column.cast(column.type.value_type)
    numbers = is_number(column.type) and is_number(kind)
    try:
        # Not safe: whether a whole number is too long for a float must not decide about the file.
        found = column.cast(kind, safe=not numbers).combine_chunks()
        found.validate(full=True)  # text that is not UTF-8
        return found, 0
    except pa.ArrowInvalid:
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        values = (column.cast(pa.binary()) if text else column).to_pylist()
        found = pa.array([_fitted(value, kind) for value in values], kind)
        return found, found.null_count - column.null_count


def _fitted(value: object, kind: pa.DataType) -> object:
    """One value as ``kind``; None where it cannot be."""
    try:
        plain = value.decode() if isinstance(value, bytes) else value
        return None if plain is None else pa.scalar(plain).cast(kind).as_py()
    except (UnicodeDecodeError, pa.ArrowException):
        return None


def _sound(column: pa.ChunkedArray) -> bool:
    """Whether each text of a dictionary is UTF-8."""
    try:
        for chunk in column.chunks:
            chunk.dictionary.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def is_number(kind: pa.DataType) -> bool:
    """Whether any value of this type can be any number type's."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
