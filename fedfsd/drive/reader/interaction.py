"""INTERACTION-schema CSV: track_id, frame_id, timestamp_ms, agent_type, x, y, vx, vy, psi_rad, length, width.

TAF-BW and INTERACTION itself use it; ``case_id``, where there is one, makes each case a recording, and
cases of one site that overlap are joined (INTERACTION ships cuts of 4 s as ``DR_*_train.csv`` and
``DR_*_val.csv``, in which one car has a new number in each case). Velocities and headings are passed on as
given: ``fedfsd data check`` compares them with the motion.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedfsd.drive import rate
from fedfsd.drive.reader import delimited
from fedfsd.drive.reader.delimited import Cells
from fedfsd.drive.reader.drive import (
    Drive,
    Options,
    Reader,
    damaged,
    drive,
    renamed,
    together,
    types_left_out,
)
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError

TYPES = ("car", "van", "truck", "bus", "motorcycle", "motorbike", "trailer")
NUMBERS = {"vx": "vx", "vy": "vy", "psi_rad": "heading", "length": "length", "width": "width"}
COLUMNS = ("track_id", "timestamp_ms", "agent_type", "x", "y")
CASE = "case_id"


def read(path: Path, options: Options) -> list[Drive]:
    """Read one CSV; ``t`` is timestamp_ms in s, the rates are those of the tracks' time steps."""
    cells = delimited.read(path, COLUMNS, (*NUMBERS, CASE))
    left_out = _keep_vehicles(cells)
    columns = {"t": cells.number("timestamp_ms") / 1000, "x": cells.number("x"), "y": cells.number("y")}
    columns |= {NUMBERS[name]: cells.number(name) for name in NUMBERS if name in cells.rows.column_names}
    rows_of_all = cells.rows.num_rows
    cases, case = cells.key(CASE) if CASE in cells.rows.column_names else ([""], np.zeros(rows_of_all, int))
    tracks, track = cells.key("track_id")
    owner = case.astype(np.int64) * len(tracks) + track
    left_out += delimited.left_out(cells, owner) + delimited.ragged_left_out(cells.layout)

    rows = np.flatnonzero(~cells.unfit)
    rows = rows[np.argsort(case[rows], kind="stable")]
    hz = rate.rates(owner[rows], columns["t"][rows])
    if hz is None:
        hz = _one_rate(path, options, len(rows), left_out, cells.errors)
    kinds, names = (
        np.asarray(pc.utf8_lower(cells.text("agent_type"))).astype(np.str_),
        np.array(tracks, np.str_),
    )
    starts = np.flatnonzero(np.diff(case[rows], prepend=-1))
    drives: list[Drive] = []
    for start, stop in zip(starts, (*starts[1:], len(rows)), strict=True):
        here, name = rows[start:stop], cases[case[rows[start]]]
        recording = f"{options.recording}/{name}" if name else options.recording
        drives.append(
            drive(
                path,
                recording,
                hz=hz[start:stop],
                vehicle=renamed(names[track[here]], f"{recording}/".__add__),
                type=kinds[here],
                columns={column: values[here] for column, values in columns.items()},
                left_out=() if drives else left_out,
                unfit=() if drives else cells.errors,
                part_of=_site(options.recording) if name else None,
                time_column="timestamp_ms",
            )
        )
    return drives


def _keep_vehicles(cells: Cells) -> list[LeftOut]:
    """Go on with the rows of vehicles; what the others are."""
    kinds = pc.utf8_lower(cells.text("agent_type"))
    known = np.asarray(pc.is_in(kinds, pa.array(TYPES)))
    track = cells.text("track_id")
    if CASE in cells.rows.column_names:
        track = pc.binary_join_element_wise(cells.text(CASE), track, "/")
    left_out = types_left_out(kinds.filter(pa.array(~known)), track.filter(pa.array(~known)))
    cells.keep(known)
    return list(left_out)


def _one_rate(
    path: Path, options: Options, rows: int, left_out: list[LeftOut], errors: list[DataError]
) -> np.ndarray:
    """The rate that was given, for a file in which nothing is seen twice."""
    if not rows and errors:
        raise together(errors, str(path))
    if not rows or options.hz is None:
        but = f" (but {', '.join(each.why for each in left_out)})" if left_out else ""
        raise damaged(path, f"no vehicle seen twice{but}", "cars, trucks, buses or motorcycles that move on")
    return np.full(rows, options.hz)


def _site(recording: str) -> str:
    """The place whose cases one file has: the cuts of one site are split into files by use."""
    return re.sub("_(train|val|test)$", "", recording.split("/")[-1])


READER = Reader(
    read=read,
    files=("vehicle_tracks_*.csv", "DR_*_train.csv", "DR_*_val.csv"),
    about="INTERACTION, TAF-BW (CSV, 10 Hz)",
    download="interaction-dataset.com: recorded tracks; TAF-BW: its repository",
    licence="INTERACTION: its own, non-commercial research; TAF-BW: CC BY-NC-SA 4.0",
)
