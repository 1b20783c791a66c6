"""Frames of a front camera that nobody filmed: a road seen through a pinhole, a formula for every pixel.

Everything is drawn from ground coordinates: where the ray of a pixel meets the road plane gives its place
along and across the lane, and what lies there gives its colour. What stands up (cars, poles, houses) is drawn
over it from far to near. Left-hand traffic is the mirrored scene.

Axes: x forward, y left, z up, in metres, of the car. Pixels: row down, column right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

HEIGHT, WIDTH = 64, 160
"""Of a frame in pixels."""
_FAR = 250.0  # m: behind it everything is haze
_WHITE = np.array([0.92, 0.92, 0.90], np.float32)
_YELLOW = np.array([0.93, 0.72, 0.16], np.float32)
_LAMP = np.array([1.0, 0.16, 0.10], np.float32)
_BLUE = np.array([0.38, 0.56, 0.85], np.float32)
_PALE = np.array([0.82, 0.86, 0.90], np.float32)
_HILL = np.array([0.30, 0.34, 0.38], np.float32)
_TAR = np.array([1.0, 1.0, 1.02], np.float32)


@dataclass(frozen=True)
class Mount:
    """How the camera of one fleet car is built in and what its sensor does to colours."""

    focal: float
    """Focal length in pixels."""
    height: float
    """m above the road."""
    pitch: float
    """rad, positive looks down."""
    yaw: float
    """rad, positive looks left."""
    roll: float
    """rad, positive turns the picture clockwise."""
    exposure: float
    gamma: float
    cast: tuple[float, float, float]
    """Gain of red, green, blue."""
    noise: float
    """Standard deviation of a pixel, of full scale 1."""
    bonnet: float
    """Share of the picture's height that the bonnet hides."""


@dataclass(frozen=True)
class Style:
    """How roads look where the car drives."""

    lane: float
    """Lane width in m."""
    lanes: int
    """Lanes in the own direction."""
    centre_yellow: bool
    """The line towards oncoming traffic is yellow and double."""
    dash: float
    """m of paint in ``gap`` m of line."""
    gap: float
    edge: bool
    """A solid line at the road's edge."""
    asphalt: float
    """Grey of the road, 0 to 1."""
    verge: tuple[float, float, float]
    """Colour of what is beside the road."""
    houses: float
    """Share of the way along which houses stand."""
    poles: float
    """m from one pole to the next; 0: none."""
    left_hand: bool = False


@dataclass(frozen=True)
class Weather:
    """Light and air of one drive."""

    light: float
    """1 by day, about 0.1 by night."""
    sight: float
    """m at which haze hides two thirds."""
    sun: float
    """rad, bearing of the bright part of the sky."""
    wet: float
    """0 dry to 1: the road mirrors the sky."""


@dataclass(frozen=True)
class Scene:
    """What is in front of the car in one frame, in the scene before mirroring (right-hand traffic)."""

    offset: float
    """m left of the own lane's middle."""
    heading: float
    """rad left of the road's direction."""
    curvature: float
    """1/m of the road at the car, positive bends left."""
    bend: float
    """1/m^2, change of the curvature with the way."""
    along: float
    """m of road behind the car: where dashes, poles and houses stand."""
    cars: tuple[tuple[float, int, int], ...]
    """Other cars: metres ahead, lane (0 is the own, 1 the next to the left), look."""
    seed: int
    """Of texture and sensor noise."""


def middle(scene: Scene, x: np.ndarray) -> np.ndarray:
    """y of the own lane's middle at ``x`` metres ahead, in the car's axes."""
    way: np.ndarray = -scene.offset - scene.heading * x + scene.curvature * x**2 / 2 + scene.bend * x**3 / 6
    return way


