"""CommonRoad scenarios, XML versions 2018b and 2020a: the trajectories of the dynamic obstacles.

2018b: <obstacle id><role>dynamic</role><type>; 2020a: <dynamicObstacle id><type>. States hold
exact values; velocity is a scalar along the orientation. The same map carries the same obstacle
ids in its overlapping scenarios, so the key is map and id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import pyarrow as pa

from fedfsd.drive.reader.drive import (
    NUMBERS,
    Drive,
    Options,
    Reader,
    damaged,
    drive,
    remainder,
    together,
    tracks_left_out,
)
from fedfsd.drive.reader.plain_xml import elements
from fedfsd.errors import DataError

# States that become arrays together.
ROWS = 2**16
TAGS = ("obstacle", "dynamicObstacle")  # 2018b, 2020a
VERSIONS = ("2018b", "2020a")
TYPES = ("car", "truck", "bus", "motorcycle", "taxi", "priorityVehicle")


def read(path: Path, options: Options) -> Iterator[Drive]:
    """Read one scenario, obstacle by obstacle; what does not move and planning problems are left out.

    A scenario in which one obstacle is a prediction is no recording: all such obstacles are named at once.
    """
    found = elements(path, TAGS)
    root = next(found)
    if root.tag != "commonRoad" or root.get("commonRoadVersion") not in VERSIONS:
        version = (root.get("commonRoadVersion") or "none")[:20]
        raise damaged(
            path,
            f"root {root.tag[:40]!r}, version {version!r}",
            f"commonRoad of version {' or '.join(VERSIONS)}",
        )
    step = _float(path, root.get("timeStepSize"), "timeStepSize")
    scenario = root.get("benchmarkID") or path.stem
    tracks: list[_Track] = []
    errors: list[DataError] = []
    others: list[tuple[str, int]] = []
    rows = 0
    for obstacle in filter(_is_dynamic, found):
        kind = (obstacle.findtext("type") or "").strip()
        if kind not in TYPES:
            others.append((kind, len(_states(obstacle))))
            continue
        try:
            tracks.append(_track(path, kind, obstacle, step))
        except DataError as error:
            errors.append(error)
            continue
        rows += len(tracks[-1].numbers)
        if rows > ROWS:
            yield _drive(path, scenario, step, tracks)
            tracks, rows = [], 0
    if errors:
        raise together(errors, str(path))
    if tracks:
        yield _drive(path, scenario, step, tracks)
    yield remainder(options.recording, tracks_left_out(others))


@dataclass(frozen=True)
class _Track:
    number: str
    kind: str
    numbers: np.ndarray  # (R, 8): NUMBERS


def _drive(path: Path, scenario: str, step: float, tracks: Sequence[_Track]) -> Drive:
    sizes = [len(each.numbers) for each in tracks]

    def each_row(names: Iterable[str]) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(
            np.repeat(np.arange(len(sizes)), sizes), pa.array(names, pa.string())
        )

    return drive(
        path,
        scenario,
        hz=1 / step if step > 0 else 0.0,
        vehicle=each_row(f"{_map(scenario)}/{each.number}" for each in tracks),
        type=each_row(each.kind for each in tracks),
        columns=dict(zip(NUMBERS, np.concatenate([each.numbers for each in tracks]).T, strict=True)),
        time_column="timeStepSize",
    )


def _map(scenario: str) -> str:
    """The map's part of a benchmark id: USA_Lanker-1_10_T-1 lies on USA_Lanker-1."""
    parts = scenario.removeprefix("C-").split("_")
    return "_".join(parts[:2])


def _is_dynamic(element: Element) -> bool:
    return element.tag == "dynamicObstacle" or (
        element.tag == "obstacle" and (element.findtext("role") or "").strip() == "dynamic"
    )


def _states(obstacle: Element) -> list[Element]:
    """The initial state, and what the trajectory adds; some writers repeat the initial state there."""
    return obstacle.findall("initialState") + obstacle.findall("trajectory/state")


def _track(path: Path, kind: str, obstacle: Element, step: float) -> _Track:
    number = obstacle.get("id")
    if not number:
        raise damaged(path, "an obstacle without id", "an id for each obstacle")
    place = f"obstacle {number[:20]}"
    length = _float(path, obstacle.findtext("shape/rectangle/length", "nan"), place)
    width = _float(path, obstacle.findtext("shape/rectangle/width", "nan"), place)
    try:
        rows = [_numbers(state) for state in _states(obstacle)]
    except (AttributeError, TypeError, ValueError):
        rows = [_named(path, place, state) for state in _states(obstacle)]
    frame, x, y, heading, speed = np.array(rows).reshape(-1, 5).T
    moved = speed * np.cos(heading), speed * np.sin(heading)
    sizes = np.full(len(rows), length), np.full(len(rows), width)
    return _Track(number, kind, np.column_stack([frame * step, x, y, *moved, heading, *sizes]))


def _numbers(state: Any) -> tuple[float, ...]:
    """Frame, position, heading and speed of a state that has them all, without a word on what it lacks."""
    point = state.find("position").find("point")
    return (
        float(state.find("time").find("exact").text),
        float(point.find("x").text),
        float(point.find("y").text),
        float(state.find("orientation").find("exact").text),
        float(state.find("velocity").find("exact").text),
    )


def _named(path: Path, place: str, state: Element) -> tuple[float, ...]:
    """The same of any state: DataError for what has to be there, NaN for what need not be.

    An area or an interval is a prediction, not a recording: only exact values are read.
    """
    return (
        _float(path, state.findtext("time/exact"), f"{place}: time/exact"),
        _float(path, state.findtext("position/point/x"), f"{place}: position/point/x"),
        _float(path, state.findtext("position/point/y"), f"{place}: position/point/y"),
        _float(path, state.findtext("orientation/exact", "nan"), f"{place}: orientation"),
        _float(path, state.findtext("velocity/exact", "nan"), f"{place}: velocity"),
    )


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
