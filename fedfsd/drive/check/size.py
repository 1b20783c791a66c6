"""Lengths and widths that were assumed, or changed places."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedfsd.drive.check.finding import Finding, per_recording
from fedfsd.drive.check.track import Tracks

# Measured sizes of that many vehicles of one type never agree to the centimetre.
MIN_TRACKS = 3
SHARE = 0.9
# Shorter is in another unit, in which a centimetre is nothing.
MIN_LENGTH_M = 0.3


def sizes(tracks: Tracks) -> Iterator[Finding]:
    """One size for all vehicles of a type; vehicles wider than long."""
    length, width = (_of_track(tracks, name) for name in ("length", "width"))
    known = np.isfinite(length) & np.isfinite(width)
    total = tracks.by_place(known)

    group = np.unique(np.stack([tracks.place, tracks.kind]), axis=1, return_inverse=True)[1].reshape(-1)
    cell = np.round(np.stack([group, length * 100, width * 100])[:, known]).astype(np.int64)
    _, index, counts = np.unique(cell, axis=1, return_inverse=True, return_counts=True)
    of_group = np.bincount(cell[0], minlength=len(tracks.size))
    alike = np.zeros(len(tracks.size), bool)
    same = counts[index.reshape(-1)]
    alike[known] = (same >= MIN_TRACKS) & (same >= SHARE * of_group[cell[0]])
    with np.errstate(invalid="ignore"):
        alike &= length > MIN_LENGTH_M
    fix = "the source assumes a size for each type: do not use length and width as features"
    yield from per_recording(tracks, "constant-size", "note", "tracks", tracks.by_place(alike), total, fix)

    swapped = known & (length < 0.95 * width)
    fix = "wider than long: exchange the two, or take the box as the part that was seen"
    yield from per_recording(tracks, "size-swapped", "note", "tracks", tracks.by_place(swapped), total, fix)


def _of_track(tracks: Tracks, name: str) -> np.ndarray:
    """The size of each track, (K,): most sources state one, and only what varies has to be sorted."""
    values, first = tracks.number[name], tracks.start[:-1]
    varies = tracks.by_track(values != values[first][tracks.owner]) > 0
    return np.where(varies, tracks.median(values, varies[tracks.owner]), values[first])
