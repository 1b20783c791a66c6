"""A step's noise: standard normal values in float64 from a secret stream, made where they are added.

On the host the stream is AES-256 in counter mode, which processors have; on an accelerator it is ChaCha20, so
that noise never waits for the host. Both are keyed by the same HKDF, each under a label of its own, so that
no key serves two ciphers. Which one it is follows from the device alone.
"""

from __future__ import annotations

from math import pi
from typing import Protocol

import torch
from torch import Tensor

from fedfsd.engine import chacha
from fedfsd.engine.randomness import RoundKey, Stream

_CHUNK = 1 << 22  # values made at a time, so that noise for a large model needs no second copy of it


class Noise(Protocol):
    """Normal values of one step."""

    def normal(self, count: int) -> Tensor:
        """``count`` standard normal values, (count,) float64."""


def of_step(key: RoundKey, step: int, device: torch.device) -> Noise:
    """What a step's sum on ``device`` gets."""
    if device.type == "cpu":
        return HostNoise(key.stream("noise", step))
    return DeviceNoise(key.key("noise, chacha20", step), device)


class HostNoise:
    """AES-256 on the host."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def normal(self, count: int) -> Tensor:
        """``count`` standard normal values, (count,) float64."""
        return torch.from_numpy(self._stream.normal(count))


class DeviceNoise:
    """ChaCha20 on a device."""

    def __init__(self, key: bytes, device: torch.device) -> None:
        self._stream, self._device = chacha.Stream(key, device), device

    def normal(self, count: int) -> Tensor:
        """``count`` standard normal values by Box and Muller 1958, (count,) float64."""
        out = torch.empty(count, dtype=torch.float64, device=self._device)
        for start in range(0, count, _CHUNK):
            some = out[start : start + _CHUNK]
            pairs = (len(some) + 1) // 2
            radius, angle = self._stream.uniform(2 * pairs, block=start // chacha.VALUES).view(2, pairs)
            radius.neg_().log1p_().mul_(-2).sqrt_()
            angle.mul_(2 * pi)
            first, second = some[:pairs], some[pairs:]
            torch.cos(angle, out=first).mul_(radius)
            there = len(second)  # one less than pairs where an odd count ends
            torch.sin(angle[:there], out=second).mul_(radius[:there])
        return out
