"""Camera drives as a table, and frames with the path driven after them.

A row is a pose of a car at a time; some rows have a frame. Columns beside region, source, recording, vehicle
(the fleet car that recorded, one key for all its drives) and test:

| column | type | unit, meaning |
|---|---|---|
| t | double | s since the recording's start |
| image | binary | JPEG or PNG of the front camera; empty where the row is a pose alone |
| x, y | float | m, local metric plane of the recording |
| heading | float | rad, counter-clockwise from x |
| speed | float | m/s |

Shapes: W frames, F points of the path. Whether a frame is used depends on its own car's rows alone.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from fedfsd.drive import table
from fedfsd.drive.stored import stored
from fedfsd.drive.table import Table
from fedfsd.errors import NotReadyError
from fedfsd.service import cache
from fedfsd.task.camera.render import HEIGHT, WIDTH
from fedfsd.task.task import Examples

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("region", "source", "recording", "vehicle")]
    + [("t", pa.float64()), ("image", pa.binary())]
    + [(name, pa.float32()) for name in ("x", "y", "heading", "speed")]
    + [("test", pa.bool_())]
)
HORIZONS = np.arange(1, 7) * 0.5
"""s after the frame: the F points of a path."""
MOST_PIXELS = 40_000_000
_GAP = 0.6  # s between two poses that a point may lie between
_FAST = 70.0  # m/s: no car's speed
_PATHLESS = "frames without 3 s of path"
_ODD = "frames with a pose that is none"
_UNREADABLE = "frames that do not decode"


@dataclass(frozen=True)
class Recipe:
    """A generated table that needs no file: what ``fleet.generate`` is called with."""

    regions: tuple[str, ...]
    cars: int
    frames: int
    seed: int


RECIPES = {
    "embedded": Recipe(("CN", "EU", "SG", "US"), cars=200, frames=6, seed=1),
    "public": Recipe(("public",), cars=800, frames=10, seed=2),
    "generic": Recipe(("generic",), cars=800, frames=10, seed=2),
}


def tables(path: str) -> tuple[Table, ...]:
    """The tables behind ``path``; those of ``RECIPES`` are generated once and kept in the user's cache.

    Raises:
        DataError: nothing there, or no table of camera drives.
        NotReadyError: no place for the cache.
    """
    return table.read(_generated(path) if path in RECIPES else path, schema=SCHEMA)


def region_tables(path: str, region: str) -> tuple[Table, ...]:
    """One region's rows of each table behind ``path``; errors as of ``tables``."""
    found = stored(_generated(path) if path in RECIPES else Path(path), SCHEMA)
    return tuple(table.loaded(one, region=region) for one in found)


def _generated(name: str) -> Path:
    """The file of a generated table, made where it is missing."""
    from fedfsd.task.camera import fleet

    made = RECIPES[name]
    kept = cache.folder()
    path = kept / f"camera-{name}-{made.cars}x{made.frames}-{made.seed}-{fleet.VERSION}.parquet"
    if not path.exists():
        try:
            kept.mkdir(parents=True, exist_ok=True)
            part = kept / f"{path.name}.{os.getpid()}"
            table.write(
                fleet.generate(made.regions, cars=made.cars, frames=made.frames, seed=made.seed),
                part,
                schema=SCHEMA,
            )
            part.replace(path)
        except OSError as error:
            raise NotReadyError(
                str(kept),
                got=error.strerror,
                expected="a folder to keep the generated frames in",
                hint="set XDG_CACHE_HOME to a writable folder",
            ) from None
    return path


def examples(tables: Sequence[Table], *, test: bool) -> Examples:
    """Frames of the training (or test) cars with speed, yaw rate and the path driven after each.

    Inputs: ``image`` (W, 3, HEIGHT, WIDTH) uint8, ``speed`` (W, 1) m/s. Targets: ``path`` (W, F, 2) m in the
    car's axes at the frame (x forward, y left), ``yaw_rate`` (W, 1) rad/s before the frame, and the speed.
    """
    vehicles = table.vehicles(tables, test=test)
    slot = {key: number for number, key in enumerate(vehicles)}
    owner, images, speed, yaw_rate, paths = [], [], [], [], []
    dropped = {reason: np.zeros(len(vehicles), np.int64) for reason in (_PATHLESS, _ODD, _UNREADABLE)}
    for one in tables:
        rows = one.rows.filter(pa.array(one.test == test))
        found = _followed(rows)
        bytes_of = rows["image"]
        whose = [slot[key] for key in rows["vehicle"].to_pylist()]
        for row, reason in found.refused.items():
            dropped[reason][whose[row]] += 1
        for place, row in enumerate(found.rows):
            image = decode(bytes_of[int(row)].as_py())
            if image is None:
                dropped[_UNREADABLE][whose[row]] += 1
                continue
            owner.append(whose[row])
            images.append(image)
            speed.append(found.speed[place])
            yaw_rate.append(found.yaw_rate[place])
            paths.append(found.path[place])
    order = np.argsort(np.array(owner, np.int64), kind="stable")
    count = len(order)
    stacked = np.stack(images)[order] if count else np.zeros((0, 3, HEIGHT, WIDTH), np.uint8)

    def column(values: list[float]) -> np.ndarray:
        return np.array(values, np.float32).reshape(count, 1)[order]

    return Examples(
        vehicles,
        np.array(owner, np.int64)[order],
        {"image": stacked, "speed": column(speed)},
        {
            "path": np.array(paths, np.float32).reshape(count, len(HORIZONS), 2)[order],
            "yaw_rate": column(yaw_rate),
            "speed": column(speed),
        },
        dropped,
    )


