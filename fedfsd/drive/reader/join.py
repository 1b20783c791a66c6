"""Recordings that are cuts of one longer recording, joined where they overlap.

A publisher who cuts a recording into overlapping pieces gives a car a new number in each: one vehicle under
several keys, and no piece long enough to forecast in. Rows that are equal to the millimetre show how the
pieces lie in time, and then which tracks are one.

Shapes: R rows of all pieces together, E edges between two pieces or two tracks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from fedfsd.drive.reader.drive import NUMBERS, Drive, encoded

# Equal rows that settle how two pieces lie in time, and that two tracks are one.
MIN_ROWS = 5
MIN_TRACK_ROWS = 3
# Frames in one piece at most: a day at 20 Hz.
MAX_FRAMES = 2**21


def joined(drives: Sequence[Drive]) -> Iterator[Drive]:
    """The recordings of one place; those that overlap are one, under the first one's name.

    A recording may come in several drives, each with whole vehicles.
    """
    names = list(dict.fromkeys(each.recording for each in drives))
    pieces = {name: number for number, name in enumerate(names)}
    parts = sorted(drives, key=lambda each: pieces[each.recording])
    sizes = [len(each.vehicle) for each in parts]
    piece = np.repeat([pieces[each.recording] for each in parts], sizes)
    columns = {name: np.concatenate([each.columns[name] for each in parts]) for name in NUMBERS}
    hz = np.concatenate([np.broadcast_to(each.hz, size) for each, size in zip(parts, sizes, strict=True)])
    keys, track = _coded([each.vehicle for each in parts])
    kinds, kind = _coded([each.type for each in parts])
    ego = np.concatenate([each.ego for each in parts])
    t, x, y = (columns[name] for name in ("t", "x", "y"))
    first = np.full(len(names), np.inf)
    np.minimum.at(first, piece, np.where(np.isfinite(t), t, np.inf))
    period = 1 / float(np.median(hz))
    sound = np.isfinite(t) & np.isfinite(x) & np.isfinite(y)
    frame = np.round(np.where(sound, t - first[piece], 0) / period)
    sound &= frame < MAX_FRAMES
    frame = np.where(sound, frame, 0).astype(np.int64)
    where = np.stack([np.round(np.where(sound, axis, 0) * 1000).astype(np.int64) for axis in (x, y)])

    root, start = _laid(len(names), *_offsets(where[:, sound], piece[sound], frame[sound]))
    at = start[piece] + frame
    one = _one_track(np.stack([root[piece], at, *where])[:, sound], track[sound], len(keys))
    alone = np.bincount(root, minlength=len(names))[root] == 1
    # Seconds in the joined recording, each piece's own times moved as a whole.
    start -= _lowest(start, root)[root]
    # The same point has the same time in all of them: to the microsecond.
    columns["t"] = np.where(alone[piece], t, np.round(t - first[piece] + start[piece] * period, 6))
    one = np.where(alone[piece], track, one[track])
    bounds = np.searchsorted(piece, np.arange(len(names) + 1))
    members = np.argsort(root, kind="stable")
    of_name = {each.recording: each for each in reversed(parts)}
    for group in np.split(members, np.flatnonzero(np.diff(root[members])) + 1):
        rows = np.concatenate([np.arange(bounds[member], bounds[member + 1]) for member in group])
        yield replace(
            of_name[names[group[0]]],
            hz=hz[rows],
            vehicle=pa.DictionaryArray.from_arrays(one[rows], keys),
            type=pa.DictionaryArray.from_arrays(kind[rows], kinds),
            columns={name: values[rows] for name, values in columns.items()},
            ego=ego[rows],
        )


def _coded(names: Sequence[np.ndarray | pa.DictionaryArray]) -> tuple[pa.Array, np.ndarray]:
    """The distinct names, and the number of each row's, (R,) int64."""
    parts = [encoded(each) for each in names]
    whole = pa.chunked_array([part.cast(pa.dictionary(pa.int64(), pa.string())) for part in parts])
    chunks = whole.unify_dictionaries().chunks
    return chunks[0].dictionary, np.concatenate([chunk.indices.to_numpy() for chunk in chunks])


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
