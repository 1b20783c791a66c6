"""Recordings as their sources write them, byte by byte and without the readers: one scene in every format.

Two cars and a pedestrian move along x, at 5, 6 and 1 m/s from x = 10, 20 and 30 m, each on its own y; clocks
start at ``START`` where a format has a clock. ``WRITERS`` has a function for each built-in format, which
writes one recording into a folder and says what it wrote. ``again`` repeats the second row of car 1, where a
format can.
"""

from __future__ import annotations

import json
import pickle
import sqlite3
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = 1_700_000_000.25
N = 40
MOVERS = {"1": (10.0, 5.0, 0.0), "2": (20.0, 6.0, 8.0), "walker": (30.0, 1.0, -8.0)}  # x, speed, y


@dataclass(frozen=True)
class Written:
    """What was written, as an import should find it."""

    file: Path
    hz: float
    cars: int = 2
    left_out: tuple[int, int] | None = (N, 1)  # rows and tracks of the pedestrian
    ego: bool = False
    repeats: bool = True  # whether the format can hold a row twice


def points(hz: float) -> Iterable[tuple[str, int, float, float, float, float]]:
    """Who, number, seconds, x, y and speed of each row."""
    for who, (x, speed, y) in MOVERS.items():
        for n in range(N):
            yield who, n, n / hz, x + speed * n / hz, y, speed


def repeated(rows: list, again: bool) -> list:
    return [*rows, rows[1]] if again else rows


def apolloscape(folder: Path, name: str, *, again: bool = False) -> Written:
    number = {"1": (1, 1), "2": (2, 2), "walker": (3, 3)}
    rows = [
        f"{n} {number[who][0]} {number[who][1]} {x:.3f} {y:.3f} 0 4.5 1.8 1.5 0.0"
        for who, n, _, x, y, _ in points(2)
    ]
    file = folder / f"result_{name}_frame.txt"
    file.write_text("\n".join(repeated(rows, again)) + "\n")
    return Written(file, 2)


def argoverse2(folder: Path, name: str, *, again: bool = False) -> Written:
    rows = repeated(list(points(10)), again)
    who, n, _, x, y, speed = (list(each) for each in zip(*rows, strict=True))
    file = folder / f"scenario_{name}.parquet"
    columns = {
        "track_id": who,
        "object_type": ["pedestrian" if one == "walker" else "vehicle" for one in who],
        "timestep": n,
        "position_x": x,
        "position_y": y,
        "velocity_x": speed,
        "velocity_y": [0.0] * len(who),
        "heading": [0.0] * len(who),
        "scenario_id": [name] * len(who),
        "start_timestamp": [START * 1e9] * len(who),
        "end_timestamp": [START * 1e9 + (N - 1) * 1e8] * len(who),
        "num_timestamps": [N] * len(who),
        "city": ["austin"] * len(who),
    }
    pq.write_table(pa.table(columns), file)
    return Written(file, 10)


INTERACTION = "track_id,frame_id,timestamp_ms,agent_type,x,y,vx,vy,psi_rad,length,width"


def interaction(folder: Path, name: str, *, again: bool = False) -> Written:
    kind = {"1": "car", "2": "car", "walker": "pedestrian"}
    rows = [
        f"{who},{n},{1000 * (START + t):.3f},{kind[who]},{x:.3f},{y},{speed},0,0,4.5,1.8"
        for who, n, t, x, y, speed in points(10)
    ]
    file = folder / f"vehicle_tracks_{name}.csv"
    file.write_text("\n".join([INTERACTION, *repeated(rows, again), ""]))
    return Written(file, 10)


COLUMNS = {
    "columns": {
        "vehicle": "car",
        "time": "utc",
        "x": "east",
        "y": "north",
        "vx": "u",
        "vy": "v",
        "type": "kind",
    },
    "types": {"car": "car"},
}


def columns(folder: Path, name: str, *, again: bool = False) -> Written:
    rows = [
        f"{who},{START + t:.3f},{x:.3f},{y},{speed},0,{'person' if who == 'walker' else 'Car'}"
        for who, _, t, x, y, speed in points(10)
    ]
    file = folder / f"{name}.csv"
    file.write_text("\n".join(["car,utc,east,north,u,v,kind", *repeated(rows, again), ""]))
    return Written(file, 10)


