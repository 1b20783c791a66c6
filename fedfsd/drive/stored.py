"""Tables as files whose rows are read where they are needed: a piece, a region, some columns.

What a table holds is known after one look at its keys (``stored``), a piece at a time. Nothing of its size
stays in memory, but a byte a row of the pieces of which something was left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedfsd import formats
from fedfsd.drive.sieve import Fault, Sieve, split_fault
from fedfsd.errors import DataError
from fedfsd.service import memory

Identity = Literal["physical", "recording"]
Origin = Literal["recorded", "published", "synthetic"]
PIECE = 2**17  # rows
_TEXT_BYTES, _NUMBER_BYTES = 20, 4  # of a cell in memory, about


@dataclass(frozen=True)
class LeftOut:
    """What an import did not take over, by its reason: ``type suv``, ``repeated row``, an unfit file."""

    why: str
    rows: int
    vehicles: int
    files: int = 0


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of a file, by row group and the place in it."""

    group: int
    start: int
    length: int
    regions: frozenset[str]
    kept: np.ndarray | None
    """(length,) bool, what is left; None: all of it."""

    @property
    def num_rows(self) -> int:
        """How many rows are left."""
        return self.length if self.kept is None else int(self.kept.sum())


@dataclass(frozen=True)
class Stored:
    """One file with what its metadata declare, as ``table.Table``; its rows stay where they are."""

    name: str
    schema: pa.Schema
    licence: str
    identity: Identity
    origin: Origin
    faults: tuple[Fault, ...]
    left_out: tuple[LeftOut, ...]
    pieces: tuple[Piece, ...]

    @property
    def num_rows(self) -> int:
        """How many rows are left of all pieces."""
        return sum(piece.num_rows for piece in self.pieces)

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that occur, sorted."""
        return tuple(sorted({name for piece in self.pieces for name in piece.regions}))

    def rows(self, *, region: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows in the file's order, of one region or of all.

        Args:
            columns: only these, as far as the file has them, with text as dictionaries.
        """
        mine = [place for place, one in enumerate(self.pieces) if region is None or region in one.regions]
        parts = list(self.read(mine, region=region, columns=columns))
        if parts:
            return pa.concat_tables(parts)
        with _opened(Path(self.name), self.schema) as (_, sieve):
            wanted = [name for name in sieve.columns if columns is None or name in columns]
        return pa.schema([self.schema.field(name) for name in wanted]).empty_table()

    def demand_room(self) -> None:
        """DataError for more rows than this machine has memory for, which would end the process."""
        text = [pa.types.is_string(column.type) for column in self.schema]
        size = self.num_rows * sum(_TEXT_BYTES if one else _NUMBER_BYTES for one in text)
        there = memory.free()
        if size > there:
            raise DataError(
                self.name,
                got=f"{self.num_rows} rows, about {size / 1e9:.1f} GB in memory",
                expected=f"at most the {there / 1e9:.1f} GB that are free",
                hint="split the table by region or by time, or use a machine with more memory",
            )

    def read(
        self, pieces: Sequence[int], *, region: str | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """What is left of some pieces, ascending, one after the other; see ``rows``."""
        with _opened(Path(self.name), self.schema) as (file, sieve):
            wanted = [name for name in sieve.columns if columns is None or name in columns]
            needed = [*wanted, *(["region"] if region is not None and "region" not in wanted else [])]
            for batch, piece in self._batches(file, needed, pieces):
                rows, _ = sieve.fitted(batch, needed)
                if piece.kept is not None:
                    rows = rows.filter(pa.array(piece.kept))
                if region is not None and piece.regions != {region}:
                    rows = rows.filter(pc.equal(rows["region"], region))
                rows = rows.select(wanted)
                yield rows if columns is not None else plain(rows, self.schema)

    def _batches(
        self, file: pq.ParquetFile, columns: Sequence[str], pieces: Sequence[int]
    ) -> Iterator[tuple[pa.Table, Piece]]:
        """The rows of some pieces as they are in the file."""
        wanted = [self.pieces[number] for number in pieces]
        for group, theirs in groupby(wanted, key=lambda piece: piece.group):
            starts = {piece.start: piece for piece in theirs}
            for start, batch in _batches(file, group, columns):
                if start in starts:
                    yield batch, starts.pop(start)
                if not starts:
                    break


def plain(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """``rows`` in the types of ``schema``: text that was a dictionary is text again."""
    return rows.cast(pa.schema([schema.field(name) for name in rows.column_names]))


def stored(path: Path, schema: pa.Schema) -> tuple[Stored, ...]:
    """One table, or every ``*.parquet`` of a folder in name order, without the vehicles on both sides of the
    split in all of them together.

    Raises:
        DataError: nothing there, not Parquet, a column missing or of another type.
        FormatError: a newer release's table.
    """
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise DataError(
                str(path),
                got="no *.parquet file",
                expected="at least one table",
                hint="point data.path at a table or at a folder of tables",
            )
    elif path.exists():
        files = [path]
    else:
        raise DataError(
            str(path),
            got="no such file",
            expected="a table or a folder of tables",
            hint='check data.path, or set data.path = "embedded"',
        )
    looked = [_look(file, schema) for file in files]
    training, test = (set().union(*(sides[side] for _, sides in looked)) for side in (False, True))
    both = training & test
    return (
        tuple(_on_one_side(one, both, sides) for one, sides in looked)
        if both
        else tuple(o for o, _ in looked)
    )


Sides = dict[bool, set[str]]
"""The keys of training (False) and test vehicles."""


def _look(path: Path, schema: pa.Schema) -> tuple[Stored, Sides]:
    """What a file is, and its vehicles on either side of the split."""
    with _opened(path, schema) as (file, sieve):
        raw = file.schema_arrow.metadata or {}
        facts = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in raw.items()}
        identity, origin = _declared(path, facts)
        sieve.sift(file.schema_arrow.empty_table())  # a column's type is wrong in a file without a row, too
        pieces, sides = [], {False: set[str](), True: set[str]()}
        for group in range(file.num_row_groups):
            for start, batch in _batches(file, group, sieve.judged):
                rows, kept = sieve.sift(batch)
                regions = frozenset(pc.unique(rows["region"]).to_pylist())
                pieces.append(Piece(group, start, batch.num_rows, regions, kept))
                for side, keys in sides.items():
                    theirs = rows["vehicle"].filter(pc.equal(rows["test"], side))
                    keys.update(pc.unique(theirs).to_pylist())
    licence = facts.get("fedfsd.licence", "unstated")
    left_out = _left_out(path, facts.get("fedfsd.left_out", "[]"))
    found = Stored(str(path), schema, licence, identity, origin, sieve.faults, left_out, tuple(pieces))
    return found, sides


def _on_one_side(one: Stored, both: set[str], sides: Sides) -> Stored:
    """Without the vehicles that are on both sides, here or in another file."""
    here = both & (sides[False] | sides[True])
    if not here:
        return one
    pieces = []
    keys = pa.array(sorted(here), pa.string())
    for number, piece in enumerate(one.pieces):
        (rows,) = one.read([number], columns=("region", "vehicle"))
        theirs = pc.is_in(rows["vehicle"], value_set=keys).to_numpy()
        if theirs.any():
            kept = np.ones(piece.length, bool) if piece.kept is None else piece.kept.copy()
            kept[np.flatnonzero(kept)] = ~theirs
            regions = frozenset(pc.unique(rows["region"].filter(pa.array(~theirs))).to_pylist())
            piece = replace(piece, kept=kept, regions=regions)
        pieces.append(piece)
    return replace(one, pieces=tuple(pieces), faults=(*one.faults, split_fault(len(here))))


@contextmanager
def _opened(path: Path, schema: pa.Schema) -> Iterator[tuple[pq.ParquetFile, Sieve]]:
    """A Parquet file whose text comes as dictionaries, and its sieve; whatever is unreadable is one error."""
    try:
        with pq.ParquetFile(path) as file:
            given, metadata = file.schema_arrow, file.metadata
        texts = [field.name for field in given if pa.types.is_string(field.type)]
        with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts) as file:
            yield file, Sieve(str(path), schema, given)
    except (pa.ArrowInvalid, OSError):
        raise DataError(
            str(path),
            got="not a readable Parquet file",
            expected="a table of drives",
            hint="make one with fedfsd data import or fedfsd data generate",
        ) from None


def _batches(file: pq.ParquetFile, group: int, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """Where it begins in the row group, and a piece of it."""
    start = 0
    for batch in file.iter_batches(PIECE, row_groups=[group], columns=list(columns)):
        yield start, pa.Table.from_batches([batch])
        start += batch.num_rows


def _declared(path: Path, metadata: dict[str, str]) -> tuple[Identity, Origin]:
    """Identity and origin; the most careful values where a file states none."""
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
    return identity, origin  # type: ignore[return-value]


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
