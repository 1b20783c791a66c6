"""INTERACTION-schema CSV: track_id, frame_id, timestamp_ms, agent_type, x, y, vx, vy, psi_rad, length, width.

TAF-BW and INTERACTION itself use it; ``case_id``, where there is one, makes each case a recording, and
cases of one site that overlap are joined (INTERACTION ships cuts of 4 s as ``DR_*_train.csv`` and
``DR_*_val.csv``, in which one car has a new number in each case). Velocities and headings are passed on as
given: ``fedfsd data check`` compares them with the motion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fedfsd.drive.reader import columns, delimited
from fedfsd.drive.reader.drive import Drive, Options, Reader
from fedfsd.drive.reader.mapping import Columns, Mapping, Units

TYPES = ("car", "van", "truck", "bus", "motorcycle", "motorbike", "trailer")
# What is in every file, and what may be.
COLUMNS = {"vehicle": "track_id", "time": "timestamp_ms", "type": "agent_type", "x": "x", "y": "y"}
OPTIONAL = {"vx": "vx", "vy": "vy", "heading": "psi_rad", "length": "length", "width": "width"}
CASE = "case_id"


def read(path: Path, options: Options) -> Iterator[Drive]:
    """Read one CSV of any size; ``t`` is timestamp_ms in s, the rates are those of the tracks' time steps."""
    header = {name.lower() for name in delimited.header(path, list(COLUMNS.values()))}
    there = {name: column for name, column in (OPTIONAL | {"recording": CASE}).items() if column in header}
    mapping = Mapping(
        columns=Columns(**COLUMNS, **there), units=Units(time="ms"), types={kind: kind for kind in TYPES}
    )
    for each in columns.read(path, options, mapping):
        yield replace(each, part_of=_site(options.recording)) if CASE in header else each


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
