"""Per-vehicle mean gradients, clipped and summed.

Shapes: V vehicles in a micro-batch, k places for examples of each, P model parameters.

Every vehicle has k places, filled or not, and every micro-batch one size. So no shape depends on the
data: floating-point kernels round a row by the shape of its batch, and a coordinator who chooses the
weights could magnify that into another vehicle's gradient. Nor does the time of a step tell how many
vehicles have examples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from fedfsd.engine.vehicle import VehicleData
from fedfsd.task.task import Tensors

# Opacus hooks every layer; that the model's input needs no gradient is as it should be.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)

_MEMORY = 256 * 2**20  # bytes of per-example gradients at a time
_VEHICLES = 256  # in a micro-batch, where memory allows

Loss = Callable[[Any, Tensors], Tensor]
"""A model's output for a batch and its targets -> the loss of each example alone, (B,)."""


class VehicleGradient:
    """Per-vehicle gradients of one model; opacus keeps each example's gradient apart."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self._loss = loss
        self.parameters = list(model.parameters())
        self.size = sum(parameter.numel() for parameter in self.parameters)
        self._module = GradSampleModule(model, loss_reduction="sum")

    def set_parameters(self, flat: Tensor) -> None:
        """Copy (P,) values into the model, in the order of its parameters."""
        with torch.no_grad():
            for parameter, part in zip(
                self.parameters, flat.split([p.numel() for p in self.parameters]), strict=True
            ):
                parameter.copy_(part.view_as(parameter))

    def mean_by_vehicle(self, inputs: Tensors, targets: Tensors, taken: Tensor) -> Tensor:
        """Mean gradient over each vehicle's taken places, (V, P) float32; zero where none is taken.

        Args:
            inputs, targets: (V, k, ...) each. taken: (V, k) bool.
        """
        count, places = taken.shape
        share = taken / taken.sum(dim=1, keepdim=True).clamp(min=1)
        output = self._module(*(values.flatten(0, 1) for values in inputs.values()))
        losses = self._loss(output, {name: values.flatten(0, 1) for name, values in targets.items()})
        losses.sum().backward()
        means = torch.empty(count, self.size, device=taken.device)
        start = 0
        for parameter in self.parameters:
            sample = cast(Tensor, parameter.grad_sample).view(count, places, -1)  # type: ignore[attr-defined]
            # A place that is not taken repeats one of the vehicle's own examples, so the product with its
            # zero share is zero unless the vehicle's gradient is not finite anyway.
            means[:, start : start + sample.shape[2]] = torch.einsum("vkp,vk->vp", sample, share)
            start += sample.shape[2]
            parameter.grad_sample = parameter.grad = None  # type: ignore[attr-defined]
            del sample
        means[~taken.any(dim=1)] = 0.0
        return means

    def clipped_sum(
        self,
        data: VehicleData,
        slots: np.ndarray,
        window: np.ndarray,
        taken: np.ndarray,
        *,
        max_grad_norm: float | None,
    ) -> np.ndarray:
        """Sum over vehicles of their clipped mean gradients, (P,) float64 on the host.

        Args:
            slots: (V,) sampled vehicles. window, taken: (V, k) as from ``choose_windows``.
        """
        size = min(_VEHICLES, data.roster, max(1, _MEMORY // (8 * max(self.size, 1) * window.shape[1])))
        padding = -len(slots) % size
        index = np.pad(data.first[slots, None] + window, ((0, padding), (0, 0)), constant_values=data.padding)
        taken = np.pad(taken, ((0, padding), (0, 0)))
        total = np.zeros(self.size)
        for low in range(0, len(index), size):
            rows = torch.from_numpy(index[low : low + size]).to(data.device)
            filled = torch.from_numpy(taken[low : low + size]).to(rows.device)
            means = self.mean_by_vehicle(
                {name: values[rows] for name, values in data.inputs.items()},
                {name: values[rows] for name, values in data.targets.items()},
                filled,
            )
            total += clip_and_sum(means, max_grad_norm)
            del means
        return total


def clip_and_sum(means: Tensor, max_grad_norm: float | None) -> np.ndarray:
    """Non-finite rows become zero, each row is clipped to ``max_grad_norm``, rows are summed.

    Returns:
        (P,) float64 on the host. One row more or less moves it by at most ``max_grad_norm``.
    """
    # Norms and sums in float64, but on accelerators that have none.
    wide = means.double() if means.device.type in ("cpu", "cuda", "xpu") else means
    norms = torch.linalg.vector_norm(wide, dim=1)
    finite = torch.isfinite(norms)
    # 0 * inf is not 0: rows that are not finite are replaced, not scaled.
    wide = torch.where(finite[:, None], wide, torch.zeros_like(wide))
    if max_grad_norm is None:
        return wide.sum(dim=0).double().cpu().numpy()
    # The small term, as in opacus, keeps the product below the bound after rounding.
    factors = (max_grad_norm / (torch.where(finite, norms, 0.0) + 1e-6)).clamp(max=1.0)
    return (factors[:, None] * wide).sum(dim=0).double().cpu().numpy()
