"""Did anything raw cross? Everything that was recorded, whole and field by field, against the canaries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from border import canary, recorder

TEXT = "Kestrel7Marlin4Ibis"
"""In every name that ``plant`` gives; put it into folders' names and exceptions, too."""
_SHIFT = {"x": 3141.592653, "y": 2718.281828}


def plant(path: Path, *, vehicles: int = 8, points: int = 16) -> dict[bytes, str]:
    """Make a Parquet file of drives one that is recognised, and give its needles.

    Vehicles, recordings and sources get ``TEXT`` into their names, and all places move to irregular ones.
    The needles are that text and the first ``points`` places (x, y) of the first ``vehicles`` vehicles.
    """
    rows = pq.read_table(path)
    for name in ("vehicle", "recording", "source"):
        told = pc.binary_join_element_wise(TEXT, rows[name].cast(pa.string()), "-")
        rows = rows.set_column(rows.schema.get_field_index(name), name, told)
    for name, by in _SHIFT.items():
        moved = (rows[name].to_numpy().astype("f8") + by).astype("f4")
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(moved))
    pq.write_table(rows, path)
    needles = canary.text(TEXT)
    for number, vehicle in enumerate(rows["vehicle"].unique().to_pylist()[:vehicles]):
        mine = rows.filter(pc.equal(rows["vehicle"], vehicle)).slice(0, points)
        places = np.stack([mine["x"].to_numpy(), mine["y"].to_numpy()], axis=1)
        if len(places) >= 4:
            needles |= canary.track(places, f"drive {number}")
    return needles


def found(folder: Path, needles: canary.Needles) -> list[str]:
    """What of ``needles`` is in the recording in ``folder``, and where; empty where all is well."""
    search = canary.Search(needles)
    hits: dict[str, None] = {}
    for where, contents in recorder.streams(recorder.read(folder)):
        for content in _joined(where, contents):
            hits.update((f"{hit}: {where}", None) for hit in search(content))
    return list(hits)


def _joined(where: str, contents: list[bytes]) -> Iterator[bytes]:
    """The contents of one stream in a row, and field by field where they are messages."""
    yield b"\n".join(contents)
    if where.endswith(("request", "reply")):
        yield from canary.fields(contents)
