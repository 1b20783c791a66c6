"""The training windows of one region on its device, addressed by roster slot.

Shapes: N rostered vehicles, W windows, H history points, F future points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedfsd.driving.window import Windows, WindowSpec, agent_frame
from fedfsd.errors import PlanError


@dataclass(frozen=True)
class VehicleData:
    """Vehicle i of the roster owns windows first[i] : first[i] + counts[i]; many own none."""

    history: Tensor  # (W, H, 2) float32, m, agent frame
    future: Tensor  # (W, F, 2) float32, m, agent frame
    first: np.ndarray  # (N,) int64
    counts: np.ndarray  # (N,) int64

    @property
    def roster(self) -> int:
        """N."""
        return len(self.counts)


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
    history, future = agent_frame(windows.points, spec.history)
    return VehicleData(
        torch.from_numpy(history).to(device),
        torch.from_numpy(future).to(device),
        np.concatenate([[0], np.cumsum(counts)[:-1]]),
        counts,
    )
