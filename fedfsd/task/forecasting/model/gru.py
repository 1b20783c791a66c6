"""A gated recurrent model, and the features and head of K modes that it shares with ``transformer``.

The cell is written out of ``nn.Linear`` (Cho et al. 2014, reset after the product): opacus has exact
per-window gradients for linear layers and refuses ``nn.GRU``.

Shapes: B windows, H history points, F future points, K modes, D width.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from fedfsd.config.load import Frozen
from fedfsd.errors import ConfigError
from fedfsd.task.forecasting.window import WindowSpec

_TYPICAL_SPEED = 10.0  # m/s: brings the steps of a moving vehicle near 1
_TYPICAL_CHANGE = 3.0  # m/s: the same for how much faster or slower it was than now
_SPEED_SPREAD = 0.5  # the slowest and fastest mode gain this share of the speed by the horizon
_TURN_SPREAD = 0.8  # rad: the sharpest turns of the modes by the horizon


class Options(Frozen):
    """Options of ``gru``."""

    width: Annotated[int, Field(ge=1, le=512)] = 16
    modes: Annotated[int, Field(ge=1, le=64)] = 1


class Gru(nn.Module):
    """history (B, H, 2) -> paths (B, K, F, 2), scores (B, K)."""

    def __init__(self, options: Options, spec: WindowSpec) -> None:
        super().__init__()
        self.features = Features(spec)
        self.width = options.width
        self.inward = nn.Linear(Features.size, 3 * options.width)
        self.onward = nn.Linear(options.width, 3 * options.width, bias=False)
        self.head = Head(options.width, options.modes, spec)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        paths, scores = self.head(*self.trunk(history))
        return paths, scores

    def trunk(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """What the head is given: the last state and the last step."""
        steps = history.diff(dim=1)
        inward = self.inward(self.features(steps))
        state = torch.zeros(len(history), self.width, device=history.device)
        for gates in inward.unbind(dim=1):
            state = self._cell(gates, state)
        return state, steps[:, -1]

    def _cell(self, inward: Tensor, state: Tensor) -> Tensor:
        """The next state (B, D) from the step's part of the gates (B, 3 D)."""
        reset_in, update_in, new_in = inward.chunk(3, dim=1)
        reset_on, update_on, new_on = self.onward(state).chunk(3, dim=1)
        update = torch.sigmoid(update_in + update_on)
        new = torch.tanh(new_in + torch.sigmoid(reset_in + reset_on) * new_on)
        return new + update * (state - new)


class Features(nn.Module):
    """Steps (B, S, 2) [m] -> (B, S, 4): each step, and what sets it apart from the last, both near 1.

    The steps of a drive differ by far less than they measure; a network of this size hardly learns to
    take the difference by itself.
    """

    size = 4

    def __init__(self, spec: WindowSpec) -> None:
        super().__init__()
        if spec.history < 2:
            raise ConfigError(
                "data.history_seconds",
                got=f"{spec.history} point of history",
                expected="at least 2, so that there is a step",
                hint="lengthen history_seconds or shorten period_seconds",
            )
        self.step = spec.period_seconds * _TYPICAL_SPEED
        self.change = spec.period_seconds * _TYPICAL_CHANGE

    def forward(self, steps: Tensor) -> Tensor:
        return torch.cat([steps / self.step, (steps - steps[:, -1:]) / self.change], dim=2)


class Head(nn.Module):
    """A code (B, D) and the last step (B, 2) [m] -> paths (B, K, F, 2) [m], scores (B, K).

    Each path is a kinematic base plus a learned residual that starts at zero. The base of the first
    mode is constant velocity; the others speed up, slow down and turn by public amounts. Were they
    alike, the loss, which trains the best mode alone, would never tell them apart. All scores start
    equal, so the likeliest path starts as constant velocity whatever K is.
    """

    def __init__(self, width: int, modes: int, spec: WindowSpec) -> None:
        super().__init__()
        self.shape = (modes, spec.future, 2)
        self.register_buffer("bases", _bases(modes, spec.future), persistent=False)
        self.residual = nn.Linear(width, modes * spec.future * 2)
        # One mode needs no score: its weights would never get a gradient, but would get noise.
        self.score = nn.Linear(width, modes) if modes > 1 else None
        for layer in (self.residual, self.score):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, code: Tensor, last_step: Tensor) -> tuple[Tensor, Tensor]:
        base = torch.einsum("kfij,bj->bkfi", self.bases, last_step)
        paths = base + self.residual(code).unflatten(1, self.shape)
        if self.score is None:
            return paths, torch.zeros(len(code), 1, device=code.device)
        return paths, self.score(code)


def _bases(modes: int, future: int) -> Tensor:
    """(K, F, 2, 2): what takes the last step to each mode's displacement from the present."""
    table = torch.zeros(modes, future, 2, 2)
    for mode in range(modes):
        # The first mode goes straight on; the others lie on an ellipse of speed and turn around it.
        angle = 2 * pi * (mode - 1) / max(modes - 1, 1)
        gain = -_SPEED_SPREAD * cos(angle) if mode else 0.0
        turn = _TURN_SPREAD * sin(angle) if mode else 0.0
        for point in range(future):
            share = (point + 1) / future
            speed, heading = 1 + gain * share, turn * share
            table[mode, point] = speed * torch.tensor(
                [[cos(heading), -sin(heading)], [sin(heading), cos(heading)]]
            )
    return table.cumsum(dim=1)


ENTRY = (Options, Gru)
