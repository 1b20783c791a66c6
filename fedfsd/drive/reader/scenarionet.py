"""ScenarioNet (MetaDrive) scenario descriptions: one pickle a scene, from nuScenes and others.

Kept: tracks of type VEHICLE, and motorcycles where the source says so. Rows whose ``valid`` is 0
are left out. Where the source is nuScenes, ScenarioNet has interpolated 2 Hz key frames to
10 Hz; ``fedfsd data check`` says it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedfsd.drive.reader import plain_pickle
from fedfsd.drive.reader.drive import Drive, Options, Reader, damaged, drive, tracks_left_out
from fedfsd.drive.reader.spool import content

MAX_BYTES = 64 * 2**20
# name in the file -> (names in the table, how many of its columns)
STATES = {"position": ("x", "y"), "heading": ("heading",), "velocity": ("vx", "vy")}
SIZES = {"length": ("length",), "width": ("width",)}


def read(path: Path, options: Options) -> list[Drive]:  # noqa: ARG001 - the file says all of it
    """Read one scene; the recording car is the track the metadata call ``sdc_id``."""
    scene = plain_pickle.load(content(path, MAX_BYTES), path)
    facts = _part(path, scene, "metadata", dict)
    times = _array(path, _part(path, facts, "ts", np.ndarray), "metadata.ts", 1)[:, 0]
    if len(times) < 2 or not (np.diff(times) > 0).all():
        raise damaged(path, "metadata.ts that does not ascend", "at least two times in s")
    recording = str(scene.get("id") or facts.get("scenario_id") or path.stem)
    vehicle: list[str] = []
    kinds: list[str] = []
    parts: list[np.ndarray] = []  # (rows, 8): t and the numbers of STATES and SIZES
    ego: list[bool] = []
    others: list[tuple[str, int]] = []  # type and rows of what is no vehicle
    for key, track in _part(path, scene, "tracks", dict).items():
        kind = _vehicle_type(track)
        if kind is None:
            others.append(_other(track))
            continue
        rows = _rows(path, track, times)
        vehicle += [f"{recording}/{key}"] * len(rows)
        kinds += [kind] * len(rows)
        ego += [key == facts.get("sdc_id")] * len(rows)
        parts.append(rows)
    names = ("t", *(name for group in (STATES | SIZES).values() for name in group))
    stacked = np.concatenate(parts) if parts else np.empty((0, len(names)))
    return [
        drive(
            path,
            recording,
            hz=round(1 / float(np.median(np.diff(times))), 3),
            vehicle=vehicle,
            type=kinds,
            columns=dict(zip(names, stacked.T, strict=True)),
            ego=ego,
            city=_city(facts),
            left_out=tracks_left_out(others),
        )
    ]


def _vehicle_type(track: Any) -> str | None:
    """The source's own type, or None for what is no vehicle."""
    if not isinstance(track, dict):
        return None
    facts = track.get("metadata")
    own = str(facts.get("type") or "vehicle") if isinstance(facts, dict) else "vehicle"
    if track.get("type") == "VEHICLE" or "motorcycle" in own:
        return own.lower().removeprefix("vehicle.")
    return None


def _other(track: Any) -> tuple[str, int]:
    """Type and valid states of what is no vehicle, as far as they can be told."""
    if not isinstance(track, dict):
        return "unknown", 0
    state = track.get("state")
    valid = state.get("valid") if isinstance(state, dict) else None
    rows = np.count_nonzero(valid) if isinstance(valid, np.ndarray) and valid.dtype.kind in "biuf" else 0
    return str(track.get("type") or "unknown").lower(), int(rows)


def _rows(path: Path, track: dict[Any, Any], times: np.ndarray) -> np.ndarray:
    """The valid states of one track, (rows, 8)."""
    state = _part(path, track, "state", dict)
    columns = [times[:, None]]
    for name, targets in (STATES | SIZES).items():
        if name in SIZES and name not in state:
            columns.append(np.full((len(times), 1), np.nan))
            continue
        columns.append(_array(path, _part(path, state, name, np.ndarray), f"state.{name}", len(targets)))
    valid = _array(path, _part(path, state, "valid", np.ndarray), "state.valid", 1)[:, 0] > 0.5
    if any(len(column) != len(times) for column in (*columns, valid)):
        raise damaged(path, "a track of another length", f"{len(times)} states, as metadata.ts has")
    return np.concatenate(columns, axis=1)[valid]


def _array(path: Path, values: np.ndarray, place: str, width: int) -> np.ndarray:
    """The first ``width`` columns as float64, (rows, width)."""
    if values.dtype.kind not in "biuf" or values.ndim not in (1, 2) or not len(values):
        raise damaged(path, f"{place} of another kind", "an array of numbers, one row a time")
    values = values.reshape(len(values), -1)
    if values.shape[1] < width:
        raise damaged(path, f"{place} with {values.shape[1]} columns", f"at least {width}")
    return values[:, :width].astype(np.float64)


def _part(path: Path, whole: Any, name: str, kind: type) -> Any:
    found = whole.get(name) if isinstance(whole, dict) else None
    if not isinstance(found, kind):
        raise damaged(path, f"no {name}", "a ScenarioNet scene: id, metadata, tracks")
    return found


def _city(facts: dict[str, Any]) -> str | None:
    """The city of the map; nuScenes names its maps by city and district."""
    name = facts.get("map")
    if not isinstance(name, str) or not name:
        return None
    return name.split("-")[0] if str(facts.get("dataset", "")).startswith("nuscenes") else name


READER = Reader(
    read=read,
    files="s*.pkl",
    about="ScenarioNet descriptions (pickle, read without running it)",
    download="made with ScenarioNet from nuScenes, nuPlan, Waymo and others",
    licence="that of the data set it was made from",
)
