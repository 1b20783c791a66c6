"""Recordings in other people's formats, read into the one table.

``READERS`` holds the built-in formats; a package of your own adds one as an entry point of the
group ``fedfsd.readers`` that names a ``Reader``. How files become a table is in ``gather``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from fedfsd.drive.reader import (
    apolloscape,
    argoverse2,
    bag,
    columns,
    commonroad,
    gather,
    interaction,
    nuplan,
    nuscenes,
    scenarionet,
    waymo,
)
from fedfsd.drive.reader.drive import Drive, Options, Reader, drive
from fedfsd.drive.reader.gather import Facts, Written
from fedfsd.drive.reader.mapping import Mapping
from fedfsd.drive.table import Identity, Origin, Table
from fedfsd.errors import UsageError

__all__ = [
    "READERS",
    "Drive",
    "Facts",
    "Options",
    "Reader",
    "Written",
    "drive",
    "import_drives",
    "import_to",
    "resolve",
]

READERS: dict[str, Reader] = {
    "apolloscape": apolloscape.READER,
    "argoverse2": argoverse2.READER,
    "bag": bag.READER,
    "columns": columns.READER,
    "commonroad": commonroad.READER,
    "interaction": interaction.READER,
    "nuplan": nuplan.READER,
    "nuscenes": nuscenes.READER,
    "scenarionet": scenarionet.READER,
    "waymo": waymo.READER,
}
GROUP = "fedfsd.readers"


def resolve(name: str) -> Reader:
    """The reader of that name: a built-in one, or one that an installed package registers.

    Raises:
        UsageError: nothing of that name, or an entry point that gives no ``Reader``.
    """
    if name in READERS:
        return READERS[name]
    found = {entry.name: entry for entry in metadata.entry_points(group=GROUP)}
    if name not in found:
        raise UsageError(
            "format",
            got=repr(name),
            expected=" | ".join(sorted({*READERS, *found})),
            hint="choose one of them, or install the package that registers it",
        )
    reader = found[name].load()
    if not isinstance(reader, Reader):
        raise UsageError(
            f"format {name}",
            got=f"an entry point to {type(reader).__name__}",
            expected="fedfsd.drive.reader.Reader",
            hint="let the entry point name a Reader(read=..., files=...)",
        )
    return reader


def import_drives(
    paths: str | Path | Sequence[str | Path],
    *,
    format: str,
    region: str,
    licence: str,
    identity: Identity,
    origin: Origin,
    source: str | None = None,
    country: str | None = None,
    city: str | None = None,
    hz: float | None = None,
    skip_unfit: bool = False,
    mapping: Mapping | None = None,
) -> Table:
    """Read files, and folders of files, of one source into one table in memory.

    See ``gather`` for what becomes of keys, times and places. ``mapping`` is for the format ``columns``.

    Raises:
        DataError: files that are not what their format says (all of them at once), no file, one
            recording twice, a rate that contradicts the file's.
        UsageError: an unknown format.
    """
    facts = Facts(region, licence, identity, origin, source or format, country, city, marked=source is None)
    options = Options("", hz=hz)
    with gather.gathered(
        _paths(paths), _reader(format, mapping), facts, options, skip_unfit=skip_unfit
    ) as found:
        return found.table()


def import_to(
    output: Path,
    paths: str | Path | Sequence[str | Path],
    *,
    format: str,
    facts: Facts,
    options: Options,
    skip_unfit: bool = False,
    mapping: Mapping | None = None,
) -> Written:
    """``import_drives`` for recordings of any size: the table goes to ``output`` by row groups.

    What is held is one vehicle, recording or file, as the format allows; the rest waits in unnamed files in
    ``options.scratch``. Raises what ``import_drives`` raises, and then leaves nothing at ``output``.
    """
    with gather.gathered(
        _paths(paths), _reader(format, mapping), facts, options, skip_unfit=skip_unfit
    ) as found:
        return found.write(output)


def _paths(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]


def _reader(format: str, mapping: Mapping | None) -> Reader:
    return columns.reader(mapping) if format == "columns" and mapping else resolve(format)
