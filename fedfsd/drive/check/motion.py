"""Velocities and headings against the motion that the positions show."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedfsd.drive.check.finding import Finding, per_recording
from fedfsd.drive.check.position import jump_steps
from fedfsd.drive.check.track import Tracks

MOVING_MPS = 2.0
MIN_POINTS = 5
MIN_CHORDS = 8
MIN_TRAVEL_M = 10.0
# A velocity within this factor of the motion is right: interpolation alone costs 10%.
SCALE = 1.15
# A heading off by more than this is another direction; slip and lane changes stay below 0.5 rad.
OFF_RAD = 1.0
REVERSED_RAD = 2.6


def velocity(tracks: Tracks) -> Iterator[Finding]:
    """Velocities that point backwards, or are too large or too small by a factor.

    Over about 2 s around each moving point the velocity's integral is compared with the
    displacement: least squares through zero, for each track.
    """
    driven, moved, rows = _integral(tracks)
    dot, square, own = (
        np.bincount(tracks.owner[rows], weights=values[rows], minlength=len(tracks.size))
        for values in ((driven * moved).sum(1), (moved**2).sum(1), (driven**2).sum(1))
    )
    measured = (tracks.by_track(rows) >= MIN_CHORDS) & (_extent(tracks) >= MIN_TRAVEL_M)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = dot / square
        alike = dot / np.sqrt(square * own)
    totals = tracks.by_place(measured)
    flipped = measured & (alike < -0.8)
    fix = "multiply vx and vy by -1, or recompute them from the positions"
    yield from per_recording(
        tracks, "velocity-reversed", "error", "tracks", tracks.by_place(flipped), totals, fix
    )
    # A reversed velocity may be scaled as well.
    scaled = measured & (np.abs(alike) > 0.8) & (np.abs(np.log(np.abs(slope) + 1e-9)) > np.log(SCALE))

    def factor(place: int) -> str:
        here = np.abs(slope[scaled & (tracks.place == place)])
        return f"velocities are {np.median(here):.3g} times the motion: divide vx and vy by that"

    yield from per_recording(
        tracks, "velocity-scaled", "error", "tracks", tracks.by_place(scaled), totals, factor
    )


def heading(tracks: Tracks) -> Iterator[Finding]:
    """Headings that are missing, in degrees, or not along the motion."""
    stated = tracks.number["heading"]
    points = tracks.by_place(tracks.size)
    missing = tracks.by_place(tracks.by_track(~np.isfinite(stated)))
    fix = "take the course over ground where the vehicle moves; the windows do not need a heading"
    yield from per_recording(tracks, "heading-missing", "note", "points", missing, points, fix)

    course, speed = _course(tracks)
    rows = (speed > MOVING_MPS) & np.isfinite(stated)
    measured = tracks.by_track(rows) >= MIN_POINTS
    error = tracks.median(_angle(stated - course), rows)
    in_degrees = tracks.median(_angle(np.radians(stated) - course), rows)
    beyond = tracks.by_track(np.abs(stated) > 2 * np.pi + 0.01) > 0
    # Radians that were unwrapped leave the circle too, but keep to the motion.
    degrees = beyond & (~measured | (in_degrees < error))
    here = (tracks.by_place(degrees) > 0)[tracks.place]
    degrees |= here & measured & (in_degrees < error) & (error > OFF_RAD / 2)
    fix = "convert the heading from degrees to radians"
    any_heading = tracks.by_place(tracks.by_track(np.isfinite(stated)) > 0)
    yield from per_recording(
        tracks, "heading-degrees", "error", "tracks", tracks.by_place(degrees), any_heading, fix
    )
    against = measured & ~degrees & (error > OFF_RAD)

    def turn(place: int) -> str:
        turned = error[against & (tracks.place == place)] > REVERSED_RAD
        if np.mean(turned) > 0.8:
            return "they point backwards: add pi, if the vehicles do not reverse"
        return "use the course over ground; the annotated heading is no direction of travel"

    yield from per_recording(
        tracks,
        "heading-against-motion",
        "error",
        "tracks",
        tracks.by_place(against),
        tracks.by_place(measured),
        turn,
    )


def _integral(tracks: Tracks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integrated velocity and displacement over about 2 s, (N, 2) m each, and the rows to use, (N,) bool."""
    stated = np.stack([tracks.number["vx"], tracks.number["vy"]], axis=1)
    unknown = ~np.isfinite(stated).all(axis=1)
    stated = np.where(unknown[:, None], 0, stated)
    middle = (stated + np.roll(stated, 1, axis=0)) / 2
    steps = np.where(tracks.regular[:, None], middle * tracks.elapsed[:, None], 0)
    summed = np.cumsum(steps, axis=0)
    broken = np.cumsum(unknown | ~tracks.regular | jump_steps(tracks))
    low, high = tracks.chord(1.0)
    moved = _positions(tracks)[high] - _positions(tracks)[low]
    seconds = tracks.number["t"][high] - tracks.number["t"][low]
    whole = (broken[high] == broken[low]) & ~unknown[low] & (high > low)
    rows = whole & (np.linalg.norm(moved, axis=1) > MOVING_MPS * seconds)
    return summed[high] - summed[low], moved, rows


def _course(tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """Direction of travel (rad) and speed (m/s) over about 1 s, (N,) each."""
    low, high = tracks.chord(0.5)
    moved = _positions(tracks)[high] - _positions(tracks)[low]
    with np.errstate(divide="ignore", invalid="ignore"):
        speed = np.linalg.norm(moved, axis=1) / (tracks.number["t"][high] - tracks.number["t"][low])
    return np.arctan2(moved[:, 1], moved[:, 0]), np.nan_to_num(speed, nan=0.0, posinf=0.0)


def _positions(tracks: Tracks) -> np.ndarray:
    return np.stack([tracks.number["x"], tracks.number["y"]], axis=1)


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
