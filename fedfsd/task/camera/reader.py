"""Other people's camera drives become the task's table, a recording at a time.

A reader gives recordings: poses in metres, seconds and radians (x forward at heading 0, counter-clockwise),
and for some of them a frame, which is read when its row is written. Frames wider than ``COLUMNS`` are scaled
and stored as JPEG. No file outside the folder that was named is opened, nor through a link.

What has no pose (donkeycar, Udacity) is driven again from steering and speed by a kinematic bicycle
(``Car``): dead reckoning, whose path is no better than what its owner says of the car.

Shapes: R poses of a recording.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedfsd.drive import mapped, table
from fedfsd.drive.reader import Written, bag, nuscenes
from fedfsd.drive.reader.drive import damaged, optional, yaw
from fedfsd.drive.reader.spool import content
from fedfsd.drive.sieve import Sieve
from fedfsd.drive.stored import plain
from fedfsd.drive.table import Identity, LeftOut, Origin, Table
from fedfsd.errors import DataError, FedfsdError, UsageError
from fedfsd.task.camera import drives
from fedfsd.task.camera.drives import SCHEMA

COLUMNS = 320
_EARTH = 6_378_137.0  # m
_STILL = 0.3  # m/s: below this a direction is that of the last motion
_GROUP = 256  # rows written together
_LARGEST = 2**20  # bytes of a frame that is stored as it came
_FARTHEST = 1e12  # no time and no place is a larger number


@dataclass(frozen=True)
class Car:
    """What turns steering and throttle into motion where nothing measured it."""

    wheelbase: float | None = None
    """m"""
    full_steering: float | None = None
    """rad at a steering of 1"""
    full_speed: float | None = None
    """m/s at a throttle of 1, where speed is not recorded"""


@dataclass(frozen=True)
class Recording:
    """One drive of one car."""

    name: str
    t: np.ndarray
    """(R,) s"""
    x: np.ndarray
    y: np.ndarray
    heading: np.ndarray
    speed: np.ndarray
    frames: Sequence[Callable[[], bytes] | None]
    """(R,) each gives a file's bytes"""
    test: bool | None = None
    """On which side a split by recording puts it, where the source says."""


@dataclass(frozen=True)
class Reader:
    """One format."""

    files: str
    """What a folder of it has: a pattern, searched at any depth."""
    read: Callable[[Path, Car], Iterable[Recording]]
    about: str


@dataclass(frozen=True)
class Facts:
    """What is declared about the drives; it does not stand in the files."""

    region: str
    licence: str
    identity: Identity
    origin: Origin
    source: str | None = None
    """The format's name if None."""


def import_to(
    output: Path,
    paths: Sequence[Path],
    *,
    format: str | None,
    facts: Facts,
    vehicle: str | None = None,
    car: Car = Car(),
    skip_unfit: bool = False,
) -> Written:
    """Read folders or files into one table; what is held is one recording's poses and a few frames.

    All drives are one car's, or those of ``vehicle``, in which {folder} is the name of the folder they are
    in. With identity recording every recording is a vehicle of its own, on the side of the split that its
    source says, if it does: the same car is then not protected as one.

    Raises:
        DataError: nothing of the format, or something unfit in it; then nothing is written.
        UsageError: an unknown format.
    """
    made = _Import(facts, vehicle, car, skip_unfit)
    first = output.with_name(f"{output.name}.first")
    declared = Table(pa.table({}), facts.licence, facts.identity, facts.origin)
    try:
        table.write_parts(made.parts(_found(paths, format)), declared, first)
        if not made.rows:
            raise DataError(
                ", ".join(map(str, paths)),
                got="drives without a pose",
                expected="at least one",
                hint="check that frames and poses have the same clock",
            )
        # What was left out is known now, and stands in front of the rows: once more, by row groups.
        table.write_parts(_groups(first), replace(declared, left_out=made.left_out), output)
    finally:
        first.unlink(missing_ok=True)
    return Written(made.rows, len(made.vehicles), len(made.recordings), made.left_out)