def decode(data: bytes) -> np.ndarray | None:
    """The frame scaled to WIDTH, cut to HEIGHT from the middle, (3, HEIGHT, WIDTH) uint8; None: unreadable.

    Grey is made colour; what is not 8 bits a channel, not JPEG or PNG, larger than MOST_PIXELS (told by its
    header, before anything is decoded) or too flat for HEIGHT rows is unreadable.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > MOST_PIXELS or image.mode not in ("RGB", "L", "RGBA", "P"):
                return None
            image.draft("RGB", (2 * WIDTH, 2 * HEIGHT))
            shown = image.convert("RGB")
            if shown.size != (WIDTH, HEIGHT):
                rows = round(shown.height * WIDTH / shown.width)
                if rows < HEIGHT:
                    return None
                shown = shown.resize((WIDTH, rows), Image.Resampling.BOX)
                top = (rows - HEIGHT) // 2
                shown = shown.crop((0, top, WIDTH, top + HEIGHT))
            return np.ascontiguousarray(np.asarray(shown).transpose(2, 0, 1))
    except Exception:  # a decoder of somebody else, on whatever bytes
        return None


@dataclass(frozen=True)
class _Followed:
    """The rows whose frame has a path, and why others have none."""

    rows: np.ndarray
    speed: np.ndarray
    yaw_rate: np.ndarray
    path: np.ndarray
    refused: dict[int, str]


def _followed(rows: pa.Table) -> _Followed:
    """Paths by interpolation between the poses of the same car and recording."""
    codes = _codes(rows)
    t, x, y, heading, speed = (
        rows[name].to_numpy(zero_copy_only=False).astype(np.float64)
        for name in ("t", "x", "y", "heading", "speed")
    )
    sound = np.isfinite(np.stack([t, x, y, heading, speed])).all(axis=0)
    sound &= (np.abs(t) < 1e7) & (speed >= 0) & (speed < _FAST)
    framed = rows["image"].is_valid().to_numpy()
    refused = {int(row): _ODD for row in np.flatnonzero(framed & ~sound)}
    pose = np.flatnonzero(sound)
    pose = pose[np.lexsort((t[pose], codes[pose]))]
    if not len(pose):
        empty = np.zeros(0)
        return _Followed(np.zeros(0, np.int64), empty, empty, np.zeros((0, len(HORIZONS), 2)), refused)
    span = 1 + np.ptp(t[pose]) + HORIZONS[-1] + _GAP
    place = codes[pose] * (2 * span) + t[pose] - t[pose].min()  # one axis on which recordings lie apart
    turn = np.unwrap(heading[pose])
    at = np.flatnonzero(framed[pose])
    wanted = place[at][:, None] + HORIZONS
    after = np.minimum(np.searchsorted(place, wanted, side="left"), len(place) - 1)
    before = np.maximum(after - 1, 0)
    gap = place[after] - place[before]
    met = (wanted <= place[after] + 1e-6) & (gap <= _GAP) & (gap > 0)
    share = np.where(gap > 0, (wanted - place[before]) / np.where(gap > 0, gap, 1), 0)
    ahead = [values[before] + share * (values[after] - values[before]) for values in (x[pose], y[pose])]
    dx, dy = ahead[0] - x[pose][at][:, None], ahead[1] - y[pose][at][:, None]
    cos, sin = np.cos(heading[pose][at])[:, None], np.sin(heading[pose][at])[:, None]
    path = np.stack([dx * cos + dy * sin, dy * cos - dx * sin], axis=-1)
    last = np.maximum(at - 1, 0)
    step = place[at] - place[last]
    known = (step > 0) & (step <= _GAP)
    rate = np.where(known, (turn[at] - turn[last]) / np.where(known, step, 1), 0.0)
    near = np.linalg.norm(path, axis=-1) < _FAST * HORIZONS
    usable = met.all(axis=1) & near.all(axis=1)
    refused |= {int(row): _PATHLESS for row in pose[at[~usable]]}
    kept = at[usable]
    return _Followed(pose[kept], speed[pose[kept]], rate[usable], path[usable], refused)


def _codes(rows: pa.Table) -> np.ndarray:
    """A number for each car's recording, (rows,) float64."""
    numbers = []
    for name in ("vehicle", "recording"):
        column = rows[name].combine_chunks()
        column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        numbers.append((column.indices.to_numpy(zero_copy_only=False), len(column.dictionary)))
    (first, _), (second, count) = numbers
    return first.astype(np.float64) * max(count, 1) + second
