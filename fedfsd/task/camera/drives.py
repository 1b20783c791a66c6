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

In place of an image there may be its path below the table's folder, as text.

Shapes: W frames, F points of the path. Whether a frame is used depends on its own car's rows alone.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fedfsd.drive import mapped, table
from fedfsd.drive.stored import Stored, stored
from fedfsd.drive.table import Table
from fedfsd.errors import NotReadyError
from fedfsd.service import cache
from fedfsd.task.camera.render import HEIGHT, WIDTH
from fedfsd.task.task import Examples

if TYPE_CHECKING:
    from PIL import Image

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("region", "source", "recording", "vehicle")]
    + [("t", pa.float64()), ("image", pa.binary())]
    + [(name, pa.float32()) for name in ("x", "y", "heading", "speed")]
    + [("test", pa.bool_())]
)
HORIZONS = np.arange(1, 7) * 0.5
"""s after the frame: the F points of a path."""
MOST_PIXELS = 40_000_000
_TALLEST = 8  # times higher than wide: no camera's picture
_MOST_BYTES = 32 * 2**20  # of a picture's file
_PATH_BYTES = 1024
_GAP = 0.6  # s between two poses that a point may lie between
_FAST = 70.0  # m/s: no car's speed
_PATHLESS = "frames without 3 s of path"
_ODD = "frames with a pose that is none"
_OUTSIDE = "frames whose path leaves the table's folder or follows a link"
_UNREADABLE = "frames that do not decode"


@dataclass(frozen=True)
class Recipe:
    """A generated table that needs no file: what ``fleet.write`` is called with."""

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
    return tuple(_mapped(one) for one in _stored(path))


def region_tables(path: str, region: str) -> tuple[Table, ...]:
    """One region's rows of each table behind ``path``; errors as of ``tables``."""
    return tuple(_mapped(one, region) for one in _stored(path))


def _stored(path: str) -> tuple[Stored, ...]:
    return stored(_generated(path) if path in RECIPES else Path(path), SCHEMA)


def _mapped(one: Stored, region: str | None = None) -> Table:
    """The table of a file, read by row groups into an unnamed file that stands for memory."""
    mine = [place for place, piece in enumerate(one.pieces) if region is None or region in piece.regions]
    rows = mapped.rows(one.read(mine, region=region), SCHEMA)
    return Table(rows, one.licence, one.identity, one.origin, one.name, one.faults, one.left_out)


def _generated(name: str) -> Path:
    """The file of a generated table, made where it is missing."""
    from fedfsd.task.camera import fleet

    made = RECIPES[name]
    path = cache.folder() / f"camera-{name}-{made.cars}x{made.frames}-{made.seed}-{fleet.VERSION}.parquet"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = path.with_name(f"{path.name}.{os.getpid()}")
            fleet.write(part, made.regions, cars=made.cars, frames=made.frames, seed=made.seed)
            part.replace(path)
        except OSError as error:
            raise NotReadyError(
                str(path.parent),
                got=error.strerror,
                expected="a folder to keep the generated frames in",
                hint="set XDG_CACHE_HOME to a writable folder",
            ) from None
    return path