@dataclass
class _Import:
    """The rows of an import, and what became of them."""

    facts: Facts
    vehicle: str | None
    car: Car
    skip_unfit: bool
    rows: int = 0
    unfit: int = 0
    vehicles: set[str] = field(default_factory=set)
    recordings: set[str] = field(default_factory=set)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return (LeftOut("frames that do not decode", self.unfit, 0),) if self.unfit else ()

    def parts(self, found: Iterable[tuple[str, Path, str]]) -> Iterator[pa.Table]:
        """Some rows at a time."""
        for reader, path, folder in found:
            for one in _guarded(READERS[reader], path, self.car):
                name = f"{folder}/{one.name}" if folder and folder != one.name else one.name
                if name in self.recordings:
                    raise DataError(
                        str(path), got=f"two recordings {name}", expected="each once", hint="leave one out"
                    )
                self.recordings.add(name)
                who = (self.vehicle or "ego").replace("{folder}", path.parent.name)
                source = self.facts.source or reader
                alone = self.facts.identity == "recording"
                key = f"{source}/{who}/{name}" if alone else f"{source}/{who}"
                self.vehicles.add(key)
                test = one.test if alone and one.test is not None else table.split_is_test(key)
                texts = {"region": self.facts.region, "source": source, "recording": name, "vehicle": key}
                yield from self._rows(one, texts, path, test=test)

    def _rows(self, one: Recording, texts: dict[str, str], path: Path, *, test: bool) -> Iterator[pa.Table]:
        order = np.argsort(one.t, kind="stable")
        start = one.t[order[0]] if len(order) else 0.0
        for low in range(0, len(order), _GROUP):
            chosen = order[low : low + _GROUP]
            self.rows += len(chosen)
            columns: dict[str, Any] = {name: pa.repeat(text, len(chosen)) for name, text in texts.items()}
            columns["t"] = one.t[chosen] - start
            columns["image"] = pa.array([self._image(one, int(row), path) for row in chosen], pa.binary())
            columns |= {
                name: pa.array(getattr(one, name)[chosen], pa.float32())
                for name in ("x", "y", "heading", "speed")
            }
            yield pa.table(columns | {"test": pa.repeat(test, len(chosen))}, SCHEMA)

    def _image(self, one: Recording, row: int, path: Path) -> bytes | None:
        give = one.frames[row]
        if give is None or (image := _stored(give())) is not None:
            return None if give is None else image
        self.unfit += 1
        if not self.skip_unfit:
            raise DataError(
                f"{path}: {one.name}",
                got=f"a frame that does not decode, the {row + 1}th",
                expected="JPEG or PNG of 8 bits a channel",
                hint="mend it, or import the others with --skip-unfit",
            )
        return None


def _guarded(reader: Reader, path: Path, car: Car) -> Iterator[Recording]:
    """The recordings of one file; what its bytes make a parser say is one error."""
    try:
        yield from reader.read(path, car)
    except FedfsdError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, csv.Error, OSError) as error:
        raise damaged(path, f"no such format ({type(error).__name__})", reader.about) from None


def _groups(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_GROUP):
            yield pa.Table.from_batches([batch])


def _found(paths: Sequence[Path], format: str | None) -> list[tuple[str, Path, str]]:
    """Each reader's name, what it reads, and the folder's name where there are several.

    Raises:
        UsageError: an unknown format. DataError: nothing of it.
    """
    if format is not None and format not in READERS:
        raise UsageError(
            "--format", got=format, expected=" | ".join(READERS), hint="choose one, or leave it out"
        )
    for name in [format] if format else READERS:
        files = READERS[name].files
        here = [
            one
            for path in paths
            for one in ([path] if path.is_file() and path.match(files) else sorted(path.rglob(files)))
        ]
        if here:
            for one in here:
                if one not in paths:
                    _inside(one.parent, one.name)
            return [(name, one, one.parent.name if len(here) > 1 else "") for one in here]
    raise DataError(
        ", ".join(map(str, paths)),
        got="no drives with a camera",
        expected=" or ".join(dict.fromkeys(reader.files for reader in READERS.values())),
        hint="name the folder that has these files",
    )


def _stored(data: bytes) -> bytes | None:
    """A picture as the table has it; None: it is none."""
    from PIL import Image

    image = drives.opened(data)
    if image is None:
        return None
    if image.width <= COLUMNS and len(data) <= _LARGEST:
        return data
    out = io.BytesIO()
    columns = min(image.width, COLUMNS)
    rows = max(1, round(image.height * columns / image.width))
    image.resize((columns, rows), Image.Resampling.BOX).save(out, "JPEG", quality=92)
    return out.getvalue()


