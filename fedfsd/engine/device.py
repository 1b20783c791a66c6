"""Which device a region trains on, and where what it adds up is kept.

An accelerator is told to repeat itself: a round that is trained again, because the process was lost before
its release, is the same to the last bit.
"""

from __future__ import annotations

import os

import torch

from fedfsd.errors import NotReadyError


def resolve(name: str) -> torch.device:
    """``"auto"`` is the machine's accelerator, or the CPU where there is none.

    Raises:
        NotReadyError: a device this machine or this torch does not have.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise NotReadyError(
            "training.device",
            got=repr(name),
            expected=f"auto, cpu{_others(accelerator)}",
            hint='set training.device = "auto"',
        ) from None
    if device.type != "cpu":
        _repeatable()
    return device


def wide(device: torch.device) -> torch.device:
    """Where sums are kept, in float64: the device itself, or the host for one that has no float64."""
    return device if device.type in ("cpu", "cuda", "xpu") else torch.device("cpu")


def _repeatable() -> None:
    # Read when cuBLAS is first used; without it a matrix product may be added up in another order.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)  # some models have an operation without one
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False  # it would choose by time


def _others(accelerator: torch.device | None) -> str:
    if accelerator is None:
        return " (this machine has no accelerator)"
    return "".join(f", {accelerator.type}:{index}" for index in range(torch.accelerator.device_count()))
