"""The import's promises: as fast as half of what it reads with, in bounded memory, however large the file."""

from __future__ import annotations

import json
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

import google_crc32c
import numpy as np
import pyarrow.csv as csv

from experiments.benchmark.row import Row
from fedfsd.drive.reader import Options, bag, columns, commonroad, nuplan, nuscenes, waymo, waymo_pb2
from fedfsd.drive.reader.mapping import Mapping

SAMPLES = 500  # rows a vehicle
NAMES = ("site", "car", "time", "x", "y", "u", "v", "course", "long", "wide", "kind")
MAPPING = Mapping.model_validate(
    {
        "columns": {
            "recording": "site",
            "vehicle": "car",
            "time": "time",
            "x": "x",
            "y": "y",
            "vx": "u",
            "vy": "v",
            "heading": "course",
            "length": "long",
            "width": "wide",
            "type": "kind",
        }
    }
)
FACTS = ("--region", "EU", "--licence", "CC0-1.0", "--identity", "recording", "--origin", "synthetic")


def imports(folder: Path, *, quick: bool = False) -> list[Row]:
    """Readers in turn with the library below them, medians; then the largest memory of whole imports."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, turns = (10_000, 1) if quick else (2_000_000, 5)
    table = _table(folder / "a.csv", rows)
    log = _log(folder / "a.db", rows // 3)
    tables = _tables(folder / "v1.0-made", rows // 10)
    records = _records(folder / "a.tfrecord", rows // 11_648 // 10 + 1)
    bag_file = _bag(folder / "a.db3", rows // 100)
    scenario = _scenario(folder / "a.xml", rows // 50_000 + 1)
    options = Options("a", scratch=folder)
    runs: tuple[tuple[str, str, Callable[[], Iterable[object]], Callable[[], None]], ...] = (
        (
            "pyarrow's",
            f"columns: {rows:,} rows of CSV, the same columns streamed with open_csv",
            lambda: columns.read(table, options, MAPPING),
            lambda: _parsed(table),
        ),
        (
            "sqlite3's",
            f"nuplan: {rows // 3:,} boxes, the same rows fetched in any order",
            lambda: nuplan.read(log, options),
            lambda: _fetched(log),
        ),
        (
            "json's",
            f"nuscenes: {rows // 10:,} annotations, all tables with json.load",
            lambda: nuscenes.read(tables, options),
            lambda: _loaded(tables.parent),
        ),
        (
            "protobuf's",
            "waymo: scenarios of 128 tracks, parsed and the same fields of each state read",
            lambda: waymo.read(records, options),
            lambda: _states(records),
        ),
        (
            "rosbags'",
            f"bag: {rows // 100:,} odometry messages, each deserialised",
            lambda: bag.read(bag_file, options),
            lambda: _messages(bag_file),
        ),
        (
            "ElementTree's",
            "commonroad: obstacles of 100 states, the elements alone",
            lambda: commonroad.read(scenario, options),
            lambda: _elements(scenario),
        ),
    )
    found = [
        Row(f"import speed over {name} own", _ratio(ours, theirs, turns), 0.5, "", ">=", detail)
        for name, detail, ours, theirs in runs
    ]
    small, large = (_peak(_table(folder / f"{n}.csv", n), folder) for n in (rows // 4, 4 * rows))
    size = (folder / f"{4 * rows}.csv").stat().st_size / 2**20
    detail = f"{large:.0f} MiB for {size:.0f} MiB of CSV, {small:.0f} MiB for a sixteenth of it"
    return [
        *found,
        Row(
            "memory that an import needs more for 16 times the file", large - small, 512, "MiB", "<=", detail
        ),
    ]


def _ratio(ours: Callable[[], Iterable[object]], theirs: Callable[[], None], turns: int) -> float:
    """Their CPU seconds over ours, the median of interleaved turns."""
    found = []
    for _ in range(turns):
        started = time.process_time()
        theirs()
        between = time.process_time()
        for _ in ours():
            pass
        found.append((between - started) / (time.process_time() - between))
    return median(found)


def _parsed(path: Path) -> None:
    with csv.open_csv(path, convert_options=csv.ConvertOptions(include_columns=NAMES)) as batches:
        for _ in batches:
            pass


def _fetched(path: Path) -> None:
    with closing(sqlite3.connect(path)) as base:
        cursor = base.execute(nuplan.BOXES.partition("ORDER BY")[0])
        while cursor.fetchmany(nuplan.ROWS):
            pass


def _loaded(folder: Path) -> None:
    for path in sorted(folder.glob("*.json")):
        json.loads(path.read_bytes())


def _states(path: Path) -> None:
    for _, record in waymo.records(path):
        for track in waymo_pb2.Scenario.FromString(record or b"").tracks:
            for s in track.states:
                _ = (
                    s.center_x,
                    s.center_y,
                    s.velocity_x,
                    s.velocity_y,
                    s.heading,
                    s.length,
                    s.width,
                    s.valid,
                )


def _messages(path: Path) -> None:
    from rosbags.highlevel import AnyReader

    with AnyReader([path], default_typestore=bag.standard_types()) as reader:
        for connection, _, data in reader.messages():
            reader.deserialize(data, connection.msgtype)


def _elements(path: Path) -> None:
    for _, element in ElementTree.iterparse(path):
        if element.tag == "dynamicObstacle":
            element.clear()


def _peak(path: Path, folder: Path) -> float:
    """The largest memory of a whole import in a process of its own, MiB."""
    (folder / "mapping.toml").write_text(
        "[columns]\n"
        + "".join(f'{k} = "{v}"\n' for k, v in MAPPING.columns.model_dump(exclude_none=True).items())
    )
    words = ["data", "import", path, "-o", folder / "out.parquet", "--format", "columns"]
    words += ["--mapping", folder / "mapping.toml", *FACTS]
    # VmHWM is of this program alone; getrusage also counts what its parent had when it started it.
    code = (
        "import re, sys\nfrom fedfsd.cli.main import run\n"
        "try:\n    run(sys.argv[1:])\nfinally:\n"
        "    print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True
    )
    return float(done.stderr.split()[-1]) / 2**10


def _table(path: Path, rows: int) -> Path:
    """Cars on lanes; all cars of a site in the order of time, as sensors write them."""
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join(NAMES) + "\n")
        for site in range(max(1, rows // (20 * SAMPLES))):
            file.writelines(
                f"{site},{car},{n * 0.04:.2f},{n * 0.4 + car:.3f},{3.5 * car:.3f},{10 + car / 7:.4f},0.0123,"
                f"{0.01 * car:.5f},4.52,1.85,car\n"
                for n in range(SAMPLES)
                for car in range(20)
            )
    return path


def _log(path: Path, boxes: int) -> Path:
    """A nuPlan log in the order of time, with tokens of eight bytes."""
    frames = np.arange(max(2, boxes // 50))
    token = [int(frame).to_bytes(8, "big") for frame in frames]
    with closing(sqlite3.connect(path)) as base:
        base.executescript(
            "CREATE TABLE log (logfile, location, map_version);"
            "CREATE TABLE ego_pose (token PRIMARY KEY, timestamp, x, y, qw, qx, qy, qz, vx, vy);"
            "CREATE TABLE lidar_pc (token PRIMARY KEY, ego_pose_token, timestamp);"
            "CREATE TABLE lidar_box (token PRIMARY KEY, lidar_pc_token, track_token, x, y, width, length,"
            " vx, vy, yaw);"
            "CREATE TABLE track (token PRIMARY KEY, category_token);"
            "CREATE TABLE category (token PRIMARY KEY, name);"
            "INSERT INTO log VALUES ('made', 'boston', 'us-ma-boston');"
            "INSERT INTO category VALUES (x'01', 'vehicle');"
        )
        base.executemany("INSERT INTO track VALUES (?, x'01')", [(each,) for each in token])
        base.executemany(
            "INSERT INTO ego_pose VALUES (?, ?, ?, 0, 1, 0, 0, 0, 5, 0)",
            [(each, int(n) * 50_000, n / 4) for n, each in zip(frames, token, strict=True)],
        )
        base.executemany(
            "INSERT INTO lidar_pc VALUES (?, ?, ?)",
            [(each, each, int(n) * 50_000) for n, each in zip(frames, token, strict=True)],
        )
        base.executemany(
            "INSERT INTO lidar_box VALUES (?, ?, ?, ?, ?, 1.85, 4.52, 5, 0, 0)",
            (
                (
                    f"{n}/{car}".encode(),
                    each,
                    token[(int(n) // 200 * 50 + car) % len(token)],
                    n / 4 + car,
                    3.5 * car,
                )
                for n, each in zip(frames, token, strict=True)
                for car in range(50)
            ),
        )
        base.commit()
    return path


def _tables(folder: Path, annotations: int) -> Path:
    """nuScenes tables of scenes with 40 key frames and 25 vehicles, in the order of time."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = range(max(1, annotations // 1000))
    frames = [(scene, n) for scene in scenes for n in range(40)]
    turned = [1.0, 0.0, 0.0, 0.0]

    def name(*words: object) -> str:
        return "-".join(map(str, words)).rjust(32, "0")

    tables = {
        "log": [{"token": "log", "location": "singapore-onenorth"}],
        "scene": [{"token": name(s), "name": f"scene-{s:04}", "log_token": "log"} for s in scenes],
        "sample": [
            {"token": name(s, n), "scene_token": name(s), "timestamp": n * 500_000} for s, n in frames
        ],
        "sensor": [{"token": "lidar", "channel": "LIDAR_TOP"}],
        "calibrated_sensor": [{"token": "on", "sensor_token": "lidar"}],
        "sample_data": [
            {
                "token": name(s, n),
                "sample_token": name(s, n),
                "ego_pose_token": name(s, n),
                "calibrated_sensor_token": "on",
                "is_key_frame": True,
            }
            for s, n in frames
        ],
        "ego_pose": [
            {
                "token": name(s, n),
                "timestamp": n * 500_000,
                "translation": [2.0 * n, 0, 0],
                "rotation": turned,
            }
            for s, n in frames
        ],
        "category": [{"token": "car", "name": "vehicle.car"}],
        "instance": [{"token": name(s, "c", c), "category_token": "car"} for s in scenes for c in range(25)],
        "sample_annotation": [
            {
                "token": name(s, n, c),
                "sample_token": name(s, n),
                "instance_token": name(s, "c", c),
                "visibility_token": "4",
                "attribute_tokens": [name("moving")],
                "rotation": turned,
                "translation": [n * 5.123 + c, 3.5 * c, 1.0],
                "size": [1.85, 4.52, 1.6],
                "prev": name(s, n - 1, c),
                "next": name(s, n + 1, c),
                "num_lidar_pts": 7,
                "num_radar_pts": 1,
            }
            for s, n in frames
            for c in range(25)
        ],
    }
    for table, records in tables.items():
        (folder / f"{table}.json").write_text(json.dumps(records, indent=0), encoding="utf-8")
    return folder / "sample_annotation.json"