def _inside(folder: Path, name: str) -> Path:
    """The file ``name`` below ``folder``. DataError: it leads out of the folder, or through a link."""
    path = drives.inside(folder, name)
    if path is None:
        raise DataError(
            str(folder),
            got="a file's path that leaves the folder or follows a link",
            expected="paths below the folder",
            hint="copy the files into the folder",
        )
    return path


def _file(folder: Path, name: str) -> Callable[[], bytes]:
    """The bytes of a frame's file below ``folder``, empty where there is none or it is too large."""
    path = _inside(folder, name)
    return lambda: drives.content(path)


def _text(folder: Path, name: str) -> str:
    """A text file below ``folder``."""
    return content(_inside(folder, name)).decode("utf-8")


def _sound(path: Path, *numbers: np.ndarray) -> None:
    """Raises DataError: a number that is none, or that is no time or place."""
    for one in numbers:
        with np.errstate(invalid="ignore"):
            bad = np.flatnonzero(~(np.abs(one) < _FARTHEST))
        if len(bad):
            row = int(bad[0]) // (one.size // len(one)) + 1
            raise damaged(path, f"a number that is none, or far too large, in row {row}", "times and poses")


def _onwards(path: Path, t: np.ndarray, *, least: float = np.finfo(float).tiny) -> None:
    """Raises DataError: times that go backwards, or steps below ``least`` s."""
    back = np.flatnonzero(np.diff(t) < least)
    if len(back):
        raise damaged(path, f"a time in row {back[0] + 2} that is not after the one before", "times in order")


