"""nuPlan: one SQLite database a log, boxes at 20 Hz; a log is a recording.

Kept: tracks of the category vehicle, and the recording car. Velocities of boxes are passed on as given
(``fedfsd data check`` compares them with the motion), those of the recording car turned from its frame.
Its size is not in the database. Schema: motional/nuplan-devkit, docs/nuplan_schema.md.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fedfsd.drive import rate
from fedfsd.drive.reader import plain_sqlite
from fedfsd.drive.reader.drive import Drive, Options, Reader, damaged, drive, remainder, tracks_left_out, yaw
from fedfsd.drive.reader.spool import unpacked
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError

KEPT, EGO = "vehicle", "car"  # the types in the table
# Rows that are read at once; tracks that begin in them are whole in one drive.
ROWS = 2**17
# Words in a log's location or map -> city and country.
CITIES = {
    "vegas": ("las-vegas", "USA"),
    "pittsburgh": ("pittsburgh", "USA"),
    "boston": ("boston", "USA"),
    "singapore": ("singapore", "SGP"),
    "north": ("singapore", "SGP"),  # sg-one-north
}
TABLES = {
    "log": ("location", "logfile", "map_version"),
    "ego_pose": ("token", "timestamp", "x", "y", "qw", "qx", "qy", "qz", "vx", "vy"),
    "lidar_pc": ("token", "ego_pose_token", "timestamp"),
    "lidar_box": (*("lidar_pc_token", "track_token", "x", "y", "width", "length", "vx", "vy", "yaw"),),
    "track": ("token", "category_token"),
    "category": ("token", "name"),
}
_JOINED = """
    FROM lidar_box AS box
    JOIN lidar_pc AS pc ON pc.token = box.lidar_pc_token
    JOIN track ON track.token = box.track_token
    JOIN category ON category.token = track.category_token
"""
BOXES = f"""
    SELECT track.rowid, pc.timestamp, box.x, box.y, box.vx, box.vy, box.yaw, box.length, box.width {_JOINED}
    WHERE category.name = '{KEPT}' ORDER BY track.rowid
"""
_KINDS = """
    SELECT track.token, category.name FROM track JOIN category ON category.token = track.category_token
"""
_POSES = """
    SELECT pose.timestamp, pose.x, pose.y, pose.vx, pose.vy, pose.qw, pose.qx, pose.qy, pose.qz
    FROM lidar_pc AS pc JOIN ego_pose AS pose ON pose.token = pc.ego_pose_token ORDER BY pose.timestamp
"""


def read(path: Path, options: Options) -> Iterator[Drive]:
    """Read one log, some whole tracks at a time; the recording car comes first."""
    with unpacked(path, options.scratch) as file:
        plain_sqlite.demand_whole(file, path, TABLES)
        try:
            with plain_sqlite.connected(file) as base:
                yield from _drives(path, base)
        except sqlite3.Error as error:
            raise damaged(path, f"no whole SQLite database ({error})", "a nuPlan log") from None


def _drives(path: Path, base: sqlite3.Connection) -> Iterator[Drive]:
    _demand_tables(path, base)
    recording, city, country = _log(path, base)
    ego = _numbers(path, base.execute(_POSES).fetchall(), 9)
    if len(ego):
        t, x, y, along, across, *rotation = ego.T
        heading = yaw(*rotation)
        columns = {
            "t": t * 1e-6,
            "x": x,
            "y": y,
            "vx": along * np.cos(heading) - across * np.sin(heading),
            "vy": along * np.sin(heading) + across * np.cos(heading),
            "heading": heading,
        }
        owner = np.zeros(len(ego), np.int64)
        yield _drive(path, recording, ["ego"], owner, EGO, columns, city, country)
    tracks = dict(base.execute("SELECT rowid, lower(hex(token)) FROM track").fetchall())
    read = 0
    for rows in _whole(path, base.execute(BOXES)):
        number, t, x, y, vx, vy, heading, length, width = rows.T
        starts = np.flatnonzero(np.diff(number, prepend=np.nan))
        owner = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(rows)))
        keys = [f"{recording}/{tracks[int(each)]}" for each in number[starts]]
        columns = {"t": t * 1e-6, "x": x, "y": y, "vx": vx, "vy": vy, "heading": heading}
        columns |= {"length": length, "width": width}
        yield _drive(path, recording, keys, owner, KEPT, columns, city, country)
        read += len(rows)
    yield remainder(recording, *_left_out(path, base, read))


def _drive(
    path: Path,
    recording: str,
    keys: list[str],
    owner: np.ndarray,
    kind: str,
    columns: dict[str, np.ndarray],
    city: str | None,
    country: str | None,
) -> Drive:
    """The rows of some tracks: ``owner`` (R,) is the number of each row's key."""
    hz = rate.rates(owner, columns["t"])
    return drive(
        path,
        recording,
        hz=20.0 if hz is None else hz,
        vehicle=pa.DictionaryArray.from_arrays(owner, keys),
        type=pa.DictionaryArray.from_arrays(np.zeros(len(owner), np.int8), [kind]),
        columns=columns,
        ego=np.full(len(owner), kind != KEPT),
        city=city,
        country=country,
        time_column="timestamp",
    )


