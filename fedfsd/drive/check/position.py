"""What positions and times show: points that are none, gaps, jumps, jitter, interpolation, copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedfsd.drive.check.finding import Finding, per_recording
from fedfsd.drive.check.track import MAX_SPEED_MPS, MOVING_MPS, Index, Tracks, difference, lengths

# A step that differs from its neighbours by more than the larger of these is no driving:
# full braking is below 10 m/s2.
JUMP_M, JUMP_MPS2 = 5.0, 15.0
# Noise of one position: in metres, or as the acceleration it would mean.
JITTER_M, JITTER_MPS2 = 0.2, 6.0
# What no forecast at 0.5 s sees, however fast the samples are.
MIN_JITTER_M = 0.02
# Beyond this distance from a straight line three points make a corner; float32 at 5 km is 0.5 mm.
CORNER_M = 0.002
MAX_FACTOR = 20
# Chance of corners falling into one phase by luck, for a track to be named on its own.
LUCK = 1e-6
# The share of a track's positions that another track has, for it to be a copy.
COPY_SHARE = 0.3
# All positions are compared in that many shares, by the first three bits of their marks.
SHARES = 8


def not_finite(tracks: Tracks) -> Iterator[Finding]:
    """Rows without a time or a position."""
    totals = tracks.by_place(tracks.size) + tracks.not_finite
    fix = "drop the rows; windows leave them out"
    return per_recording(tracks, "not-finite", "warning", "points", tracks.not_finite, totals, fix)


def one_point(tracks: Tracks) -> Iterator[Finding]:
    """Vehicles seen once: no window can be cut."""
    counts = tracks.by_place(tracks.size == 1)
    fix = "nothing to do: on the roster they contribute zero; or drop them before it is counted"
    return per_recording(tracks, "one-point", "note", "tracks", counts, tracks.by_place(tracks.size > 0), fix)


def repeated_time(tracks: Tracks) -> Iterator[Finding]:
    """Two rows of one vehicle at the same time."""
    counts = tracks.by_place(tracks.by_track(tracks.elapsed == 0))
    fix = "keep one row for each vehicle and time"
    return per_recording(
        tracks, "repeated-time", "error", "points", counts, tracks.by_place(tracks.size), fix
    )


def stated_rate(tracks: Tracks) -> Iterator[Finding]:
    """A column hz that the times contradict."""
    measured = tracks.period
    wrong = tracks.misrated

    def fix(place: int) -> str:
        rate = 1 / np.median(measured[wrong & (tracks.place == place)])
        return f"set hz to {rate:.3g}"

    counts = tracks.by_place(wrong)
    return per_recording(
        tracks, "stated-rate", "error", "tracks", counts, tracks.by_place(tracks.size > 1), fix
    )


def gaps(tracks: Tracks) -> Iterator[Finding]:
    """Steps that skip samples."""
    counts = tracks.by_place(tracks.by_track(tracks.gap))
    fix = "nothing to do up to 0.75 s (interpolated); longer ones split the track"
    return per_recording(
        tracks, "gap", "note", "steps", counts, tracks.by_place(tracks.by_track(tracks.follows)), fix
    )


def jump_steps(tracks: Tracks) -> np.ndarray:
    """Whether no vehicle can drive the step to a row: too fast, or unlike both its neighbours, (N,) bool.

    Where most steps are, it is the unit that is wrong, and no step in particular.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        change = tracks.bent
        apart = change > np.maximum(JUMP_M, JUMP_MPS2 * tracks.elapsed**2)
    # At the start and end of a run there is only one neighbour to differ from.
    before = apart | (np.isnan(change) & _shift(apart))
    after = _shift(apart) | (np.isnan(_shift(change, fill=np.nan)) & apart)
    with np.errstate(invalid="ignore"):
        too_fast = tracks.speed > MAX_SPEED_MPS
    jumps: np.ndarray = too_fast | (tracks.regular & before & after)
    jumps &= ~tracks.too_fast[tracks.place][tracks.owner]
    return jumps


