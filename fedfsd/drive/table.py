"""The one table format for drives: Parquet, a row per track point, facts about the source in its metadata.

Required columns (nullable only where said):

| column | type | unit, meaning |
|---|---|---|
| region | string | jurisdiction, e.g. CN |
| source | string | data set the row comes from |
| recording | string | drive, scene or scenario; ``t`` restarts there |
| vehicle | string | the privacy unit: one key for everything recorded about one vehicle |
| type | string | car, truck, bus, ... as in the source |
| t | float | s since the recording's start |
| x, y | float | m, local metric plane of the recording |
| vx, vy | float | m/s; NaN where unknown |
| heading | float | rad, counter-clockwise from x; NaN where unknown |
| length, width | float | m; NaN where unknown |
| hz | float | sampling rate of the row's track |
| test | bool | split by vehicle: one value per vehicle |

``country`` and ``city`` are optional strings. Metadata keys: ``fedfsd.version``, ``fedfsd.licence``,
``fedfsd.identity`` (physical | recording), ``fedfsd.origin`` (recorded | published | synthetic).
A table without them is read as the most careful values: licence unstated, identity recording,
origin recorded. ``fedfsd.left_out`` (version 2) counts what the import did not take over: a JSON list of
objects with ``why``, ``rows``, ``vehicles`` and ``files``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedfsd import formats
from fedfsd.errors import DataError

Identity = Literal["physical", "recording"]
Origin = Literal["recorded", "published", "synthetic"]

TEXT_COLUMNS = ("region", "source", "recording", "vehicle", "type")
NUMBER_COLUMNS = ("t", "x", "y", "vx", "vy", "heading", "length", "width", "hz")
OPTIONAL_COLUMNS = ("country", "city")
KEYS = pa.schema([("region", pa.string()), ("vehicle", pa.string()), ("test", pa.bool_())])
"""The columns that the tables of every task have."""
SCHEMA = pa.schema(
    [(name, pa.string()) for name in TEXT_COLUMNS]
    + [(name, pa.float32()) for name in NUMBER_COLUMNS]
    + [("test", pa.bool_())]
    + [(name, pa.string()) for name in OPTIONAL_COLUMNS]
)
# A step of float32 times this large against the sampling period: samples of a track fall together.
MAX_TIME_STEP = 0.5


@dataclass(frozen=True)
class LeftOut:
    """What an import did not take over, by its reason: ``type suv``, ``repeated row``, an unfit file."""

    why: str
    rows: int
    vehicles: int
    files: int = 0


@dataclass(frozen=True)
class Fault:
    """What was left out of a file on reading, as nobody can tell what it means: no row is a reason to stop.

    Whether a row is left out depends on the rows of its own vehicle alone, so what is read of a vehicle never
    depends on another one.
    """

    name: str
    column: str
    count: int
    unit: Literal["rows", "vehicles"]
    got: str
    expected: str
    hint: str


@dataclass(frozen=True)
class Table:
    """The rows of one file with what its metadata declare; every task's tables have the columns ``KEYS``."""

    rows: pa.Table
    licence: str
    identity: Identity
    origin: Origin
    name: str = ""
    """Of the file it was read from."""
    faults: tuple[Fault, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def text(self, column: str) -> np.ndarray:
        """A text column as an object array, (rows,)."""
        return self._column(column)

    def number(self, column: str) -> np.ndarray:
        """A number column as float64, (rows,)."""
        return self._column(column).astype(np.float64)

    @property
    def test(self) -> np.ndarray:
        """Whether the row's vehicle is a test vehicle, (rows,) bool."""
        return self._column("test")

    def _column(self, name: str) -> np.ndarray:
        values: np.ndarray = self.rows[name].to_numpy(zero_copy_only=False)
        return values

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that occur, sorted."""
        return tuple(sorted(pc.unique(self.rows["region"]).to_pylist()))


def split_is_test(vehicle: str) -> bool:
    """The fixed split: three vehicles in ten, by CRC-32 of the key."""
    from zlib import crc32

    return crc32(vehicle.encode()) % 10 < 3


def read(path: str | Path, *, schema: pa.Schema = SCHEMA) -> tuple[Table, ...]:
    """Read one table, or every ``*.parquet`` of a folder in name order.

    Args:
        schema: the columns, ``KEYS`` among them; another task than forecasting has columns of its own.

    What a file is can stop the reading; what its rows hold cannot: what is unusable in them is left out and
    told as ``faults``. ``demand_sound`` refuses it where people can still be asked.

    Raises:
        DataError: nothing there, not Parquet, a column missing or of another type.
        FormatError: a newer release's table.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise DataError(
                str(path),
                got="no *.parquet file",
                expected="at least one table",
                hint="point data.path at a table or at a folder of tables",
            )
        return _on_one_side([_read_file(file, schema) for file in files])
    if not path.exists():
        raise DataError(
            str(path),
            got="no such file",
            expected="a table or a folder of tables",
            hint='check data.path, or set data.path = "embedded"',
        )
    return _on_one_side([_read_file(path, schema)])


def demand_sound(tables: Iterable[Table]) -> None:
    """DataError for the first file that has no row, or of which something was left out."""
    for one in tables:
        for fault in one.faults:
            raise _error(fault, one.name)
        if not one.rows.num_rows:
            raise DataError(
                one.name or "table",
                got="no row",
                expected="at least one track point",
                hint="take the file away, or import its recordings again",
            )


def write(table: Table, path: str | Path, *, schema: pa.Schema = SCHEMA) -> None:
    """Write ``table`` with its metadata, replacing ``path`` only once the bytes are complete."""
    write_parts([conform(table.rows, Path(path).name, schema)], table, path)


