"""A residual over a constant-velocity base."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn, stack, zeros

from fedfsd.config.load import Frozen
from fedfsd.driving.window import WindowSpec


class Options(Frozen):
    """Options of ``mlp``."""

    width: Annotated[int, Field(ge=1, le=1024)] = 16


class Mlp(nn.Module):
    """history (B, H, 2) -> paths (B, 1, F, 2), scores (B, 1)."""

    def __init__(self, options: Options, spec: WindowSpec) -> None:
        super().__init__()
        self.future = spec.future
        self.body = nn.Sequential(nn.Linear(2 * (spec.history - 1), options.width), nn.Tanh())
        self.head = nn.Linear(options.width, 2 * spec.future)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        steps = history.diff(dim=1)
        base = stack([steps[:, -1] * n for n in range(1, self.future + 1)], dim=1)
        path = base + self.head(self.body(steps.flatten(1) / 5)).unflatten(1, (self.future, 2))
        return path.unsqueeze(1), zeros(len(history), 1, device=history.device)
