"""A generated fleet: cars with a camera each, their drives, and the path that each frame's driver took.

A region is a style of roads and of driving; a car is a mount, a sensor and a driver of its own, which is what
a fleet is like. The public fleet is apart from all regions: every frame of it has a style of its own, drawn
wider than any region (``public``), or one generic style (``generic``), from which a model learns less.
Nobody filmed any of it. A car is drawn from its own random stream, named by seed, region and number: a
smaller fleet is the beginning of a larger one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
from PIL import Image

from fedfsd.drive import table
from fedfsd.drive.table import Table, split_is_test
from fedfsd.errors import UsageError
from fedfsd.task.camera import render
from fedfsd.task.camera.drives import SCHEMA
from fedfsd.task.camera.render import Mount, Scene, Style, Weather

VERSION = 1
"""Of what is drawn: it changes with the frames that equal seeds give."""
PERIOD = 0.5
"""s between the rows of a generated recording."""
_TOGETHER = 64  # cars in a row group
_FACTS = Table(pa.table({}), licence="CC0-1.0 (generated)", identity="physical", origin="synthetic")
_ROWS = 8  # of a recording: one before the frame, the frame, six after it: 3 s
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Region:
    """What is the same for all cars of a region; a car and a frame differ around it."""

    style: Style
    speed: tuple[float, float]
    """m/s, between slow and fast streets."""
    bend: float
    """1/m, how strongly its roads curve."""
    traffic: float
    """Other cars in a frame, on average."""
    night: float
    """Share of the drives by night."""
    haze: float
    """Share of the drives in haze or rain."""
    camera: tuple[float, float]
    """Typical camera height in m and focal length in pixels."""
    eager: float
    """How close drivers follow and how fast they take bends, 1 on average."""


_GREEN, _DRY, _LUSH, _GREY = (0.25, 0.42, 0.18), (0.52, 0.47, 0.32), (0.16, 0.40, 0.15), (0.40, 0.43, 0.33)
REGIONS = {
    "CN": Region(
        Style(3.6, 2, True, 6, 15, True, 0.40, _GREY, 0.55, 28),
        (7, 19),
        0.0035,
        1.8,
        0.25,
        0.5,
        (1.25, 95),
        1.15,
    ),
    "EU": Region(
        Style(3.2, 1, False, 3, 9, True, 0.30, _GREEN, 0.35, 0),
        (9, 27),
        0.0045,
        0.9,
        0.20,
        0.35,
        (1.45, 120),
        1.0,
    ),
    "SG": Region(
        Style(3.3, 2, False, 2, 7, False, 0.36, _LUSH, 0.60, 35, True),
        (7, 18),
        0.0035,
        1.5,
        0.25,
        0.45,
        (1.35, 105),
        0.9,
    ),
    "US": Region(
        Style(3.8, 2, True, 3, 12, True, 0.45, _DRY, 0.10, 45),
        (10, 29),
        0.0028,
        1.2,
        0.20,
        0.15,
        (1.55, 115),
        1.1,
    ),
}
_PLAIN = Region(
    Style(3.5, 1, False, 4, 12, True, 0.38, _GREEN, 0.2, 40), (8, 22), 0.0035, 0.8, 0.0, 0.1, (1.4, 110), 1.0
)


def generate(regions: Sequence[str], *, cars: int, frames: int, seed: int) -> Table:
    """A table of camera drives (``fedfsd.task.camera.drives``) in memory; see ``write``."""
    return replace(_FACTS, rows=pa.concat_tables(_cars(regions, cars, frames, seed, None)))


def write(
    path: Path,
    regions: Sequence[str],
    *,
    cars: int,
    frames: int,
    seed: int,
    progress: Progress | None = None,
) -> int:
    """Write drives of ``cars`` cars in each of ``regions``, some cars at a time; returns the number of rows.

    Args:
        regions: of ``REGIONS`` or ``STAND_INS``, or ``public`` or ``generic``.
        frames: of each car, each with 3 s of path ahead.
        seed: equal seeds give equal tables.
        progress: called with (region, cars so far, cars) after each car.

    Raises:
        UsageError: an unknown region, none, one named twice, or a number that is too small.
    """
    made = _cars(regions, cars, frames, seed, progress)
    groups = iter(lambda: list(islice(made, _TOGETHER)), [])
    table.write_parts((pa.concat_tables(some).cast(SCHEMA) for some in groups), _FACTS, path)
    return len(regions) * cars * frames * _ROWS


def _cars(
    regions: Sequence[str], cars: int, frames: int, seed: int, progress: Progress | None
) -> Iterator[pa.Table]:
    """The rows of one car after the other."""
    known = (*REGIONS, *STAND_INS, "public", "generic")
    if not regions or set(regions) - set(known) or len(set(regions)) < len(regions):
        raise UsageError(
            "regions",
            got=", ".join(regions) or "none",
            expected=f"each of {', '.join(known)} at most once",
            hint="name regions that have a style",
        )
    for name, value, least in (("cars", cars, 1), ("frames", frames, 1), ("seed", seed, 0)):
        if value < least:
            raise UsageError(name, got=value, expected=f"at least {least}", hint=f"set {name} = {least}")
    for region in regions:
        for number in range(cars):
            yield _car(region, number, frames, seed)
            if progress:
                progress(region, number + 1, cars)


def _car(region: str, number: int, frames: int, seed: int) -> pa.Table:
    """All rows of one car."""
    random = np.random.default_rng((seed, crc32(region.encode()), number))
    key = f"{region}/car-{seed}-{number}"
    here = STAND_INS.get(region) or REGIONS.get(region, _PLAIN)
    mount, driver = _mount(random, here), _driver(random, here)
    images: list[bytes | None] = []
    poses = []
    for _ in range(frames):
        if region == "public":  # every frame somewhere else, through another camera, with another driver
            here = _anywhere(random)
            mount, driver = _mount(random, here), _driver(random, here)
        scene, weather, pose = _moment(random, here, driver)
        picture = render.frame(scene, _own(random, here.style), weather, mount)
        images += [None, _jpeg(picture), *[None] * (_ROWS - 2)]
        poses.append(pose)
    x, y, heading, speed = np.concatenate(poses).T
    count = frames * _ROWS
    return pa.table(
        {
            "region": pa.array([region] * count),
            "source": pa.array(["generated"] * count),
            "recording": pa.array([f"{key}-{frame}" for frame in range(frames) for _ in range(_ROWS)]),
            "vehicle": pa.array([key] * count),
            "t": pa.array(np.tile(PERIOD * np.arange(_ROWS), frames), pa.float64()),
            "image": pa.array(images, pa.binary()),
            **{
                name: pa.array(values, pa.float32())
                for name, values in zip(("x", "y", "heading", "speed"), (x, y, heading, speed), strict=True)
            },
            "test": pa.array([split_is_test(key)] * count),
        }
    )


@dataclass(frozen=True)
class _Driver:
    cut: float
    """How much of a bend is cut, in m at the inside."""
    settle: float
    """s in which an offset in the lane is steered away."""
    gap: float
    """s kept to the car ahead."""
    grip: float
    """m/s^2 accepted across."""


def _driver(random: np.random.Generator, here: Region) -> _Driver:
    return _Driver(
        cut=random.uniform(0.0, 0.8),
        settle=random.uniform(1.5, 3.0),
        gap=random.uniform(1.0, 2.2) / here.eager,
        grip=random.uniform(1.5, 2.8) * here.eager,
    )


def _mount(random: np.random.Generator, here: Region) -> Mount:
    height, focal = here.camera
    return Mount(
        focal=focal * random.uniform(0.85, 1.18),
        height=height * random.uniform(0.88, 1.15),
        pitch=random.normal(0.02, 0.02),
        yaw=random.normal(0, 0.02),
        roll=random.normal(0, 0.012),
        exposure=random.uniform(0.75, 1.3),
        gamma=random.uniform(0.65, 1.05),
        cast=(random.uniform(0.9, 1.1), 1.0, random.uniform(0.88, 1.12)),
        noise=random.uniform(0.004, 0.03),
        bonnet=max(0.0, random.uniform(-0.06, 0.14)),
    )


def _anywhere(random: np.random.Generator) -> Region:
    """A region that is nowhere: every property drawn wider than any region has it."""
    lanes, dash = int(random.integers(1, 4)), random.uniform(1.5, 7)
    style = Style(
        lane=random.uniform(2.8, 4.0),
        lanes=lanes,
        centre_yellow=random.random() < 0.4,
        dash=dash,
        gap=dash * random.uniform(1.8, 4),
        edge=random.random() < 0.6,
        asphalt=random.uniform(0.2, 0.55),
        verge=tuple(random.uniform((0.1, 0.25, 0.08), (0.65, 0.6, 0.45))),
        houses=random.uniform(0, 0.8),
        poles=random.choice([0.0, random.uniform(20, 60)]),
        left_hand=random.random() < 0.4,
    )
    slow = random.uniform(5, 12)
    return Region(
        style,
        (slow, slow + random.uniform(6, 20)),
        random.uniform(0.0015, 0.006),
        random.uniform(0, 2.5),
        random.uniform(0, 0.5),
        random.uniform(0, 0.7),
        (random.uniform(1.1, 1.8), random.uniform(80, 140)),
        random.uniform(0.8, 1.25),
    )


def _own(random: np.random.Generator, style: Style) -> Style:
    """The street of one frame: the region's style with what differs from street to street."""
    return replace(
        style,
        lane=style.lane * random.uniform(0.95, 1.06),
        asphalt=style.asphalt * random.uniform(0.8, 1.2),
        edge=style.edge and random.random() < 0.85,
    )


