"""Each format of camera drives by a small folder made here: a car on a circle, then damaged and hostile."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fedfsd.drive.reader.drive import yaw
from fedfsd.errors import DataError, FedfsdError, UsageError
from fedfsd.task.camera import drives, reader
from fedfsd.task.camera import picture as sheet
from fedfsd.task.camera.reader import Car, Facts, import_to
from fedfsd.task.camera.task import Camera

SPEED, RATE, HZ, COUNT = 8.0, 0.2, 10.0, 50
T = np.arange(COUNT) / HZ
HEADING = RATE * T
X, Y = SPEED / RATE * np.sin(HEADING), SPEED / RATE * (1 - np.cos(HEADING))  # a turn to the left
KITTI = Path(__file__).parents[4] / "shared" / "data" / "camera" / "DE_kitti.parquet"


def picture(number: int, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((96, 200, 3), 5 * number, np.uint8)).save(out, kind)
    return out.getvalue()


def frames(folder: Path, name, kind: str = "JPEG") -> None:
    folder.mkdir(parents=True)
    for number in range(COUNT):
        (folder / name(number)).write_bytes(picture(number, kind))


def tub(folder: Path) -> Path:
    frames(folder / "images", lambda n: f"{n}_cam_image_array_.jpg")
    (folder / "manifest.json").write_text("[]")
    lines = [
        json.dumps(
            {
                "_timestamp_ms": int(1e12 + 1000 * T[n]),
                "user/angle": -0.5,
                "user/throttle": 0.8,
                "cam/image_array": f"{n}_cam_image_array_.jpg",
            }
        )
        for n in range(COUNT)
    ]
    (folder / "catalog_0.catalog").write_text("\n".join(lines[:20]))
    (folder / "catalog_10.catalog").write_text("\n".join(lines[20:]))
    return folder


def udacity(folder: Path) -> Path:
    stamps = [f"2016_12_01_13_30_{int(t):02d}_{round(t % 1 * 1000):03d}" for t in T]
    frames(folder / "IMG", lambda n: f"center_{stamps[n]}.jpg")
    angle = -np.arctan(RATE * 2.67 / SPEED) / np.deg2rad(25)
    rows = [
        f"C:\\Users\\x\\IMG\\center_{one}.jpg, l.jpg, r.jpg, {angle}, 0.5, 0, {SPEED / 0.44704}"
        for one in stamps
    ]
    (folder / "driving_log.csv").write_text(
        "center,left,right,steering,throttle,brake,speed\n" + "\n".join(rows)
    )
    return folder


def kitti(folder: Path) -> Path:
    sequence = folder / "sequences" / "03"
    frames(sequence / "image_2", lambda n: f"{n:06d}.png", "PNG")
    np.savetxt(sequence / "times.txt", T)
    (folder / "poses").mkdir()
    zero, one = np.zeros(COUNT), np.ones(COUNT)
    c, s = np.cos(HEADING), np.sin(HEADING)
    # The camera's axes at the start: x to the right (-y), y down, z forward (x).
    poses = np.stack([c, zero, -s, -Y, zero, one, zero, zero, s, zero, c, X], axis=1)
    np.savetxt(folder / "poses" / "03.txt", poses)
    return folder


def raw(folder: Path) -> Path:
    drive = folder / "2011_09_26_drive_0001_sync"
    frames(drive / "image_02" / "data", lambda n: f"{n:010d}.png", "PNG")
    (drive / "oxts" / "data").mkdir(parents=True)
    stamps = [f"2011-09-26 13:02:{int(t):02d}.{round(t % 1 * 1e9):09d}" for t in T]
    for where in ("oxts", "image_02"):
        (drive / where / "timestamps.txt").write_text("\n".join(stamps) + "\n")
    metre = 1 / (np.deg2rad(1) * 6_378_137.0)
    for n in range(COUNT):
        line = [
            49 + Y[n] * metre,
            8.4 + X[n] * metre / np.cos(np.deg2rad(49)),
            110,
            0,
            0,
            HEADING[n],
            0,
            0,
            SPEED,
        ]
        (drive / "oxts" / "data" / f"{n:010d}.txt").write_text(" ".join(map(repr, map(float, line))))
    return folder


def nuscenes(folder: Path) -> Path:
    frames(folder / "samples" / "CAM_FRONT", lambda n: f"{n}.jpg")
    tables = {
        "scene": [{"token": "s", "name": "scene-1", "log_token": "l"}],
        "sample": [{"token": "a", "scene_token": "s"}],
        "sample_data": [
            {"ego_pose_token": f"p{n}", "sample_token": "a", "filename": f"samples/CAM_FRONT/{n}.jpg"}
            for n in range(COUNT)
        ]
        + [{"ego_pose_token": "p0", "sample_token": "a", "filename": "samples/CAM_BACK/0.jpg"}],
        "ego_pose": [
            {
                "token": f"p{n}",
                "timestamp": round(1e15 + 1e6 * T[n]),
                "translation": [X[n], Y[n], 0.0],
                "rotation": [np.cos(HEADING[n] / 2), 0.0, 0.0, np.sin(HEADING[n] / 2)],
            }
            for n in range(COUNT)
        ],
    }
    (folder / "v1.0-mini").mkdir()
    for name, rows in tables.items():
        (folder / "v1.0-mini" / f"{name}.json").write_text(json.dumps(rows))
    return folder


def comma(folder: Path) -> Path:
    av = pytest.importorskip("av", reason="the extra video is not installed")
    (folder / "global_pose").mkdir(parents=True)
    radius = 6_378_137.0
    longitude, latitude = X / radius, Y / radius  # at the equator, east is +y and north is +z
    places = radius * np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )
    for name, values in (("frame_positions", places), ("frame_times", T)):
        with (folder / "global_pose" / name).open("wb") as file:
            np.save(file, values)
    with av.open(str(folder / "qcamera.ts"), "w") as video:
        stream = video.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 96, "yuv420p"
        for number in range(COUNT):
            frame = av.VideoFrame.from_ndarray(np.full((96, 192, 3), 5 * number, np.uint8), "rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    return folder


def mcap(folder: Path) -> Path:
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_HUMBLE)
    kind = {name.rpartition("/")[2]: one for name, one in types.types.items()}
    header = lambda t: kind["Header"](kind["Time"](int(t), int(t % 1 * 1e9)), "")  # noqa: E731
    vector, cover = kind["Vector3"], np.zeros(36)
    with Writer(folder / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        moved = writer.add_connection("/odom", "nav_msgs/msg/Odometry", typestore=types)
        seen = writer.add_connection("/camera", "sensor_msgs/msg/CompressedImage", typestore=types)
        for n in range(COUNT):
            turned = kind["Quaternion"](0.0, 0.0, np.sin(HEADING[n] / 2), np.cos(HEADING[n] / 2))
            pose = kind["Pose"](kind["Point"](X[n], Y[n], 0.0), turned)
            twist = kind["Twist"](vector(SPEED, 0.0, 0.0), vector(0.0, 0.0, RATE))
            message = kind["Odometry"](
                header(T[n] + 1),
                "",
                kind["PoseWithCovariance"](pose, cover),
                kind["TwistWithCovariance"](twist, cover),
            )
            at = int((T[n] + 1) * 1e9)
            writer.write(moved, at, types.serialize_cdr(message, moved.msgtype))
            image = kind["CompressedImage"](header(T[n] + 1), "jpeg", np.frombuffer(picture(n), np.uint8))
            writer.write(seen, at, types.serialize_cdr(image, seen.msgtype))
    return folder


FORMATS = {
    "donkeycar": tub,
    "udacity": udacity,
    "kitti": kitti,
    "kitti-raw": raw,
    "nuscenes": nuscenes,
    "comma": comma,
    "mcap": mcap,
}
FACTS = Facts("DE", "own", "physical", "recorded")
# A tub's steering is of a model car: 0.5 of 30 degrees, and 0.8 of 10 m/s, on a wheelbase that gives RATE.
DONKEY = Car(SPEED * np.tan(0.5 * np.deg2rad(30)) / RATE, np.deg2rad(30), 10.0)


def imported(folder: Path, tmp_path: Path, format: str | None = None, **more) -> pa.Table:
    output = tmp_path / "out.parquet"
    import_to(output, [folder], format=format, **{"facts": FACTS, "car": DONKEY, **more})
    return pq.read_table(output)


@pytest.mark.parametrize("format", FORMATS)
def test_a_circle_is_a_circle_in_every_format(format, tmp_path):
    """Recognised by its files, in metres and counter-clockwise, its frames beside their poses."""
    folder = FORMATS[format](tmp_path / "source")
    car = Car() if format == "udacity" else DONKEY
    rows = imported(folder, tmp_path, car=car)
    assert rows["source"][0].as_py() == format
    assert rows.num_rows >= COUNT - 1
    assert set(rows["vehicle"].to_pylist()) == {f"{format}/ego"}
    t, x, y, heading, speed = (rows[n].to_numpy() for n in ("t", "x", "y", "heading", "speed"))
    turn = heading - heading[0]
    np.testing.assert_allclose(turn, RATE * t, atol=0.03)
    np.testing.assert_allclose(speed[2:-2], SPEED, rtol=0.02)
    c, s = np.cos(heading[0]), np.sin(heading[0])
    ahead, left = (x - x[0]) * c + (y - y[0]) * s, (y - y[0]) * c - (x - x[0]) * s
    np.testing.assert_allclose(ahead, X[: len(t)], atol=0.6)
    np.testing.assert_allclose(left, Y[: len(t)], atol=0.6)
    for n in (0, 20, len(t) - 1):
        assert abs(drives.decode(rows["image"][n].as_py()).mean() - 5 * n) < 4


def test_what_is_imported_trains(tmp_path):
    folder = kitti(tmp_path / "source")
    imported(folder, tmp_path, vehicle="{folder}")
    task = Camera({})
    (one,) = task.tables(str(tmp_path / "out.parquet"))
    found = task.examples([one], test=bool(one.test[0]))
    assert len(found) == COUNT - 30
    np.testing.assert_allclose(found.targets["path"][0, -1], (X[30], Y[30]), atol=0.05)
    assert found.vehicles == ("kitti/03",)


def test_a_sheet_of_one_car_is_full_and_one_without_frames_is_an_error(tmp_path):
    imported(kitti(tmp_path / "source"), tmp_path)
    tables = Camera({}).tables(str(tmp_path / "out.parquet"))
    shown = list(sheet._frames(tables))
    assert len(shown) == 8
    np.testing.assert_allclose(shown[0][1][-1], (X[30], Y[30]), atol=0.05)
    assert shown[0][2] == pytest.approx(SPEED, rel=0.02)
    with pytest.raises(DataError, match="no frame to show"):
        sheet.draw([replace(one, rows=one.rows[:5]) for one in tables], tmp_path / "sheet.svg")


def test_recordings_are_vehicles_where_the_owner_says_so(tmp_path):
    """A table of ours is declared anew: the car's recordings are vehicles, on the sides they had."""
    imported(kitti(tmp_path / "source"), tmp_path)
    rows = pq.read_table(tmp_path / "out.parquet")
    halves = pa.array(["a"] * 25 + ["b"] * 25)
    for name, values in (("recording", halves), ("test", pa.array([False] * 25 + [True] * 25))):
        rows = rows.set_column(rows.column_names.index(name), name, values)
    pq.write_table(rows, tmp_path / "both.parquet")
    facts = Facts("DE", "own", "recording", "recorded")
    made = import_to(tmp_path / "new.parquet", [tmp_path / "both.parquet"], format="drives", facts=facts)
    assert (made.vehicles, made.recordings, made.rows) == (2, 2, COUNT)
    (one,) = drives.tables(str(tmp_path / "new.parquet"))
    assert not one.faults
    assert one.identity == "recording"
    assert one.test.tolist() == [False] * 25 + [True] * 25


