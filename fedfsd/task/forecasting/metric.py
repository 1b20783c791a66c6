"""Forecasting metrics as the field defines them.

Shapes: W windows, K paths a window, F future points. All errors in metres.
"""

from __future__ import annotations

import numpy as np

from fedfsd.task.task import Metric, Scores

MISS_M = 2.0  # an end point further off than this is a miss


def metrics(future_seconds: float) -> tuple[Metric, ...]:
    """What is measured of forecasts that end after ``future_seconds``."""
    return (
        Metric("fde_m", "FDE", "m", f"the distance between forecast and truth after {future_seconds:g} s"),
        Metric("ade_m", "ADE", "m", "the mean distance on the way"),
        Metric("min_ade_k_m", "minADE of k", "m", "the ADE of the best of the model's paths"),
        Metric("min_fde_k_m", "minFDE of k", "m", "the FDE of the best of the model's paths"),
        Metric("miss_rate", "missed", "%", f"the share whose best path ends more than {MISS_M:g} m off"),
    )


def measure(paths: np.ndarray, scores: np.ndarray, future: np.ndarray, owner: np.ndarray) -> Scores:
    """Errors of ``paths`` (W, K, F, 2) with ``scores`` (W, K) against ``future`` (W, F, 2).

    ADE and FDE are of the likeliest path, the others of the best of K.
    """
    distance = np.linalg.norm(paths - future[:, None], axis=-1)  # (W, K, F)
    average, final = distance.mean(axis=2), distance[:, :, -1]
    likeliest = scores.argmax(axis=1)
    row = np.arange(len(paths))
    return Scores(
        {
            "fde_m": final[row, likeliest],
            "ade_m": average[row, likeliest],
            "min_ade_k_m": average.min(axis=1),
            "min_fde_k_m": final.min(axis=1),
            # A forecast that is not a number is a miss too: its comparisons are false.
            "miss_rate": ~(final.min(axis=1) <= MISS_M),
        },
        owner,
    )


def single(paths: np.ndarray, future: np.ndarray, owner: np.ndarray) -> Scores:
    """Errors of one path a window, (W, F, 2)."""
    return measure(paths[:, None], np.zeros((len(paths), 1)), future, owner)
