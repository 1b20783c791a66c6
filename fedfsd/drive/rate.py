"""Sampling rates as the times show them: the one measure for readers and for the data check.

Shapes: N steps between successive points of tracks, K tracks.
"""

from __future__ import annotations

import numpy as np

# A stated rate is believed while the steps are within this factor of it.
RATE_FACTOR = 1.3
# A track keeps a period of its own when that share of at least so many steps is within a tenth of it.
STEADY_STEPS, STEADY_SHARE, NEAR = 10, 0.9, 0.1
# Less than that share of a track's rows at another time than the one before: the times were rounded.
MOVING_ON = 1 / 8
_SIGN = np.uint32(2**31)


def grouped_median(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Lower median of the values of each group, (groups,), to float32; NaN for an empty one, and the largest.

    Group and value are one whole number in the order of both: sorting those is several times faster
    than sorting two columns.
    """
    with np.errstate(over="ignore"):
        bits = values.astype(np.float32).view(np.uint32)
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    ordered[np.isnan(values)] = np.iinfo(np.uint32).max
    keys = np.sort((group.astype(np.uint64) << np.uint64(32)) | ordered)
    counts = np.bincount(group, minlength=groups)
    first = np.cumsum(counts) - counts
    some = counts > 0
    chosen = keys[(first + (counts - 1) // 2)[some]].astype(np.uint32)
    result = np.full(groups, np.nan)
    result[some] = np.where(chosen & _SIGN, chosen & ~_SIGN, ~chosen).view(np.float32)
    return result


def off(ratio: np.ndarray) -> np.ndarray:
    """Whether a measured period that is ``ratio`` times the stated one contradicts it."""
    return (ratio > RATE_FACTOR) | (ratio < 1 / RATE_FACTOR)


def sureness(steps: np.ndarray, owner: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which tracks keep their median step beyond doubt, (K,) bool, and which do if a sure one has the same.

    Args: see ``steady``.
    """
    tracks = len(own)
    near = np.abs(steps - own[owner]) <= NEAR * own[owner]
    count, close = np.bincount(owner, minlength=tracks), np.bincount(owner[near], minlength=tracks)
    sure = (count >= STEADY_STEPS) & (close >= STEADY_SHARE * count)
    return sure, ~sure & (count >= 2) & (close == count)


def steady(
    steps: np.ndarray, owner: np.ndarray, own: np.ndarray, known: np.ndarray | None = None
) -> np.ndarray:
    """The period that each track keeps throughout, (K,) s; NaN where frames are missing or steps are few.

    A short track is believed where all its steps agree with a period that a longer one keeps.

    Args:
        steps: time between two rows, above 0, (N,) s.
        owner: whose step it is, (N,).
        own: the median step of each track, (K,) s, NaN where it has none.
        known: the periods that longer tracks keep, ascending, where they are not all among these.
    """
    sure, perhaps = sureness(steps, owner, own)
    if known is None:
        known = np.unique(own[sure])
    if len(known):
        # The nearest known period below and above.
        above = np.searchsorted(known, own)
        ratio = np.minimum(
            np.abs(own / known[np.minimum(above, len(known) - 1)] - 1),
            np.abs(own / known[np.maximum(above - 1, 0)] - 1),
        )
        sure |= perhaps & (ratio <= NEAR)
    return np.where(sure, own, np.nan)


def rates(owner: np.ndarray, t: np.ndarray) -> np.ndarray | None:
    """Frames a second of each row's track, for rows in any order; None where times hardly ever move on.

    A track that keeps a period of its own has its own rate, any other the most usual of all tracks.

    Args:
        owner: number of each row's track.
        t: its time, s.
    """
    order = np.argsort(owner, kind="stable")
    same, steps = np.diff(owner[order]) == 0, np.diff(t[order])
    if not (steps[same] >= 0).all():  # most files have each track in the order of time
        order = np.lexsort((t, owner))
        steps = np.diff(t[order])
    forward = same & (steps > 0)
    if not forward.any() or forward.sum() < MOVING_ON * same.sum():
        return None
    steps, tracks = steps[forward], int(owner.max()) + 1
    usual = float(np.median(steps))
    owners = owner[order][1:][forward]
    own = steady(steps, owners, grouped_median(steps, owners, tracks))
    with np.errstate(invalid="ignore"):
        own = np.where(off(own / usual), own, usual)
    hz = 1 / own
    found: np.ndarray = np.where(hz > 0.1, np.round(hz, 3), hz)[owner]
    return found
