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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedfsd.drive.sieve import OPTIONAL_COLUMNS, Fault, Sieve, split_fault
from fedfsd.drive.stored import PIECE, Identity, LeftOut, Origin, Stored, plain, stored
from fedfsd.errors import DataError

__all__ = ["OPTIONAL_COLUMNS", "Fault", "Identity", "LeftOut", "Origin"]

TEXT_COLUMNS = ("region", "source", "recording", "vehicle", "type")
NUMBER_COLUMNS = ("t", "x", "y", "vx", "vy", "heading", "length", "width", "hz")
KEYS = pa.schema([("region", pa.string()), ("vehicle", pa.string()), ("test", pa.bool_())])
"""The columns that the tables of every task have."""
SCHEMA = pa.schema(
    [(name, pa.string()) for name in TEXT_COLUMNS]
    + [(name, pa.float32()) for name in NUMBER_COLUMNS]
    + [("test", pa.bool_())]
    + [(name, pa.string()) for name in OPTIONAL_COLUMNS]
)


@dataclass(frozen=True)
class Coded:
    """A text column without a Python object a row."""

    codes: np.ndarray
    """(rows,) int32, indices into ``names``."""
    names: list[str]
    """Each once, by first row; some may be of no row."""

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Coded:
        """Raises ValueError for empty cells."""
        if column.null_count:
            raise ValueError("a key without a value")
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        chunks = column.unify_dictionaries().chunks
        if not chunks:
            return cls(np.empty(0, np.int32), [])
        codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
        return cls(codes, chunks[0].dictionary.to_pylist())

    @property
    def ranks(self) -> np.ndarray:
        """The place of each name in their order, (names,) int64."""
        found = np.empty(len(self.names), np.int64)
        found[sorted(range(len(self.names)), key=self.names.__getitem__)] = np.arange(len(self.names))
        return found


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

    def floats(self, column: str) -> np.ndarray:
        """A number column as it is stored, (rows,)."""
        return self._column(column)

    def coded(self, column: str) -> Coded:
        """A text column as numbers."""
        return Coded.of(self.rows[column])

    def among(self, column: str, names: Iterable[str]) -> np.ndarray:
        """Which rows have one of some texts in a column, (rows,) bool."""
        found, wanted = self.coded(column), set(names)
        chosen: np.ndarray = np.array([name in wanted for name in found.names], bool)[found.codes]
        return chosen

    @property
    def test(self) -> np.ndarray:
        """Whether the row's vehicle is a test vehicle, (rows,) bool."""
        return self._column("test")

    def _column(self, name: str) -> np.ndarray:
        values: np.ndarray = self.rows[name].to_numpy(zero_copy_only=False)
        return values

    @property
    def num_rows(self) -> int:
        """How many there are."""
        return int(self.rows.num_rows)

    @property
    def pieces(self) -> range:
        """Numbers of pieces of the rows, for who works on one at a time, as on a ``Stored``."""
        return range(-(-self.num_rows // PIECE))

    def read(self, pieces: Sequence[int], *, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some pieces one after the other, of ``columns`` those that are there."""
        wanted = [name for name in self.rows.column_names if name in columns]
        for piece in pieces:
            yield self.rows.slice(piece * PIECE, PIECE).select(wanted)

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
        DataError: nothing there, not Parquet, a column missing or of another type, or too large for memory.
        FormatError: a newer release's table.
    """
    found = stored(Path(path), schema)
    for one in found:
        one.demand_room()
    return tuple(loaded(one) for one in found)


def loaded(one: Stored, *, region: str | None = None, columns: Sequence[str] | None = None) -> Table:
    """The table of a file in memory, or its rows of one region, or some of its columns with text as
    dictionaries."""
    rows = one.rows(region=region, columns=columns)
    return Table(rows, one.licence, one.identity, one.origin, one.name, one.faults, one.left_out)


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
                writer.write_table(rows, row_group_size=PIECE)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def conform(rows: pa.Table, place: str, schema: pa.Schema = SCHEMA) -> pa.Table:
    """``rows`` with exactly the columns of ``schema`` (optional ones only where given).

    Raises:
        DataError: a column missing, of another type, or with values that nobody can use.
    """
    sieve = Sieve(place, schema, rows.schema)
    table = plain(sieve.sift(rows)[0], schema)
    for fault in (*sieve.faults, *_two_sided(table)[1]):
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
                for chunk in column.chunks:
                    found.update(_lines(chunk))
            elif pa.types.is_primitive(column.type):
                found.update(column.to_numpy(zero_copy_only=False).tobytes())
            else:
                for value in column:  # one at a time: pictures may be many
                    found.update(hashlib.sha256(repr(value.as_py()).encode()).digest())
    return found.hexdigest()


def _lines(texts: pa.StringArray) -> memoryview:
    """The UTF-8 bytes of texts, a line each; an empty cell is None in letters."""
    wide = texts.cast(pa.large_string()).fill_null("None")  # of any length together
    lines = pc.binary_join_element_wise(
        wide, pa.scalar("", pa.large_string()), pa.scalar("\n", pa.large_string())
    )
    _, offsets, content = lines.buffers()
    ends = np.frombuffer(offsets, np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(content)[ends[0] : ends[-1]] if len(lines) else memoryview(b"")


def vehicles(tables: Iterable[Table], *, test: bool) -> tuple[str, ...]:
    """The keys of the test (or training) vehicles, sorted."""
    found: set[str] = set()
    for table in tables:
        vehicle = table.coded("vehicle")
        count = np.bincount(vehicle.codes[table.test == test], minlength=len(vehicle.names))
        found.update(vehicle.names[code] for code in np.flatnonzero(count))
    return tuple(sorted(found))


def in_region(tables: Iterable[Table], region: str) -> tuple[Table, ...]:
    """The tables' rows of one region; tables without any are left out."""
    parts = []
    for table in tables:
        mine = table.among("region", (region,))
        if mine.any():  # where all are, nothing is copied
            parts.append(table if mine.all() else replace(table, rows=table.rows.filter(pa.array(mine))))
    return tuple(parts)


def _two_sided(rows: pa.Table) -> tuple[pa.Array, tuple[Fault, ...]]:
    """The vehicles on both sides of the split, which would be trained on and tested on."""
    sides = rows.select(["vehicle", "test"]).group_by("vehicle").aggregate([("test", "min"), ("test", "max")])
    both = sides["vehicle"].filter(pc.not_equal(sides["test_min"], sides["test_max"])).combine_chunks()
    return both, ((split_fault(len(both)),) if len(both) else ())


def _error(fault: Fault, place: str) -> DataError:
    return DataError(
        f"{place}: column {fault.column}", got=fault.got, expected=fault.expected, hint=fault.hint
    )
