"""nuScenes: JSON tables (v1.0-*) that refer to each other by token; key frames at 2 Hz.

A scene is a recording. Kept: instances of the categories vehicle.* but bicycles, and the recording car, whose
pose at a key frame is that of the lidar. The files give no velocities: they are central differences within
runs of key frames.
Tables are read record by record; of the large ones (sample_annotation, sample_data, ego_pose) only what is
needed is kept. Schema: nutonomy/nuscenes-devkit, docs/schema_nuscenes.md.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fedfsd.drive import rate
from fedfsd.drive.reader.drive import (
    ENDINGS,
    Drive,
    Options,
    Reader,
    central_differences,
    damaged,
    drive,
    remainder,
    yaw,
)
from fedfsd.drive.reader.spool import Parts, opened
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError

HZ = 2.0
MAX_GAP_SECONDS = 0.75
NO_VEHICLE = ("vehicle.bicycle",)
CHANNEL = "LIDAR_TOP"
COUNTRIES = {"singapore": "SGP", "boston": "USA"}
FIELDS = ("t", "x", "y", "heading", "length", "width")
# Records that become arrays together; characters that one has at most; bytes that are read at once.
RECORDS, MAX_RECORD, CHUNK = 2**16, 2**20, 2**18
_EGO = "ego"
_NO_SIZE = (float("nan"),) * 3
_BETWEEN = re.compile(r"[,\s]*")


@dataclass(frozen=True)
class _Scene:
    name: str
    city: str | None


class _Rows:
    """Track points on their way into parts: a scene's are in one part."""

    def __init__(self, parts: Parts, scenes: dict[str, _Scene]) -> None:
        self._parts, self._scenes = parts, scenes
        self._waiting: list[tuple[Any, ...]] = []
        self.bad = 0  # points whose numbers are none

    def add(self, scene: str, vehicle: str, kind: str, *numbers: Any) -> None:
        """One point: time in us, translation, rotation (w, x, y, z) and size (width, length, height)."""
        self._waiting.append((scene, vehicle, kind, *numbers))
        if len(self._waiting) >= RECORDS:
            self.flush()

    def flush(self) -> None:
        """Hand the points over; one whose numbers are none is an error."""
        points, self._waiting = self._waiting, []
        try:
            numbers = _numbers(points)
        except (TypeError, ValueError):
            sound = [point for point in points if _is_sound(point)]
            self.bad += len(points) - len(sound)
            points, numbers = sound, _numbers(sound)
        if not points:
            return
        scene, vehicle, kind, *_ = zip(*points, strict=True)
        time, at, turned, box = numbers
        rows = {
            "scene": pa.array(scene),
            "vehicle": pa.array(vehicle),
            "type": pa.array(kind),
            "t": time * 1e-6,
            "x": at[:, 0],
            "y": at[:, 1],
            "heading": yaw(*turned.T),
            "length": box[:, 1],
            "width": box[:, 0],
        }
        encoded = rows["scene"].dictionary_encode()
        self._parts.add(pa.table(rows), encoded.dictionary, np.asarray(encoded.indices))


def read(path: Path, options: Options) -> Iterator[Drive]:
    """Read the tables beside one ``sample_annotation.json``, scene by scene."""
    scenes = _scenes(path)
    sample = {
        token: (scene, time)
        for token, scene, time in records(path, "sample", "token", "scene_token", "timestamp")
        if scene in scenes
    }
    with Parts(path, options.scratch) as parts:
        rows = _Rows(parts, scenes)
        lost = _poses(path, rows, sample)
        left_out, without = _annotations(path, rows, sample)
        rows.flush()
        for part in parts:
            yield from _drives(path, scenes, part)
    errors = {
        "records whose numbers are none": rows.bad,
        "annotations whose sample or instance is not there": without,
        "key frames whose ego_pose is not there": lost,
    }
    unfit = [_unfit(path, what, count) for what, count in errors.items() if count]
    left_out += [LeftOut("unfit row", sum(errors.values()), 0)] if unfit else []
    yield remainder(options.recording, left_out, unfit)


def _drives(path: Path, scenes: dict[str, _Scene], part: pa.Table) -> Iterator[Drive]:
    """The scenes of one part."""
    encoded = part["scene"].combine_chunks().dictionary_encode()
    owner = np.asarray(encoded.indices)
    order = np.argsort(owner, kind="stable")
    for chosen in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
        rows = part.take(pa.array(chosen))
        scene = scenes[rows["scene"][0].as_py()]
        columns = {name: rows[name].to_numpy() for name in FIELDS}
        key = rows["vehicle"].combine_chunks().dictionary_encode()
        vehicle = np.asarray(key.indices)
        for speed, position in (("vx", "x"), ("vy", "y")):
            columns[speed] = central_differences(
                vehicle, columns["t"], columns[position], max_gap_seconds=MAX_GAP_SECONDS
            )
        hz = rate.rates(vehicle, columns["t"])
        names = np.array([f"{scene.name}/{one}" for one in key.dictionary.to_pylist()], np.str_)
        yield drive(
            path,
            scene.name,
            hz=HZ if hz is None else hz,
            vehicle=names[vehicle],
            type=rows["type"].to_pylist(),
            columns=columns,
            ego=rows["vehicle"].to_numpy(zero_copy_only=False) == _EGO,
            city=scene.city,
            country=COUNTRIES.get(scene.city or ""),
            time_column="timestamp",
        )


def _scenes(path: Path) -> dict[str, _Scene]:
    """Name and city of each scene, by token; maps are named by city and district."""
    logs = dict(records(path, "log", "token", "location"))
    return {
        token: _Scene(str(name), str(logs.get(log) or "").split("-")[0] or None)
        for token, name, log in records(path, "scene", "token", "name", "log_token")
    }


