"""Velocities and headings against the motion that the positions show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fedfsd.drive.check.finding import Finding, per_recording
from fedfsd.drive.check.position import jump_steps
from fedfsd.drive.check.track import MOVING_MPS, Tracks, lengths

MIN_POINTS = 5
MIN_CHORDS = 8
MIN_TRAVEL_M = 10.0
# A velocity within this factor of the motion is right: interpolation alone costs 10%.
SCALE = 1.15
# How far a velocity may point off the motion, and how like it must be for the two to match.
TURNED_RAD, ALIKE = 0.35, 0.8
# A heading off by more than this is another direction; slip and lane changes stay below 0.5 rad.
OFF_RAD = 1.0
REVERSED_RAD = 2.6
FITS_RAD = 0.35
# A rule is the recording's where it explains this share of the tracks that are off, and breaks no others.
EXPLAINED = 0.8
# Without a value beyond four turns, that many tracks have to say that headings are in degrees.
FAR_RAD = 25.0
MIN_TRACKS = 3
# Velocities that are this many times the motion, by the units that were mixed up.
MIXED_UNITS = {
    3.6: "km/h: divide vx and vy by 3.6",
    2.237: "miles an hour: divide vx and vy by 2.237",
    3.281: "feet a second: divide vx and vy by 3.281",
    0.3048: "positions in feet: multiply x and y by 0.3048",
}
MIXED_BY = 1.04


@dataclass(frozen=True)
class _Fit:
    """How velocities, read in one way, go with the motion of each track; all (K,)."""

    alike: np.ndarray  # 1 where one is a multiple of the other all along, -1 where it points backwards
    turn: np.ndarray  # rad, from the motion to the velocity
    factor: np.ndarray  # length of the velocities by that of the motion
    matches: np.ndarray  # bool


# Other readings of vx and vy, with the fix: (vx, vy, cos and sin of the heading) -> (vx, vy).
_Frame = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
FRAMES: dict[str, tuple[_Frame, str]] = {
    "matches after rotation by the heading": (
        lambda vx, vy, cos, sin: (cos * vx - sin * vy, sin * vx + cos * vy),
        "vx and vy are along and across the vehicle: rotate them by the heading",
    ),
    "matches with vy reversed": (lambda vx, vy, _c, _s: (vx, -vy), "the y axes differ: multiply vy by -1"),
    "matches with vx reversed": (lambda vx, vy, _c, _s: (-vx, vy), "the x axes differ: multiply vx by -1"),
    "matches with vx and vy exchanged": (lambda vx, vy, _c, _s: (vy, vx), "exchange vx and vy"),
    "matches after rotation by the heading, across before along": (
        lambda vx, vy, cos, sin: (cos * vy + sin * vx, sin * vy - cos * vx),
        "vx and vy are across and along the vehicle: exchange them and rotate them by the heading",
    ),
}
# The same by the direction of travel, where the headings are unknown or wrong.
TRAVEL = (
    "matches after rotation by the direction of travel",
    "vx and vy are along and across the vehicle: rotate them by the direction of travel",
)


def velocity(tracks: Tracks) -> Iterator[Finding]:
    """Velocities in another frame, that point backwards, or are too large or too small by a factor.

    Over about 2 s around each moving point the velocity's integral is compared with the
    displacement: least squares through zero, for each track. Where only the direction is off, no
    factor is named; what one rule explains for all of a recording is one finding.
    """
    vx, vy = tracks.number["vx"], tracks.number["vy"]
    measured, fit = _fit(tracks, vx, vy)
    measured &= ~tracks.too_fast[tracks.place]
    totals = tracks.by_place(measured)
    with np.errstate(invalid="ignore"):
        backwards = measured & (fit.alike < -ALIKE)
        off = measured & ~fit.matches
    named = np.zeros(len(measured), bool)  # in a frame of its own
    if (off & ~backwards).any():
        turns = [(said, frame, fix, tracks.number["heading"]) for said, (frame, fix) in FRAMES.items()]
        along = next(iter(FRAMES.values()))[0]
        for said, frame, fix, turn in (*turns, (TRAVEL[0], along, TRAVEL[1], _course(tracks)[0])):
            other = _fit(tracks, *frame(vx, vy, np.cos(turn), np.sin(turn)))[1]
            # Not where reversing explains as much.
            rest = _rule(tracks, off & ~named, other.matches, measured & ~off & ~named)
            rest &= tracks.by_place(off & ~backwards & ~named) > 0
            framed = measured & other.matches & rest[tracks.place] & ~named
            text = _Scaled(f"off the motion, {said}: {fix}", tracks, framed, other.factor)
            yield from per_recording(
                tracks, "velocity-frame", "error", "tracks", tracks.by_place(framed), totals, text
            )
            named |= framed
    off &= ~named
    # Reversing is the rule only where it explains what is off.
    reverse = _rule(tracks, off, fit.alike < -ALIKE, np.zeros_like(off))
    flipped = backwards & ~named & reverse[tracks.place]
    fix = "multiply vx and vy by -1, or recompute them from the positions"
    yield from per_recording(
        tracks, "velocity-reversed", "error", "tracks", tracks.by_place(flipped), totals, fix
    )
    astray = off & ~flipped
    still = tracks.by_place(astray & (tracks.by_track(np.hypot(vx, vy) > 0) == 0))

    def recompute(place: int) -> str:
        if 2 * still[place] > tracks.by_place(astray)[place]:
            return (
                "they are zero while the vehicles move: recompute vx and vy from the positions, or drop them"
            )
        return "off the motion, by an angle that no frame explains: recompute vx and vy from the positions"

    yield from per_recording(
        tracks, "velocity-off-motion", "error", "tracks", tracks.by_place(astray), totals, recompute
    )
    # A reversed velocity may be scaled as well.
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = (measured & ~named & ~astray) & (np.abs(np.log(fit.factor)) > np.log(SCALE))

    def factor(place: int) -> str:
        return _mixed(float(np.median(fit.factor[scaled & (tracks.place == place)])))

    yield from per_recording(
        tracks, "velocity-scaled", "error", "tracks", tracks.by_place(scaled), totals, factor
    )


@dataclass(frozen=True)
class _Scaled:
    """A fix for the direction, with the factor of the place where the size is off as well."""

    fix: str
    tracks: Tracks
    chosen: np.ndarray
    factor: np.ndarray

    def __call__(self, place: int) -> str:
        factor = float(np.median(self.factor[self.chosen & (self.tracks.place == place)]))
        return self.fix if abs(np.log(factor)) <= np.log(SCALE) else f"{self.fix}; then {_mixed(factor)}"


def _mixed(factor: float) -> str:
    """What velocities that are so many times the motion mean."""
    said = f"velocities are {factor:.3g} times the motion"
    for known, fix in MIXED_UNITS.items():
        if max(factor / known, known / factor) < MIXED_BY:
            return f"{said}, as of {fix}"
    return f"{said}: divide vx and vy by that"


def _rule(tracks: Tracks, off: np.ndarray, fits: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether ``fits`` (K,) explains what is ``off`` in a recording, and breaks nothing right, (P,)."""
    explained, wrong = tracks.by_place(off & fits), tracks.by_place(off)
    broken = tracks.by_place(right & ~fits)
    rule: np.ndarray = (
        (explained > 0) & (explained >= EXPLAINED * wrong) & (broken <= (1 - EXPLAINED) * wrong)
    )
    return rule


