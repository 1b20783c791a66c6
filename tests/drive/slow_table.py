"""Tables read whole, in the plainest way: what reading them a piece at a time must equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedfsd.drive.sieve import MAX_TIME_STEP, OPTIONAL_COLUMNS, Fault
from fedfsd.drive.table import SCHEMA, Table
from fedfsd.errors import DataError


def read(folder: Path) -> tuple[Table, ...]:
    """Every table of a folder; what they declare is left aside."""
    found = []
    for path in sorted(folder.glob("*.parquet")):
        rows, faults = _sifted(pq.read_table(path), str(path), SCHEMA)
        found.append(Table(rows, "", "recording", "recorded", str(path), faults))
    return _on_one_side(found)


def _sifted(rows: pa.Table, place: str, schema: pa.Schema) -> tuple[pa.Table, tuple[Fault, ...]]:
    """The columns of ``schema`` without the rows that have no key; values that do not fit are empty.

    Raises:
        DataError: a column missing, or of a type that no value could be read from.
    """
    names = set(rows.column_names)
    missing = [name for name in schema.names if name not in names and name not in OPTIONAL_COLUMNS]
    if missing:
        raise DataError(
            f"{place}: column {', '.join(missing)}",
            got="missing",
            expected=", ".join(schema.names),
            hint="see fedfsd data import --help",
        )
    columns, faults = {}, []
    for field in schema:
        if field.name not in names:
            continue
        given = rows[field.name]
        try:
            columns[field.name], unfit = _fitting(given, field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(
                f"{place}: column {field.name}",
                got=given.type,
                expected=field.type,
                hint="write the column in that type",
            ) from None
        if unfit:
            got, wanted = f"{unfit} values of type {given.type} that do not fit", str(field.type)
            hint = "write the column in that type"
            faults.append(Fault("unfit-value", field.name, unfit, "rows", got, wanted, hint))
    table = pa.table(columns)
    keyed = [name for name in ("region", "recording", "vehicle", "test") if name in columns]
    for name in keyed:
        if empty := table[name].null_count:
            hint = "drop the rows or fill the key"
            faults.append(Fault("no-key", name, empty, "rows", "empty cells", "a value in each row", hint))
    if any(table[name].null_count for name in keyed):
        table = table.filter(reduce(pc.and_, (pc.is_valid(table[name]) for name in keyed)))
    coarse = _coarse(table)
    if coarse.any():
        table = table.filter(pa.array(~coarse))
        got = f"times in {coarse.sum()} of {len(coarse)} rows too large for float32 to tell samples apart"
        wanted = "seconds since the recording's start"
        hint = "subtract each recording's first time in float64, then write the table again"
        faults.append(Fault("coarse-time", "t", int(coarse.sum()), "rows", got, wanted, hint))
    return table, tuple(faults)


def _coarse(table: pa.Table) -> np.ndarray:
    """Rows with times of the day or of the epoch, at which several samples have one float32, (rows,) bool."""
    if not {"t", "hz"} <= set(table.column_names):
        return np.zeros(table.num_rows, bool)
    t, hz = (np.asarray(table[name].to_numpy(), np.float32) for name in ("t", "hz"))
    with np.errstate(invalid="ignore", over="ignore"):
        coarse: np.ndarray = np.spacing(np.abs(t)) * hz > MAX_TIME_STEP
    return coarse


def _fitting(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.Array, int]:
    """A column as ``kind``, and how many of its values became empty because they cannot be that.

    Raises:
        pa.ArrowNotImplementedError: no value of the column's type can be.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    numbers = _is_number(column.type) and _is_number(kind)
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


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _on_one_side(tables: Sequence[Table]) -> tuple[Table, ...]:
    """The tables without the vehicles that are on both sides of the split in all of them together."""
    keys = pa.concat_tables([each.rows.select(["vehicle", "test"]) for each in tables])
    both, fault = _two_sided(keys)
    if not fault:
        return tuple(tables)
    found = []
    for each in tables:
        theirs = pc.is_in(each.rows["vehicle"], value_set=both)
        here = len(pc.unique(each.rows["vehicle"].filter(theirs)))
        faults = (*each.faults, *((_split_fault(here),) if here else ()))
        found.append(replace(each, rows=each.rows.filter(pc.invert(theirs)), faults=faults))
    return tuple(found)


def _two_sided(rows: pa.Table) -> tuple[pa.Array, tuple[Fault, ...]]:
    """The vehicles on both sides of the split, which would be trained on and tested on."""
    sides = rows.select(["vehicle", "test"]).group_by("vehicle").aggregate([("test", "min"), ("test", "max")])
    both = sides["vehicle"].filter(pc.not_equal(sides["test_min"], sides["test_max"])).combine_chunks()
    return both, ((_split_fault(len(both)),) if len(both) else ())


def _split_fault(count: int) -> Fault:
    return Fault(
        "both-sides",
        "test",
        count,
        "vehicles",
        f"{count} vehicles on both sides",
        "one value per vehicle",
        "split by vehicle key",
    )