def _poses(path: Path, rows: _Rows, sample: dict[str, tuple[str, Any]]) -> int:
    """The recording car at each key frame of the lidar; how many have no pose."""
    lidars = {token for token, channel in records(path, "sensor", "token", "channel") if channel == CHANNEL}
    mounted = {
        token
        for token, sensor in records(path, "calibrated_sensor", "token", "sensor_token")
        if sensor in lidars
    }
    names = ("ego_pose_token", "sample_token", "calibrated_sensor_token", "is_key_frame")
    wanted = {
        pose: sample[frame][0]
        for pose, frame, sensor, is_key in records(path, "sample_data", *names)
        if is_key and sensor in mounted and frame in sample
    }
    for token, time, place, rotation in records(
        path, "ego_pose", "token", "timestamp", "translation", "rotation"
    ):
        if scene := wanted.pop(token, None):
            rows.add(scene, _EGO, "car", time, place, rotation, _NO_SIZE)
    return len(wanted)


def _annotations(path: Path, rows: _Rows, sample: dict[str, tuple[str, Any]]) -> tuple[list[LeftOut], int]:
    """The annotated vehicles; what the others are, and how many records refer to nothing."""
    categories = dict(records(path, "category", "token", "name"))
    kinds = {
        token: str(categories[category])
        for token, category in records(path, "instance", "token", "category_token")
        if category in categories
    }
    others: Counter[str] = Counter()
    tracks: dict[str, set[str]] = {}
    without = 0
    names = ("sample_token", "instance_token", "translation", "rotation", "size")
    for frame, instance, place, rotation, size in records(path, "sample_annotation", *names):
        kind = kinds.get(instance)
        if kind is None or frame not in sample:
            without += 1
        elif kind.startswith("vehicle.") and kind not in NO_VEHICLE:
            scene, time = sample[frame]
            rows.add(scene, instance, kind.removeprefix("vehicle."), time, place, rotation, size)
        else:
            others[kind] += 1
            tracks.setdefault(kind, set()).add(instance)
    return [LeftOut(f"type {kind}", count, len(tracks[kind])) for kind, count in others.items()], without


def _numbers(points: list[tuple[Any, ...]]) -> list[np.ndarray]:
    """Times, (R,), places, (R, 3), rotations, (R, 4), and sizes, (R, 3); or TypeError, ValueError."""
    found = [np.array([point[3] for point in points], np.float64)]
    for place, width in ((4, 3), (5, 4), (6, 3)):
        lists = [point[place] for point in points]
        if not {width} >= set(map(len, lists)):
            raise ValueError("a list of another length")
        found.append(
            np.fromiter(chain.from_iterable(lists), np.float64, width * len(lists)).reshape(-1, width)
        )
    return found


def _is_sound(point: tuple[Any, ...]) -> bool:
    try:
        _numbers([point])
    except (TypeError, ValueError):
        return False
    return True


def _unfit(path: Path, what: str, count: int) -> DataError:
    return DataError(
        f"{path.parent}",
        got=f"{count} {what}",
        expected="tables that belong together",
        hint="unpack all tables of one version again, or import the rest with --skip-unfit",
    )


def records(path: Path, table: str, *fields: str) -> Iterator[tuple[Any, ...]]:
    """Some fields of each record of a table beside ``path``, in the order of the file.

    Raises:
        DataError: no such table, not a JSON list of objects, a field missing.
    """
    file = next(
        (
            each
            for end in ("", *ENDINGS)
            if (each := path.with_name(f"{table}.json{end}")).exists() or each.is_symlink()
        ),
        None,
    )
    if file is None:
        raise DataError(
            str(path.parent),
            got=f"no table {table}.json",
            expected="all tables of one version of nuScenes in one folder",
            hint="unpack the archive of the metadata again (v1.0-mini, v1.0-trainval)",
        )
    for number, record in enumerate(_objects(file), start=1):
        try:
            yield tuple([record[field] for field in fields])
        except (KeyError, TypeError):
            missing = [name for name in fields if not isinstance(record, dict) or name not in record]
            raise damaged(file, f"record {number} without {', '.join(missing)}", "nuScenes v1.0") from None


def _objects(file: Path) -> Iterator[Any]:
    """Each member of the JSON list in a file, with no more of it in memory than needed."""
    decode = json.JSONDecoder().raw_decode
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    text, at, number = "", 0, 0
    with opened(file) as take:

        def more() -> bool:
            """Go on reading; whether there was anything."""
            nonlocal text, at
            chunk = take(CHUNK)
            try:
                text, at = text[at:] + utf8.decode(chunk, final=not chunk), 0
            except UnicodeDecodeError:
                raise damaged(file, f"bytes that are not UTF-8 after record {number}", "JSON") from None
            return bool(chunk)

        more()
        if not text.lstrip().startswith("["):
            raise damaged(file, "no JSON list", "a table of nuScenes: a list of objects")
        at = text.index("[") + 1
        while True:
            at = between.end() if (between := _BETWEEN.match(text, at)) else at
            if text[at : at + 1] == "]":
                return
            try:
                record, at = decode(text, at)
            except (ValueError, RecursionError):
                if len(text) - at > MAX_RECORD or not more():
                    what = f"JSON that is cut short or damaged after record {number}"
                    raise damaged(file, what, "a list of objects to its end") from None
                continue
            yield record
            number += 1


READER = Reader(
    read=read,
    files="sample_annotation.json",
    about="nuScenes v1.0 tables (JSON)",
    download="nuscenes.org: Full dataset (v1.0), Metadata, of mini or trainval; test has no annotations",
    licence="CC BY-NC-SA 4.0 with Motional's terms of use; commercial use by agreement",
)
