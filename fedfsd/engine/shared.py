"""One private step by several processes of a region: vehicles are dealt out by slot, their sums added up.

The first process draws, adds the noise once and moves the weights; run keys stay with it. The others have the
model and the data, and are handed weights and draws. A step costs one broadcast of each, and one sum. Slot s
belongs to process s mod P, so that who computes a vehicle depends on public numbers alone, and every process
has a micro-batch of one shape, chosen by its share of the roster.

A vehicle is in one process's sum, clipped there to C: the sum of the sums is the sum over all vehicles, in
another order. Float64 was counted for every order (``Mechanism.clipping_norm``). Noise and draws are the same
bits as of one process; sums agree within float32's rounding of a gradient in a batch of another shape.

``torch.distributed`` carries it: NCCL between accelerators of CUDA, else Gloo.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from fedfsd.engine.device import wide
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.vehicle import VehicleData
from fedfsd.errors import NotReadyError

_END, _WEIGHTS, _SUM = range(3)
_HEADER = 6
# What, V, k, C and q as the bits of float64 (C of none: not a number), vehicles in a micro-batch or 0.


def backend(device: torch.device) -> str:
    """What carries the sums of processes on devices of this type."""
    return "nccl" if device.type == "cuda" else "gloo"


class Shared:
    """The gradients of one model in all processes, as the first one sees them: a ``VehicleGradient``."""

    def __init__(self, own: VehicleGradient, device: torch.device) -> None:
        self._own, self._device = own, device
        self.size, self.through = own.size, own.through

    def set_parameters(self, flat: Tensor, *, collecting: bool = False) -> None:
        """Copy (P,) values into the model of every process; see ``VehicleGradient.set_parameters``."""
        with _together():
            _tell(self._device, _WEIGHTS, int(collecting))
            dist.broadcast(flat.to(_carried(self._device), torch.float32), 0)
        self._own.set_parameters(flat, collecting=collecting)

    def clipped_sum(
        self,
        data: VehicleData,
        slots: np.ndarray,
        window: np.ndarray,
        taken: np.ndarray,
        *,
        max_grad_norm: float | None,
        sample_rate: float = 1.0,
        vehicles: int | None = None,
        length: int | None = None,
    ) -> Tensor:
        """See ``VehicleGradient.clipped_sum``."""
        clip = np.nan if max_grad_norm is None else max_grad_norm
        with _together():
            _tell(self._device, _SUM, *window.shape, _bits(clip), _bits(sample_rate), vehicles or 0)
            drawn = np.concatenate([slots.ravel(), window.ravel(), taken.ravel()]).astype(np.int64)
            dist.broadcast(torch.from_numpy(drawn).to(_carried(self._device)), 0)
        mine = _part(self._own, data, slots, window, taken, max_grad_norm, sample_rate, vehicles)
        with _together():
            total = _added(mine, self._device)
        return functional.pad(total, (0, length - len(total))) if length else total

    def end(self) -> None:
        """Let the others go."""
        with _together():
            _tell(self._device, _END)


def serve(own: VehicleGradient, data: VehicleData) -> None:
    """Be one of the others until the first process lets go.

    Raises:
        NotReadyError: a process was lost.
    """
    device, carried = data.device, _carried(data.device)
    while True:
        header = torch.empty(_HEADER, dtype=torch.int64, device=carried)
        with _together():
            dist.broadcast(header, 0)
        what, count, places, clip, rate, vehicles = header.tolist()
        if what == _END:
            return
        if what == _WEIGHTS:
            flat = torch.empty(own.size, device=carried)
            with _together():
                dist.broadcast(flat, 0)
            own.set_parameters(flat.to(device), collecting=bool(count))
            continue
        drawn = torch.empty(count * (1 + 2 * places), dtype=torch.int64, device=carried)
        with _together():
            dist.broadcast(drawn, 0)
        slots, window, taken = np.split(drawn.cpu().numpy(), [count, count * (1 + places)])
        shape = (count, places)
        bound = None if np.isnan(_float(clip)) else _float(clip)
        mine = _part(
            own,
            data,
            slots,
            window.reshape(shape),
            taken.reshape(shape) > 0,
            bound,
            _float(rate),
            vehicles or None,
        )
        with _together():
            _added(mine, device)


def _part(
    own: VehicleGradient,
    data: VehicleData,
    slots: np.ndarray,
    window: np.ndarray,
    taken: np.ndarray,
    max_grad_norm: float | None,
    sample_rate: float,
    vehicles: int | None,
) -> Tensor:
    """The clipped sum of this process's vehicles."""
    processes = dist.get_world_size()
    mine = slots % processes == dist.get_rank()
    return own.clipped_sum(
        data,
        slots[mine],
        window[mine],
        taken[mine],
        max_grad_norm=max_grad_norm,
        sample_rate=sample_rate,
        vehicles=vehicles,
        processes=processes,
    )


def _added(mine: Tensor, device: torch.device) -> Tensor:
    """The sum over all processes, at the first one."""
    total = mine.to(_carried(device))
    dist.reduce(total, 0)
    return total.to(wide(device))


def _tell(device: torch.device, *numbers: int) -> None:
    header = torch.tensor([*numbers, *[0] * (_HEADER - len(numbers))], device=_carried(device))
    dist.broadcast(header, 0)


def _carried(device: torch.device) -> torch.device:
    """Where what is sent lies."""
    return device if backend(device) == "nccl" else torch.device("cpu")


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError:
        raise NotReadyError(
            "train.toml: devices",
            got="a process of this region that has ended",
            expected="all of them until the end of a round",
            hint="its log says why; the round is trained again",
        ) from None


def _bits(value: float) -> int:
    found: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return found


def _float(bits: int) -> float:
    found: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return found
