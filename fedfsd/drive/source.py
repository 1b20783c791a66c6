"""Where a data path leads: a table, a folder of tables, or one of the tables inside the package."""

from __future__ import annotations

from fedfsd.drive import embedded, table
from fedfsd.drive.table import Table

# The names that data.path and pretraining.path understand besides paths.
EMBEDDED = {"embedded": "traffic", "public": "public"}


def keys(path: str) -> tuple[Table, ...]:
    """What every task's tables have: region, vehicle and test of each row. DataError where there are none."""
    return embedded.load(EMBEDDED[path]) if path in EMBEDDED else table.read(path, schema=table.KEYS)


def tables(path: str) -> tuple[Table, ...]:
    """The tables behind ``path``. DataError where there are none."""
    if path in EMBEDDED:
        return embedded.load(EMBEDDED[path])
    return table.read(path)