def _records(path: Path, scenarios: int) -> Path:
    """Scenarios of Waymo Motion with 128 tracks of 91 states."""
    made = waymo_pb2.Scenario()
    made.timestamps_seconds.extend(np.arange(91) / 10)
    for car in range(128):
        states = made.tracks.add(id=car, object_type=waymo.VEHICLE).states
        for n in range(91):
            states.add(center_x=1e3 + n, center_y=5e3 + car, length=4.5, width=1.9, heading=0.1)
            states[n].velocity_x, states[n].velocity_y, states[n].valid = 10.0, 0.1, n > 5
    with path.open("wb") as file:
        for number in range(scenarios):
            made.scenario_id = f"{number}"
            data = made.SerializeToString()
            for part in (struct.pack("<Q", len(data)), data):
                file.write(part + struct.pack("<I", waymo.masked(google_crc32c.value(part))))
    return path


def _bag(path: Path, messages: int) -> Path:
    """One car's odometry in a rosbag2 file of SQLite."""
    head = (
        b"\0\1\0\0" + struct.pack("<iII", 1_700_000_000, 0, 4) + b"map\0" + struct.pack("<I", 5) + b"base\0"
    )
    head += b"\0" * (-(len(head) - 4) % 8)
    numbers = np.zeros((messages, 7 + 36 + 6 + 36))
    numbers[:, 0], numbers[:, 6], numbers[:, 43] = np.arange(messages) / 5, 1, 10
    with closing(sqlite3.connect(path)) as base:
        base.executescript(
            "CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT,"
            " offered_qos_profiles TEXT);"
            "CREATE TABLE messages (id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);"
            "INSERT INTO topics VALUES (1, '/odom', 'nav_msgs/msg/Odometry', 'cdr', '');"
        )
        base.executemany(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)",
            (
                (
                    n,
                    head[:4]
                    + struct.pack("<iI", 1_700_000_000 + n // 50, n % 50 * 20_000_000)
                    + head[12:]
                    + row,
                )
                for n, row in enumerate(row.tobytes() for row in numbers)
            ),
        )
        base.commit()
    return path


def _scenario(path: Path, obstacles: int) -> Path:
    """A CommonRoad scenario of version 2020a."""
    state = (
        "<state><time><exact>{n}</exact></time><position><point><x>{n}.125</x><y>{y}.5</y></point></position>"
        "<orientation><exact>0.0125</exact></orientation><velocity><exact>10.5</exact></velocity></state>"
    )
    with path.open("w", encoding="utf-8") as file:
        file.write('<commonRoad commonRoadVersion="2020a" benchmarkID="DEU_Made-1_1_T-1" timeStepSize="0.1">')
        for car in range(100 * obstacles):
            file.write(
                f'<dynamicObstacle id="{car}"><type>car</type><shape><rectangle><length>4.5</length>'
                "<width>1.8</width></rectangle></shape><trajectory>"
                + "".join(state.format(n=n, y=car) for n in range(100))
                + "</trajectory></dynamicObstacle>"
            )
        file.write("</commonRoad>")
    return path