def damage(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def link(path: Path, _: bytes) -> None:
    (path.parent.parent / "elsewhere.jpg").write_bytes(picture(1))
    path.unlink()
    path.symlink_to(path.parent.parent / "elsewhere.jpg")


@pytest.mark.parametrize(
    ("name", "change", "content", "said"),
    [
        ("images/3_cam_image_array_.jpg", damage, b"no picture", "does not decode"),
        ("images/3_cam_image_array_.jpg", damage, b"", "does not decode"),
        ("images/3_cam_image_array_.jpg", link, b"", "follows a link"),
        ("catalog_0.catalog", damage, b'{"user/angle": 1}', "no record"),
        ("catalog_0.catalog", damage, b"{", "no record"),
        (
            "catalog_0.catalog",
            damage,
            b'{"_timestamp_ms": 1, "user/angle": 0, "user/throttle": 0, "cam/image_array": "../../x.jpg"}',
            "leaves the folder",
        ),
    ],
)
def test_a_damaged_or_hostile_tub_is_one_error_and_no_table(name, change, content, said, tmp_path):
    folder = tub(tmp_path / "source")
    change(folder / name, content)
    with pytest.raises(DataError, match=said):
        imported(folder, tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"source"}


def written(folder: Path, name: str, change) -> None:
    text = (folder / name).read_text()
    (folder / name).write_text(change(text))


def later(text: str) -> str:
    """The lines, the third before the second."""
    first, second, third, *others = text.split("\n")
    return "\n".join([first, third, second, *others])


@pytest.mark.parametrize(
    ("make", "name", "change", "said"),
    [
        (tub, "catalog_0.catalog", later, "not after the one before"),
        (tub, "catalog_0.catalog", lambda text: text.replace("-0.5", "NaN", 1), "a number that is none"),
        (tub, "catalog_0.catalog", lambda text: text.replace("-0.5", "1" + 400 * "0", 1), "no record"),
        (tub, "catalog_0.catalog", lambda text: "9" * 5000 + text, "no record"),
        (udacity, "driving_log.csv", later, "not after the one before"),
        (kitti, "sequences/03/times.txt", later, "not after the one before"),
        (kitti, "sequences/03/times.txt", lambda text: text + "\n99", "51 times of 50 poses"),
        (kitti, "poses/03.txt", lambda text: "inf" + text[text.index(" ") :], "a number that is none"),
        (nuscenes, "v1.0-mini/ego_pose.json", lambda text: text.replace("0.0]", '"x"]'), "numbers are none"),
        (nuscenes, "v1.0-mini/ego_pose.json", lambda text: text.replace("[0.0,", "[NaN,", 1), "that is none"),
        (nuscenes, "v1.0-mini/sample_data.json", lambda text: text.replace('"p0"', "[]"), "no such format"),
    ],
)
def test_numbers_that_are_none_and_times_that_go_back_are_one_error(make, name, change, said, tmp_path):
    folder = make(tmp_path / "source")
    written(folder, name, change)
    with pytest.raises(DataError, match=said):
        imported(folder, tmp_path, car=Car() if make is udacity else DONKEY)
    assert {one.name for one in tmp_path.iterdir()} == {"source"}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (tub, "catalog_0.catalog"),
        (tub, "images"),
        (udacity, "driving_log.csv"),
        (kitti, "poses/03.txt"),
        (raw, "2011_09_26_drive_0001_sync/oxts"),
        (nuscenes, "v1.0-mini/scene.json"),
        (comma, "qcamera.ts"),
    ],
)
def test_no_file_is_opened_through_a_link(make, name, tmp_path):
    folder = make(tmp_path / "source")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"follows a link|no drives"):
        imported(folder, tmp_path, car=Car() if make is udacity else DONKEY)