def commonroad(folder: Path, name: str, *, again: bool = False) -> Written:
    def state(tag: str, n: int, x: float, y: float, speed: float) -> str:
        return (
            f"<{tag}><position><point><x>{x:.3f}</x><y>{y}</y></point></position><orientation><exact>0</exact>"
            f"</orientation><time><exact>{n}</exact></time><velocity><exact>{speed}</exact></velocity></{tag}>"
        )

    obstacles = ""
    for number, who in enumerate(MOVERS, start=30):
        states = [(n, x, y, speed) for one, n, _, x, y, speed in points(10) if one == who]
        later = states[1:] if not again or number > 30 else [states[1], *states[1:]]
        obstacles += (
            f'<dynamicObstacle id="{number}"><type>{"pedestrian" if who == "walker" else "car"}</type>'
            "<shape><rectangle><length>4.5</length><width>1.8</width></rectangle></shape>"
            f"{state('initialState', *states[0])}<trajectory>{''.join(state('state', *one) for one in later)}"
            "</trajectory></dynamicObstacle>"
        )
    head = f'commonRoadVersion="2020a" timeStepSize="0.1" benchmarkID="ZAM_{name}-1_1_T-1"'
    file = folder / f"{name}.xml"
    file.write_text(f"<commonRoad {head}>{obstacles}</commonRoad>")
    return Written(file, 10)


def scenarionet(folder: Path, name: str, *, again: bool = False) -> Written:
    tracks = {}
    for who in MOVERS:
        states = np.array([(x, y, speed) for one, _, _, x, y, speed in points(10) if one == who])
        tracks[who] = {
            "type": "PEDESTRIAN" if who == "walker" else "VEHICLE",
            "metadata": {},
            "state": {
                "position": np.c_[states[:, :2], np.zeros(N)],
                "velocity": np.c_[states[:, 2], np.zeros(N)],
                "heading": np.zeros(N),
                "valid": np.ones(N),
                "length": np.full((N, 1), 4.5),
                "width": np.full((N, 1), 1.8),
            },
        }
    facts = {"ts": START + np.arange(N) / 10, "sdc_id": "none", "map": "oslo", "dataset": "own"}
    file = folder / f"sd_{name}.pkl"
    file.write_bytes(pickle.dumps({"id": name, "metadata": facts, "tracks": tracks}, protocol=4))
    return Written(file, 10, repeats=False)


def token(*words: object) -> str:
    import hashlib

    return hashlib.md5("/".join(map(str, words)).encode()).hexdigest()


def nuscenes_tables(name: str, *, location: str = "singapore-onenorth") -> dict[str, list[dict]]:
    """All tables of one scene; the recording car drives beside the others at 4 m/s."""
    frames = [token(name, "sample", n) for n in range(N)]
    times = [round((START + n / 2) * 1e6) for n in range(N)]
    names = {"1": "vehicle.car", "2": "vehicle.bus.rigid", "walker": "human.pedestrian.adult"}
    return {
        "log": [{"token": token(name, "log"), "location": location, "vehicle": "n015"}],
        "scene": [{"token": token(name, "scene"), "name": name, "log_token": token(name, "log")}],
        "sample": [
            {"token": frame, "timestamp": time, "scene_token": token(name, "scene")}
            for frame, time in zip(frames, times, strict=True)
        ],
        "sensor": [
            {"token": token("lidar"), "channel": "LIDAR_TOP", "modality": "lidar"},
            {"token": token("camera"), "channel": "CAM_FRONT", "modality": "camera"},
        ],
        "calibrated_sensor": [
            {"token": token(name, "on", one), "sensor_token": token(one)} for one in ("lidar", "camera")
        ],
        "sample_data": [
            {
                "token": token(name, one, n, key),
                "sample_token": frames[n],
                "ego_pose_token": token(name, one, n, key),
                "calibrated_sensor_token": token(name, "on", one),
                "timestamp": times[n],
                "is_key_frame": key,
            }
            for n in range(N)
            for one in ("lidar", "camera")
            for key in (True, False)
        ],
        "ego_pose": [
            {
                "token": token(name, one, n, key),
                "timestamp": times[n] + (0 if key else 50_000),
                "translation": [4.0 * n / 2, 50.0 if one == "lidar" and key else -1e6, 0.0],
                "rotation": [1.0, 0.0, 0.0, 0.0],
            }
            for n in range(N)
            for one in ("lidar", "camera")
            for key in (True, False)
        ],
        "category": [{"token": token(kind), "name": kind} for kind in names.values()],
        "instance": [
            {"token": token(name, who), "category_token": token(kind)} for who, kind in names.items()
        ],
        "sample_annotation": [
            {
                "token": token(name, who, n),
                "sample_token": frames[n],
                "instance_token": token(name, who),
                "translation": [x, y, 1.0],
                "size": [1.8, 4.5, 1.6],
                "rotation": [1.0, 0.0, 0.0, 0.0],
            }
            for who, n, _, x, y, _ in points(2)
        ],
    }


