"""The same drives under other regions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from fedfsd.drive import table
from fedfsd.drive.table import Table

POOLED = "pooled"


def as_one_region(tables: Sequence[Table]) -> Table:
    """All drives in one region."""
    return joined(tables, {name: POOLED for part in tables for name in part.regions})


def joined(tables: Sequence[Table], regions: Mapping[str, str]) -> Table:
    """The drives under other regions; keys carry where they came from, so that no two vehicles become one."""
    rows = _joined(tables)
    was = rows.text("region")
    keys = [f"{region}/{key}" for region, key in zip(was, rows.text("vehicle"), strict=True)]
    return _with(rows, region=pa.array([regions[name] for name in was]), vehicle=pa.array(keys))


@contextmanager
def as_file(drives: Table, path: Path) -> Iterator[str]:
    """``drives`` as a file for as long as it is needed: recordings do not stay in a folder of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write(drives, path)
    try:
        yield str(path)
    finally:
        path.unlink()


def _joined(tables: Sequence[Table]) -> Table:
    """Several tables as one, with the most careful of their declarations."""
    columns = [name for name in table.SCHEMA.names if all(name in one.rows.column_names for one in tables)]
    origins = {one.origin for one in tables}
    return Table(
        pa.concat_tables([one.rows.select(columns) for one in tables]).combine_chunks(),
        "; ".join(sorted({one.licence for one in tables})),
        "recording" if any(one.identity == "recording" for one in tables) else "physical",
        next(origin for origin in ("recorded", "published", "synthetic") if origin in origins),
    )


def _with(drives: Table, **columns: pa.Array) -> Table:
    rows = {name: drives.rows[name] for name in drives.rows.column_names} | columns
    return Table(pa.table(rows), drives.licence, drives.identity, drives.origin)
