"""INTERACTION-schema CSV: track_id, frame_id, timestamp_ms, agent_type, x, y, vx, vy, psi_rad, length, width.

TAF-BW and INTERACTION itself use it; ``case_id``, where there is one, makes each case a
recording. Velocities and headings are passed on as given: ``fedfsd data check`` compares them
with the motion.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from fedfsd.drive.reader.drive import Drive, Options, Reader, content, damaged, drive

TYPES = ("car", "van", "truck", "bus", "motorcycle", "motorbike", "trailer")
REQUIRED = {"x": "x", "y": "y"}
NUMBERS = {"vx": "vx", "vy": "vy", "psi_rad": "heading", "length": "length", "width": "width"}
COLUMNS = ("track_id", "timestamp_ms", "agent_type", *REQUIRED)


def read(path: Path, options: Options) -> list[Drive]:
    """Read one CSV; ``t`` is timestamp_ms in s, the rate that of the median time step."""
    rows = _rows(path)
    rows = rows.filter(pc.is_in(pc.utf8_lower(rows["agent_type"]), pa.array(TYPES)))
    columns = {"t": _number(path, rows, "timestamp_ms") / 1000}
    for column, name in (REQUIRED | NUMBERS).items():
        if column in rows.column_names:
            columns[name] = _number(path, rows, column)
    case = np.zeros(rows.num_rows, np.int64)
    cases = [""]
    if "case_id" in rows.column_names:
        encoded = rows["case_id"].combine_chunks().dictionary_encode()
        case, cases = np.asarray(encoded.indices), [f"/{name}" for name in encoded.dictionary.to_pylist()]
    tracks = rows["track_id"].to_pylist()
    hz = _rate(case, rows["track_id"], columns["t"]) or options.hz
    if hz is None:
        raise damaged(path, "no vehicle seen twice", "cars, trucks, buses or motorcycles that move on")
    drives = []
    for number, suffix in enumerate(cases):
        chosen = np.flatnonzero(case == number)
        recording = options.recording + suffix
        drives.append(
            drive(
                path,
                recording,
                hz=hz,
                vehicle=[f"{recording}/{tracks[row]}" for row in chosen],
                type=rows["agent_type"].take(chosen).to_pylist(),
                columns={name: values[chosen] for name, values in columns.items()},
            )
        )
    return drives


def _rows(path: Path) -> pa.Table:
    """Every column as text, so that a cell that is no number is ours to name."""
    data = content(path)
    try:
        names = data.split(b"\n", 1)[0].decode("utf-8-sig").strip().split(",")
        as_text = csv.ConvertOptions(
            column_types={name.strip('"'): pa.string() for name in names}, strings_can_be_null=False
        )
        rows = csv.read_csv(io.BytesIO(data), convert_options=as_text)
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError):
        raise damaged(path, "not a readable CSV file", "a header line, then rows of as many cells") from None
    missing = [name for name in COLUMNS if name not in rows.column_names]
    if missing:
        raise damaged(path, f"no column {', '.join(missing)}", ", ".join((*COLUMNS, *NUMBERS)))
    return rows


def _number(path: Path, rows: pa.Table, column: str) -> np.ndarray:
    """A column as float64, empty cells as NaN."""
    cells = pc.utf8_trim_whitespace(rows[column])
    cells = pc.if_else(pc.equal(cells, ""), "nan", cells)
    try:
        numbers: np.ndarray = cells.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        raise damaged(path, f"a cell of column {column} that is no number", "numbers") from None
    return numbers


def _rate(case: np.ndarray, tracks: pa.ChunkedArray, t: np.ndarray) -> float | None:
    """Frames a second, from the median step inside the tracks; None where no track has a step."""
    owner = np.asarray(tracks.combine_chunks().dictionary_encode().indices)
    order = np.lexsort((t, owner, case))
    same = (np.diff(owner[order]) == 0) & (np.diff(case[order]) == 0)
    steps = np.diff(t[order])
    steps = steps[same & (steps > 0)]
    return round(1 / float(np.median(steps)), 3) if len(steps) else None


READER = Reader(read=read, files="vehicle_tracks_*.csv")