def _moment(random: np.random.Generator, here: Region, driver: _Driver) -> tuple[Scene, Weather, np.ndarray]:
    """One frame's scene and weather, and the poses around it (_ROWS, 4): x, y, heading, speed."""
    slow, fast = here.speed
    speed = random.uniform(slow, fast)
    curvature = float(random.normal(0, here.bend) * min(1.0, 15 / speed))
    scene = Scene(
        offset=float(random.normal(0, 0.35)),
        heading=float(random.normal(0, 0.02)),
        curvature=curvature,
        bend=float(random.normal(0, here.bend / 60)),
        along=float(random.uniform(0, 5000)),
        cars=_traffic(random, here),
        seed=int(random.integers(2**32)),
    )
    night, haze = random.random() < here.night, random.random() < here.haze
    weather = Weather(
        light=random.uniform(0.07, 0.25) if night else random.uniform(0.75, 1.05),
        sight=random.uniform(30, 110) if haze else random.uniform(150, 400),
        sun=random.uniform(-1, 1),
        wet=random.uniform(0.3, 1) if haze and random.random() < 0.6 else 0.0,
    )
    return scene, weather, _poses(random, scene, here, driver, speed)


def _traffic(random: np.random.Generator, here: Region) -> tuple[tuple[float, int, int], ...]:
    count = min(int(random.poisson(here.traffic)), 5)
    lanes = here.style.lanes
    found = []
    for _ in range(count):
        lane = int(random.integers(0, 2 * lanes))
        found.append((float(random.uniform(8, 90)), lane, int(random.integers(1, 500))))
    return tuple(found)