def _fit(tracks: Tracks, vx: np.ndarray, vy: np.ndarray) -> tuple[np.ndarray, _Fit]:
    """Which tracks can be measured, (K,) bool, and how the velocities (N,) go with their motion."""
    driven, moved, rows = _integral(tracks, vx, vy)
    dot, cross, square, own = (
        np.bincount(tracks.owner[rows], weights=values[rows], minlength=len(tracks.size))
        for values in (
            driven[0] * moved[0] + driven[1] * moved[1],
            moved[0] * driven[1] - moved[1] * driven[0],
            moved[0] ** 2 + moved[1] ** 2,
            driven[0] ** 2 + driven[1] ** 2,
        )
    )
    measured = (tracks.by_track(rows) >= MIN_CHORDS) & (_extent(tracks) >= MIN_TRAVEL_M)
    with np.errstate(divide="ignore", invalid="ignore"):
        alike, turn, factor = dot / np.sqrt(square * own), np.arctan2(cross, dot), np.abs(dot / square)
        matches = (alike > ALIKE) & (np.abs(turn) < TURNED_RAD)
    return measured, _Fit(alike, turn, factor, matches)


# How a heading may be meant besides counter-clockwise from x in rad: stated -> that, with the fix.
READINGS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "compass": (lambda h: np.pi / 2 - h, "they are clockwise from north (y): take pi/2 - heading"),
    "compass degrees": (
        lambda h: np.radians(90 - h),
        "they are degrees clockwise from north (y): take radians(90 - heading)",
    ),
    "clockwise": (lambda h: -h, "they are clockwise: multiply by -1"),
    "left": (lambda h: h + np.pi / 2, "they are a quarter turn behind: add pi/2"),
    "right": (lambda h: h - np.pi / 2, "they are a quarter turn ahead: subtract pi/2"),
}