def frame(scene: Scene, style: Style, weather: Weather, mount: Mount) -> np.ndarray:
    """The picture, (HEIGHT, WIDTH, 3) uint8."""
    random = np.random.default_rng(scene.seed)
    x, y, bearing, rise = _rays(mount)
    ground, edge = x < _FAR, _horizon(rise)
    low = _last(~ground | edge)  # sky above this row, and in the air at the horizon
    high = HEIGHT - _last(ground[::-1])  # ground from this row on
    sky = _sky(bearing[:low], rise[:low], style, weather, scene)
    air = sky[edge[:low]].mean(axis=0) if edge.any() else sky.mean(axis=(0, 1))
    picture = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    picture[:low] = sky
    road = _road(x[high:], y[high:], scene, style, weather, sky, mount)
    haze = np.exp(-x[high:] / weather.sight)[..., None]
    picture[high:] = np.where(ground[high:, :, None], road * haze + air * (1 - haze), picture[high:])
    _stand(picture, scene, style, weather, mount, air)
    if weather.light < 0.5:
        picture *= _headlights(x, y, weather)
    if mount.bonnet > 0:
        rows = round(mount.bonnet * HEIGHT)
        curve = rows * (1 - 0.5 * np.linspace(-1, 1, WIDTH) ** 2)
        hidden = np.arange(HEIGHT)[:, None] >= HEIGHT - curve
        picture[hidden] = 0.12 + 0.25 * weather.light
    picture *= _colour(mount.cast)
    picture *= np.float32(mount.exposure)
    np.clip(picture, 0, 1, out=picture)
    np.power(picture, np.float32(mount.gamma), out=picture)
    grain = random.standard_normal(picture.shape, dtype=np.float32)
    grain *= np.float32(mount.noise * (1 + 2 * (1 - weather.light)))
    picture += grain
    np.clip(picture, 0, 1, out=picture)
    picture *= 255
    found: np.ndarray = picture.astype(np.uint8)
    return found[:, ::-1] if style.left_hand else found


@lru_cache(maxsize=4)
def _grid() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    return columns - np.float32((WIDTH - 1) / 2), rows - np.float32(0.42 * HEIGHT)


