"""ROS recordings: the three messages, both storages, what an operator has to choose, and damage."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import written
from mcap.writer import Writer

from fedfsd.drive import table
from fedfsd.drive.reader import Facts, Options, import_drives, import_to
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError, NotReadyError

FACTS = {"region": "EU", "licence": "CC0", "identity": "physical", "origin": "recorded"}
ODOMETRY = "nav_msgs/msg/Odometry"
TIMES = [written.START + n / 10 for n in range(written.N)]


def read(path: Path, **options) -> table.Table:
    return import_drives(path, format="bag", **(FACTS | options))


def choose(folder: Path, path: Path, **options) -> table.Table:
    facts = Facts("EU", "CC0", "physical", "recorded", "fleet")
    import_to(
        folder / "o.parquet", path, format="bag", facts=facts, options=Options("", scratch=folder, **options)
    )
    return table.read(folder / "o.parquet")[0]


def drive(speed: float = 5.0, heading: float = 0.0) -> list[bytes]:
    x, y = np.cos(heading), np.sin(heading)
    return [
        written.odometry(time, speed * x * n / 10, speed * y * n / 10, speed, heading)
        for n, time in enumerate(TIMES)
    ]


def mcap(path: Path, topics: dict[str, tuple[str, list[bytes]]], *, encoding: str = "cdr") -> Path:
    """An MCAP file as a recorder with zstd chunks writes it; the definitions are cut to what is needed."""
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("ros2", "test")
        for topic, (kind, messages) in topics.items():
            schema = writer.register_schema(kind, "ros2msg", DEFINITIONS[kind].encode())
            channel = writer.register_channel(topic, encoding, schema)
            for n, data in enumerate(messages):
                at = round(written.START * 1e9) + n
                writer.add_message(channel, at, data, at)
        writer.finish()
    return path


SEPARATED = "\n" + "=" * 80 + "\n"
HEADER = (
    "MSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id"
    f"{SEPARATED}MSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec"
)
POSE = (
    "MSG: geometry_msgs/Pose\ngeometry_msgs/Point position\ngeometry_msgs/Quaternion orientation"
    f"{SEPARATED}MSG: geometry_msgs/Point\nfloat64 x\nfloat64 y\nfloat64 z"
    f"{SEPARATED}MSG: geometry_msgs/Quaternion\nfloat64 x\nfloat64 y\nfloat64 z\nfloat64 w"
)
DEFINITIONS = {
    "geometry_msgs/msg/PoseStamped": SEPARATED.join(
        ["std_msgs/Header header\ngeometry_msgs/Pose pose", HEADER, POSE]
    ),
    ODOMETRY: SEPARATED.join(
        [
            "std_msgs/Header header\nstring child_frame_id\ngeometry_msgs/PoseWithCovariance pose\n"
            "geometry_msgs/TwistWithCovariance twist",
            HEADER,
            "MSG: geometry_msgs/PoseWithCovariance\ngeometry_msgs/Pose pose\nfloat64[36] covariance",
            POSE,
            "MSG: geometry_msgs/TwistWithCovariance\ngeometry_msgs/Twist twist\nfloat64[36] covariance",
            "MSG: geometry_msgs/Twist\ngeometry_msgs/Vector3 linear\ngeometry_msgs/Vector3 angular",
            "MSG: geometry_msgs/Vector3\nfloat64 x\nfloat64 y\nfloat64 z",
        ]
    ),
    "std_msgs/msg/String": "string data",
}


def numbers(made: table.Table, *names: str) -> list[list[float]]:
    return np.round(np.stack([made.number(name) for name in names], axis=1), 3).tolist()


@pytest.mark.parametrize("storage", ["mcap", "db3"])
def test_odometry_is_turned_into_the_map_s_frame_whatever_the_storage(tmp_path, storage):
    write = {"mcap": mcap, "db3": written.bag_of}[storage]
    topics = {"/odom": (ODOMETRY, drive(5, np.pi / 2)), "/said": ("std_msgs/msg/String", [])}
    made = read(write(tmp_path / f"a.{storage}", topics))
    assert numbers(made, "t", "x", "y", "vx", "vy", "heading", "hz")[:2] == [
        [0, 0, 0, 0, 5, 1.571, 10],
        [0.1, 0, 0.5, 0, 5, 1.571, 10],
    ]
    assert made.rows.num_rows == written.N
    assert set(made.text("type")) == {"car"}
    assert np.isnan(made.number("length")).all()


def test_a_pose_has_the_velocity_of_its_motion(tmp_path):
    poses = [written.pose_stamped(time, 3 * n / 10, 1.0) for n, time in enumerate(TIMES)]
    for n, write in enumerate((mcap, written.bag_of)):
        made = read(write(tmp_path / f"a{n}.{'mcap' if write is mcap else 'db3'}",
                          {"/pose": ("geometry_msgs/msg/PoseStamped", poses)}))  # fmt: skip
        assert set(np.round(made.number("vx"), 3)) == {3.0}
        assert set(np.round(made.number("vy"), 3)) == {0.0}
        assert set(made.number("heading")) == {0.0}


def test_a_fix_is_projected_and_one_without_position_is_left_out(tmp_path):
    # 1e-5 degrees of latitude are 1.11 m; Oslo lies in zone 32.
    fixes = [written.fix(time, 59.9 + n * 1e-5, 10.7, known=n != 7) for n, time in enumerate(TIMES)]
    made = read(written.bag_of(tmp_path / "a.db3", {"/fix": ("sensor_msgs/msg/NavSatFix", fixes)}))
    assert made.left_out == (LeftOut("message without a position", 1, 1),)
    assert made.rows.num_rows == written.N - 1
    assert np.hypot(made.number("vx"), made.number("vy")) == pytest.approx(11.14, abs=0.05)
    assert np.isnan(made.number("heading")).all()
    assert np.abs(made.number("y")).max() < 10_000


def test_the_time_is_the_recorder_s_where_the_message_has_none(tmp_path):
    silent = [written.odometry(0.0, 0.5 * n, 0, 5) for n in range(written.N)]
    path = written.bag_of(tmp_path / "a.db3", {"/odom": (ODOMETRY, silent)})
    base = sqlite3.connect(path)
    base.execute("UPDATE messages SET timestamp = 1700000000000000000 + 100000000 * id")
    base.commit()
    base.close()
    assert numbers(read(path), "t", "hz")[:3] == [[0, 10], [0.1, 10], [0.2, 10]]


def test_several_topics_are_a_question(tmp_path):
    topics = {"/wheel": (ODOMETRY, drive(5)), "/fused": (ODOMETRY, drive(6))}
    path = written.bag_of(tmp_path / "a.db3", topics)
    with pytest.raises(DataError, match=r"/fused \(Odometry\), /wheel \(Odometry\)") as caught:
        read(path)
    assert caught.value.hint == "choose with --topic /fused"
    assert set(np.round(choose(tmp_path, path, topic="/wheel").number("vx"), 3)) == {5}
    with pytest.raises(DataError, match="none named /gps among"):
        choose(tmp_path, path, topic="/gps")


@pytest.mark.slow
def test_cars_are_kept_apart_by_name_or_folder_and_are_one_otherwise(tmp_path):
    for car in ("car-1", "car-2"):
        (tmp_path / "in" / car).mkdir(parents=True)
        for trip in ("a", "b"):
            written.bag_of(tmp_path / "in" / car / f"{trip}.db3", {"/odom": (ODOMETRY, drive())})
    assert set(read(tmp_path / "in").text("vehicle")) == {"bag/EU/ego"}
    made = choose(tmp_path, tmp_path / "in", vehicle="{folder}")
    assert set(made.text("vehicle")) == {"fleet/car-1", "fleet/car-2"}
    assert len(set(made.text("recording"))) == 4
    assert set(choose(tmp_path, tmp_path / "in" / "car-1", vehicle="x7").text("vehicle")) == {"fleet/x7"}


def test_messages_that_rosbag2_compressed_are_read(tmp_path):
    packed = [pa.compress(data, codec="zstd", asbytes=True) for data in drive()]
    made = read(written.bag_of(tmp_path / "a.db3", {"/odom": (ODOMETRY, packed)}))
    assert made.rows.num_rows == written.N
    whole = (tmp_path / "a.db3").read_bytes()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.db3.zstd").write_bytes(pa.compress(whole, codec="zstd", asbytes=True))
    assert read(tmp_path / "b").rows.num_rows == written.N


def test_what_metadata_name_outside_the_folder_is_not_opened(tmp_path):
    (tmp_path / "bag").mkdir()
    written.bag_of(tmp_path / "secret.db3", {"/odom": (ODOMETRY, drive(9))})
    written.bag_of(tmp_path / "bag" / "a.db3", {"/odom": (ODOMETRY, drive(5))})
    (tmp_path / "bag" / "metadata.yaml").write_text(
        "rosbag2_bagfile_information:\n  version: 5\n  relative_file_paths: [../secret.db3]\n"
    )
    assert set(np.round(read(tmp_path / "bag").number("vx"), 3)) == {5}


def test_a_message_that_is_cut_is_counted(tmp_path):
    messages = drive()
    messages[3] = messages[3][:50]
    path = written.bag_of(tmp_path / "a.db3", {"/odom": (ODOMETRY, messages)})
    with pytest.raises(DataError, match="topic /odom: got 1 messages that are no nav_msgs/msg/Odometry"):
        read(path)
    made = read(path, skip_unfit=True)
    assert made.rows.num_rows == written.N - 1
    assert LeftOut("unfit row", 1, 1) in made.left_out


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.parametrize("storage", ["mcap", "db3"])
def test_a_recording_that_is_cut_is_one_error(tmp_path, storage, part):
    write = {"mcap": mcap, "db3": written.bag_of}[storage]
    path = write(tmp_path / f"a.{storage}", {"/odom": (ODOMETRY, drive())})
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(path) in caught.value.place
    assert caught.value.hint


def test_recordings_without_motion_say_what_is_in_them(tmp_path):
    path = written.bag_of(tmp_path / "a.db3", {"/said": ("std_msgs/msg/String", [b""])})
    with pytest.raises(DataError, match=r"no odometry \(but std_msgs/msg/String\)"):
        read(path)
    path = written.bag_of(tmp_path / "b.db3", {"/odom": (ODOMETRY, drive()[:1])})
    with pytest.raises(DataError, match="one message of topic /odom"):
        read(path)
    path = written.bag_of(tmp_path / "c.db3", {"/odom": (ODOMETRY, [])})
    with pytest.raises(DataError, match="no vehicle track"):
        read(path)


def test_a_missing_extra_is_named_with_the_command(tmp_path, monkeypatch):
    path = written.bag(tmp_path, "a").file
    monkeypatch.setitem(sys.modules, "rosbags.highlevel", None)
    with pytest.raises(NotReadyError, match=r'pip install "\.\[bag\]"'):
        read(path)
