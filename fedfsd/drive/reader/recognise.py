"""What a file is, by its first bytes: for the error of a reader that cannot read it."""

from __future__ import annotations

import re
import sqlite3
import struct
from contextlib import closing
from itertools import islice
from pathlib import Path

HEAD_BYTES = 4096
# Files of a folder that are looked at.
MOST_FILES = 200
# What the file begins with -> what it is.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "Parquet (Argoverse 2: --format argoverse2; a table of fedfsd needs no import)"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook: unpack it, or save it as CSV"),
    (b"\xfd7zXZ\x00", "an xz archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it"),
    (b"\x89HDF", "HDF5"),
    (b"\x89MCAP", "MCAP (--format bag)"),
    (b"#ROSBAG", "a ROS 1 bag (--format bag)"),
    (b"\x80", "a pickle (ScenarioNet: --format scenarionet)"),
)
# Tables of a database -> whose they are.
_TABLES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"lidar_box", "lidar_pc", "ego_pose"}), "a nuPlan log (--format nuplan)"),
    (frozenset({"topics", "messages"}), "a rosbag2 file (--format bag)"),
)
_NUSCENES = ("sample_annotation.json", "ego_pose.json", "calibrated_sensor.json", "instance.json")
# The columns of a header line -> whose they are; as they are in the file, in lower case.
_HEADERS: tuple[tuple[frozenset[str], str], ...] = (
    (
        frozenset({"track_id", "timestamp_ms", "agent_type", "psi_rad"}),
        "INTERACTION CSV (--format interaction)",
    ),
    (frozenset({"frame", "xvelocity", "yvelocity"}), "CSV of levelXdata (highD, inD, rounD, exiD, uniD)"),
    (frozenset({"vehicle_id", "frame_id", "local_x"}), "CSV of NGSIM"),
)


def recognise(path: Path) -> str | None:
    """What the file looks like, with the format's name if it has one here; None if it could be anything."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return None
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return None
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head.startswith(b"SQLite format 3\x00"):
        return _database(path)
    if _is_tfrecord(head):
        return "TFRecord (Waymo Motion: --format waymo)"
    if path.name in _NUSCENES:
        return "a table of nuScenes (--format nuscenes)"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it"
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \r\n\t")
    if text.startswith("<"):
        return "CommonRoad XML (--format commonroad)" if "<commonRoad" in text else "XML"
    if text.startswith(("{", "[")):
        return "JSON"
    return _text(text)


def format_of(path: Path) -> str | None:
    """The format of a file, or of the first file of a folder that has one; None for tables."""
    files = (each for each in sorted(path.rglob("*")) if each.is_file()) if path.is_dir() else iter([path])
    for file in islice(files, MOST_FILES):
        if found := re.search(r"--format (\w+)\)$", recognise(file) or ""):
            return found[1]
    return None


def _database(path: Path) -> str:
    try:
        # plain_sqlite stands above this file.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as base:
            names = {name for (name,) in base.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error:
        names = set()
    return next((what for tables, what in _TABLES if tables <= names), "an SQLite database")


def _is_tfrecord(head: bytes) -> bool:
    """Whether it begins with a length and its masked CRC-32C (Castagnoli)."""
    if len(head) < 12:
        return False
    crc = 0xFFFFFFFF
    for byte in head[:8]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    found: bool = struct.unpack("<I", head[8:12])[0] == masked
    return found


def _text(text: str) -> str | None:
    lines = text.splitlines()
    if not lines:
        return None
    for separator in ",;\t|":
        names = {cell.strip().strip('"').lower() for cell in lines[0].split(separator)}
        for columns, name in _HEADERS:
            if columns <= names:
                return name
    fields = lines[0].split()
    if len(fields) == 10 and all(_is_number(field) for field in fields):
        return "ApolloScape text (--format apolloscape)"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
