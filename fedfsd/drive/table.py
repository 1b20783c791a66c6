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
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
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
class Table:
    """The rows of one file with what its metadata declare; every task's tables have the columns ``KEYS``."""

    rows: pa.Table
    licence: str
    identity: Identity
    origin: Origin
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

    Raises:
        DataError: nothing there, not Parquet, a column missing or of another type, a vehicle on
            both sides of the split, times too large for float32.
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
        tables = tuple(_read_file(file, schema) for file in files)
        _check_split(pa.concat_tables([each.rows.select(["vehicle", "test"]) for each in tables]), str(path))
        return tables
    if not path.exists():
        raise DataError(
            str(path),
            got="no such file",
            expected="a table or a folder of tables",
            hint='check data.path, or set data.path = "embedded"',
        )
    return (_read_file(path, schema),)


def write(table: Table, path: str | Path, *, schema: pa.Schema = SCHEMA) -> None:
    """Write ``table`` with its metadata, replacing ``path`` only once the bytes are complete."""
    path = Path(path)
    metadata = {
        b"fedfsd.version": b"1",
        b"fedfsd.licence": table.licence.encode(),
        b"fedfsd.identity": table.identity.encode(),
        b"fedfsd.origin": table.origin.encode(),
    }
    if table.left_out:
        left_out = json.dumps([asdict(each) for each in table.left_out])
        metadata |= {b"fedfsd.version": b"2", b"fedfsd.left_out": left_out.encode()}
    part = path.with_name(path.name + ".part")
    rows = conform(table.rows, path.name, schema).replace_schema_metadata(metadata)
    pq.write_table(rows, part, compression="zstd", compression_level=12)
    part.replace(path)


def conform(rows: pa.Table, place: str, schema: pa.Schema = SCHEMA) -> pa.Table:
    """``rows`` with exactly the columns of ``schema`` (optional ones only where given)."""
    names = set(rows.column_names)
    missing = [name for name in schema.names if name not in names and name not in OPTIONAL_COLUMNS]
    if missing:
        raise DataError(
            f"{place}: column {', '.join(missing)}",
            got="missing",
            expected=", ".join(schema.names),
            hint="see fedfsd data import --help",
        )
    columns = {}
    for field in schema:
        if field.name not in names:
            continue
        try:
            columns[field.name] = rows[field.name].cast(field.type).combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(
                f"{place}: column {field.name}",
                got=rows[field.name].type,
                expected=field.type,
                hint="write the column in that type",
            ) from None
        if field.name in ("region", "recording", "vehicle", "test") and columns[field.name].null_count:
            raise DataError(
                f"{place}: column {field.name}",
                got="empty cells",
                expected="a value in each row",
                hint="drop the rows or fill the key",
            )
    table = pa.table(columns)
    _check_split(table, place)
    _check_times(table, place)
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
    return Table(conform(rows, "table"), licence, identity, origin, left_out)


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
    return Table(
        conform(rows, str(path), schema),
        metadata.get("fedfsd.licence", "unstated"),
        identity,
        origin,
        _left_out(path, metadata.get("fedfsd.left_out", "[]")),
    )


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


def _check_split(rows: pa.Table, place: str) -> None:
    """A vehicle on both sides of the split would be trained on and tested on."""
    sides = rows.select(["vehicle", "test"]).group_by("vehicle").aggregate([("test", "min"), ("test", "max")])
    split = pc.sum(pc.not_equal(sides["test_min"], sides["test_max"])).as_py()
    if split:
        raise DataError(
            f"{place}: column test",
            got=f"{split} vehicles on both sides",
            expected="one value per vehicle",
            hint="split by vehicle key",
        )


def _check_times(rows: pa.Table, place: str) -> None:
    """Times of the day or of the epoch are too coarse in float32: several samples share one time."""
    if not {"t", "hz"} <= set(rows.column_names) or not rows.num_rows:
        return
    t, hz = (rows[name].to_numpy() for name in ("t", "hz"))
    with np.errstate(invalid="ignore", over="ignore"):
        coarse = np.count_nonzero(np.spacing(np.abs(t)) * hz > MAX_TIME_STEP)
    if coarse:
        raise DataError(
            f"{place}: column t",
            got=f"times in {coarse} of {len(t)} rows too large for float32 to tell samples apart",
            expected="seconds since the recording's start",
            hint="subtract each recording's first time in float64, then write the table again",
        )
