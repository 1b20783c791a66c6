"""ROS recordings of one vehicle's own motion: rosbag2 (MCAP, SQLite), MCAP files of ROS 2, ROS 1 bags.

Read is one topic with nav_msgs/Odometry, geometry_msgs/PoseStamped or sensor_msgs/NavSatFix. Velocities are
those of the odometry, turned from the vehicle's frame; else central differences. Each storage file is a
recording; ``metadata.yaml`` is not needed, so nothing that it names is opened. Without a name for the vehicle
all bags of a city are of one recording car, the careful choice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fedfsd.drive import rate
from fedfsd.drive.reader import plain_sqlite
from fedfsd.drive.reader.columns import projected
from fedfsd.drive.reader.drive import (
    Drive,
    Options,
    Reader,
    central_differences,
    damaged,
    drive,
    optional,
    yaw,
)
from fedfsd.drive.reader.spool import unpacked
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError

# Numbers of one message: along, left of it and turned as its type says; NaN where it has none.
_NONE = float("nan")


def _odometry(message: Any) -> tuple[float, ...]:
    twist = message.twist.twist.linear
    return (*_pose(message.pose.pose), twist.x, twist.y)


def _pose_stamped(message: Any) -> tuple[float, ...]:
    return (*_pose(message.pose), _NONE, _NONE)


def _pose(pose: Any) -> tuple[float, ...]:
    place, turned = pose.position, pose.orientation
    return place.x, place.y, turned.w, turned.x, turned.y, turned.z


def _fix(message: Any) -> tuple[float, ...]:
    """Longitude and latitude for x and y; NaN without a fix."""
    known = message.status.status >= 0
    return (
        message.longitude if known else _NONE,
        message.latitude if known else _NONE,
        *(0.0,) * 4,
        _NONE,
        _NONE,
    )


NAV_SAT_FIX = "sensor_msgs/msg/NavSatFix"
TYPES: dict[str, Callable[[Any], tuple[float, ...]]] = {
    "nav_msgs/msg/Odometry": _odometry,
    "geometry_msgs/msg/PoseStamped": _pose_stamped,
    NAV_SAT_FIX: _fix,
}
MAX_GAP_SECONDS = 1.0
# The tables of rosbag2 in SQLite.
STORED = ("schema", "metadata", "topics", "messages", "message_definitions")
MAX_MESSAGE = 2**26  # bytes
_ZSTD = b"\x28\xb5\x2f\xfd"
# Messages that become arrays together.
_MESSAGES = 2**14


def read(path: Path, options: Options) -> list[Drive]:
    """Read one storage file; what is held is the numbers of its one vehicle."""
    with optional("ROS recordings", "bag"):
        from rosbags.highlevel import AnyReader
    with unpacked(path, options.scratch) as file:
        plain_sqlite.demand_whole(file, path, STORED)
        try:
            with AnyReader([file], default_typestore=standard_types()) as bag:
                topic, kind, rows, unread = _rows(path, options, bag)
        except DataError:
            raise
        except Exception as error:  # whatever a foreign parser says of a damaged file
            what = f"no whole recording ({type(error).__name__})"
            raise damaged(path, what, "a rosbag2 file (MCAP, SQLite), or a ROS 1 bag") from None
    return [_drive(path, options, topic, kind, rows, unread)]


def _rows(path: Path, options: Options, bag: Any) -> tuple[str, str, np.ndarray, int]:
    """Topic, its type, (R, 9) numbers with the time in s first, and how many messages cannot be read."""
    connections = [each for each in bag.connections if each.msgtype in TYPES]
    topics = {each.topic: each.msgtype for each in connections}
    topic = options.topic or (next(iter(topics)) if len(topics) == 1 else "")
    if not topics:
        found = ", ".join(sorted({each.msgtype for each in bag.connections})[:10]) or "no topic"
        raise damaged(path, f"no odometry (but {found})", " or ".join(TYPES))
    if topic not in topics:
        named = ", ".join(f"{name} ({kind.rpartition('/')[2]})" for name, kind in sorted(topics.items()))
        raise DataError(
            f"{path}: topic",
            got=f"none named {topic} among {named}" if topic else named,
            expected="one topic with the vehicle's motion",
            hint=f"choose with --topic {min(topics)}",
        )
    numbers = TYPES[topics[topic]]
    parts, waiting, unread = [np.empty((0, 9))], [], 0
    for connection, logged, data in bag.messages([each for each in connections if each.topic == topic]):
        try:
            message = bag.deserialize(_message(data), connection.msgtype)
            waiting.append((time_of(message.header.stamp, logged), *numbers(message)))
        except Exception:  # a damaged message is one of any kind to a generated parser
            unread += 1
        if len(waiting) >= _MESSAGES:
            parts.append(np.array(waiting, np.float64))
            waiting = []
    parts.append(np.array(waiting, np.float64).reshape(-1, 9))
    return topic, topics[topic], np.concatenate(parts), unread


@cache
def standard_types() -> Any:
    """For recordings that do not bring their definitions; making it takes a third of a second."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


def _message(data: bytes) -> bytes:
    """A message's bytes; rosbag2 may compress each of them."""
    if bytes(data[:4]) != _ZSTD:
        return data
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        found: bytes = stream.read(MAX_MESSAGE)
    return found


def time_of(stamp: Any, logged: int) -> float:
    """When it was measured, s; when it was written where the message does not say."""
    return float(stamp.sec + 1e-9 * stamp.nanosec) if stamp.sec or stamp.nanosec else logged * 1e-9


def _drive(path: Path, options: Options, topic: str, kind: str, rows: np.ndarray, unread: int) -> Drive:
    unfit, left_out = [], []
    if unread:
        left_out.append(LeftOut("unfit row", unread, 1))
        unfit.append(
            DataError(
                f"{path}: topic {topic}",
                got=f"{unread} messages that are no {kind}",
                expected="whole messages",
                hint="copy the recording again, or import the other messages with --skip-unfit",
            )
        )
    known = np.isfinite(rows[:, 1]) & np.isfinite(rows[:, 2])
    if not known.all():
        left_out.append(LeftOut("message without a position", int((~known).sum()), 1))
    t, x, y, w, i, j, k, along, across = rows[known].T
    if kind == NAV_SAT_FIX and len(t):
        x, y = projected(y, x)
    heading = yaw(w, i, j, k)
    owner = np.zeros(len(t), np.int64)
    vx = along * np.cos(heading) - across * np.sin(heading)
    vy = along * np.sin(heading) + across * np.cos(heading)
    if np.isnan(along).all():
        vx, vy = (central_differences(owner, t, each, max_gap_seconds=MAX_GAP_SECONDS) for each in (x, y))
    hz = rate.rates(owner, t) if len(t) else None
    if hz is None and len(t):
        raise damaged(path, f"one message of topic {topic}", "a vehicle that moves on")
    name = options.vehicle.replace("{folder}", path.parent.name) if options.vehicle else "ego"
    return drive(
        path,
        options.recording,
        hz=1.0 if hz is None else hz,
        vehicle=[name] * len(t),
        type=["car"] * len(t),
        columns={"t": t, "x": x, "y": y, "vx": vx, "vy": vy, "heading": heading},
        ego=np.full(len(t), options.vehicle is None),
        left_out=left_out,
        unfit=unfit,
    )


READER = Reader(
    read=read,
    files=("*.mcap", "*.db3", "*.bag"),
    about="a vehicle's own motion in ROS recordings (rosbag2, MCAP, ROS 1)",
    download="your own: Odometry, PoseStamped or NavSatFix; needs the extra bag",
    licence="your own",
)
