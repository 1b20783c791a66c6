"""A forecasting model: each future point is a weighted sum of the steps driven so far.

An entry of ``fedfsd.models`` is a pair: the class of the options, and what builds the module from
options and window spec. The module takes history (B, H, 2) in metres, the vehicle at the origin and heading
along x, and gives paths (B, K, F, 2) and scores (B, K). It must compute each row of a batch alone.

Shapes: B windows, H history points, F future points, K = 1 path.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from fedfsd.config.load import Frozen
from fedfsd.task.forecasting.window import WindowSpec


class Options(Frozen):
    """What ``model.options`` may hold; an unknown key or a wrong type is refused with its name."""

    friction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How much slower each step is than the one before, at the start of training."""


class Glide(nn.Module):
    """The same weights for x and y, so that a turned scene gives a turned path."""

    def __init__(self, options: Options, spec: WindowSpec) -> None:
        super().__init__()
        self.weights = nn.Linear(spec.history - 1, spec.future, bias=False)
        speeds = (1 - options.friction) ** torch.arange(1.0, spec.future + 1)
        with torch.no_grad():  # at the start: the last step, again and again
            self.weights.weight.zero_()
            self.weights.weight[:, -1] = speeds.cumsum(0)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        steps = history.diff(dim=1).transpose(1, 2)  # (B, 2, H - 1)
        path = self.weights(steps).transpose(1, 2)  # (B, F, 2)
        return path.unsqueeze(1), torch.zeros_like(path[:, :1, 0])


ENTRY = (Options, Glide)