def jumps(tracks: Tracks) -> Iterator[Finding]:
    """Steps that are no driving."""
    counts = tracks.by_place(tracks.by_track(jump_steps(tracks)))
    fix = "split the track there; windows with a step over 25 m are dropped, smaller jumps are trained on"
    return per_recording(
        tracks, "jump", "warning", "steps", counts, tracks.by_place(tracks.by_track(tracks.follows)), fix
    )


def jitter(tracks: Tracks) -> Iterator[Finding]:
    """Moving tracks whose positions scatter about their path.

    The third difference of smooth driving is near zero, that of independent noise has 20 times
    its variance.
    """
    third = lengths(*(difference(values) for values in tracks.turned))
    with np.errstate(divide="ignore", invalid="ignore"):
        moving = tracks.speed > MOVING_MPS
    rows = moving & np.isfinite(third)
    measured = tracks.by_track(rows) >= 5
    # Median of the length of a vector of two normal numbers: 1.177 standard deviations.
    noise = tracks.median(third, rows) / (1.177 * np.sqrt(20))
    meant = np.sqrt(6) * noise / tracks.period**2
    bad = measured & ((noise > JITTER_M) | ((meant > JITTER_MPS2) & (noise > MIN_JITTER_M)))
    bad &= ~tracks.too_fast[tracks.place]

    def fix(place: int) -> str:
        size = np.median(noise[bad & (tracks.place == place)])
        return f"about {size:.2f} m of noise a position: smooth it in the source, or expect worse forecasts"

    return per_recording(
        tracks, "jitter", "warning", "tracks", tracks.by_place(bad), tracks.by_place(measured), fix
    )


def interpolated(tracks: Tracks) -> Iterator[Finding]:
    """Tracks whose corners all lie a fixed number of samples apart: straight lines between key frames."""
    second = tracks.bent
    measured = tracks.by_track(np.isfinite(second)) > 0
    # The second difference at a row is about the corner one sample earlier; the phase is the same for all.
    rows = second > CORNER_M
    owner = tracks.owner[rows]
    sample = np.round(tracks.number["t"][rows] / tracks.period[owner]).astype(np.int64)
    corners = np.bincount(owner, minlength=len(tracks.size))
    # Of neighbouring corners one sample apart, one at most is in phase: with many of them no factor can be.
    beside = owner[1:][(np.diff(owner) == 0) & (np.diff(sample) == 1)]
    free = np.bincount(beside, minlength=len(corners)) <= 0.2 * corners + 1
    owner, sample = owner[free[owner]], sample[free[owner]]
    factor = np.ones(len(corners), int)
    sure = np.zeros(len(corners), bool)
    for k in range(2, MAX_FACTOR + 1):
        phases = np.bincount(owner * k + sample % k, minlength=len(corners) * k).reshape(-1, k)
        aligned = free & (corners >= 3) & (phases.max(axis=1) >= 0.9 * corners)
        factor[aligned] = k
        sure[aligned] = corners[aligned] >= 1 + np.log(LUCK) / np.log(1 / k)
    # A short track alone could be luck; beside a sure one of the same factor it is not.
    shared = np.zeros((len(tracks.places), MAX_FACTOR + 1), bool)
    shared[tracks.place[sure], factor[sure]] = True
    bad = (factor > 1) & shared[tracks.place, factor]

    def fix(place: int) -> str:
        here = np.flatnonzero(bad & (tracks.place == place))
        rate = np.median(1 / (tracks.period[here] * factor[here]))
        return f"native rate {rate:.3g} Hz: the points between are no measurements; keep the native ones"

    return per_recording(
        tracks, "interpolated", "warning", "tracks", tracks.by_place(bad), tracks.by_place(measured), fix
    )


