"""Small models and vehicles for tests of the private step, and a slow step written another way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedfsd.engine.vehicle import VehicleData
from fedfsd.task.forecasting.loss import window_loss
from fedfsd.task.forecasting.task import Forecasting
from fedfsd.task.forecasting.window import WindowSpec

SPEC = WindowSpec()
TASK = Forecasting({})
CPU = torch.device("cpu")


class TwoPaths(nn.Module):
    """Two paths with scores, over linear and LayerNorm layers; smooth, so that gradients are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2 * SPEC.history, 8), nn.LayerNorm(8), nn.SiLU())
        self.head = nn.Linear(8, 2 * 2 * SPEC.future + 2)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        out = self.head(self.body(history.flatten(1) / 10))
        return 10 * out[:, 2:].unflatten(1, (2, SPEC.future, 2)), out[:, :2]


class Plain(nn.Module):
    """One linear layer; ``change`` rewrites its output (B, 2 F), which is how test models go wrong."""

    def __init__(self, change=lambda out: out) -> None:
        super().__init__()
        self.line = nn.Linear(2 * SPEC.history, 2 * SPEC.future)
        self.change = change

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        out = self.change(self.line(history.flatten(1)))
        return out.unflatten(1, (1, SPEC.future, 2)), torch.zeros(len(history), 1)


def vehicles(counts: list[int], *, seed: int = 0) -> VehicleData:
    """Drives of about 8 m/s along +x; vehicle i has counts[i] windows, and the padding one stands still."""
    random = np.random.default_rng(seed)
    step = random.normal([4.0, 0.0], [1.0, 0.4], size=(max(1, sum(counts)), SPEC.history + SPEC.future, 2))
    track = step.cumsum(1)
    track -= track[:, SPEC.history - 1 : SPEC.history]
    track = torch.from_numpy(np.concatenate([track, np.zeros_like(track[:1])]).astype(np.float32))
    owned = np.array(counts, np.int64)
    first = np.where(owned > 0, np.cumsum(owned) - owned, len(track) - 1)
    return data_of(track[:, : SPEC.history], track[:, SPEC.history :], first, owned)


def data_of(history: Tensor, future: Tensor, first: np.ndarray, counts: np.ndarray) -> VehicleData:
    """Vehicles with these windows, the padding one last."""
    return VehicleData({"history": history}, {"future": future}, first, counts, history.device)


def spoil(data: VehicleData, vehicle: int, value: float) -> VehicleData:
    """The same with every point of one vehicle's windows set to ``value``."""
    history, future = data.inputs["history"].clone(), data.targets["future"].clone()
    rows = slice(int(data.first[vehicle]), int(data.first[vehicle] + data.counts[vehicle]))
    history[rows], future[rows] = value, value
    return data_of(history, future, data.first, data.counts)


def slow_clipped_sum(
    model: nn.Module, data: VehicleData, slots, window, taken, *, max_grad_norm: float
) -> np.ndarray:
    """What ``VehicleGradient.clipped_sum`` must return: a loop over vehicles in float64."""
    model = model.double()
    total = np.zeros(sum(parameter.numel() for parameter in model.parameters()))
    for position, slot in enumerate(slots):
        rows = [int(data.first[slot]) + int(index) for index in window[position][taken[position]]]
        if not rows:
            continue
        losses = [
            window_loss(
                *model(data.inputs["history"][[row]].double()), data.targets["future"][[row]].double()
            ).sum()
            for row in rows
        ]
        gradient = torch.autograd.grad(sum(losses) / len(losses), list(model.parameters()))
        flat = torch.cat([part.flatten() for part in gradient]).numpy()
        norm = np.sqrt((flat**2).sum())
        if np.isfinite(norm):
            total += flat * min(1.0, max_grad_norm / norm if norm else 1.0)
    return total
