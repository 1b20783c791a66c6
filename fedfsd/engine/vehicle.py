"""The training examples of one region on its device, addressed by roster slot.

Shapes: N rostered vehicles, S slots (N, or more where the data have more keys), W examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fedfsd.drive import mapped
from fedfsd.task.task import Examples, Tensors


@dataclass(frozen=True)
class VehicleData:
    """The vehicle in slot i owns examples first[i] : first[i] + counts[i]; many own none.

    The last example is the padding example: all zeros, it fills the places of vehicles without one.
    """

    inputs: Tensors  # (W + 1, ...) each
    targets: Tensors  # (W + 1, ...) each
    first: np.ndarray  # (S,) int64
    counts: np.ndarray  # (S,) int64
    device: torch.device
    surplus: int = 0
    """S - N: computed from the data, so nothing that can be seen may depend on it."""

    @property
    def company(self) -> int:
        """How many of the first slots are of no vehicle of the region's (``engine.canary``)."""
        return 0

    @property
    def slots(self) -> int:
        """S."""
        return len(self.counts)

    @property
    def roster(self) -> int:
        """N, as planned, and the company."""
        return self.slots - self.surplus

    @property
    def padding(self) -> int:
        """The index of the padding example."""
        return len(next(iter(self.targets.values()))) - 1

    def inputs_of(self, rows: torch.Tensor) -> Tensors:
        """What the model is given for the examples ``rows`` (...), (..., ...) each."""
        return {name: values[rows] for name, values in self.inputs.items()}

    def targets_of(self, rows: torch.Tensor) -> Tensors:
        """The same of targets."""
        return {name: values[rows] for name, values in self.targets.items()}


def place(examples: Examples, *, roster: int, device: torch.device) -> VehicleData:
    """Move ``examples`` to ``device``, each vehicle into a slot of its own, also beyond the roster.

    The roster may be longer than the keys present. It should never be shorter, but where it is, nothing
    stops: the round with one key more could otherwise be told from the round without it. Every slot is drawn
    alone and with the same probability, so which slot a vehicle has changes nothing for the others, and a
    vehicle more or less moves a step's sum by its own clipped gradient: at most C, whatever N was. N is in
    constants alone: the divisor, and the length of N C to which ``within`` shortens a sum.

    Leaving out the vehicles beyond the roster would protect everybody less: without one of those counted,
    the first of those left out would count in its place, and the sum would move by 2 C. No other choice of
    whom to leave out avoids that. Let S(K) be who counts of the keys K, all of them if there are N or fewer.
    If S leaves somebody out of N + 1 keys, then for any key u that it keeps, S of the keys without u (all N
    of them) differs from it in u and in whom it left out.
    """
    slots = max(roster, len(examples.vehicles))
    counts = np.bincount(examples.owner, minlength=slots)
    first = np.cumsum(counts) - counts
    return VehicleData(
        {name: _padded(array, device) for name, array in examples.inputs.items()},
        {name: _padded(array, device) for name, array in examples.targets.items()},
        np.where(counts > 0, first, len(examples)),
        counts,
        device,
        surplus=slots - roster,
    )


def within(total: torch.Tensor, longest: float) -> torch.Tensor:
    """``total``, shortened in place to the norm ``longest`` if it is longer: the nearest point of that ball.

    Two sums are never farther apart after it than before (a projection onto a convex set), so it leaves the
    sensitivity as it is. Without surplus vehicles it changes nothing: N vectors of norm C add up to N C.
    """
    squares, count = total * total, len(total)
    while count > 1:  # pairwise: rounding stays at a few units, and is the same everywhere
        half = count // 2
        squares[:half].add_(squares[half : 2 * half])
        if count % 2:
            squares[half] = squares[count - 1]
        count = half + count % 2
    norm = squares[0].sqrt()
    return total.mul_(torch.where(norm > longest, longest / norm, 1.0))


def _padded(array: np.ndarray, device: torch.device) -> torch.Tensor:
    if not isinstance(array, np.memmap):
        padding = np.zeros((1, *array.shape[1:]), array.dtype)
        return torch.from_numpy(np.concatenate([array, padding])).to(device)
    full = mapped.zeros((len(array) + 1, *array.shape[1:]), array.dtype)  # as the task keeps it
    full[:-1] = array
    return torch.from_numpy(full).to(device)