@dataclass(frozen=True)
class Points:
    """Where the tracks of some recordings went, for ``copies``. Shapes: M rows that moved, K tracks."""

    mark: np.ndarray  # (M,) uint64, equal for equal positions to the millimetre
    owner: np.ndarray  # (M,) int32, the track of each, counted from the first of all
    place: np.ndarray  # (K,) int32, of all
    vehicle: np.ndarray  # (K,) int32

    @classmethod
    def of(cls, tracks: Tracks, *, first_place: int, first_track: int) -> Points:
        """The numbers are those of the recordings and tracks before these."""
        with np.errstate(invalid="ignore"):
            rows = np.flatnonzero(tracks.moved > 0.1)
        x, y = (np.round(tracks.number[name][rows] * 1000).astype(np.int64) for name in ("x", "y"))
        mark = _mixed(_mixed(x.view(np.uint64)) ^ y.view(np.uint64))
        owner = (tracks.owner[rows] + first_track).astype(np.int32)
        return cls(
            mark, owner, (tracks.place + first_place).astype(np.int32), tracks.vehicle.astype(np.int32)
        )


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Another 64 bits for each 64 bits, one to one, where each depends on all (splitmix64)."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = bits ^ (bits >> np.uint64(31))
    return mixed


def copies(index: Index, parts: Sequence[Points]) -> Iterator[Finding]:
    """Tracks that go through the same points, to the millimetre, as a track before them.

    Points are compared by 64 bits of each: of a thousand million, two that differ are the same with a chance
    of three in a hundred, and it takes five of them in one track to matter.
    """
    place, vehicle = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("place", "vehicle")
    )
    again = []
    for share in range(SHARES):  # of equal size: a mark's bits are all alike
        marks = np.concatenate([part.mark[part.mark >> np.uint64(61) == share] for part in parts])
        marks.sort()
        again.append(np.unique(marks[1:][marks[1:] == marks[:-1]]))
    twice = np.concatenate(again)
    del marks
    points = np.zeros(len(place), np.int64)
    met = [(np.empty(0, np.uint64), np.empty(0, np.int32))]
    for part in parts:
        points += np.bincount(part.owner, minlength=len(place))
        at = np.minimum(np.searchsorted(twice, part.mark), max(len(twice) - 1, 0))
        hit = twice[at] == part.mark if len(twice) else np.zeros(len(part.mark), bool)
        met.append((part.mark[hit], part.owner[hit]))
    mark, owner = (np.concatenate([one[n] for one in met]) for n in (0, 1))
    order = np.lexsort((owner, mark))
    mark, owner = mark[order], owner[order]
    new = np.ones(len(mark), bool)
    new[1:] = mark[1:] != mark[:-1]
    first = owner[np.flatnonzero(new)[np.cumsum(new) - 1]]
    seen = first != owner
    shared = np.bincount(owner[seen], minlength=len(place))
    same = seen & (vehicle[first] == vehicle[owner])
    own = np.bincount(owner[same], minlength=len(place))
    copy = (shared >= 5) & (shared > COPY_SHARE * points)
    total = np.bincount(place, minlength=len(index.places))
    other = copy & (2 * own < shared)

    def by_place(tracks: np.ndarray) -> np.ndarray:
        return np.bincount(place[tracks], minlength=len(total))

    fix = (
        "one vehicle under two keys is protected less than stated: give both tracks one key, or drop the copy"
    )
    yield from per_recording(index, "duplicate-track", "error", "tracks", by_place(other), total, fix)
    fix = "the recordings overlap: drop the copy, its windows count twice"
    overlap = by_place(copy & ~other)
    yield from per_recording(index, "repeated-track", "warning", "tracks", overlap, total, fix)


def _shift(values: np.ndarray, fill: float = 0) -> np.ndarray:
    """The value at the next row, (N,)."""
    return np.r_[values[1:], np.array([fill], values.dtype)] if len(values) else values
