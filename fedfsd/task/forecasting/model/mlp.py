"""``mlp``: a filter of the history whose coefficients a small network sets. 216 parameters as shipped.

The step velocities of the history are turned into orthogonal modes (mean, slope, curvature, cubic). The
network reads how jittery, curved and fast the history is and says how much of each mode to add to the
least-squares velocity. Its features do not change when the scene is mirrored, its output mirrors with
the scene, and it starts at the base: few, well-scaled numbers to learn, which is what vehicle-level
noise with few vehicles asks for.

Shapes: B windows, H history points, F future points, M modes, P = 2 powers of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fedfsd.config.load import Frozen
from fedfsd.errors import ConfigError
from fedfsd.task.forecasting.loss import SOFTNESS_M
from fedfsd.task.forecasting.window import WindowSpec
from fedfsd.task.moments import Moments

_MODES = 4
_FEATURES = 8
_CRUISE = 5.0  # m/s: the mean mode counts as this fast, so that fast vehicles do not rule the gradient
_GAIN = 3.0  # velocity differences are about three times smaller than the mean


class Options(Frozen):
    """Options of ``mlp``."""

    width: Annotated[int, Field(ge=1, le=1024)] = 8
    moments: Annotated[int, Field(ge=0, le=256)] = 0
    """For the strategy moments: of how many whitened features statistics are released; 0: of none."""
    second_moments: Annotated[float, Field(gt=0, le=100)] = 0.5
    """How much second moments count in what is clipped, beside cross moments."""
    moments_length: Annotated[float, Field(gt=0, le=100)] = 1.0
    """The length of a public window's moments, in the median; privacy.max_grad_norm clips vehicles' means."""


class Mlp(nn.Module):
    """history (B, H, 2) -> paths (B, 1, F, 2), scores (B, 1)."""

    modes: Tensor
    slope: Tensor
    powers: Tensor
    gain: Tensor

    def __init__(self, options: Options, spec: WindowSpec) -> None:
        super().__init__()
        if spec.history <= _MODES:
            raise ConfigError(
                "data.history_seconds",
                got=f"{spec.history} points of history",
                expected=f"at least {_MODES + 1} for the model mlp",
                hint="lengthen history_seconds or shorten period_seconds",
            )
        period = spec.period_seconds
        past = np.arange(spec.history) - (spec.history - 1) / 2
        ahead = period * np.arange(1, spec.future + 1)
        for name, constant in {
            "modes": _orthogonal(spec.history - 1),  # (M, H - 1)
            "slope": past / (past @ past) / period,  # (H,): points to least-squares velocity
            "powers": np.stack([ahead, ahead**2 / ahead[-1]], axis=1),  # (F, P)
            "gain": np.array([1.0] + [_GAIN] * (_MODES - 1))[:, None],
        }.items():
            self.register_buffer(name, torch.tensor(constant, dtype=torch.float32), persistent=False)
        self.period = period
        self.body = nn.Sequential(nn.Linear(_FEATURES, options.width), nn.Tanh())
        self.head = nn.Linear(options.width, 2 * _MODES * 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if options.moments:
            features = 2 * _MODES * (options.width + 1)
            self.moments = Moments(
                features, options.moments, 2, second=options.second_moments, length=options.moments_length
            )

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        features, scaled, turned = self._parts(history)
        straight, curved = self.head(self.body(features)).unflatten(1, (2, 2, _MODES)).unbind(1)  # (B, P, M)
        shape = straight @ scaled + curved @ turned  # (B, P, 2) m/s
        velocity = torch.einsum("h,bhc->bc", self.slope, history)
        paths = self.powers[:, :1] * velocity[:, None] + self.powers @ shape
        return paths.unsqueeze(1), torch.zeros_like(paths[:, :1, 0])

    def equations(self, history: Tensor, targets: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The head's regression by window: design (B, 2, D), response (B, 2, P), one equation an axis.

        Responses are what the path misses, in an orthonormal basis of the powers; weights are those of one
        step of reweighted least squares for ``window_loss``.
        """
        features, scaled, turned = self._parts(history)
        code = torch.nn.functional.pad(self.body(features), (0, 1), value=1.0)
        design = torch.einsum("bj,bmc->bcmj", code, torch.cat([scaled, turned], dim=1)).flatten(2)
        error = targets["future"] - self(history)[0][:, 0]
        weight = (error.square().sum(dim=2).mean(dim=1) + SOFTNESS_M**2).pow(-0.25)[:, None, None]
        response = torch.einsum("fp,bfc->bcp", torch.linalg.qr(self.powers)[0], error)
        return weight * design, weight * response

    def shift(self, solution: Tensor) -> None:
        """Add a solution (D, P) of ``equations`` to the head."""
        basis = torch.linalg.qr(self.powers)[1]
        added = torch.linalg.solve(basis, solution.T).unflatten(1, (2, _MODES, -1))  # (P, 2, M, width + 1)
        rows = added.transpose(0, 1).flatten(0, 2)
        with torch.no_grad():
            self.head.weight.add_(rows[:, :-1])
            self.head.bias.add_(rows[:, -1])

    def _parts(self, history: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, 8), and the modes straight and turned, (B, M, 2) m/s each."""
        mode = self.modes @ (history.diff(dim=1) / self.period)  # (B, M, 2) m/s
        speed = mode[:, 0].norm(dim=1, keepdim=True) + 1  # (B, 1)
        ahead = mode[:, :1] / speed[:, :, None]  # (B, 1, 2)
        along = (mode[:, 1:] * ahead).sum(dim=2)
        left = mode[:, 1:, 1] * ahead[..., 0] - mode[:, 1:, 0] * ahead[..., 1]
        features = torch.cat(
            [
                torch.log(speed) - 2,
                6 * along[:, :1] / speed,
                torch.asinh(2 * along[:, :2]),
                _log_size(along[:, 1:]),
                _log_size(left[:, :2]),
            ],
            dim=1,
        )
        scaled = torch.cat([_CRUISE * ahead, mode[:, 1:]], dim=1) * self.gain
        # The quarter-turned modes bend the path; the sign of the turn keeps them true to a mirrored scene.
        bend = torch.tanh(6 * left[:, :1] / speed)[:, :, None]
        turned = torch.stack([-scaled[..., 1], scaled[..., 0]], dim=2) * bend
        return features, scaled, turned


def _log_size(value: Tensor) -> Tensor:
    return 0.5 * torch.log(value.square() + 0.05) + 1


def _orthogonal(count: int) -> np.ndarray:
    """The first discrete orthogonal polynomials over ``count`` points, (M, count); the first is the mean."""
    columns, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, count), _MODES, increasing=True))
    rows = columns.T / np.sqrt(count)
    return rows * np.sign(rows[:, -1:])


ENTRY = (Options, Mlp)
