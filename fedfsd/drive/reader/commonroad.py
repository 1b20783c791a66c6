"""CommonRoad scenarios, XML versions 2018b and 2020a: the trajectories of the dynamic obstacles.

2018b: <obstacle id><role>dynamic</role><type>; 2020a: <dynamicObstacle id><type>. States hold
exact values; velocity is a scalar along the orientation. The same map carries the same obstacle
ids in its overlapping scenarios, so the key is map and id.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from fedfsd.drive.reader.drive import (
    Drive,
    Options,
    Reader,
    content,
    damaged,
    drive,
    together,
    tracks_left_out,
)
from fedfsd.drive.reader.plain_xml import parse
from fedfsd.errors import DataError

MAX_BYTES = 64 * 2**20
VERSIONS = ("2018b", "2020a")
TYPES = ("car", "truck", "bus", "motorcycle", "taxi", "priorityVehicle")


def read(path: Path, options: Options) -> list[Drive]:  # noqa: ARG001 - the file says all of it
    """Read one scenario; static and environment obstacles and planning problems are left out.

    A scenario in which one obstacle is a prediction is no recording: all such obstacles are named at once.
    """
    root = parse(content(path, limit=MAX_BYTES), path)
    if root.tag != "commonRoad" or root.get("commonRoadVersion") not in VERSIONS:
        version = (root.get("commonRoadVersion") or "none")[:20]
        raise damaged(
            path,
            f"root {root.tag[:40]!r}, version {version!r}",
            f"commonRoad of version {' or '.join(VERSIONS)}",
        )
    step = _float(path, root.get("timeStepSize"), "timeStepSize")
    scenario = root.get("benchmarkID") or path.stem
    obstacles = [(_type(obstacle), obstacle) for obstacle in _obstacles(root)]
    rows, errors = [], []
    for kind, obstacle in obstacles:
        try:
            rows += _rows(path, kind, obstacle, step) if kind in TYPES else []
        except DataError as error:
            errors.append(error)
    if errors:
        raise together(errors, str(path))
    vehicle, kinds, *numbers = zip(*rows, strict=True) if rows else [()] * 10
    names = ("t", "x", "y", "vx", "vy", "heading", "length", "width")
    return [
        drive(
            path,
            scenario,
            hz=1 / step if step > 0 else 0.0,
            vehicle=[f"{_map(scenario)}/{number}" for number in vehicle],
            type=kinds,
            columns={name: np.array(column) for name, column in zip(names, numbers, strict=True)},
            left_out=tracks_left_out(
                (kind, len(_states(obstacle))) for kind, obstacle in obstacles if kind not in TYPES
            ),
            time_column="timeStepSize",
        )
    ]


def _map(scenario: str) -> str:
    """The map's part of a benchmark id: USA_Lanker-1_10_T-1 lies on USA_Lanker-1."""
    parts = scenario.removeprefix("C-").split("_")
    return "_".join(parts[:2])


def _obstacles(root: Element) -> Iterator[Element]:
    for element in root:
        if element.tag == "dynamicObstacle" or (
            element.tag == "obstacle" and (element.findtext("role") or "").strip() == "dynamic"
        ):
            yield element


def _type(obstacle: Element) -> str:
    return (obstacle.findtext("type") or "").strip()


def _states(obstacle: Element) -> list[Element]:
    """The initial state, and what the trajectory adds; some writers repeat the initial state there."""
    return obstacle.findall("initialState") + obstacle.findall("trajectory/state")


def _rows(path: Path, kind: str, obstacle: Element, step: float) -> list[tuple[Any, ...]]:
    """(id, type, t, x, y, vx, vy, heading, length, width) of each state of a vehicle."""
    number = obstacle.get("id")
    if not number:
        raise damaged(path, "an obstacle without id", "an id for each obstacle")
    place = f"obstacle {number[:20]}"
    length = _float(path, obstacle.findtext("shape/rectangle/length", "nan"), place)
    width = _float(path, obstacle.findtext("shape/rectangle/width", "nan"), place)
    rows = []
    for state in _states(obstacle):
        # An area or an interval is a prediction, not a recording: only exact values are read.
        t = _float(path, state.findtext("time/exact"), f"{place}: time/exact") * step
        x = _float(path, state.findtext("position/point/x"), f"{place}: position/point/x")
        y = _float(path, state.findtext("position/point/y"), f"{place}: position/point/y")
        heading = _float(path, state.findtext("orientation/exact", "nan"), f"{place}: orientation")
        speed = _float(path, state.findtext("velocity/exact", "nan"), f"{place}: velocity")
        vx, vy = speed * math.cos(heading), speed * math.sin(heading)
        rows.append((number, kind, t, x, y, vx, vy, heading, length, width))
    return rows


def _float(path: Path, text: str | None, place: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise DataError(
            f"{path}: {place}",
            got="nothing" if not text else "no number",
            expected="one exact number",
            hint="only recorded scenarios, whose states hold exact values, can be imported",
        ) from None


READER = Reader(
    read=read,
    files="*.xml",
    about="CommonRoad scenarios (XML, 2018b and 2020a), recorded ones",
    download="commonroad.in.tum.de: scenarios",
    licence="that of the recording from which a scenario was made (NGSIM: openly distributed by FHWA)",
)