def _moving(t: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Speed and heading from positions; where the car stands, its last direction."""
    if len(t) < 2:
        return np.zeros(len(t)), np.zeros(len(t))
    vx, vy = np.gradient(x, t), np.gradient(y, t)
    speed = np.hypot(vx, vy)
    moving = np.flatnonzero(speed > _STILL)
    last = np.searchsorted(moving, np.arange(len(t)), side="right") - 1
    source = moving[np.maximum(last, 0)] if len(moving) else np.zeros(len(t), np.int64)
    return speed, np.arctan2(vy, vx)[source]


def _reckoned(
    t: np.ndarray, steering: np.ndarray, speed: np.ndarray, car: Car, path: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and heading of a bicycle that drives on from 0; steering to the left is positive, 1 is full."""
    if car.wheelbase is None or car.full_steering is None:
        raise UsageError(
            "--wheelbase, --full-steering",
            got=f"neither, for {path.name}",
            expected="both: this format has no pose, only steering",
            hint="measure the car, for example --wheelbase 0.26 --full-steering 25",
        )
    _sound(path, t, steering, speed)
    _onwards(path, t, least=0.0)
    step = np.diff(t, prepend=t[:1])
    rate = speed * np.tan(np.clip(steering, -1, 1) * car.full_steering) / car.wheelbase
    heading = np.cumsum(rate * step)
    return np.cumsum(speed * np.cos(heading) * step), np.cumsum(speed * np.sin(heading) * step), heading


def _numbers(folder: Path, name: str, columns: int) -> np.ndarray:
    """The first columns of a text file of numbers, (rows, columns)."""
    path, text = folder / name, _text(folder, name)
    try:
        found = np.array(
            [[float(cell) for cell in line.split()] for line in text.split("\n") if line.strip()]
        )
    except ValueError:  # also rows of different lengths
        found = np.zeros(0)
    if found.ndim != 2:
        raise damaged(path, "no table of numbers", f"{columns} numbers a line")
    if found.shape[1] < columns:
        raise damaged(path, f"{found.shape[1]} numbers a line", f"{columns} or more")
    found = found[:, :columns]
    _sound(path, found)
    return found


def donkeycar(path: Path, car: Car) -> Iterator[Recording]:
    """A tub of version 2: ``manifest.json``, ``catalog_*.catalog`` and ``images``; a recording a session."""
    folder = path.parent
    deleted = _deleted(path)
    sessions: dict[str, list[tuple[float, float, float, str]]] = {}
    for catalog in sorted(folder.glob("catalog_*.catalog"), key=lambda one: (len(one.name), one.name)):
        for number, line in enumerate(_text(folder, catalog.name).splitlines(), 1):
            try:
                one = json.loads(line)
                if one.get("_index") in deleted:
                    continue
                sessions.setdefault(str(one.get("_session_id", "")), []).append(
                    (
                        one["_timestamp_ms"] * 1e-3,
                        float(one["user/angle"]),
                        float(one["user/throttle"]),
                        str(one["cam/image_array"]),
                    )
                )
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                raise damaged(catalog, f"line {number} that is no record", "a record of tub v2") from None
    if not sessions:
        raise damaged(path, "a tub without a record", "catalog_*.catalog beside it")
    if car.full_speed is None:
        raise UsageError(
            "--full-speed",
            got="nothing",
            expected="m/s at full throttle: a tub has no speed",
            hint="drive a measured distance at full throttle",
        )
    for session, rows in sessions.items():
        t, angle, throttle = np.array([row[:3] for row in rows]).T
        speed = np.clip(throttle, 0, 1) * car.full_speed
        x, y, heading = _reckoned(t, -angle, speed, car, path)  # a tub's angle is positive to the right
        frames = [_file(folder, f"images/{row[3]}") for row in rows]
        name = folder.name if len(sessions) == 1 else f"{folder.name}/{session}"
        yield Recording(name, t, x, y, heading, speed, frames)


def _deleted(path: Path) -> set[int]:
    """The records that a tub's owner deleted: the manifest names them, and the catalogs still have them."""
    lines = _text(path.parent, path.name).splitlines()
    try:
        last = json.loads(lines[-1])
        return set(last.get("deleted_indexes", ())) if isinstance(last, dict) else set()
    except (ValueError, TypeError, IndexError):
        raise damaged(path, "no manifest", "the manifest of a tub v2") from None


def udacity(path: Path, car: Car) -> Iterator[Recording]:
    """``driving_log.csv`` of the simulator and its folder ``IMG``: steering from -1 to 1, speed in mph."""
    text = _text(path.parent, path.name)
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if len(row) >= 7]
    if rows and rows[0][0].strip() == "center":
        rows = rows[1:]
    try:
        numbers = np.array([[float(row[3]), float(row[6])] for row in rows]).reshape(-1, 2)
        names = [row[0].strip().replace("\\", "/").rpartition("/")[2] for row in rows]
        t = np.array([_udacity_time(name) for name in names])
    except (ValueError, IndexError):
        raise damaged(
            path, "a line that is none of a driving log", "center, left, right, steering, ..."
        ) from None
    if not len(rows):
        raise damaged(path, "an empty driving log", "center, left, right, steering, ...")
    speed = np.maximum(numbers[:, 1], 0) * 0.44704
    known = Car(car.wheelbase or 2.67, car.full_steering or np.deg2rad(25))  # as the simulator has them
    x, y, heading = _reckoned(t, -numbers[:, 0], speed, known, path)
    yield Recording(
        path.parent.name, t, x, y, heading, speed, [_file(path.parent, f"IMG/{name}") for name in names]
    )


def _udacity_time(name: str) -> float:
    """Of center_2016_12_01_13_30_48_287.jpg."""
    stamp = name.rpartition(".")[0].split("_", 1)[1]
    return datetime.strptime(f"{stamp}000 +0000", "%Y_%m_%d_%H_%M_%S_%f %z").timestamp()


def kitti_odometry(path: Path, _: Car) -> Iterator[Recording]:
    """A sequence: ``times.txt``, ``image_2`` (or _0), poses in the folder or in ``poses/NN.txt``."""
    folder = path.parent
    t = _numbers(folder, path.name, 1)[:, 0]
    _onwards(path, t)
    places = [(folder, "poses.txt"), (folder.parent.parent, f"poses/{folder.name}.txt")]
    found = next((one for one in places if (one[0] / one[1]).exists()), None)
    if found is None:
        raise damaged(path, "no poses", "poses.txt beside it, or poses/NN.txt beside sequences")
    poses = _numbers(*found, 12).reshape(-1, 3, 4)
    if len(t) != len(poses):
        raise damaged(path, f"{len(t)} times of {len(poses)} poses", "as many")
    images = next((f"{name}/" for name in ("image_2", "image_0") if (folder / name).is_dir()), "")
    # The camera's axes: x to the right, y down, z forward.
    x, y = poses[:, 2, 3], -poses[:, 0, 3]
    heading = np.unwrap(np.arctan2(-poses[:, 0, 2], poses[:, 2, 2]))
    speed = _moving(t, x, y)[0]
    frames = [_file(folder, f"{images}{n:06d}.png") for n in range(len(t))]
    yield Recording(folder.name, t, x, y, heading, speed, frames)