def nuscenes(folder: Path, name: str, *, again: bool = False) -> Written:
    tables = nuscenes_tables(name)
    tables["sample_annotation"] = repeated(tables["sample_annotation"], again)
    place = folder / name / "v1.0-own"
    place.mkdir(parents=True)
    for table, records in tables.items():
        (place / f"{table}.json").write_text(json.dumps(records, indent=0))
    return Written(place / "sample_annotation.json", 2, ego=True)


NUPLAN = """
CREATE TABLE log (token BLOB, vehicle_name TEXT, date TEXT, timestamp INT, logfile TEXT,
                  location TEXT, map_version TEXT);
CREATE TABLE ego_pose (token BLOB, timestamp INT, x REAL, y REAL, z REAL, qw REAL, qx REAL, qy REAL, qz REAL,
                       vx REAL, vy REAL, vz REAL, log_token BLOB);
CREATE TABLE lidar_pc (token BLOB, scene_token BLOB, ego_pose_token BLOB, lidar_token BLOB, timestamp INT);
CREATE TABLE lidar_box (token BLOB, lidar_pc_token BLOB, track_token BLOB, x REAL, y REAL, z REAL, width REAL,
                        length REAL, height REAL, vx REAL, vy REAL, vz REAL, yaw REAL, confidence REAL);
CREATE TABLE track (token BLOB, category_token BLOB, width REAL, length REAL, height REAL);
CREATE TABLE category (token BLOB, name TEXT, description TEXT);
"""


def nuplan(folder: Path, name: str, *, again: bool = False, location: str = "us-ma-boston") -> Written:
    def key(*words: object) -> bytes:
        return bytes.fromhex(token(name, *words))[:8]

    file = folder / f"{name}.db"
    base = sqlite3.connect(file)
    base.executescript("PRAGMA synchronous = OFF;" + NUPLAN)

    def insert(table: str, rows: list[tuple]) -> None:
        base.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})", rows)

    times = [round((START + n / 20) * 1e6) for n in range(N)]
    insert("log", [(key("log"), "g1", "2021-01-01", times[0], name, location, location)])
    insert("category", [(key(kind), kind, "") for kind in ("vehicle", "pedestrian")])
    kinds = {who: "pedestrian" if who == "walker" else "vehicle" for who in MOVERS}
    insert("track", [(key(who), key(kind), 1.8, 4.5, 1.6) for who, kind in kinds.items()])
    # The recording car drives along y: 3 m/s along its own x.
    half = 0.5**0.5
    poses = [
        (key("pose", n), times[n], 50.0, 3.0 * n / 20, 0, half, 0, 0, half, 3.0, 0, 0, key("log"))
        for n in range(N)
    ]
    insert("ego_pose", poses)
    insert(
        "lidar_pc", [(key("pc", n), key("scene"), key("pose", n), key("lidar"), times[n]) for n in range(N)]
    )
    boxes = [
        (key(who, n), key("pc", n), key(who), x, y, 0, 1.8, 4.5, 1.6, speed, 0, 0, 0, 1)
        for who, n, _, x, y, speed in points(20)
    ]
    insert("lidar_box", repeated(boxes, again))
    base.commit()
    base.close()
    return Written(file, 20, ego=True)


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def proto(field: int, value: bytes | float | int) -> bytes:
    """One field on the wire: text and messages with their length, float as double, int as varint."""
    if isinstance(value, bytes):
        return varint(field << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(field << 3 | 1) + struct.pack("<d", value)
    return varint(field << 3) + varint(value)


def single(field: int, value: float) -> bytes:
    return varint(field << 3 | 5) + struct.pack("<f", value)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def tfrecord(*records: bytes) -> bytes:
    def masked(data: bytes) -> bytes:
        crc = crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)

    lengths = [struct.pack("<Q", len(record)) for record in records]
    return b"".join(
        length + masked(length) + record + masked(record)
        for length, record in zip(lengths, records, strict=True)
    )