def test_a_pipe_in_place_of_a_frame_is_no_frame(tmp_path):
    folder = tub(tmp_path / "source")
    frame = folder / "images" / "3_cam_image_array_.jpg"
    frame.unlink()
    os.mkfifo(frame)
    with pytest.raises(DataError, match="does not decode"):
        imported(folder, tmp_path)


def test_an_array_of_any_size_and_a_playlist_are_refused(tmp_path):
    """A header of a million million values, and a video that names another file."""
    folder = comma(tmp_path / "source")
    times = folder / "global_pose" / "frame_times"
    whole = times.read_bytes()
    times.write_bytes(whole.replace(b"(50,), }" + 12 * b" ", b"(9999999999999,), }" + b" "))
    assert times.read_bytes() != whole
    with pytest.raises(DataError, match="no array"):
        imported(folder, tmp_path)
    times.write_bytes(whole)
    (folder / "qcamera.ts").rename(tmp_path / "other.ts")
    (folder / "qcamera.ts").write_text(f"#EXTM3U\n#EXTINF:5,\n{tmp_path}/other.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(DataError, match="does not decode"):
        imported(folder, tmp_path)


def test_what_a_tubs_owner_deleted_is_left_out_and_sessions_are_recordings(tmp_path):
    folder = tub(tmp_path / "source")
    texts = [(folder / f"catalog_{n}.catalog").read_text() for n in (0, 10)]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    for number, one in enumerate(lines):
        one |= {"_index": number, "_session_id": f"s{number // 30}"}
    (folder / "catalog_0.catalog").write_text("\n".join(map(json.dumps, lines)))
    (folder / "catalog_10.catalog").unlink()
    (folder / "manifest.json").write_text('[]\n{"deleted_indexes": [3, 4]}')
    rows = imported(folder, tmp_path)
    assert rows.num_rows == COUNT - 2
    assert set(rows["recording"].to_pylist()) == {"source/s0", "source/s1"}


def test_frames_that_do_not_decode_are_left_out_and_counted_if_asked(tmp_path):
    folder = tub(tmp_path / "source")
    damage(folder / "images" / "3_cam_image_array_.jpg", b"no picture")
    rows = imported(folder, tmp_path, skip_unfit=True)
    assert rows["image"].null_count == 1
    (one,) = drives.tables(str(tmp_path / "out.parquet"))
    assert [(left.why, left.rows) for left in one.left_out] == [("frames that do not decode", 1)]


@pytest.mark.parametrize("car", [Car(), Car(0.3, 0.4)], ids=["nothing known", "no speed"])
def test_a_car_that_nobody_measured_is_asked_for(car, tmp_path):
    with pytest.raises(UsageError, match="--"):
        imported(tub(tmp_path / "source"), tmp_path, car=car)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (kitti, "sequences/03/times.txt"),
        (kitti, "poses/03.txt"),
        (raw, "2011_09_26_drive_0001_sync/oxts/timestamps.txt"),
        (raw, "2011_09_26_drive_0001_sync/oxts/data/0000000004.txt"),
        (nuscenes, "v1.0-mini/ego_pose.json"),
        (nuscenes, "v1.0-mini/sample_data.json"),
        (udacity, "driving_log.csv"),
        (mcap, "bag/bag.mcap"),
        (tub, "manifest.json"),
        (comma, "global_pose/frame_times"),
        (comma, "qcamera.ts"),
    ],
)
@pytest.mark.parametrize(
    "content", [b"\x00\xff\xfe not this", b"", b"nan 1e400"], ids=["noise", "empty", "nan"]
)
def test_noise_in_place_of_a_file_is_one_error(make, name, content, tmp_path):
    folder = make(tmp_path / "source")
    assert (folder / name).exists()
    (folder / name).write_bytes(content)
    with pytest.raises(FedfsdError):
        imported(folder, tmp_path)
    assert not (tmp_path / "out.parquet").exists()