def _poses(
    random: np.random.Generator, scene: Scene, here: Region, driver: _Driver, speed: float
) -> np.ndarray:
    """Drive on from the frame: along the lane with the driver's habits, slower for bends and cars ahead."""
    ahead = min((place for place, lane, _ in scene.cars if lane == 0), default=np.inf)
    sharp = abs(scene.curvature + scene.bend * 1.5 * speed) + 1e-5
    wanted = min(np.sqrt(driver.grip / sharp), here.speed[1])
    brake = np.clip((wanted - speed) / 3, -2.5, 1.0)
    if np.isfinite(ahead):
        brake = min(brake, np.clip((ahead - driver.gap * speed) / 12, -3.5, 1.0))
    pull = float(np.clip(brake + random.normal(0, 0.12), -speed / 3.2, 1.5))
    t = PERIOD * (np.arange(_ROWS) - 1)
    fine = np.linspace(-PERIOD, t[-1], 71)
    way = speed * fine + pull * fine**2 / 2
    side = _side(scene, driver, speed, way)
    angle = np.arctan(np.gradient(side, way))
    here_angle, here_side = np.interp(0.0, fine, angle), np.interp(0.0, fine, side)
    side = side - here_side - np.tan(here_angle) * way  # the frame is taken from here, looking this way
    x, y, turn = (np.interp(t, fine, values) for values in (way, side, angle - here_angle))
    mirrored = -1.0 if here.style.left_hand else 1.0
    start, spot = random.uniform(-np.pi, np.pi), random.uniform(-500, 500, 2)
    y, turn = mirrored * y, mirrored * turn
    cos, sin = np.cos(start), np.sin(start)
    heading = np.mod(start + turn + np.pi, 2 * np.pi) - np.pi
    return np.stack(
        [spot[0] + x * cos - y * sin, spot[1] + x * sin + y * cos, heading, np.maximum(speed + pull * t, 0)],
        axis=1,
    )


def _side(scene: Scene, driver: _Driver, speed: float, way: np.ndarray) -> np.ndarray:
    """y of the path in the frame's axes at ``way`` metres ahead: back to the lane, inside in bends."""
    bent = scene.curvature * way**2 / 2 + scene.bend * way**3 / 6 - scene.heading * way
    settled = np.maximum(way, 0) / (driver.settle * speed)
    back = scene.offset * (1 - np.exp(-(settled**2)))
    turn = scene.heading * way * np.exp(-settled)
    inside = driver.cut * np.tanh(60 * scene.curvature) * (1 - np.exp(-(settled**2)))
    found: np.ndarray = bent - back + turn + inside
    return found


STAND_INS = {f"stand-in-{n}": _anywhere(np.random.default_rng((n, 77))) for n in range(1, 5)}
"""Regions that are nowhere, to choose settings on: each of one style, drawn as widely as public frames."""


def _jpeg(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=90)
    return out.getvalue()
