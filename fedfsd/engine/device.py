"""Which device a region trains on, and where what it adds up is kept.

An accelerator is told to repeat itself: a round that is trained again, because the process was lost before
its release, is the same to the last bit.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import lru_cache

import torch

from fedfsd.config.experiment import Precision
from fedfsd.errors import NotReadyError

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of malloc.h
_KEPT = 2**30  # bytes


def resolve(name: str) -> torch.device:
    """``"auto"`` is the machine's accelerator, or the CPU where there is none.

    Raises:
        NotReadyError: a device this machine or this torch does not have.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    try:
        device = torch.device(name) if name != "auto" else accelerator or torch.device("cpu")
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
    _keep_memory()
    return device


def demand_precision(device: torch.device, precision: Precision) -> None:
    """NotReadyError where ``device`` has no autocast to ``precision``."""
    if precision == "float32":
        return
    kind = device.type
    if torch.amp.is_autocast_available(kind) and (kind != "cuda" or torch.cuda.is_bf16_supported()):
        return
    raise NotReadyError(
        "training.precision",
        got=f"{precision} on {device}, which has no autocast to it",
        expected="float32 on this device",
        hint='set training.precision = "float32" in the experiment, or train on another device',
    )


def wide(device: torch.device) -> torch.device:
    """Where sums are kept, in float64: the device itself, or the host for one that has no float64."""
    return device if device.type in ("cpu", "cuda", "xpu") else torch.device("cpu")


@lru_cache(maxsize=16)
def accelerator_memory(device: torch.device) -> int:
    """Bytes of per-example gradients at a time: of what the device has, which says nothing of the data."""
    if device.type != "cuda":
        return 2**30
    return min(4 * 2**30, torch.cuda.get_device_properties(device).total_memory // 16)


@lru_cache(maxsize=1)
def _keep_memory() -> None:
    """Do not give back to the system what the next step needs again.

    The C library of Linux gives large blocks back at once, and the system fills new ones with zeros: of a
    model of many parameters, most of the time of what is done to each of them.
    """
    with suppress(AttributeError, OSError, TypeError):  # another system, another C library
        allow = ctypes.CDLL(None).mallopt
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            allow(option, _KEPT)


def _repeatable() -> None:
    # Read when cuBLAS is first used; without it a matrix product may be added up in another order.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)  # some models have an operation without one
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False  # it would choose by time
    torch.backends.cudnn.deterministic = True


def _others(accelerator: torch.device | None) -> str:
    if accelerator is None:
        return " (this machine has no accelerator)"
    return "".join(f", {accelerator.type}:{index}" for index in range(torch.accelerator.device_count()))
