"""The statistics of a model's least-squares head, as parameters that a region's gradient releases.

A model whose output is linear in its head's weights declares ``moments`` (this module) and two methods.
``equations(*inputs, targets)`` gives each example's rows of a linear regression: design (B, E, D) and
response (B, E, R), the response being what the model as it stands still misses. ``shift(solution)`` adds a
solution (D, R) to the head.

The loss that is linear in ``statistics`` with each example's moments as its coefficients has those moments as
its gradient. So what a region does to release moments is what it does to release gradients: a vehicle's mean
over its examples, clipped as one vector to one norm, summed, noised, divided by a public number. A vehicle
whose moments are clipped counts as one of less weight: both parts shrink alike, and the solution stays
that of a weighted regression.

Nothing here is computed from private data: ``whitening`` and ``unit`` are made from public examples and
travel with the frozen weights, named by their hash.

Shapes: B examples, E equations of each, D features, K of them kept, R responses.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn

from fedfsd.errors import DataError


def has(model: object) -> bool:
    """Whether a model declares moments."""
    return isinstance(getattr(model, "moments", None), Moments)


class Moments(nn.Module):
    """Second moments of K whitened features (upper triangle) and their cross moments with R responses."""

    whitening: Tensor
    unit: Tensor

    def __init__(self, features: int, kept: int, responses: int, *, second: float, length: float) -> None:
        """Both public: how much ``second`` moments count in the norm, beside cross moments; and the median
        ``length`` of a public example's moments, beside the norm to which vehicles are clipped.
        """
        super().__init__()
        self.length = length
        self.kept, self.responses, self.second = min(kept, features), responses, second
        self._row, self._column = np.triu_indices(self.kept)
        size = len(self._row) + self.kept * responses
        self.statistics = nn.Linear(size, 1, bias=False)
        nn.init.zeros_(self.statistics.weight)
        self.register_buffer("whitening", torch.zeros(features, self.kept))
        self.register_buffer("unit", torch.ones(()))

    def forward(self, design: Tensor, response: Tensor) -> Tensor:
        """The linear loss of each example, (B,); its gradient is the example's moments."""
        with torch.no_grad():
            moments = self.of(design, response)
        return torch.as_tensor(self.statistics(moments)).squeeze(1)

    def of(self, design: Tensor, response: Tensor) -> Tensor:
        """Each example's moments (B, S), in units in which public ones have ``length``, in the median."""
        white = design @ self.whitening
        second = torch.einsum("bei,bej->bij", white, white)[:, self._row, self._column]
        twice = torch.as_tensor(np.where(self._row == self._column, 1.0, sqrt(2.0)), dtype=second.dtype)
        cross = torch.einsum("bei,ber->bir", white, response).flatten(1)
        return torch.cat([self.second * twice.to(second.device) * second, cross], dim=1) / self.unit

    def fit(self, public: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Whitening and unit from designs and responses of public examples.

        Raises:
            DataError: no public example.
        """
        parts = list(public)
        if not parts:
            raise DataError("pretraining.path", got="no public example", expected="some, to whiten by")
        design, response = (torch.cat(part) for part in zip(*parts, strict=True))
        rows = design.flatten(0, 1).double()
        values, vectors = torch.linalg.eigh(rows.T @ rows / len(design))
        best = torch.arange(len(values)).flip(0)[: self.kept]
        scale = values[best].clamp(min=1e-9 * float(values[-1])).rsqrt()
        self.whitening.copy_(vectors[:, best] * scale)
        self.unit.fill_(1.0)
        self.unit.copy_(self.of(design, response).norm(dim=1).median() / self.length)

    def solve(self, mean: np.ndarray, *, noise: float, ridge: float) -> Tensor:
        """The head's correction (D, R) from the mean moments (S,) of many vehicles.

        The ridge is ``ridge`` times the spectral norm of second moments that are noise alone: a public
        constant. No eigenvalue counts as smaller than that.

        Args:
            noise: standard deviation of the noise in each entry of ``mean``.
        """
        flat, count = np.asarray(mean, np.float64) * float(self.unit), len(self._row)
        half = np.zeros((self.kept, self.kept))
        half[self._row, self._column] = flat[:count] / self.second
        off = sqrt(2.0)
        second = np.where(np.eye(self.kept, dtype=bool), half, (half + half.T) / off)
        cross = flat[count:].reshape(self.kept, self.responses)
        # Of a symmetric matrix whose entries off the diagonal have deviation s: 2 s sqrt(K).
        level = ridge * 2 * noise * float(self.unit) / self.second / off * sqrt(self.kept) + 1e-6
        values, vectors = np.linalg.eigh(second)
        solution = vectors @ ((vectors.T @ cross) / (np.maximum(values, 0.0) + level)[:, None])
        return torch.from_numpy((self.whitening.double().numpy() @ solution).astype(np.float32))