def write_parts(parts: Iterable[pa.Table], facts: Table, path: str | Path) -> None:
    """Write rows that conform part by part, each in row groups of its own, with the metadata of ``facts``.

    What is held is one part. ``path`` is replaced only once the bytes are complete; an error leaves nothing.
    """
    path = Path(path)
    metadata = {
        b"fedfsd.version": b"1",
        b"fedfsd.licence": facts.licence.encode(),
        b"fedfsd.identity": facts.identity.encode(),
        b"fedfsd.origin": facts.origin.encode(),
    }
    if facts.left_out:
        left_out = json.dumps([asdict(each) for each in facts.left_out])
        metadata |= {b"fedfsd.version": b"2", b"fedfsd.left_out": left_out.encode()}
    unfinished = path.with_name(path.name + ".part")
    try:
        with ExitStack() as stack:
            writer = None
            for part in parts:
                rows = part.replace_schema_metadata(metadata)
                writer = writer or stack.enter_context(
                    pq.ParquetWriter(unfinished, rows.schema, compression="zstd", compression_level=12)
                )
                writer.write_table(rows)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def conform(rows: pa.Table, place: str, schema: pa.Schema = SCHEMA) -> pa.Table:
    """``rows`` with exactly the columns of ``schema`` (optional ones only where given).

    Raises:
        DataError: a column missing, of another type, or with values that nobody can use.
    """
    table, faults = _sifted(rows, place, schema)
    for fault in (*faults, *_two_sided(table)[1]):
        raise _error(fault, place)
    return table


def of_rows(
    columns: dict[str, object],
    *,
    licence: str,
    identity: Identity,
    origin: Origin,
    left_out: tuple[LeftOut, ...] = (),
) -> Table:
    """A table from columns by name (arrays or lists); ``test`` defaults to the fixed split."""
    rows = pa.table(columns)
    if "test" not in rows.column_names:
        keys = rows["vehicle"].combine_chunks().dictionary_encode()
        sides = pa.array([split_is_test(key) for key in keys.dictionary.to_pylist()], pa.bool_())
        rows = rows.append_column("test", sides.take(keys.indices))
    return Table(conform(rows, "table"), licence, identity, origin, left_out=left_out)


def digest(tables: Iterable[Table]) -> str:
    """Hex SHA-256 of all rows, column by column; for a salted commitment, never written as it is."""
    found = hashlib.sha256()
    for table in tables:
        for column in table.rows.columns:
            if pa.types.is_string(column.type):
                for value in column.to_pylist():
                    found.update(f"{value}\n".encode())
            elif pa.types.is_primitive(column.type):
                found.update(column.to_numpy(zero_copy_only=False).tobytes())
            else:
                for value in column.to_pylist():
                    found.update(hashlib.sha256(repr(value).encode()).digest())
    return found.hexdigest()


def in_region(tables: Iterable[Table], region: str) -> tuple[Table, ...]:
    """The tables' rows of one region; tables without any are left out."""
    parts = []
    for table in tables:
        rows = table.rows.filter(pc.equal(table.rows["region"], region))
        if rows.num_rows:
            parts.append(replace(table, rows=rows))
    return tuple(parts)


def _read_file(path: Path, schema: pa.Schema) -> Table:
    try:
        rows = pq.read_table(path)
    except (pa.ArrowInvalid, OSError):
        raise DataError(
            str(path),
            got="not a readable Parquet file",
            expected="a table of drives",
            hint="make one with fedfsd data import or fedfsd data generate",
        ) from None
    raw = rows.schema.metadata or {}
    metadata = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in raw.items()}
    version = metadata.get("fedfsd.version", "1")
    if not re.fullmatch("[0-9]{1,9}", version):
        raise DataError(
            f"{path}: fedfsd.version",
            got=version[:20],
            expected="a whole number",
            hint="write the table again with the right metadata",
        )
    formats.demand("table", int(version), place=f"{path}: fedfsd.version")
    identity = metadata.get("fedfsd.identity", "recording")
    origin = metadata.get("fedfsd.origin", "recorded")
    for key, value, known in (("identity", identity, Identity), ("origin", origin, Origin)):
        if value not in get_args(known):
            raise DataError(
                f"{path}: fedfsd.{key}",
                got=value[:40],
                expected=" | ".join(get_args(known)),
                hint="write the table again with the right metadata",
            )
    sifted, faults = _sifted(rows, str(path), schema)
    licence = metadata.get("fedfsd.licence", "unstated")
    left_out = _left_out(path, metadata.get("fedfsd.left_out", "[]"))
    return Table(sifted, licence, identity, origin, str(path), faults, left_out)


def _left_out(path: Path, text: str) -> tuple[LeftOut, ...]:
    """The counts in the metadata."""
    try:
        listed = json.loads(text)
        found = [LeftOut(each["why"], each["rows"], each["vehicles"], each["files"]) for each in listed]
    except (ValueError, TypeError, KeyError, RecursionError):
        listed, found = None, []
    if type(listed) is not list or not all(
        type(each.why) is str and all(type(n) is int for n in (each.rows, each.vehicles, each.files))
        for each in found
    ):
        raise DataError(
            f"{path}: fedfsd.left_out",
            got="something else",
            expected="a JSON list of objects with why, rows, vehicles and files",
            hint="write the table again with the right metadata",
        )
    return tuple(found)


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


def _error(fault: Fault, place: str) -> DataError:
    return DataError(
        f"{place}: column {fault.column}", got=fault.got, expected=fault.expected, hint=fault.hint
    )
