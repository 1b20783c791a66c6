"""Forecasting metrics as the field defines them, with a bootstrap by vehicle.

Shapes: W windows, K paths a window, F future points. All errors in metres.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MISS_M = 2.0  # an end point further off than this is a miss
_RESAMPLES = 1000


@dataclass(frozen=True)
class Errors:
    """One value a window, (W,). ADE and FDE are of the likeliest path, the others of the best of K."""

    ade: np.ndarray
    fde: np.ndarray
    min_ade_k: np.ndarray
    min_fde_k: np.ndarray
    miss: np.ndarray
    owner: np.ndarray  # (W,) the vehicle a window belongs to

    def __len__(self) -> int:
        return len(self.fde)


@dataclass(frozen=True)
class Summary:
    """Means over windows; ``fde_m_95`` is the 95% interval when vehicles are drawn again."""

    windows: int
    vehicles: int
    ade_m: float
    fde_m: float
    min_ade_k_m: float
    min_fde_k_m: float
    miss_rate: float
    fde_m_95: tuple[float, float]


def measure(paths: np.ndarray, scores: np.ndarray, future: np.ndarray, owner: np.ndarray) -> Errors:
    """Errors of ``paths`` (W, K, F, 2) with ``scores`` (W, K) against ``future`` (W, F, 2)."""
    distance = np.linalg.norm(paths - future[:, None], axis=-1)  # (W, K, F)
    average, final = distance.mean(axis=2), distance[:, :, -1]
    likeliest = scores.argmax(axis=1)
    row = np.arange(len(paths))
    return Errors(
        ade=average[row, likeliest],
        fde=final[row, likeliest],
        min_ade_k=average.min(axis=1),
        min_fde_k=final.min(axis=1),
        # A forecast that is not a number is a miss too: its comparisons are false.
        miss=~(final.min(axis=1) <= MISS_M),
        owner=owner,
    )


def single(paths: np.ndarray, future: np.ndarray, owner: np.ndarray) -> Errors:
    """Errors of one path a window, (W, F, 2)."""
    return measure(paths[:, None], np.zeros((len(paths), 1)), future, owner)


def summarise(errors: Errors) -> Summary:
    """Means and interval; with no window every figure is NaN."""
    if not len(errors):
        nan = float("nan")
        return Summary(0, 0, nan, nan, nan, nan, nan, (nan, nan))
    return Summary(
        windows=len(errors),
        vehicles=len(np.unique(errors.owner)),
        ade_m=float(errors.ade.mean()),
        fde_m=float(errors.fde.mean()),
        min_ade_k_m=float(errors.min_ade_k.mean()),
        min_fde_k_m=float(errors.min_fde_k.mean()),
        miss_rate=float(errors.miss.mean()),
        fde_m_95=_bootstrap(errors.fde, errors.owner),
    )


def pool(parts: Iterable[Errors]) -> Errors:
    """All windows of several regions together; vehicles of different regions stay apart."""
    parts = list(parts)
    offsets = np.cumsum([0, *(int(part.owner.max(initial=-1)) + 1 for part in parts)])
    fields = ("ade", "fde", "min_ade_k", "min_fde_k", "miss")
    return Errors(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields},
        owner=np.concatenate([part.owner + offset for part, offset in zip(parts, offsets, strict=False)]),
    )


def _bootstrap(values: np.ndarray, owner: np.ndarray) -> tuple[float, float]:
    """95% percentile interval of the mean over windows when vehicles are resampled."""
    _, index = np.unique(owner, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    draws = np.random.default_rng(0).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=_RESAMPLES
    )
    low, high = np.percentile((draws @ sums) / np.maximum(draws @ counts, 1), [2.5, 97.5])
    return float(low), float(high)
