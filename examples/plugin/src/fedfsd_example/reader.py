"""A reader: one CSV file is one recording, with the columns vehicle, type, t (s), x and y (m).

An entry of ``fedfsd.readers`` is a ``Reader``: a function from a file and what the person who imports it
knows to the drives in it, and the pattern of such files' names in a folder. ``drive`` checks what the
function found; keys, regions, the split and the table are made by ``fedfsd data import``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedfsd.drive.reader.drive import Drive, Options, Reader, central_differences, damaged, drive
from fedfsd.drive.reader.spool import content

_COLUMNS = ("vehicle", "type", "t", "x", "y")
_MAX_GAP_SECONDS = 1.0  # over a longer gap no speed is computed


def read(path: Path, options: Options) -> Sequence[Drive]:
    """The one recording in ``path``. DataError for a file of another form."""
    try:
        rows = list(csv.DictReader(content(path).decode("utf-8").splitlines()))
        vehicle = np.array([row["vehicle"] for row in rows])
        t, x, y = (np.array([float(row[name]) for row in rows]) for name in ("t", "x", "y"))
        kinds = [row["type"] for row in rows]
    except (KeyError, TypeError, ValueError):
        raise damaged(path, "another table", f"CSV with the columns {', '.join(_COLUMNS)}") from None
    if options.hz is None:
        raise damaged(path, "no frames a second", "--hz, since the file does not say")
    vx, vy = (central_differences(vehicle, t, axis, max_gap_seconds=_MAX_GAP_SECONDS) for axis in (x, y))
    columns = {"t": t, "x": x, "y": y, "vx": vx, "vy": vy, "heading": np.arctan2(vy, vx)}
    return [drive(path, options.recording, hz=options.hz, vehicle=vehicle, type=kinds, columns=columns)]


READER = Reader(read=read, files="*.csv")
