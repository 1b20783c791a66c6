"""Argoverse 2 motion forecasting: one Parquet file a scenario, 11 s at 10 Hz.

Kept: vehicle, bus and motorcyclist tracks; the recording car is the track "AV". The files give
no sizes, so length and width are NaN.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from fedfsd.drive.reader import delimited
from fedfsd.drive.reader.drive import Drive, Options, Reader, damaged, drive, types_left_out

TYPES = ("vehicle", "bus", "motorcyclist")
EGO = "AV"
NUMBERS = {"position_x": "x", "position_y": "y", "velocity_x": "vx", "velocity_y": "vy", "heading": "heading"}
COLUMNS = (
    *NUMBERS,
    "track_id",
    "object_type",
    "timestep",
    "scenario_id",
    "start_timestamp",
    "end_timestamp",
    "num_timestamps",
    "city",
)


def read(path: Path, options: Options) -> list[Drive]:  # noqa: ARG001 - the file says all of it
    """Read one ``scenario_*.parquet``; track ids are kept apart per scenario."""
    rows = delimited.read(path, COLUMNS).rows.combine_chunks()
    if not rows.num_rows:
        raise damaged(path, "no row", "an Argoverse 2 scenario")
    try:
        first = rows.slice(0, 1).to_pylist()[0]
        # Timestamps are in ns.
        seconds = (float(first["end_timestamp"]) - float(first["start_timestamp"])) * 1e-9
        hz = round((int(first["num_timestamps"]) - 1) / seconds, 3)
        scenario, city = str(first["scenario_id"]), first["city"]
        kinds = rows["object_type"].to_numpy(zero_copy_only=False)
        keep = np.isin(kinds.astype(str), TYPES)
        every = rows["track_id"].to_numpy(zero_copy_only=False).astype(str)
        left_out = types_left_out(kinds[~keep].astype(str), every[~keep])
        tracks = every[keep]
        columns = {
            name: np.asarray(rows[column].cast(pa.float64()))[keep] for column, name in NUMBERS.items()
        }
        columns["t"] = np.asarray(rows["timestep"].cast(pa.float64()))[keep] / hz
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ArithmeticError, TypeError, ValueError):
        raise damaged(path, "a column of another type", "an Argoverse 2 scenario") from None
    return [
        drive(
            path,
            scenario,
            hz=hz,
            vehicle=[f"{scenario}/{track}" for track in tracks],
            type=kinds[keep],
            columns=columns,
            ego=tracks == EGO,
            city=str(city) if city else None,
            left_out=left_out,
        )
    ]


READER = Reader(
    read=read,
    files="scenario_*.parquet",
    about="Argoverse 2 motion forecasting (Parquet, 10 Hz)",
    download="argoverse.org/av2.html: motion forecasting, train, val or test",
    licence="CC BY-NC-SA 4.0",
)
