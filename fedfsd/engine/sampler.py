"""Which vehicles a step sees, and which of their windows: each vehicle's draws hang on its slot alone."""

from __future__ import annotations

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