def test_a_folder_without_drives_and_an_unknown_format_are_refused(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no drives with a camera"):
        imported(tmp_path / "nothing", tmp_path)
    with pytest.raises(UsageError, match="--format"):
        imported(tmp_path / "nothing", tmp_path, format="kiti")


@pytest.mark.skipif(not KITTI.exists(), reason="the real frames are not here")
def test_the_real_car_trains_with_every_recording_a_vehicle(tmp_path):
    """Its recordings are on both sides of the split: as one car it can only train, so it is declared anew."""
    facts = Facts("DE", "CC BY-NC-SA 3.0", "recording", "published")
    made = import_to(tmp_path / "kitti.parquet", [KITTI], format="drives", facts=facts)
    assert (made.vehicles, made.rows) == (10, 903)
    task = Camera({})
    tables = task.tables(str(tmp_path / "kitti.parquet"))
    assert not [fault for one in tables for fault in one.faults]
    training, test = (task.examples(tables, test=side) for side in (False, True))
    assert (len(training.vehicles), len(test.vehicles)) == (8, 2)
    assert len(training) + len(test) > 500
    shown = list(islice(sheet._frames(tables), 9))
    assert len(shown) == 9
    sheet.draw(tables, tmp_path / "sheet.svg")
    assert "<svg" in (tmp_path / "sheet.svg").read_text()


def test_quaternions_turn_as_headings_do():
    assert yaw(*np.array([[np.cos(0.1)], [0], [0], [np.sin(0.1)]]))[0] == pytest.approx(0.2)
    assert reader._udacity_time("center_2016_12_01_13_30_48_287.jpg") % 60 == pytest.approx(48.287, abs=1e-3)
