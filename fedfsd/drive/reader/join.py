"""Recordings that are cuts of one longer recording, joined where they overlap.

A publisher who cuts a recording into overlapping pieces gives a car a new number in each: one vehicle under
several keys, and no piece long enough to forecast in. Rows that are equal to the millimetre show how the
pieces lie in time, and then which tracks are one.

Shapes: R rows of all pieces together, E edges between two pieces or two tracks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from fedfsd.drive.reader.drive import NUMBERS, Drive

# Equal rows that settle how two pieces lie in time, and that two tracks are one.
MIN_ROWS = 5
MIN_TRACK_ROWS = 3
# Frames in one piece at most: a day at 20 Hz.
MAX_FRAMES = 2**21


def joined(drives: Iterable[Drive]) -> list[Drive]:
    """The recordings; those with one ``part_of`` that overlap are one, under the first one's name."""
    groups: dict[object, list[Drive]] = defaultdict(list)
    for number, each in enumerate(drives):
        groups[number if each.part_of is None else each.part_of].append(each)
    return [one for group in groups.values() for one in (_join(group) if len(group) > 1 else group)]


def _join(pieces: list[Drive]) -> list[Drive]:
    piece = np.repeat(np.arange(len(pieces)), [len(each.vehicle) for each in pieces])
    t, x, y = (np.concatenate([each.columns[name] for each in pieces]) for name in ("t", "x", "y"))
    hz = np.concatenate([np.broadcast_to(each.hz, len(each.vehicle)) for each in pieces])
    names, track = np.unique(np.concatenate([each.vehicle for each in pieces]), return_inverse=True)
    first = np.full(len(pieces), np.inf)
    np.minimum.at(first, piece, np.where(np.isfinite(t), t, np.inf))
    period = 1 / float(np.median(hz))
    sound = np.isfinite(t) & np.isfinite(x) & np.isfinite(y)
    frame = np.round(np.where(sound, t - first[piece], 0) / period)
    sound &= frame < MAX_FRAMES
    frame = np.where(sound, frame, 0).astype(np.int64)
    where = np.stack([np.round(np.where(sound, axis, 0) * 1000).astype(np.int64) for axis in (x, y)])

    root, start = _laid(len(pieces), *_offsets(where[:, sound], piece[sound], frame[sound]))
    if (root == np.arange(len(pieces))).all():
        return pieces
    at = start[piece] + frame
    one = _one_track(np.stack([root[piece], at, *where])[:, sound], track[sound], len(names))
    # Seconds in the joined recording, each piece's own times moved as a whole.
    start -= _lowest(start, root)[root]
    # The same point has the same time in all of them: to the microsecond.
    seconds = np.round(t - first[piece] + start[piece] * period, 6)
    bounds = np.searchsorted(piece, np.arange(len(pieces) + 1))
    members = np.argsort(root, kind="stable")
    return [
        _whole(pieces, group, bounds, seconds, names[one[track]], hz)
        for group in np.split(members, np.flatnonzero(np.diff(root[members])) + 1)
    ]


def _offsets(
    where: np.ndarray, piece: np.ndarray, frame: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of pieces that share rows, (2, E), the frames by which the second starts later, the rows, (E,).

    Only points that a piece passes once count: a standing car is at one place at every time.
    """
    order = np.lexsort((piece, where[1], where[0]))
    a, b = order[:-1], order[1:]
    same = (where[:, a] == where[:, b]).all(axis=0)
    again = same & (piece[a] == piece[b])
    group = np.cumsum(np.r_[True, ~same]) if len(order) else np.empty(0, int)
    standing = np.zeros(int(group[-1]) + 1 if len(group) else 1, bool)
    standing[group[1:][again]] = True
    useful = same & ~standing[group[1:]] if len(order) else same
    a, b = a[useful], b[useful]
    pieces = int(piece.max(initial=0)) + 1
    # One number for each edge: a few hundred times faster than unique columns.
    edges = (piece[a] * pieces + piece[b]) * 2 * MAX_FRAMES + frame[a] - frame[b] + MAX_FRAMES
    found, count = np.unique(edges, return_counts=True)
    found, count = found[count >= MIN_ROWS], count[count >= MIN_ROWS]
    pair, offset = np.divmod(found, 2 * MAX_FRAMES)
    return np.stack(np.divmod(pair, pieces)), offset - MAX_FRAMES, count


def _laid(
    pieces: int, pairs: np.ndarray, offset: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first piece that each hangs together with, (P,), and where it starts beside that, (P,) frames.

    The best founded offsets first; one that would contradict them closes a ring and is not needed.
    """
    parent, shift = list(range(pieces)), [0] * pieces

    def find(one: int) -> tuple[int, int]:
        path, total = [], 0
        while parent[one] != one:
            path.append(one)
            one = parent[one]
        for each in reversed(path):
            total = shift[each] + (0 if parent[each] == one else shift[parent[each]])
            parent[each], shift[each] = one, total
        return one, total

    for index in np.argsort(-count, kind="stable"):
        (a, at_a), (b, at_b) = find(int(pairs[0, index])), find(int(pairs[1, index]))
        if a != b:
            # A point is at start + frame in both: start_b = start_a + frame_a - frame_b.
            low, high = min(a, b), max(a, b)
            move = at_a + int(offset[index]) - at_b
            parent[high], shift[high] = low, move if high == b else -move
    found = [find(each) for each in range(pieces)]
    return np.array([root for root, _ in found]), np.array([at for _, at in found])


def _one_track(points: np.ndarray, track: np.ndarray, tracks: int) -> np.ndarray:
    """The first of the tracks that are one, (tracks,): they share points of one joined recording.

    Args:
        points: recording, frame, x and y of each row, (4, R).
    """
    order = np.lexsort((track, *points[::-1]))
    same = (points[:, order[:-1]] == points[:, order[1:]]).all(axis=0)
    a, b = track[order[:-1]][same], track[order[1:]][same]
    found, count = np.unique((a * tracks + b)[a != b], return_counts=True)
    pairs = np.divmod(found[count >= MIN_TRACK_ROWS], tracks)
    one = np.arange(tracks)
    while True:
        least = np.minimum(one[pairs[0]], one[pairs[1]])
        before = one.copy()
        for side in pairs:
            np.minimum.at(one, one[side], least)
            np.minimum.at(one, side, least)
        one = one[one]
        if (one == before).all():
            return one


def _lowest(start: np.ndarray, root: np.ndarray) -> np.ndarray:
    lowest = np.full(len(root), np.iinfo(np.int64).max)
    np.minimum.at(lowest, root, start)
    return lowest


def _whole(
    pieces: list[Drive],
    members: np.ndarray,
    bounds: np.ndarray,
    seconds: np.ndarray,
    vehicle: np.ndarray,
    hz: np.ndarray,
) -> Drive:
    """One recording of its pieces."""
    parts: list[Drive] = [pieces[member] for member in members]
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([np.arange(bounds[member], bounds[member + 1]) for member in members])
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in NUMBERS}
    return replace(
        parts[0],
        hz=hz[rows],
        vehicle=vehicle[rows],
        type=np.concatenate([part.type for part in parts]),
        columns=columns | {"t": seconds[rows]},
        ego=np.concatenate([part.ego for part in parts]),
        left_out=tuple(each for part in parts for each in part.left_out),
    )