@lru_cache(maxsize=1)  # a car's frames come one after the other
def _rays(mount: Mount) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each pixel: ground point x, y (x is _FAR at and above the horizon), bearing and rise in rad."""
    across, down = (part / mount.focal for part in _grid())
    cos, sin = math.cos(mount.roll), math.sin(mount.roll)
    across, down = across * cos + down * sin, down * cos - across * sin
    fall = down * math.cos(mount.pitch) + math.sin(mount.pitch)
    ahead = math.cos(mount.pitch) - down * math.sin(mount.pitch)
    with np.errstate(divide="ignore"):
        scale = np.where(fall > 1e-4, mount.height / np.maximum(fall, 1e-4), np.inf)
    forward, left = np.minimum(scale, 1e6) * ahead, -np.minimum(scale, 1e6) * across
    cos, sin = math.cos(mount.yaw), math.sin(mount.yaw)
    x, y = forward * cos - left * sin, forward * sin + left * cos
    return np.where(x < _FAR, x, _FAR), y, mount.yaw - across / ahead, -fall / ahead


def _colour(values: tuple[float, float, float]) -> np.ndarray:
    return np.array(values, np.float32)


def _last(rows: np.ndarray) -> int:
    """The number of rows up to the last in which anything is true."""
    found = np.flatnonzero(rows.any(axis=1))
    return int(found[-1]) + 1 if len(found) else 0


def _horizon(rise: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.abs(rise) < 0.02
    return found


def _sky(bearing: np.ndarray, rise: np.ndarray, style: Style, weather: Weather, scene: Scene) -> np.ndarray:
    """Sky, and the hills in front of it."""
    high = np.clip(rise * 2.2, 0, 1)[..., None]
    grey = min(max(1.5 - weather.sight / 150, 0.0), 1.0)
    colour = _PALE * (1 - high) + (_BLUE * (1 - grey) + _PALE * 0.85 * grey) * high
    colour = colour + 0.25 * np.exp(-((bearing - weather.sun) ** 2) / 0.08)[..., None] * (1 - grey)
    world = bearing + scene.curvature * 40 + scene.along / 900
    hills = 0.022 + 0.014 * np.sin(5 * world + 1) + 0.010 * np.sin(13 * world) + 0.006 * np.sin(31 * world)
    hill = (rise < hills) & (rise > -0.05)
    far = (_colour(style.verge) + _HILL) / 2
    return np.where(hill[..., None], far, colour) * weather.light


def _road(
    x: np.ndarray,
    y: np.ndarray,
    scene: Scene,
    style: Style,
    weather: Weather,
    sky: np.ndarray,
    mount: Mount,
) -> np.ndarray:
    """Asphalt, paint and verge at the ground points."""
    across = y - middle(scene, x)  # left of the own lane's middle
    along = scene.along + x
    pixel = np.maximum(x / mount.focal, 0.02)  # m that one pixel spans across the road
    left = (style.lanes - 0.5) * style.lane  # the line towards oncoming traffic
    right = -0.5 * style.lane
    outer = left + style.lanes * style.lane
    shoulder = 0.45 if style.edge else 0.15
    grain = _grain(across * 3, along * 0.7, 1) * 0.5 + _grain(across * 0.8, along * 0.1, 2)
    fine = np.clip(8 / np.maximum(x, 1), 0, 1)
    asphalt = (style.asphalt * (1 + 0.10 * fine * grain))[..., None] * _TAR
    tracks = np.exp(-((np.abs(np.abs(across) - 0.75) / 0.35) ** 2))
    asphalt = asphalt * (1 - 0.10 * tracks)[..., None]
    verge = _colour(style.verge) * (1 + 0.22 * _grain(across * 0.7, along * 0.35, 3))[..., None]
    on = _between(across, right - shoulder, outer + shoulder, pixel)[..., None]
    colour = asphalt * on + verge * (1 - on)
    lines = [(right + 0.05, _WHITE, not style.edge), (outer - 0.05, _WHITE, not style.edge)]
    lines += [(right + n * style.lane, _WHITE, True) for n in range(1, style.lanes)]
    lines += [(left + n * style.lane, _WHITE, True) for n in range(1, style.lanes)]
    if style.centre_yellow:
        lines += [(left - 0.12, _YELLOW, False), (left + 0.12, _YELLOW, False)]
    else:
        lines += [(left, _WHITE, style.lanes == 1)]
    painted = np.mod(along, style.gap) < style.dash
    for place, paint, dashed in lines:
        cover = _between(across, place - 0.075, place + 0.075, pixel)
        here = np.nonzero((cover > 0) & painted if dashed else cover > 0)  # few: a line is narrow
        colour[here] += (cover[here] * 0.85)[..., None] * (paint - colour[here])
    if weather.wet:
        mirror = sky[:1].mean(axis=(0, 1)) / max(weather.light, 0.05)
        share = (0.45 * weather.wet * np.clip(x / 40, 0, 1))[..., None] * on
        colour = colour * (1 - 0.25 * weather.wet * on) * (1 - share) + mirror * share
    return colour * weather.light


def _stand(
    picture: np.ndarray,
    scene: Scene,
    style: Style,
    weather: Weather,
    mount: Mount,
    air: np.ndarray,
) -> None:
    """Draw what stands on the ground into the picture, from far to near."""
    right = -0.5 * style.lane
    outer = (style.lanes - 0.5 + style.lanes) * style.lane
    boxes: list[tuple[float, float, float, float, np.ndarray, bool]] = []
    if style.poles:
        first = style.poles - np.mod(scene.along, style.poles)
        for x in np.arange(first, 90, style.poles):
            boxes.append((x, right - 1.8, 0.16, 6.0, np.array([0.35, 0.34, 0.33]), False))
    if style.houses:
        start = int(scene.along // 24)
        for number in range(start, start + 6):
            own = np.random.default_rng(number)
            for side in (right - 11, outer + 11):
                if own.random() < style.houses:
                    tone = own.uniform(0.3, 0.75) * np.array(
                        [1.0, own.uniform(0.85, 1), own.uniform(0.75, 0.95)]
                    )
                    place = number * 24 + own.uniform(0, 12) - scene.along
                    boxes.append((place, side, own.uniform(9, 14), own.uniform(4, 13), tone, False))
    for x, lane, kind in scene.cars:
        own = np.random.default_rng(kind)
        tone = own.uniform(0.08, 0.9) * np.array([1.0, own.uniform(0.7, 1), own.uniform(0.7, 1)])
        height = 1.5 if kind % 5 else 3.2
        boxes.append((x, lane * style.lane, 1.8 if kind % 5 else 2.4, height, tone, True))
    for x, across, width, height, tone, lamps in sorted(boxes, key=lambda box: -box[0]):
        if not 3.0 < x < 160:
            continue
        _box(picture, scene, weather, mount, air, (x, across, width, height), tone, lamps)


def _box(
    picture: np.ndarray,
    scene: Scene,
    weather: Weather,
    mount: Mount,
    air: np.ndarray,
    box: tuple[float, float, float, float],
    tone: np.ndarray,
    lamps: bool,
) -> None:
    """A face towards the camera: at x, across from the lane's middle, width and height in m."""
    x, across, width, height = box
    y = float(middle(scene, np.asarray(x))) + across
    haze = math.exp(-x / weather.sight)
    rows, left_to_right = [], []
    for side in (y + width / 2, y - width / 2):
        _, column = _project(x, side, 0.0, mount)
        left_to_right.append(column)
    for z in (height, 0.0):
        row, _ = _project(x, y, z, mount)
        rows.append(row)
    top, bottom = (min(max(round(row), 0), HEIGHT) for row in rows)
    first, last = (min(max(round(column), 0), WIDTH) for column in left_to_right)
    last = max(last, min(first + 1, WIDTH))
    if bottom <= top or last <= first:
        return
    lit = weather.light if not lamps else max(weather.light, 0.25)
    picture[top:bottom, first:last] = tone * lit * haze + air * (1 - haze)
    if not lamps:
        return
    glass = top + (bottom - top) // 3
    picture[top + 1 : glass, first + 1 : last - 1] = 0.1 * lit * haze + air * (1 - haze)
    shade = min(bottom + 1, HEIGHT)
    picture[bottom:shade, first:last] *= 0.5
    size = max(1, (last - first) // 6)
    row = (glass + bottom) // 2
    for column in (first, last - size):
        picture[row : row + max(1, size // 2), column : column + size] = _LAMP * haze


def _project(x: float, y: float, z: float, mount: Mount) -> tuple[float, float]:
    """Row and column of a point in the car's axes; roll is left out for what stands up."""
    cos, sin = math.cos(mount.yaw), math.sin(mount.yaw)
    forward, left = x * cos + y * sin, y * cos - x * sin
    fall = mount.height - z
    ahead = forward * np.cos(mount.pitch) + fall * np.sin(mount.pitch)
    down = fall * np.cos(mount.pitch) - forward * np.sin(mount.pitch)
    row = mount.focal * down / ahead + 0.42 * HEIGHT
    column = (WIDTH - 1) / 2 - mount.focal * left / ahead
    return float(row), float(column)


def _headlights(x: np.ndarray, y: np.ndarray, weather: Weather) -> np.ndarray:
    """How much brighter the ground in front of the car is by night."""
    beam = np.exp(-((y / (2 + 0.12 * x)) ** 2)) * np.exp(-x / 28) * (x < _FAR)
    return (1 + 5 * (1 - weather.light) * beam)[..., None]


def _between(value: np.ndarray, low: float, high: float, pixel: np.ndarray) -> np.ndarray:
    """The share of a pixel that is between two places across the road."""
    inner = np.minimum(value + pixel / 2, high) - np.maximum(value - pixel / 2, low)
    found: np.ndarray = np.clip(inner / pixel, 0, 1)
    return found


def _grain(across: np.ndarray, along: np.ndarray, layer: int) -> np.ndarray:
    """Texture from -1 to 1 that stays on the ground: a hash of the cell."""
    first = np.floor(np.clip(across, -1e4, 1e4)).astype(np.int32).view(np.uint32)
    second = np.floor(np.clip(along, -1e6, 1e6)).astype(np.int32).view(np.uint32)
    cell = first * np.uint32(0x9E3779B1) + second * np.uint32(0x85EBCA77) + np.uint32(layer * 0x27D4EB2F)
    cell = (cell ^ (cell >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    found: np.ndarray = (cell >> np.uint32(8)).astype(np.float32) * np.float32(2**-23) - 1
    return found
