"""How good is a model on the declared test vehicles of each region, beside what needs no learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedfsd.driving import metric, predictor
from fedfsd.driving.metric import Errors
from fedfsd.driving.window import Windows, WindowSpec, agent_frame

_BATCH = 8192
# The examples of a region: windows at these quantiles of constant velocity's error.
_QUANTILES = (0.3, 0.5, 0.65, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class TestSet:
    """The test windows of one region in the agent frame. Shapes as in ``driving.window``."""

    __test__ = False  # not a pytest class

    history: Tensor  # (W, H, 2) m
    future: np.ndarray  # (W, F, 2) m
    owner: np.ndarray  # (W,)

    @classmethod
    def of(cls, windows: Windows, spec: WindowSpec) -> TestSet:
        """The test set of ``windows``."""
        history, future = agent_frame(windows.points, spec.history)
        return cls(torch.from_numpy(history), future, windows.owner)


def errors(model: nn.Module, tests: Mapping[str, TestSet]) -> dict[str, Errors]:
    """Errors of ``model`` on every region's test windows."""
    found = {}
    for name, test in tests.items():
        paths, scores = forecast(model, test.history)
        found[name] = metric.measure(paths, scores, test.future, test.owner)
    return found


def constant_velocity(tests: Mapping[str, TestSet]) -> dict[str, Errors]:
    """Errors of the last step going on."""
    return {
        name: metric.single(
            predictor.last_step(test.history.numpy(), test.future.shape[1]), test.future, test.owner
        )
        for name, test in tests.items()
    }


def forecast(model: nn.Module, history: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Paths (W, K, F, 2) and scores (W, K) of ``model`` for ``history`` (W, H, 2)."""
    with torch.inference_mode():
        parts = [model(part) for part in history.split(_BATCH)]
    return torch.cat([paths for paths, _ in parts]).numpy(), torch.cat(
        [scores for _, scores in parts]
    ).numpy()


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
