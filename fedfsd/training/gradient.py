"""Per-vehicle mean gradients, clipped and summed.

Shapes: V vehicles in a micro-batch, M their windows, P model parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from fedfsd.driving.loss import window_loss
from fedfsd.training.vehicle import VehicleData

# Opacus hooks every layer; that the model's input needs no gradient is as it should be.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)

_MEMORY = 256 * 2**20  # bytes of per-window gradients at a time


class VehicleGradient:
    """Per-vehicle gradients of one model; opacus keeps each window's gradient apart."""

    def __init__(self, model: nn.Module) -> None:
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

    def mean_by_vehicle(self, history: Tensor, future: Tensor, vehicle: Tensor, count: int) -> Tensor:
        """Mean gradient over each vehicle's windows, (V, P) float32; zero for a vehicle without one.

        Args:
            vehicle: (M,) position 0 <= v < count of the vehicle that owns the window.
        """
        means = torch.zeros(count, self.size, device=history.device)
        if not len(history):
            return means
        window_loss(*self._module(history), future).sum().backward()
        share = 1.0 / torch.bincount(vehicle, minlength=count)[vehicle].float()
        start = 0
        for parameter in self.parameters:
            sample = parameter.grad_sample.flatten(1) * share[:, None]
            means[:, start : start + sample.shape[1]].index_add_(0, vehicle, sample)
            start += sample.shape[1]
            parameter.grad_sample = parameter.grad = None
            del sample
        return means

    def clipped_sum(
        self,
        data: VehicleData,
        slots: np.ndarray,
        vehicle: np.ndarray,
        window: np.ndarray,
        *,
        max_grad_norm: float | None,
    ) -> np.ndarray:
        """Sum over vehicles of their clipped mean gradients, (P,) float64 on the host.

        Args:
            slots: (V,) sampled vehicles. vehicle, window: (M,) as from ``choose_windows``.
        """
        total = np.zeros(self.size)
        for low, high, rows in _micro_batches(vehicle, len(slots), self.size):
            owner = vehicle[rows]
            index = torch.from_numpy(data.first[slots[owner]] + window[rows]).to(data.history.device)
            means = self.mean_by_vehicle(
                data.history[index],
                data.future[index],
                torch.from_numpy(owner - low).to(index.device),
                high - low,
            )
            total += clip_and_sum(means, max_grad_norm)
            del means
        return total


def clip_and_sum(means: Tensor, max_grad_norm: float | None) -> np.ndarray:
    """Non-finite rows become zero, each row is clipped to ``max_grad_norm``, rows are summed.

    Returns:
        (P,) float64 on the host. One row more or less moves it by at most ``max_grad_norm``.
    """
    # The CPU sums in float64; accelerators without it fall back to float32.
    wide = means.double() if means.device.type == "cpu" else means
    norms = torch.linalg.vector_norm(wide, dim=1)
    finite = torch.isfinite(norms)
    # 0 * inf is not 0: rows that are not finite are replaced, not scaled.
    wide = torch.where(finite[:, None], wide, torch.zeros_like(wide))
    if max_grad_norm is None:
        return wide.sum(dim=0).double().cpu().numpy()
    # The small term, as in opacus, keeps the product below the bound after rounding.
    factors = (max_grad_norm / (torch.where(finite, norms, 0.0) + 1e-6)).clamp(max=1.0)
    return (factors @ wide).double().cpu().numpy()


def _micro_batches(vehicle: np.ndarray, count: int, size: int) -> Iterator[tuple[int, int, slice]]:
    """(low, high, rows): vehicles low..high with the rows of their windows, few enough to fit in memory.

    The cut depends on public sizes and on the draw only, so that a step is reproducible.
    """
    limit = max(1, _MEMORY // (8 * max(size, 1)))
    ends = np.searchsorted(vehicle, np.arange(count), side="right")
    low = 0
    while low < count:
        start = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, start + limit, side="right")))
        high = min(high, low + limit, count)
        yield low, high, slice(start, int(ends[high - 1]))
        low = high