def scenario(name: str) -> bytes:
    """A Scenario proto with a field that no reader knows; car 2 is the recording car."""
    found = b"".join(proto(1, START + n / 10) for n in range(N)) + proto(5, name.encode()) + proto(6, 1)
    for number, who in enumerate(MOVERS, start=70):
        states = b"".join(
            proto(3, proto(2, x) + proto(3, y) + proto(4, 9.0) + single(5, 4.5) + single(6, 1.8)
                  + single(8, 0.0) + single(9, speed) + single(10, 0.0) + proto(11, 1))
            for one, _, _, x, y, speed in points(10) if one == who
        )  # fmt: skip
        found += proto(2, proto(1, number) + proto(2, 2 if who == "walker" else 1) + states)
    return found + proto(8, b"a map")


def waymo(folder: Path, name: str, *, again: bool = False) -> Written:
    file = folder / f"training.{name}.tfrecord-00000-of-01000"
    file.write_bytes(tfrecord(scenario(name)))
    return Written(file, 10, cars=1, ego=True, repeats=False)


class Cdr:
    """A ROS 2 message, little-endian: numbers are aligned to their size after the four bytes of the head."""

    def __init__(self) -> None:
        self.data = b""

    def put(self, kind: str, *values: float) -> Cdr:
        for value in values:
            size = struct.calcsize(kind)
            self.data += b"\0" * (-len(self.data) % size) + struct.pack(f"<{kind}", value)
        return self

    def text(self, value: str) -> Cdr:
        self.put("I", len(value) + 1)
        self.data += value.encode() + b"\0"
        return self

    def head(self, time: float) -> Cdr:
        nanoseconds = round(time * 1e9)
        return self.put("i", nanoseconds // 10**9).put("I", nanoseconds % 10**9).text("map")

    def done(self) -> bytes:
        return b"\0\1\0\0" + self.data


def odometry(time: float, x: float, y: float, speed: float, heading: float = 0.0) -> bytes:
    made = Cdr().head(time).text("base_link")
    made.put("d", x, y, 0, 0, 0, np.sin(heading / 2), np.cos(heading / 2), *[0] * 36)
    return made.put("d", speed, 0, 0, 0, 0, 0, *[0] * 36).done()


def pose_stamped(time: float, x: float, y: float) -> bytes:
    return Cdr().head(time).put("d", x, y, 0, 0, 0, 0, 1).done()


def fix(time: float, latitude: float, longitude: float, *, known: bool = True) -> bytes:
    made = Cdr().head(time).put("b", 0 if known else -1).put("H", 1)
    return made.put("d", latitude, longitude, 0, *[0] * 9).put("B", 0).done()


BAG = """
CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT,
                     offered_qos_profiles TEXT);
CREATE TABLE messages (id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);
"""


def bag_of(file: Path, topics: dict[str, tuple[str, list[bytes]]]) -> Path:
    """A rosbag2 storage file of SQLite: the type and the messages of each topic."""
    base = sqlite3.connect(file)
    base.executescript("PRAGMA synchronous = OFF;" + BAG)
    for number, (name, (kind, messages)) in enumerate(topics.items(), start=1):
        base.execute("INSERT INTO topics VALUES (?, ?, ?, 'cdr', '')", (number, name, kind))
        base.executemany(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
            [(number, round(START * 1e9) + at, data) for at, data in enumerate(messages)],
        )
    base.commit()
    base.close()
    return file


def bag(folder: Path, name: str, *, again: bool = False) -> Written:
    x, speed, y = MOVERS["1"]
    messages = [odometry(START + n / 10, x + speed * n / 10, y, speed) for n in range(N)]
    topics = {
        "/odom": ("nav_msgs/msg/Odometry", repeated(messages, again)),
        "/said": ("std_msgs/msg/String", []),
    }
    return Written(bag_of(folder / f"{name}.db3", topics), 10, cars=0, left_out=None, ego=True)


WRITERS: dict[str, Callable[..., Written]] = {
    "apolloscape": apolloscape,
    "argoverse2": argoverse2,
    "bag": bag,
    "columns": columns,
    "commonroad": commonroad,
    "interaction": interaction,
    "nuplan": nuplan,
    "nuscenes": nuscenes,
    "scenarionet": scenarionet,
    "waymo": waymo,
}
