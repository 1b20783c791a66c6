"""Which vehicles a step sees, and which of their windows: each vehicle's draws hang on its slot alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np

from fedfsd.engine.randomness import BLOCK, Stream


def sample_vehicles(stream: Stream, roster: int, sample_rate: float) -> np.ndarray:
    """The slots of one Poisson sample, ascending; slot i is in with probability q by its own draw."""
    return np.flatnonzero(stream.uniform(roster) < sample_rate)


def choose_windows(
    stream: Stream, slots: np.ndarray, counts: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """At most ``k`` of each vehicle's windows, without replacement.

    Args:
        slots: (V,) the sampled vehicles, ascending. counts: (V,) how many windows each has.

    Returns:
        window (V, k): 0 <= index < counts where taken, else 0; taken (V, k) bool.
    """
    window = np.zeros((len(slots), k), np.int64)
    draws = _draws_by_slot(stream, slots, k, blocks=-(-8 * k // BLOCK))
    for draw in range(k):
        # The draw picks a rank among the windows not chosen yet; stepping over the chosen ones, in
        # ascending order, turns the rank into an index.
        left = np.maximum(counts - draw, 1)
        index = np.minimum((draws[:, draw] * left).astype(np.int64), left - 1)
        for earlier in np.sort(window[:, :draw], axis=1).T:
            index += index >= earlier
        window[:, draw] = index
    taken = np.arange(k) < counts[:, None]
    return np.where(taken, window, 0), taken


def _draws_by_slot(stream: Stream, slots: np.ndarray, k: int, *, blocks: int) -> np.ndarray:
    """(V, k) uniforms; slot i reads the stream from block i * blocks on."""
    if not len(slots):
        return np.empty((0, k))
    first, last = int(slots[0]), int(slots[-1])
    values = blocks * BLOCK // 8
    span = stream.uniform((last - first + 1) * values, block=first * blocks)
    return span.reshape(-1, values)[slots - first, :k]


BATCH_COST, BATCH_COST_ACCELERATOR = 1 << 20, 1 << 28
"""What a micro-batch costs before its first window, in parameters of one window."""
_WINDOWS = 16
"""A micro-batch of whole multiples of so many windows: kernels treat what is left over otherwise."""
_GRADIENTS = 2**28  # bytes of a micro-batch's gradients


@dataclass(frozen=True)
class Lane:
    """Micro-batches of one shape: so many ``vehicles`` with so many ``places`` each."""

    places: int
    vehicles: int


def lanes(
    roster: int, sample_rate: float, k: int, size: int, batch_cost: int = BATCH_COST
) -> tuple[Lane, ...]:
    """The shapes into which windows are packed, narrowest first, from N, q, k, P and the kind of device.

    Each width is twice the one before, so a vehicle fills more than half of its places. The more windows a
    micro-batch has, the fewer micro-batches there are, and the more places stay empty in the last of a lane;
    where an eighth of the places of a draw is taken, this number of windows costs least. A model for which
    one micro-batch takes most of a draw has one lane.
    """
    widths = [1 << power for power in range((k - 1).bit_length() + 1)]
    drawn = max(1, round(roster * sample_rate)) * k
    windows = isqrt(2 * drawn * batch_cost // (8 * len(widths) * max(1, size)))
    if 2 * windows >= drawn:
        widths = widths[-1:]
    windows = max(_WINDOWS, min(windows, drawn) // _WINDOWS * _WINDOWS, widths[-1])
    most = max(1, _GRADIENTS // (8 * max(1, size)))
    return tuple(Lane(width, min(most, windows // width)) for width in widths)


def pack(shapes: tuple[Lane, ...], taken: np.ndarray) -> Iterator[tuple[Lane, np.ndarray]]:
    """Which of the sampled vehicles (V, k), by index, go where; those that took no window go nowhere.

    A vehicle's lane is that of the number of its windows, whoever else was drawn.
    """
    counts, low = taken.sum(axis=1), 0
    for lane in shapes:
        yield lane, np.flatnonzero((counts > low) & (counts <= lane.places))
        low = lane.places
