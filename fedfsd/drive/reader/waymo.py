"""Waymo Motion: TFRecord files of scenarios, 9 s at 10 Hz, as Scenario protos or as tf.Example.

Kept: valid states of tracks of type vehicle, and of the recording car. The files say no place, and all
recording cars count as one vehicle, the careful choice. Track ids are a scenario's own, and
scenarios of one drive may overlap: identity recording. No TensorFlow: a record is framed as TensorFlow does
it, by its length and its content, each with a masked CRC-32C.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fedfsd.drive.reader.drive import (
    Drive,
    Options,
    Reader,
    damaged,
    drive,
    optional,
    remainder,
    tracks_left_out,
)
from fedfsd.drive.reader.spool import opened
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError

TYPES = {0: "unset", 1: "vehicle", 2: "pedestrian", 3: "cyclist", 4: "other"}
VEHICLE = 1
NUMBERS = ("x", "y", "vx", "vy", "heading", "length", "width")
_STATE = attrgetter("center_x", "center_y", "velocity_x", "velocity_y", "heading", "length", "width", "valid")
# A tf.Example's names of them; each for the past, the present and the future.
FEATURES = ("x", "y", "velocity_x", "velocity_y", "bbox_yaw", "length", "width")
SPANS = ("past", "current", "future")
MAX_RECORD = 256 * 2**20
_MASK = 0xA282EAD8


def read(path: Path, options: Options) -> Iterator[Drive]:
    """Read one file, scenario by scenario; a record that is damaged is unfit, and the next one is read."""
    with optional("Waymo Motion", "waymo"):
        from google.protobuf.message import DecodeError

        from fedfsd.drive.reader import waymo_pb2
    unfit: list[DataError] = []
    for number, record in records(path):
        place = f"{path}: record {number}"
        try:
            if record is None:
                raise _unfit(place, "a record whose checksum is wrong")
            if b"state/current/x" in record:
                yield _of_example(path, place, waymo_pb2.Example.FromString(record))
            else:
                yield _of_scenario(path, place, waymo_pb2.Scenario.FromString(record))
        except DecodeError:
            unfit.append(_unfit(place, "bytes that are neither a Scenario nor a tf.Example"))
        except DataError as error:
            unfit.append(error)
    left_out = [LeftOut(f"{len(unfit)} unfit records of {path.name}", 0, 0)] if unfit else []
    yield remainder(options.recording, left_out, unfit)


def _of_scenario(path: Path, place: str, scenario: Any) -> Drive:
    """The vehicles of a Scenario proto."""
    times = np.array(scenario.timestamps_seconds)
    rows, keys, ego = [np.empty((0, 1 + len(NUMBERS)))], [], []
    others: list[tuple[object, int]] = []
    for index, track in enumerate(scenario.tracks):
        if len(track.states) != len(times):
            raise _unfit(place, "a track of another length", f"{len(times)} states, one a time stamp")
        if track.object_type != VEHICLE and index != scenario.sdc_track_index:
            others.append((_kind(track.object_type), sum(state.valid for state in track.states)))
            continue
        numbers = chain.from_iterable(map(_STATE, track.states))
        width = 1 + len(NUMBERS)
        states = np.fromiter(numbers, np.float64, width * len(times)).reshape(-1, width)
        valid = states[:, -1] == 1
        rows.append(np.column_stack([times, states[:, :-1]])[valid])
        keys.append(str(track.id))
        ego.append(index == scenario.sdc_track_index)
    owner = np.repeat(np.arange(len(keys)), [len(each) for each in rows[1:]])
    egos = np.array(ego, bool)
    return _drive(
        path, place, scenario.scenario_id, times, np.concatenate(rows), keys, owner, egos[owner], others
    )


def _of_example(path: Path, place: str, example: Any) -> Drive:
    """The vehicles of a tf.Example, whose arrays have one row an object."""
    features = example.features.feature

    def values(name: str) -> np.ndarray:
        kind = features[name].WhichOneof("kind") if name in features else None
        found = getattr(features[name], kind).value if kind else ()
        if kind not in ("float_list", "int64_list") or not len(found):
            raise _unfit(place, f"no numbers {name}", "a tf.Example of Waymo Motion")
        return np.array(found, np.float64)

    ids, kinds, ego = values("state/id"), values("state/type"), values("state/is_sdc") == 1

    def over_time(name: str) -> np.ndarray:
        parts = [values(f"state/{span}/{name}") for span in SPANS if f"state/{span}/{name}" in features]
        if not parts or any(len(part) % len(ids) for part in parts):
            raise _unfit(place, f"state/../{name} of another length", f"a multiple of {len(ids)} objects")
        return np.concatenate([part.reshape(len(ids), -1) for part in parts], axis=1)

    valid = over_time("valid") == 1
    arrays = [over_time("timestamp_micros") * 1e-6, *(over_time(name) for name in FEATURES)]
    if len(kinds) != len(ids) or len(ego) != len(ids) or any(each.shape != valid.shape for each in arrays):
        raise _unfit(place, "arrays of different lengths", "one row an object, one column a time")
    kept = (kinds == VEHICLE) | ego
    chosen = valid & kept[:, None]
    others: list[tuple[object, int]] = [
        (_kind(kinds[row]), int(valid[row].sum())) for row in np.flatnonzero(~kept & valid.any(axis=1))
    ]
    rows = np.stack([each[chosen] for each in arrays], axis=1)
    owner = np.nonzero(chosen)[0]
    scenario = b"".join(features["scenario/id"].bytes_list.value).decode(errors="replace")
    times = np.unique(rows[:, 0])
    return _drive(
        path, place, scenario, times, rows, [f"{each:.0f}" for each in ids], owner, ego[owner], others
    )


def _drive(
    path: Path,
    place: str,
    scenario: str,
    times: np.ndarray,
    rows: np.ndarray,
    keys: list[str],
    owner: np.ndarray,
    ego: np.ndarray,
    others: list[tuple[object, int]],
) -> Drive:
    """The rows, (R, 8), of the tracks whose number ``owner`` (R,) is."""
    steps = np.diff(times)
    if not scenario or not len(steps) or not (steps > 0).all():
        raise _unfit(place, "no scenario id, or times that do not ascend", "an id, and two times or more")
    return drive(
        path,
        scenario,
        hz=round(1 / float(np.median(steps)), 3),
        vehicle=pa.DictionaryArray.from_arrays(owner, [f"{scenario}/{key}" for key in keys]),
        type=pa.DictionaryArray.from_arrays(np.zeros(len(owner), np.int8), ["vehicle"]),
        columns=dict(zip(("t", *NUMBERS), rows.T, strict=True)),
        ego=ego,
        left_out=tracks_left_out(others),
    )


def _kind(number: float) -> str:
    return TYPES.get(int(number), f"{number:g}") if np.isfinite(number) else "unset"


def records(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Each record with its number from 1; None where its checksum is wrong.

    Raises:
        DataError: no TFRecord file, or one that is cut short: what follows cannot be found.
    """
    with optional("Waymo Motion", "waymo"):
        import google_crc32c
    checksum: Callable[[bytes], int] = google_crc32c.value
    number, at = 0, 0
    with opened(path) as take:
        while head := take(12):
            number += 1
            if len(head) < 12:
                raise _cut(path, number, at)
            length, crc = struct.unpack("<QI", head)
            if masked(checksum(head[:8])) != crc or length > MAX_RECORD:
                if number == 1:
                    raise damaged(path, "no TFRecord file", "records framed as TensorFlow does")
                raise _cut(path, number, at)
            record = take(length + 4)
            if len(record) < length + 4:
                raise _cut(path, number, at)
            at += 16 + length
            whole = masked(checksum(record[:-4])) == int.from_bytes(record[-4:], "little")
            yield number, record[:-4] if whole else None


def masked(crc: int) -> int:
    """A checksum as TFRecord files have it."""
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def _cut(path: Path, number: int, at: int) -> DataError:
    return DataError(
        f"{path}: record {number}, byte {at}",
        got="a record that is cut short or damaged",
        expected="whole records to the end of the file",
        hint="copy the file again, or leave it out with --skip-unfit",
    )


def _unfit(place: str, got: str, expected: str = "a Waymo Motion scenario") -> DataError:
    return DataError(
        place,
        got=got,
        expected=expected,
        hint="copy the file again, or import the other records with --skip-unfit",
    )


READER = Reader(
    read=read,
    files=("*tfrecord*",),
    about="Waymo Open Motion Dataset (Scenario protos or tf.Example in TFRecord)",
    download="waymo.com/open: motion dataset, the folders scenario/ or tf_example/; needs the extra waymo",
    licence="Waymo Dataset License Agreement for Non-Commercial Use, which covers trained models too",
)
