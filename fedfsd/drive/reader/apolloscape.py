"""ApolloScape trajectory prediction, text: one line an object and frame, two frames a second.

Fields: frame_id object_id object_type position_x position_y position_z object_length
object_width object_height heading. Types: 1 small vehicle, 2 big vehicle (3 pedestrian,
4 motor- or bicyclist, told apart by nothing, 5 other: left out). Source: apolloscape.auto/trajectory.html.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedfsd.drive.reader.drive import (
    Drive,
    Options,
    Reader,
    bare,
    central_differences,
    content,
    damaged,
    drive,
    types_left_out,
)
from fedfsd.errors import DataError

FIELDS = 10
TYPES = {1: "car", 2: "truck_bus"}
OTHERS = {3: "pedestrian", 4: "motor- or bicyclist", 5: "other"}
HZ = 2.0


def read(path: Path, options: Options) -> list[Drive]:
    """Read one ``result_*.txt``.

    ``t`` counts from the file's first frame. Velocities are central differences within runs
    without a missing frame. The heading is passed on as annotated (rad); it often disagrees with
    the motion, which ``fedfsd data check`` reports.
    """
    values = _numbers(path)
    frame, kind = values[:, 0], values[:, 2]
    hz = options.hz or HZ
    t = (frame - frame.min()) / hz
    keep = np.isin(kind, list(TYPES))
    left_out = types_left_out([OTHERS.get(int(k), f"{k:g}") for k in kind[~keep]], values[~keep, 1])
    t, values = t[keep], values[keep]
    vehicle = np.array([str(int(number)) for number in values[:, 1]])
    columns = {
        "t": t,
        "x": values[:, 3],
        "y": values[:, 4],
        "heading": values[:, 9],
        "length": values[:, 6],
        "width": values[:, 7],
    }
    for speed, position in (("vx", "x"), ("vy", "y")):
        columns[speed] = central_differences(vehicle, t, columns[position], max_gap_seconds=1.5 / hz)
    stem = Path(bare(path.name)).stem
    recording = options.recording.removesuffix(stem) + stem.removeprefix("result_").removesuffix("_frame")
    return [
        drive(
            path,
            recording,
            hz=hz,
            vehicle=[f"{recording}/{number}" for number in vehicle],
            type=[TYPES[int(number)] for number in values[:, 2]],
            columns=columns,
            left_out=left_out,
        )
    ]


def _numbers(path: Path) -> np.ndarray:
    """The file's numbers, (rows, FIELDS)."""
    rows = []
    lines = content(path).splitlines()
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            row = [float(field) for field in fields]
        except ValueError:
            row = []
        if len(row) != FIELDS or not np.isfinite(row[:3]).all():
            raise DataError(
                f"{path}: line {number}",
                got=f"{len(fields)} fields" if len(fields) != FIELDS else "a field that is no number",
                expected=f"{FIELDS} numbers",
                hint="delete the line if the file was cut short, else fetch it again",
            )
        rows.append(row)
    if not rows:
        raise damaged(path, "no line", f"lines of {FIELDS} numbers")
    return np.array(rows)


READER = Reader(
    read=read,
    files="*.txt",
    about="ApolloScape trajectories (text, 2 Hz)",
    download="apolloscape.auto/trajectory.html: prediction_train.zip",
    licence="none stated with the data; the project calls itself research-oriented",
)