def _whole(path: Path, cursor: sqlite3.Cursor) -> Iterator[np.ndarray]:
    """Rows in the order of their tracks, (R, 9), cut between tracks only."""
    waiting = np.empty((0, 9))
    while found := cursor.fetchmany(ROWS):
        rows = np.concatenate([waiting, _numbers(path, found, 9)])
        last = int(np.searchsorted(rows[:, 0], rows[-1, 0]))  # where the track begins that may go on
        if last:
            yield rows[:last]
        waiting = rows[last:]
    if len(waiting):
        yield waiting


def _numbers(path: Path, rows: list[tuple[Any, ...]], width: int) -> np.ndarray:
    """Rows of a query, (R, width) float64; NaN for NULL."""
    try:
        return np.array(rows, np.float64).reshape(-1, width)
    except (TypeError, ValueError):
        raise damaged(path, "text where a number belongs", "a nuPlan log") from None


def _left_out(path: Path, base: sqlite3.Connection, read: int) -> tuple[list[LeftOut], list[DataError]]:
    """What is no vehicle, and boxes that hang in the air; ``read`` is how many rows of vehicles were read."""
    kinds = dict(base.execute(_KINDS).fetchall())
    boxes: Counter[Any] = Counter()
    for (track,) in base.execute("SELECT track_token FROM lidar_box"):
        boxes[track] += 1
    others = {track: count for track, count in boxes.items() if kinds.get(track, KEPT) != KEPT}
    left_out = list(tracks_left_out((kinds[track], count) for track, count in others.items()))
    lost = sum(boxes.values()) - sum(others.values()) - read
    if not lost:
        return left_out, []
    error = DataError(
        f"{path}: table lidar_box",
        got=f"{lost} boxes whose track, category or lidar_pc is not there",
        expected="each box's in the tables track, category and lidar_pc",
        hint="copy the log again, or import the other boxes with --skip-unfit",
    )
    return [*left_out, LeftOut("unfit row", lost, 0)], [error]


def _log(path: Path, base: sqlite3.Connection) -> tuple[str, str | None, str | None]:
    """The recording's name, city and country."""
    logs = base.execute("SELECT logfile, location, map_version FROM log").fetchall()
    if len(logs) != 1:
        raise damaged(path, f"{len(logs)} logs", "one log a database")
    name, location, chart = (str(value or "") for value in logs[0])
    words = re.findall("[a-z]+", f"{location} {chart}".lower())
    city, country = next((CITIES[word] for word in words if word in CITIES), (location.lower() or None, None))
    return name or path.stem, city, country


def _demand_tables(path: Path, base: sqlite3.Connection) -> None:
    for table, columns in TABLES.items():
        there = {row[1] for row in base.execute(f"PRAGMA table_info({table})")}
        missing = [name for name in columns if name not in there]
        if missing:
            what = f"no column {', '.join(missing)} in table {table}" if there else f"no table {table}"
            raise damaged(path, what, f"nuPlan's tables: {', '.join(TABLES)}")


READER = Reader(
    read=read,
    files="*.db",
    about="nuPlan logs (SQLite, v1.1)",
    download="nuplan.org: the databases of a split, such as nuplan-v1.1_mini.zip; no sensor blobs",
    licence="CC BY-NC-SA 4.0 with Motional's terms of use; commercial use by agreement",
)
