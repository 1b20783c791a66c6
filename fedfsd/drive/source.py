"""Where a data path leads: a table, a folder of tables, or one of the tables inside the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from fedfsd.drive import embedded, table
from fedfsd.drive.stored import Stored, stored
from fedfsd.drive.table import Table

# The names that data.path and pretraining.path understand besides paths.
EMBEDDED = {"embedded": "traffic", "public": "public"}


def looked(path: str) -> tuple[Table | Stored, ...]:
    """The tables behind ``path``, whose rows stay in their files. DataError where there are none."""
    return tables(path) if path in EMBEDDED else stored(Path(path), table.SCHEMA)


def region_tables(
    path: str, region: str, columns: Sequence[str], *, schema: pa.Schema = table.SCHEMA
) -> tuple[Table, ...]:
    """Some columns of one region's rows, of each table behind ``path``; what others drove is not read.

    Text is left as dictionaries. DataError where there are no tables.
    """
    if path in EMBEDDED:
        return table.in_region(embedded.load(EMBEDDED[path]), region)
    return tuple(table.loaded(one, region=region, columns=columns) for one in stored(Path(path), schema))


def tables(path: str) -> tuple[Table, ...]:
    """The tables behind ``path``. DataError where there are none."""
    if path in EMBEDDED:
        return embedded.load(EMBEDDED[path])
    return table.read(path)