def heading(tracks: Tracks) -> Iterator[Finding]:
    """Headings that are missing, in degrees, not wrapped, or not along the motion.

    Nothing is called degrees that the motion does not show to be degrees: radians that were
    unwrapped leave the circle too.
    """
    stated = tracks.number["heading"]
    known = np.isfinite(stated)
    missing = tracks.by_place(tracks.by_track(~known))
    fix = "take the course over ground where the vehicle moves; the windows do not need a heading"
    yield from per_recording(
        tracks, "heading-missing", "note", "points", missing, tracks.by_place(tracks.size), fix
    )
    course, speed = _course(tracks)
    rows = (speed > MOVING_MPS) & known
    if (jumps := jump_steps(tracks)).any():  # whose direction is not the vehicle's
        before = np.cumsum(jumps)
        low, high = tracks.chord(0.5)
        rows &= before[low] == before[high]
    measured = tracks.by_track(rows) >= MIN_POINTS
    with np.errstate(invalid="ignore"):
        beyond = tracks.by_track(np.abs(stated) > 2 * np.pi + 0.01) > 0

    def error(reading: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return tracks.median(_angle(reading(stated) - course), rows)

    with np.errstate(invalid="ignore"):
        off_by = error(lambda h: h)
        against = measured & (off_by > OFF_RAD)
        any_heading = tracks.by_track(known) > 0
        degrees = np.zeros(len(measured), bool)
        if (against | beyond).any():
            far = tracks.by_track(np.abs(stated) > FAR_RAD) > 0
            degrees = _degrees(tracks, measured, off_by, error(np.radians), far, against) & any_heading
    total = tracks.by_place(any_heading)
    fix = "convert the heading from degrees to radians"
    yield from per_recording(
        tracks, "heading-degrees", "error", "tracks", tracks.by_place(degrees), total, fix
    )
    against &= ~degrees
    yield from _against(tracks, error, measured & ~degrees, off_by, against)
    moves = tracks.by_place(measured) > 0

    def unwrapped(place: int) -> str:
        if moves[place]:
            return (
                "not wrapped: beyond a full turn, which changes nothing here; wrap them where a tool needs it"
            )
        return "radians that are not wrapped, or degrees: nothing moves here that could tell"

    yield from per_recording(
        tracks,
        "heading-not-wrapped",
        "note",
        "tracks",
        tracks.by_place(beyond & ~degrees & ~(tracks.by_place(against) > 0)[tracks.place]),
        total,
        unwrapped,
    )


def _degrees(
    tracks: Tracks,
    measured: np.ndarray,
    off_by: np.ndarray,
    in_degrees: np.ndarray,
    far: np.ndarray,
    against: np.ndarray,
) -> np.ndarray:
    """Which tracks are in degrees, (K,) bool: their motion says so, or that of others and none objects."""
    sure = measured & (off_by > OFF_RAD / 2) & (in_degrees < FITS_RAD)
    object_ = measured & ~sure & (off_by < OFF_RAD / 2) & (in_degrees > FITS_RAD)
    # By chance a track fits degrees too: that has to explain the recording, and more than one track.
    rule = _rule(tracks, against, sure, np.zeros_like(sure))
    rule &= (tracks.by_place(sure & far) > 0) | (tracks.by_place(sure) >= MIN_TRACKS)
    whole = rule & (tracks.by_place(object_) == 0)
    degrees: np.ndarray = (sure & rule[tracks.place]) | whole[tracks.place]
    return degrees


def _against(
    tracks: Tracks,
    error: Callable[[Callable[[np.ndarray], np.ndarray]], np.ndarray],
    measured: np.ndarray,
    off_by: np.ndarray,
    against: np.ndarray,
) -> Iterator[Finding]:
    """Headings that are not along the motion, with the reading that would be."""
    if not against.any():
        return
    backwards = _rule(tracks, against, off_by > REVERSED_RAD, np.zeros_like(against))
    fixes: dict[int, str] = {}
    for reading, fix in READINGS.values():
        fits = error(reading) < FITS_RAD
        rule = _rule(tracks, against, fits, measured & ~against)
        for place in np.flatnonzero(rule & ~backwards & (tracks.by_place(against) >= MIN_TRACKS)):
            fixes.setdefault(int(place), fix)

    def turn(place: int) -> str:
        if backwards[place]:
            return "they point backwards: add pi, if the vehicles do not reverse"
        return fixes.get(place, "use the course over ground; the annotated heading is no direction of travel")

    yield from per_recording(
        tracks,
        "heading-against-motion",
        "error",
        "tracks",
        tracks.by_place(against),
        tracks.by_place(measured),
        turn,
    )


def _integral(
    tracks: Tracks, vx: np.ndarray, vy: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Integrated velocity and displacement over about 2 s, and the rows to use, (N,) bool.

    The first two are x and y, (N,) m each.
    """
    unknown = ~(np.isfinite(vx) & np.isfinite(vy))
    broken = np.cumsum(unknown | ~tracks.regular | jump_steps(tracks))
    low, high = tracks.chord(1.0)
    seconds = tracks.number["t"][high] - tracks.number["t"][low]
    driven, moved = [], []
    for name, velocity in (("x", vx), ("y", vy)):
        velocity = np.where(unknown, 0, velocity)
        middle = (velocity + np.roll(velocity, 1)) / 2
        summed = np.cumsum(np.where(tracks.regular, middle * tracks.elapsed, 0))
        driven.append(summed[high] - summed[low])
        moved.append(tracks.number[name][high] - tracks.number[name][low])
    whole = (broken[high] == broken[low]) & ~unknown[low] & (high > low)
    rows = whole & (lengths(*moved) > MOVING_MPS * seconds)
    return driven, moved, rows


def _course(tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """Direction of travel (rad) and speed (m/s) over about 1 s, (N,) each."""
    low, high = tracks.chord(0.5)
    x, y = (tracks.number[name][high] - tracks.number[name][low] for name in ("x", "y"))
    with np.errstate(divide="ignore", invalid="ignore"):
        speed = lengths(x, y) / (tracks.number["t"][high] - tracks.number["t"][low])
    return np.arctan2(y, x), np.nan_to_num(speed, nan=0.0, posinf=0.0)


def _extent(tracks: Tracks) -> np.ndarray:
    """Diagonal of the box around each track, (K,) m."""
    if not len(tracks.size):
        return np.empty(0)
    sides = [
        np.maximum.reduceat(tracks.number[name], tracks.start[:-1])
        - np.minimum.reduceat(tracks.number[name], tracks.start[:-1])
        for name in ("x", "y")
    ]
    diagonal: np.ndarray = np.hypot(*sides)
    return diagonal


def _angle(difference: np.ndarray) -> np.ndarray:
    """Size of an angle, 0 to pi."""
    return np.abs((difference + np.pi) % (2 * np.pi) - np.pi)
