"""The training windows of one region on its device, addressed by roster slot.

Shapes: N rostered vehicles, W windows, H history points, F future points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedfsd.errors import PlanError
from fedfsd.task.forecasting.window import Windows, WindowSpec, agent_frame


@dataclass(frozen=True)
class VehicleData:
    """Vehicle i of the roster owns windows first[i] : first[i] + counts[i]; many own none.

    The last window stands still and belongs to nobody: it fills the places of vehicles without one.
    """

    history: Tensor  # (W + 1, H, 2) float32, m, agent frame
    future: Tensor  # (W + 1, F, 2) float32, m, agent frame
    first: np.ndarray  # (N,) int64
    counts: np.ndarray  # (N,) int64

    @property
    def roster(self) -> int:
        """N."""
        return len(self.counts)

    @property
    def nobody(self) -> int:
        """The index of the window that belongs to nobody."""
        return len(self.history) - 1


def place(windows: Windows, spec: WindowSpec, *, roster: int, device: torch.device) -> VehicleData:
    """Move ``windows`` to ``device``; the roster may be longer than the keys present, never shorter."""
    if roster < len(windows.vehicles):
        raise PlanError(
            "roster",
            got=f"{roster}, fewer than the keys in this region's data",
            expected="every training vehicle key counted",
            hint="write the real roster in the experiment",
        )
    counts = np.bincount(windows.owner, minlength=roster)
    still = np.zeros((1, *windows.points.shape[1:]))
    history, future = agent_frame(np.concatenate([windows.points, still]), spec.history)
    first = np.cumsum(counts) - counts
    return VehicleData(
        torch.from_numpy(history).to(device),
        torch.from_numpy(future).to(device),
        np.where(counts > 0, first, len(windows)),
        counts,
    )
