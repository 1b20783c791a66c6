"""How good is a model on the declared test vehicles of each region, beside what needs no learning."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from fedfsd.task.forecasting import metric, predictor
from fedfsd.task.forecasting.forecast import TestSet, errors, forecast
from fedfsd.task.forecasting.metric import Errors

__all__ = ["TestSet", "constant_velocity", "errors", "examples", "forecast"]

# The examples of a region: windows at these quantiles of constant velocity's error.
_QUANTILES = (0.3, 0.5, 0.65, 0.8, 0.9, 0.95)


def constant_velocity(tests: Mapping[str, TestSet]) -> dict[str, Errors]:
    """Errors of the last step going on."""
    return {
        name: metric.single(
            predictor.last_step(test.history.numpy(), test.future.shape[1]), test.future, test.owner
        )
        for name, test in tests.items()
    }


def examples(model: nn.Module, tests: Mapping[str, TestSet]) -> dict[str, np.ndarray]:
    """A few windows a region with the model's paths, from those easy for constant velocity to hard ones."""
    found: dict[str, np.ndarray] = {}
    for name, test in tests.items():
        if not len(test.owner):
            continue
        simple = predictor.last_step(test.history.numpy(), test.future.shape[1])
        off = np.linalg.norm(simple - test.future, axis=-1)[:, -1]
        rows = np.argsort(off)[[int(quantile * (len(off) - 1)) for quantile in _QUANTILES]]
        found[f"{name}_history"] = test.history[rows].numpy()
        found[f"{name}_future"] = test.future[rows]
        found[f"{name}_paths"] = forecast(model, test.history[rows])[0]
        found[f"{name}_constant_velocity"] = simple[rows]
    return found
