"""The training examples of one region on its device, addressed by roster slot.

Shapes: N rostered vehicles, W examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fedfsd.errors import PlanError
from fedfsd.task.task import Examples, Tensors


@dataclass(frozen=True)
class VehicleData:
    """Vehicle i of the roster owns examples first[i] : first[i] + counts[i]; many own none.

    The last example is the padding example: all zeros, it fills the places of vehicles without one.
    """

    inputs: Tensors  # (W + 1, ...) each
    targets: Tensors  # (W + 1, ...) each
    first: np.ndarray  # (N,) int64
    counts: np.ndarray  # (N,) int64
    device: torch.device

    @property
    def roster(self) -> int:
        """N."""
        return len(self.counts)

    @property
    def padding(self) -> int:
        """The index of the padding example."""
        return len(next(iter(self.inputs.values()))) - 1


def place(examples: Examples, *, roster: int, device: torch.device) -> VehicleData:
    """Move ``examples`` to ``device``; the roster may be longer than the keys present, never shorter."""
    if roster < len(examples.vehicles):
        raise PlanError(
            "roster",
            got=f"{roster}, fewer than the keys in this region's data",
            expected="every training vehicle key counted",
            hint="write the real roster in the experiment",
        )
    counts = np.bincount(examples.owner, minlength=roster)
    first = np.cumsum(counts) - counts
    return VehicleData(
        {name: _padded(array, device) for name, array in examples.inputs.items()},
        {name: _padded(array, device) for name, array in examples.targets.items()},
        np.where(counts > 0, first, len(examples)),
        counts,
        device,
    )


def _padded(array: np.ndarray, device: torch.device) -> torch.Tensor:
    padding = np.zeros((1, *array.shape[1:]), array.dtype)
    return torch.from_numpy(np.concatenate([array, padding])).to(device)
