"""Generic position error of a tracking sensor, added to clean tracks for a model to see through.

The ranges are those of sensors at large, from survey-grade lidar to drifting on-line tracking; nothing
here is fitted to any region's recordings.
"""

from __future__ import annotations

import numpy as np

_CLEAN = 0.4  # share of tracks that are good to centimetres
_SMALLEST_M = 0.02


def observe(
    points: np.ndarray,
    random: np.random.Generator,
    *,
    period_seconds: float,
    max_error_m: float,
    max_delay_seconds: float,
) -> np.ndarray:
    """``points`` (W, T, 2) m as a sensor might have seen them.

    Each track has an error level of its own, up to ``max_error_m``, white or correlated in time, and
    half of the worse ones have time stamps that are off by up to ``max_delay_seconds`` (one sigma).
    """
    count, length, _ = points.shape
    rough = np.exp(random.uniform(np.log(_SMALLEST_M), np.log(max(max_error_m, _SMALLEST_M)), count))
    level = np.where(random.random(count) < _CLEAN, 0.0, rough)
    error = random.normal(size=points.shape)
    keep = np.where(random.random(count) < 0.5, 0.0, random.uniform(0, 0.9, count))[:, None]
    for step in range(1, length):
        error[:, step] = keep * error[:, step - 1] + np.sqrt(1 - keep**2) * error[:, step]
    delay = np.where(
        (random.random(count) < 0.5) & (level > 0), random.uniform(0, max_delay_seconds, count), 0.0
    )
    velocity = np.gradient(points, period_seconds, axis=1)
    late = delay[:, None] * random.normal(size=(count, length))
    return points + level[:, None, None] * error + late[..., None] * velocity
