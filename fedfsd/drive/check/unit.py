"""Positions and sizes in another unit: feet, pixels, kilometres, degrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from fedfsd.drive.check.finding import Finding, per_recording
from fedfsd.drive.check.track import MOVING_MPS, Index, Tracks
from fedfsd.drive.rate import grouped_median

# Several vehicles are never in a box with this diagonal: each is longer.
CROWDED_M = 1.5
# A drive by the velocities, and the share of it that the positions show where their unit is too large.
DRIVEN_M, STANDING_SHARE = 10.0, 0.01
# m in a degree of latitude or, up north, of longitude; m in a kilometre.
DEGREE, KILOMETRE = (3e4, 2e5), (800.0, 1200.0)
# Lengths and widths of cars, in the median of some; and what could be taken for a metre.
CAR_M, CAR_LENGTH, CAR_WIDTH = 4.5, (3.4, 5.8), (1.4, 2.3)
DOUBTFUL_LENGTH, DOUBTFUL_WIDTH = (2.9, 9.0), 3.5
VEHICLE_LENGTH, VEHICLE_WIDTH = (2.0, 20.0), (0.7, 2.7)
PER_METRE = {
    "feet": 3.281,
    "decimetres": 10.0,
    "inches": 39.37,
    "centimetres": 100.0,
    "millimetres": 1000.0,
    "kilometres": 0.001,
}
# No camera and no tracker has that many rows a second.
FAST_HZ = 240.0
CARS = ("car", "vehicle", "taxi", "van", "suv")
MIN_TRACKS = 3


@dataclass(frozen=True)
class Scale:
    """How large some recordings and their vehicles are. Shapes: P recordings, K tracks."""

    tracks: np.ndarray  # (P,) int
    small: np.ndarray  # (P,) bool, in a place too small for its vehicles
    large: np.ndarray  # (P,) bool, too fast for vehicles
    globe: np.ndarray  # (P,) bool, positions could be longitude and latitude
    metres: np.ndarray  # (P,) m by the velocities in a unit of position; NaN without any
    hz: np.ndarray  # (P,) the stated rate
    place: np.ndarray  # (K,) int32, of all
    length: np.ndarray  # (K,) float32
    width: np.ndarray  # (K,) float32
    car: np.ndarray  # (K,) bool

    @classmethod
    def of(cls, tracks: Tracks, *, first_place: int) -> Scale:
        """``first_place``: how many recordings are before these."""
        driven, passed = _paths(tracks)
        small = _small(tracks, driven, passed)
        with np.errstate(divide="ignore", invalid="ignore"):
            metres = np.bincount(tracks.place, driven, len(tracks.places)) / np.bincount(
                tracks.place, passed, len(tracks.places)
            )
        cars = np.array([any(word in kind for word in CARS) for kind in tracks.kinds], bool)
        first = tracks.start[:-1]
        length, width = (tracks.number[name][first].astype(np.float32) for name in ("length", "width"))
        return cls(
            tracks=tracks.by_place(tracks.size > 0),
            small=small,
            large=tracks.too_fast & ~small,
            globe=_on_the_globe(tracks),
            metres=metres,
            hz=grouped_median(tracks.rate, tracks.place, len(tracks.places)),
            place=(tracks.place + first_place).astype(np.int32),
            length=length,
            width=width,
            car=cars[tracks.kind],
        )

    @classmethod
    def joined(cls, parts: Sequence[Scale]) -> Scale:
        """Of all recordings."""
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))

    def by_place(self, chosen: np.ndarray) -> np.ndarray:
        """How many of the chosen tracks ((K,) bool) each recording has, (P,)."""
        return np.bincount(self.place[chosen], minlength=len(self.tracks))


def units(index: Index, parts: Sequence[Scale]) -> Iterator[Finding]:
    """Recordings that are not in metres."""
    scale = Scale.joined(parts)
    small, large, metres, total = scale.small, scale.large, scale.metres, scale.tracks
    judged = _judged(index, scale)
    length, width = _sizes(index, scale, judged)
    with np.errstate(invalid="ignore"):
        # By the velocities and the sizes, where there are any.
        degrees = small & scale.globe & ~((metres < DEGREE[0]) | (metres > DEGREE[1]) | (length < 1))

    def projected(place: int) -> str:
        known = np.isfinite(metres[place])
        other = "" if known else " (or are they in km, or scaled to 1?)"
        return (
            f"degrees of longitude and latitude?{other} Project them to metres in float64 before the import, "
            "for example to the UTM zone: all vehicles stand still within metres here, and no window is cut"
        )

    yield from per_recording(
        index, "position-degrees", "error", "tracks", np.where(degrees, total, 0), total, projected
    )

    def scaled(place: int) -> str:
        if KILOMETRE[0] < metres[place] < KILOMETRE[1]:
            return "kilometres, by the velocities: multiply x and y by 1000"
        by = ""
        if np.isfinite(length[place]) and not DOUBTFUL_LENGTH[0] < length[place] < DOUBTFUL_LENGTH[1]:
            by = (
                f"; cars are {length[place]:.3g} long, so about {length[place] / CAR_M:.3g} units are a metre"
            )
            by += f" ({_unit(length[place], width[place]) or 'pixels?'})"
        elif metres[place] > 0 and np.isfinite(metres[place]):
            by = f"; by the velocities {1 / metres[place]:.3g} units are a metre"
        if large[place] and scale.hz[place] > FAST_HZ:
            by += f" (at {scale.hz[place]:g} rows a second: were frames taken for ms?)"
        what = "hardly a metre apart" if small[place] else "mostly faster than 70 m/s"
        return (
            f"the vehicles are {what}: x and y are not in m, or t is not in s{by}. Convert them in the source"
        )

    wrong = np.where((small & ~degrees) | large, total, 0)
    yield from per_recording(index, "position-scale", "error", "tracks", wrong, total, scaled)
    yield from _odd_sizes(index, scale, judged, length, width)


def _odd_sizes(
    index: Index, scale: Scale, judged: np.ndarray, length: np.ndarray, width: np.ndarray
) -> Iterator[Finding]:
    """Sizes that no vehicle has, in recordings whose motion could be in metres."""
    with_cars = scale.by_place(judged & scale.car) > 0
    with np.errstate(invalid="ignore"):
        odd = (width > DOUBTFUL_WIDTH) | ((length < DOUBTFUL_LENGTH[0]) & (width < 1.2))
        odd |= with_cars & (length > DOUBTFUL_LENGTH[1])
        odd &= ~scale.small & ~scale.large

    def fix(place: int) -> str:
        what = "cars" if with_cars[place] else "vehicles"
        size = f"{what} are {length[place]:.3g} long and {width[place]:.3g} wide in the median"
        unit = _unit(length[place], width[place], cars=bool(with_cars[place]))
        if unit:
            factor = PER_METRE[unit]
            return (
                f"{size}: {unit}? Divide length and width by {factor:.4g}, and x, y, vx and vy where they "
                f"are in {unit} too"
            )
        if 2 * length[place] > CAR_LENGTH[0]:
            return f"{size}: half the size? Multiply length and width by 2"
        return f"{size}: about {length[place] / CAR_M:.3g} units are a metre. Convert them, and x and y"

    known = scale.by_place(judged)
    yield from per_recording(index, "size-unit", "error", "tracks", np.where(odd, known, 0), known, fix)


def _small(tracks: Tracks, driven: np.ndarray, passed: np.ndarray) -> np.ndarray:
    """Whether all of a recording is in a place too small for its vehicles, (P,) bool."""
    low, high = (
        np.stack([_extreme(tracks, name, least) for name in ("t", "x", "y")]) for least in (True, False)
    )
    with np.errstate(invalid="ignore"):
        span, *sides = high - low
    # Vehicles that are there at one time, not one that was given several keys.
    seconds = tracks.number["t"][tracks.start[1:] - 1] - tracks.number["t"][tracks.start[:-1]]
    together = np.bincount(tracks.place, seconds, len(tracks.places)) > 1.5 * span
    crowded = together & (tracks.by_place(tracks.size > 1) >= MIN_TRACKS) & (np.hypot(*sides) < CROWDED_M)
    drove = driven > DRIVEN_M
    stood = drove & (passed < STANDING_SHARE * driven)
    small: np.ndarray = crowded | (
        (tracks.by_place(stood) > 0) & (2 * tracks.by_place(stood) > tracks.by_place(drove))
    )
    return small


def _extreme(tracks: Tracks, name: str, least: bool) -> np.ndarray:
    """The least or largest value of a column in each recording, (P,); infinite in one without rows."""
    found = np.full(len(tracks.places), np.inf if least else -np.inf)
    if len(tracks.size):
        at = np.minimum if least else np.maximum
        at.at(found, tracks.place, at.reduceat(tracks.number[name], tracks.start[:-1]))
    return found


def _paths(tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """How far each track drove by its velocities, and by its positions meanwhile, (K,) m and (K,) m."""
    stated = np.hypot(tracks.number["vx"], tracks.number["vy"])
    rows = (stated > MOVING_MPS) & tracks.regular
    seconds, owner = tracks.elapsed[rows], tracks.owner[rows]
    passed = np.hypot(*(step[rows] for step in tracks.travelled))
    return (
        np.bincount(owner, stated[rows] * seconds, len(tracks.size)),
        np.bincount(owner, passed, len(tracks.size)),
    )


def _on_the_globe(tracks: Tracks) -> np.ndarray:
    """Whether all positions could be longitude and latitude in either order, (P,) bool."""
    furthest = np.stack(
        [
            np.maximum(np.abs(_extreme(tracks, name, True)), np.abs(_extreme(tracks, name, False)))
            for name in ("x", "y")
        ]
    )
    on: np.ndarray = (furthest.max(axis=0) <= 180) & (furthest.min(axis=0) <= 90)
    return on


def _judged(index: Index, scale: Scale) -> np.ndarray:
    """The tracks whose size can be judged, (K,) bool: cars, or all in a source that has none."""
    known = np.isfinite(scale.length) & np.isfinite(scale.width)
    source = _source(index)[scale.place]
    some = np.bincount(source[known & scale.car], minlength=len(index.places)) > 0
    judged: np.ndarray = np.where(some[source], known & scale.car, known)
    return judged


def _source(index: Index) -> np.ndarray:
    """A number for the region and source of each recording, (P,)."""
    names = [(place.region, place.source) for place in index.places]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _sizes(index: Index, scale: Scale, judged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median length and width of what is judged in each recording, or in its source, (P,) each."""
    places, source = len(index.places), _source(index)
    groups = (scale.place[judged], np.arange(places)), (source[scale.place[judged]], source)
    medians = []
    for values in (scale.length[judged], scale.width[judged]):
        found = np.full(places, np.nan)
        for group, of_place in groups:
            median = grouped_median(values, group, places)
            median[np.bincount(group, minlength=places) < MIN_TRACKS] = np.nan
            found = np.where(np.isnan(found), median[of_place], found)
        medians.append(found)
    return medians[0], medians[1]


def _unit(length: float, width: float, *, cars: bool = True) -> str | None:
    """The unit in which that is a car, or any vehicle."""
    lengths, widths = (CAR_LENGTH, CAR_WIDTH) if cars else (VEHICLE_LENGTH, VEHICLE_WIDTH)
    for unit, factor in PER_METRE.items():
        if lengths[0] <= length / factor <= lengths[1] and widths[0] <= width / factor <= widths[1]:
            return unit
    return None
