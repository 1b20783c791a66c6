"""Vehicles in two places: in data that are protected and in public ones, or in two regions."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from fedfsd.drive import table
from fedfsd.drive.table import OPTIONAL_COLUMNS, TEXT_COLUMNS, Table
from fedfsd.errors import DataError

_NAMES = {*TEXT_COLUMNS, *OPTIONAL_COLUMNS, "test"}  # how a row is called, not what was recorded
_MIX = np.uint64(0x9E3779B97F4A7C15)


def demand_apart(private: Iterable[Table], public: Sequence[Table], *, place: str) -> None:
    """Refuse public tables that hold a vehicle key, or what was recorded in a row, of the private ones.

    A row is compared by all that is in it but names, so that a copy under other keys is found too.

    Raises:
        DataError: at ``place``, with how many of the private keys and rows are public.
    """
    keys, rows = _shared(list(private), public)
    if keys or rows:
        raise DataError(
            place,
            got=f"{keys} vehicle keys and {rows} rows that data.path has too",
            expected="public vehicles that no region trains on or tests with",
            hint='set pretraining.path = "public" or "none", or take those vehicles out of one of the two',
        )


def regions_of_keys(regions: Mapping[str, Iterable[Table]]) -> dict[tuple[str, ...], int]:
    """How many training vehicle keys are in several regions, by the regions that they are in."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, tables in sorted(regions.items()):
        for key in table.vehicles(tables, test=False):
            found[key].append(name)
    return dict(sorted(Counter(tuple(names) for names in found.values() if len(names) > 1).items()))


def _shared(private: Sequence[Table], public: Sequence[Table]) -> tuple[int, int]:
    known, keys = (
        {key for test in (False, True) for key in table.vehicles(tables, test=test)}
        for tables in (public, private)
    )
    keys &= known
    rows = 0
    for one in private:
        for other in public:
            columns = [name for name in one.rows.column_names if name not in _NAMES]
            if columns == [name for name in other.rows.column_names if name not in _NAMES] and columns:
                rows += int(np.isin(_marks(one.rows, columns), _marks(other.rows, columns)).sum())
    return len(keys), rows


def _marks(rows: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """A number for what each row holds, (rows,) uint64: equal rows have equal ones, others hardly ever."""
    found = np.zeros(rows.num_rows, np.uint64)
    for name in columns:
        column = rows[name]
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
            values = column.to_numpy().astype(np.float64)
            values = np.where(np.isnan(values), np.nan, values + 0.0)  # one NaN, one zero
            bits = values.view(np.uint64)
        else:
            digests = (hashlib.sha256(repr(value).encode()).digest()[:8] for value in column.to_pylist())
            bits = np.frombuffer(b"".join(digests), np.uint64)
        found = (found ^ bits) * _MIX
        found ^= found >> np.uint64(29)
    return found