def examples(
    tables: Sequence[Table], *, test: bool, shrink: int = 1, regions: Sequence[str] = ()
) -> Examples:
    """Frames of the training (or test) cars with speed, yaw rate and the path driven after each.

    Inputs: ``image`` (W, 3, HEIGHT / shrink, WIDTH / shrink) uint8, ``speed`` (W, 1) m/s, with ``regions``
    also ``region`` (W, R). Targets: ``path`` (W, F, 2) m in the car's axes at the frame (x forward, y left),
    ``yaw_rate`` (W, 1) rad/s before the frame, and the speed.
    """
    vehicles = table.vehicles(tables, test=test)
    slot = {key: number for number, key in enumerate(vehicles)}
    dropped = {
        reason: np.zeros(len(vehicles), np.int64) for reason in (_PATHLESS, _ODD, _OUTSIDE, _UNREADABLE)
    }
    parts = []
    for number, one in enumerate(tables):
        mine = np.flatnonzero(one.test == test)
        rows = one.rows.drop_columns("image").take(mine)
        found = followed(rows, one.rows["image"].is_valid().to_numpy()[mine])
        whose = np.array([slot[key] for key in rows["vehicle"].to_pylist()], np.int64)
        for row, reason in found.refused.items():
            dropped[reason][whose[row]] += 1
        where = _one_hot(rows["region"].to_pylist(), regions)
        kept = found.rows
        source = np.stack([np.full(len(kept), number), mine[kept]], axis=1)
        parts.append((whose[kept], source, found.speed, found.yaw_rate, found.path, where[kept]))
    owner, source, speed, yaw_rate, path, where = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(owner, kind="stable")
    columns = [one.rows["image"] for one in tables]
    shape = (len(order), 3, HEIGHT // shrink, WIDTH // shrink)
    images = mapped.zeros(shape, np.dtype(np.uint8))
    seen: list[int] = []
    for place in order:
        number, row = source[place]
        data = picture(columns[number][int(row)].as_py(), Path(tables[number].name).parent)
        image = None if data is None else decode(data, shrink)
        if image is None:
            dropped[_OUTSIDE if data is None else _UNREADABLE][owner[place]] += 1
        else:
            images[len(seen)] = image
            seen.append(int(place))
    chosen = np.array(seen, np.int64)
    inputs = {"image": images[: len(seen)], "speed": speed[chosen, None].astype(np.float32)}
    if regions:
        inputs["region"] = where[chosen]
    return Examples(
        vehicles,
        owner[chosen],
        inputs,
        {
            "path": path[chosen].astype(np.float32),
            "yaw_rate": yaw_rate[chosen, None].astype(np.float32),
            "speed": inputs["speed"],
        },
        dropped,
    )


def picture(cell: bytes, folder: Path) -> bytes | None:
    """The bytes of a picture from its cell: themselves, or a path below ``folder``; None: not below it."""
    if len(cell) > _PATH_BYTES or cell.startswith((b"\xff\xd8", b"\x89PNG")):
        return cell
    path = inside(folder, cell.decode("utf-8", errors="replace"))
    return None if path is None else content(path)


def _one_hot(names: Sequence[str], regions: Sequence[str]) -> np.ndarray:
    """Which of ``regions`` each is, (rows, R) float32; all zero for another one, such as a public table's.

    The one is sqrt(R), not 1: only one region in R moves its weights, which the average divides by R.
    """
    codes = np.array([regions.index(name) if name in regions else len(regions) for name in names], np.int64)
    found: np.ndarray = np.eye(len(regions) + 1, len(regions), dtype=np.float32)[codes]
    return found * np.float32(np.sqrt(len(regions)))


def decode(data: bytes, shrink: int = 1) -> np.ndarray | None:
    """The frame scaled to WIDTH, cut to HEIGHT from the middle, then shrunk, (3, rows, columns) uint8; None:
    unreadable.

    Grey is made colour; what is not 8 bits a channel, not JPEG or PNG, larger than MOST_PIXELS (told by its
    header, before anything is decoded), a strip, or too flat for HEIGHT rows is unreadable.
    """
    from PIL import Image

    shown = opened(data)
    if shown is None:
        return None
    if shown.size != (WIDTH, HEIGHT):
        rows = round(shown.height * WIDTH / shown.width)
        if rows < HEIGHT:
            return None
        shown = shown.resize((WIDTH, rows), Image.Resampling.BOX)
        top = (rows - HEIGHT) // 2
        shown = shown.crop((0, top, WIDTH, top + HEIGHT))
    return np.ascontiguousarray(np.asarray(shown.reduce(shrink)).transpose(2, 0, 1))


def opened(data: bytes) -> Image.Image | None:
    """A picture in colour, JPEG at a size at which nothing is lost that ``decode`` sees; None: unreadable."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > MOST_PIXELS or image.height > _TALLEST * image.width:
                return None
            if image.mode not in ("RGB", "L", "RGBA", "P") or deep(data):
                return None
            image.draft("RGB", (2 * WIDTH, 2 * HEIGHT))
            return image.convert("RGB")
    except Exception:  # a decoder of somebody else, on whatever bytes
        return None


def deep(data: bytes) -> bool:
    """Whether a picture is a PNG of 16 bits a channel by its header; a decoder may drop half of them."""
    return data.startswith(b"\x89PNG") and data[24:25] == b"\x10"


def inside(folder: Path, name: str) -> Path | None:
    """The file ``name`` below ``folder``; None where the name leads out of it, or through a link."""
    try:
        path, real = folder / name, folder.resolve()
        within = path.resolve() == real / name and path.resolve().is_relative_to(real)
    except (OSError, RuntimeError, ValueError):
        return None
    return path if within else None


def content(path: Path) -> bytes:
    """A picture's file; empty where there is none, or it is too large for one."""
    try:  # opening a pipe would wait for ever
        return path.read_bytes() if path.is_file() and path.stat().st_size <= _MOST_BYTES else b""
    except OSError:
        return b""


@dataclass(frozen=True)
class Followed:
    """The rows whose frame has a path, and why others have none."""

    rows: np.ndarray
    speed: np.ndarray
    yaw_rate: np.ndarray
    path: np.ndarray
    refused: dict[int, str]


def followed(rows: pa.Table, framed: np.ndarray) -> Followed:
    """Paths by interpolation between poses of the same car and recording; ``framed``: which have a frame."""
    codes = _codes(rows)
    t, x, y, heading, speed = (
        rows[name].to_numpy(zero_copy_only=False).astype(np.float64)
        for name in ("t", "x", "y", "heading", "speed")
    )
    sound = np.isfinite(np.stack([t, x, y, heading, speed])).all(axis=0)
    sound &= (np.abs(t) < 1e7) & (speed >= 0) & (speed < _FAST)
    refused = {int(row): _ODD for row in np.flatnonzero(framed & ~sound)}
    pose = np.flatnonzero(sound)
    pose = pose[np.lexsort((t[pose], codes[pose]))]
    if not len(pose):
        empty = np.zeros(0)
        return Followed(np.zeros(0, np.int64), empty, empty, np.zeros((0, len(HORIZONS), 2)), refused)
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
    return Followed(pose[kept], speed[pose[kept]], rate[usable], path[usable], refused)


def _codes(rows: pa.Table) -> np.ndarray:
    """A number for each car's recording, (rows,) float64."""
    numbers = []
    for name in ("vehicle", "recording"):
        column = rows[name].combine_chunks()
        column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        numbers.append((column.indices.to_numpy(zero_copy_only=False), len(column.dictionary)))
    (first, _), (second, count) = numbers
    return first.astype(np.float64) * max(count, 1) + second
