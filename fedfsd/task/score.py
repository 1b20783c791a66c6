"""Scores of examples put together: means, an interval by vehicle, several regions as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedfsd.task.task import CONFIDENCE, HIT, Metric, Scores, Task, headline, key_of

_RESAMPLES, _BINS = 1000, 10


def nothing(task: Task) -> Scores:
    """The scores of no example."""
    return Scores({metric.key: np.zeros(0) for metric in task.metrics}, np.zeros(0, np.int64))


def pool(parts: Iterable[Scores]) -> Scores:
    """All examples of several regions together; vehicles of different regions stay apart."""
    parts = list(parts)
    parts = [part for part in parts if len(part)] or parts[:1]
    offsets = np.cumsum([0, *(int(part.owner.max(initial=-1)) + 1 for part in parts)])
    return Scores(
        {key: np.concatenate([part.values[key] for part in parts]) for key in parts[0].values},
        np.concatenate([part.owner + offset for part, offset in zip(parts, offsets, strict=False)]),
    )


def mean(scores: Scores, metric: Metric) -> float:
    """The mean over examples; NaN where there is none."""
    return float(scores.values[metric.key].mean()) if len(scores) else float("nan")


def summary(metrics: Sequence[Metric], scores: Scores) -> dict[str, Any]:
    """Means over examples, the headline's 95% interval when vehicles are drawn again, and the counts."""
    first = metrics[0].key
    interval = bootstrap(scores.values[first], scores.owner) if len(scores) else (float("nan"),) * 2
    return {
        **{metric.key: mean(scores, metric) for metric in metrics},
        f"{first}_95": interval,
        "test_windows": len(scores),
        "test_vehicles": len(np.unique(scores.owner)),
    }


def figures(task: Task, found: Scores, beside: Mapping[str, Scores]) -> dict[str, Any]:
    """What metrics.json says of one region: the model, and what stands beside it by its headline alone.

    Of a model of several paths also: how sure it is of the likeliest one, how often that is the nearest, and
    how far apart the two are.
    """
    first = headline(task)
    keys = (CONFIDENCE, HIT) if len(found) and CONFIDENCE in found.values else ()
    told = {key: float(found.values[key].mean()) for key in keys}
    return {
        **summary(task.metrics, found),
        **{key_of(name, first): mean(scores, first) for name, scores in beside.items()},
        **told,
        **({"calibration": calibration(found)} if told else {}),
    }


def by_kind(
    task: Task, found: Scores, simple: Scores, kinds: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """What metrics.json says of each kind of example that there is: as ``figures``, without the start."""
    lines = []
    for kind, mine in kinds.items():
        if mine.any():
            part, plain = (
                Scores({key: values[mine] for key, values in one.values.items()}, one.owner[mine])
                for one in (found, simple)
            )
            lines.append({"kind": kind, **figures(task, part, {task.baseline: plain})})
    return lines


def calibration(scores: Scores) -> float:
    """The expected calibration error: how far confidence is from the share of hits, over bins of confidence.

    Source: Guo, Pleiss, Sun, Weinberger 2017, equation 3, with ten bins.
    """
    confidence, hit = scores.values[CONFIDENCE], scores.values[HIT]
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    return float(np.abs(np.bincount(bins, confidence - hit, minlength=_BINS)).sum() / len(scores))


def bootstrap(values: np.ndarray, owner: np.ndarray) -> tuple[float, float]:
    """95% percentile interval of the mean over examples when vehicles are resampled."""
    _, index = np.unique(owner, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    draws = np.random.default_rng(0).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=_RESAMPLES
    )
    low, high = np.percentile((draws @ sums) / np.maximum(draws @ counts, 1), [2.5, 97.5])
    return float(low), float(high)
