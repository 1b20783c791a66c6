"""The tables that ship with the package, so that a first run needs no download.

``traffic``: generated traffic of CN, EU, US and SG, 700 vehicles each. ``public``: generated traffic
of the broad PUBLIC profile, for pre-training that spends no privacy. Both are made by
``python -m fedfsd.drive.embedded`` and by nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

from fedfsd.drive.table import Table, read
from fedfsd.errors import DataError


@dataclass(frozen=True)
class Recipe:
    """What `fedfsd.drive.traffic.generate` is called with."""

    regions: tuple[str, ...]
    vehicles: int
    seed: int


RECIPES = {
    "traffic": Recipe(("CN", "EU", "US", "SG"), vehicles=700, seed=1),
    "public": Recipe(("PUBLIC",), vehicles=900, seed=2),
}


@cache
def load(name: str) -> tuple[Table, ...]:
    """The embedded table ``name`` as `fedfsd.drive.table.read` gives it, read once a process.

    Raises:
        DataError: there is no such table.
    """
    if name not in RECIPES:
        raise DataError(
            f"embedded table {name}",
            got="no such table",
            expected=" or ".join(RECIPES),
            hint='set data.path = "embedded"',
        )
    with as_file(files(__name__) / f"{name}.parquet") as path:
        return read(path)