def kitti_raw(path: Path, _: Car) -> Iterator[Recording]:
    """A drive with ``oxts/timestamps.txt``, ``oxts/data/*.txt`` and ``image_02`` (or _00)."""
    folder = path.parent.parent
    t = _stamps(folder, "oxts/timestamps.txt")
    files = sorted(one.name for one in (path.parent / "data").glob("*.txt"))
    oxts = np.concatenate([np.zeros((0, 9)), *(_numbers(folder, f"oxts/data/{one}", 9) for one in files)])
    if len(oxts) != len(t):
        raise damaged(path, f"{len(t)} times of {len(oxts)} poses", "as many")
    x, y = _plane(oxts[:, 0], oxts[:, 1])
    camera = next((folder / name for name in ("image_02", "image_00") if (folder / name).is_dir()), None)
    if camera is None:
        raise damaged(path, "no camera", "image_02 or image_00 beside oxts")
    seen = _stamps(folder, f"{camera.name}/timestamps.txt")
    names = [f"{camera.name}/data/{one.name}" for one in sorted((camera / "data").iterdir())]
    if len(names) != len(seen):
        raise damaged(camera / "timestamps.txt", f"{len(seen)} times of {len(names)} frames", "as many")
    heading = np.unwrap(oxts[:, 5])
    frames = [_file(folder, name) for name in names]
    yield _at_frames(folder.name, t, (x, y, heading, oxts[:, 8]), seen, frames)


def _stamps(folder: Path, name: str) -> np.ndarray:
    """Times of KITTI's raw data: 2011-09-26 13:02:25.964389445, s."""
    lines = _text(folder, name).split("\n")
    try:
        found = np.array(
            [
                datetime.fromisoformat(line[:26] + "+00:00").timestamp() + 1e-9 * int(line[26:29] or 0)
                for line in lines
                if line.strip()
            ]
        )
    except (ValueError, OverflowError):
        found = np.zeros(0)
    if not len(found):
        raise damaged(folder / name, "no list of times", "a time a line")
    return found


