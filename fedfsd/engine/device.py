"""Which device a region trains on; the noise is always made on the host."""

from __future__ import annotations

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
    return device


def _others(accelerator: torch.device | None) -> str:
    if accelerator is None:
        return " (this machine has no accelerator)"
    return "".join(f", {accelerator.type}:{index}" for index in range(torch.accelerator.device_count()))
