"""A model's forecasts of test windows, and how far off they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedfsd.task.forecasting import metric
from fedfsd.task.forecasting.metric import Errors
from fedfsd.task.forecasting.window import Windows, WindowSpec, agent_frame

_BATCH = 8192


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


def forecast(model: nn.Module, history: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Paths (W, K, F, 2) and scores (W, K) of ``model`` for ``history`` (W, H, 2)."""
    with torch.inference_mode():
        parts = [model(part) for part in history.split(_BATCH)]
    return torch.cat([paths for paths, _ in parts]).numpy(), torch.cat(
        [scores for _, scores in parts]
    ).numpy()