def _plane(latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """m east and north of the first point."""
    if not len(latitude):
        return latitude, longitude
    scale = np.deg2rad(1) * _EARTH
    return (
        (longitude - longitude[0]) * scale * np.cos(np.deg2rad(latitude[0])),
        (latitude - latitude[0]) * scale,
    )


def _at_frames(
    name: str,
    t: np.ndarray,
    poses: tuple[np.ndarray, ...],
    seen: np.ndarray,
    frames: Sequence[Callable[[], bytes]],
) -> Recording:
    """Poses (x, y, heading, speed) at the times of the frames; frames outside them are left out."""
    order = np.argsort(t, kind="stable")
    chosen = np.flatnonzero((seen >= t.min(initial=np.inf)) & (seen <= t.max(initial=-np.inf)))
    x, y, heading, speed = (np.interp(seen[chosen], t[order], values[order]) for values in poses)
    return Recording(name, seen[chosen], x, y, heading, speed, [frames[int(row)] for row in chosen])


def nuscenes_front(path: Path, _: Car) -> Iterator[Recording]:
    """CAM_FRONT with the ego pose at each frame; ``path`` is ``sample_data.json`` of one version's tables."""
    root = path.parent.parent
    for one in path.parent.glob("*.json*"):
        _inside(path.parent, one.name)
    scenes = dict(nuscenes.records(path, "scene", "token", "name"))
    samples = dict(nuscenes.records(path, "sample", "token", "scene_token"))
    poses: dict[str, tuple[str, str]] = {}
    for pose, sample, name in nuscenes.records(
        path, "sample_data", "ego_pose_token", "sample_token", "filename"
    ):
        if "/CAM_FRONT/" in str(name) and samples.get(sample) in scenes:
            poses[pose] = (samples[sample], str(name))
    found: dict[str, list[tuple[Any, ...]]] = {}
    for token, time, place, turned in nuscenes.records(
        path, "ego_pose", "token", "timestamp", "translation", "rotation"
    ):
        if token in poses:
            scene, name = poses[token]
            try:
                numbers = [float(one) for one in (time, *place[:2], *turned[:4])]
                t, x, y, w, i, j, k = numbers
            except (TypeError, ValueError, OverflowError):
                raise damaged(path, "an ego_pose whose numbers are none", "nuScenes v1.0") from None
            found.setdefault(scene, []).append((1e-6 * t, x, y, w, i, j, k, name))
    for scene, rows in sorted(found.items(), key=lambda one: str(scenes[one[0]])):
        rows.sort(key=lambda row: row[0])
        moved = np.array([row[:7] for row in rows])
        _sound(path, moved)
        t, x, y, w, i, j, k = moved.T
        _onwards(path, t)
        speed = _moving(t, x, y)[0]
        frames = [_file(root, row[7]) for row in rows]
        yield Recording(str(scenes[scene]), t, x, y, np.unwrap(yaw(w, i, j, k)), speed, frames)


def comma(path: Path, _: Car) -> Iterator[Recording]:
    """A segment of comma2k19: ``global_pose/frame_*`` beside ``video.hevc`` (or fcamera.hevc, qcamera.ts)."""
    folder = path.parent.parent
    places, t = (_array(folder, f"{path.parent.name}/{name}") for name in ("frame_positions", "frame_times"))
    if t.ndim != 1 or places.shape != (len(t), 3):
        raise damaged(path, f"times {t.shape} of positions {places.shape}", "(R,) of (R, 3)")
    _sound(path, t, places)
    _onwards(path, t)
    radius = np.linalg.norm(places, axis=1)
    if not (radius > 0).all():
        raise damaged(path, "a position in the middle of the earth", "ECEF in metres")
    latitude, longitude = np.arcsin(places[:, 2] / radius), np.arctan2(places[:, 1], places[:, 0])
    x, y = _plane(np.rad2deg(latitude), np.rad2deg(np.unwrap(longitude)))
    speed, heading = _moving(t, x, y)
    video = next((one for one in _VIDEOS if (folder / one).exists()), None)
    if video is None:
        raise damaged(path, "no video", " or ".join(_VIDEOS))
    frames = _Video(_inside(folder, video), _VIDEOS[video])
    gives = [lambda n=number: frames.jpeg(n) for number in range(len(t))]
    yield Recording(folder.name, t, x, y, np.unwrap(heading), speed, gives)


_VIDEOS = {"video.hevc": "hevc", "fcamera.hevc": "hevc", "qcamera.ts": "mpegts"}
"""By name the format: one that is guessed may be a playlist, which opens other files."""


def _array(folder: Path, name: str) -> np.ndarray:
    """A NumPy file of numbers; comma leaves the ending out."""
    path = _inside(folder, name if (folder / name).exists() else f"{name}.npy")
    try:  # mapped: a header may name any size
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # a parser of somebody else, on whatever bytes
        found = None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise damaged(path, "no array of numbers", "an .npy file")
    return np.array(found, np.float64)


class _Video:
    """The frames of a video in their order, decoded once, one at a time."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._kind, self._next = path, kind, 0
        self._frames = self._decoded()

    def jpeg(self, number: int) -> bytes:
        """The file of frame ``number``, which is no earlier than the last one; empty where there is none."""
        for frame in self._frames:
            self._next += 1
            if self._next > number:
                out = io.BytesIO()
                frame.to_image().save(out, "JPEG", quality=92)
                return out.getvalue()
        return b""

    def _decoded(self) -> Iterator[Any]:
        """All frames, up to what cannot be decoded."""
        with optional("video", "video"):
            import av
        try:
            with av.open(str(self._path.absolute()), format=self._kind) as file:
                stream = file.streams.video[0]
                if stream.width * stream.height <= drives.MOST_PIXELS:
                    yield from file.decode(stream)
        except (av.FFmpegError, OSError, IndexError):
            return


def mcap(path: Path, _: Car) -> Iterator[Recording]:
    """A recording of ROS 2 with sensor_msgs/CompressedImage and nav_msgs/Odometry."""
    with optional("ROS recordings", "bag"):
        from rosbags.highlevel import AnyReader
    poses, seen, places = [], [], [0]
    with tempfile.TemporaryFile() as kept:  # the frames of a recording may not fit in memory
        try:
            with AnyReader([path], default_typestore=bag.standard_types()) as reader:
                kinds = ("nav_msgs/msg/Odometry", "sensor_msgs/msg/CompressedImage")
                motion, camera = (
                    next((one for one in reader.connections if one.msgtype == kind), None) for kind in kinds
                )
                for one, logged, data in reader.messages([one for one in (motion, camera) if one]):
                    message: Any = reader.deserialize(data, one.msgtype)
                    stamp = bag.time_of(message.header.stamp, logged)
                    if one is camera or one.topic == getattr(camera, "topic", None):
                        seen.append(stamp)
                        places.append(places[-1] + kept.write(bytes(message.data)))
                    else:
                        poses.append((stamp, *bag.TYPES[kinds[0]](message)))
        except Exception as error:  # whatever a foreign parser says of a damaged file
            what = f"no whole recording ({type(error).__name__})"
            raise damaged(path, what, "an MCAP file of ROS 2") from None
        if not poses or not seen:
            missing = "nav_msgs/Odometry" if not poses else "sensor_msgs/CompressedImage"
            raise damaged(path, f"no message of {missing}", "a camera and odometry")
        numbers = np.array(poses, np.float64)
        _sound(path, numbers)
        t, x, y, w, i, j, k, along, across = numbers.T
        speed = np.hypot(along, across)
        heading = np.unwrap(yaw(w, i, j, k))
        gives = [lambda at=at: _read(kept, *at) for at in pairwise(places)]
        yield _at_frames(path.stem, t, (x, y, heading, speed), np.array(seen), gives)


def _read(file: IO[bytes], low: int, high: int) -> bytes:
    file.seek(low)
    return file.read(high - low)


def own(path: Path, _: Car) -> Iterator[Recording]:
    """A table of this task: to declare it anew, such as every recording a vehicle of its own."""
    try:
        with pq.ParquetFile(path) as file:
            sieve = Sieve(str(path), SCHEMA, file.schema_arrow)
            batches = file.iter_batches(_GROUP, columns=sieve.columns)
            rows = mapped.rows((plain(sieve.sift(pa.table(one))[0], SCHEMA) for one in batches), SCHEMA)
    except (pa.ArrowInvalid, OSError):
        raise damaged(path, "no readable Parquet file", "a table of camera drives") from None
    whole = Table(rows, "", "recording", "recorded")
    names = whole.coded("recording")
    for code, name in enumerate(names.names):
        mine = rows.filter(pa.array(names.codes == code))
        t, x, y, heading, speed = (
            mine[each].to_numpy(zero_copy_only=False) for each in ("t", "x", "y", "heading", "speed")
        )
        _sound(path, t)
        frames = [
            None if data is None else (lambda data=data: drives.picture(data, path.parent) or b"")
            for data in mine["image"].to_pylist()
        ]
        sides = set(mine["test"].to_pylist())
        yield Recording(name, t, x, y, heading, speed, frames, sides.pop() if len(sides) == 1 else None)


READERS: dict[str, Reader] = {
    "donkeycar": Reader("manifest.json", donkeycar, "a donkeycar tub, version 2 (dead reckoning)"),
    "udacity": Reader("driving_log.csv", udacity, "a log of Udacity's simulator (dead reckoning)"),
    "kitti-raw": Reader("oxts/timestamps.txt", kitti_raw, "KITTI raw data, synced drives with oxts"),
    "kitti": Reader("times.txt", kitti_odometry, "KITTI odometry: sequences with poses"),
    "nuscenes": Reader("sample_data.json", nuscenes_front, "nuScenes CAM_FRONT with ego_pose"),
    "comma": Reader("global_pose/frame_times*", comma, "comma2k19 segments (extra video)"),
    "mcap": Reader("*.mcap", mcap, "MCAP of ROS 2 with CompressedImage and Odometry (extra bag)"),
    "drives": Reader("*.parquet", own, "a table of this task"),
}
