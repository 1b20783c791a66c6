"""A step's noise: normal values from a secret stream, made where they are added, as whole steps of a grid.

On the host the stream is AES-256 in counter mode, which processors have; on an accelerator it is ChaCha20, so
that noise never waits for the host. Both are keyed by the same HKDF, each under a label of its own, so that
no key serves two ciphers. Which one it is follows from the device alone.

Values are made in float64 by Box and Muller 1958, chunk by chunk: a chunk's uniforms are n radii and then n
angles, its values n cosines and then n sines. The last bit of a cosine differs between libraries and
processors. So that a plan's noise is the same on all of them, what lies so near the middle of two whole
numbers that it matters is made again on the host, by the formula as numpy and the C library have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import pi, sqrt
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedfsd.engine import chacha
from fedfsd.engine.randomness import BLOCK, RoundKey, Stream

HOST_CHUNK, DEVICE_CHUNK = 1 << 16, 1 << 22
"""Values made at a time: they stay in a core's cache, or are worth a device's while."""
_LARGEST = sqrt(2 * 53 * np.log(2))  # no value of 53 random bits is larger
_DOUBT = 2.0**-48  # of a value: far more than any library is off


class Noise(Protocol):
    """Normal values of one step."""

    def normal(self, count: int) -> Tensor:
        """``count`` standard normal values, (count,) float64."""

    def whole(self, count: int, scale: float, /) -> Tensor:
        """``count`` standard normal values times ``scale``, rounded to whole numbers, (count,) float64."""


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
        out = torch.empty(count, dtype=torch.float64)
        for start, some in _chunks(out, HOST_CHUNK):
            _box_muller(torch.from_numpy(self._uniform(start, len(some))), some)
        return out

    def whole(self, count: int, scale: float, /) -> Tensor:
        """``count`` standard normal values times ``scale``, rounded to whole numbers, (count,) float64."""
        out = torch.empty(count, dtype=torch.float64)
        sure = 0.5 - _DOUBT * _LARGEST * scale
        for start, some in _chunks(out, HOST_CHUNK):
            _box_muller(torch.from_numpy(self._uniform(start, len(some))), some, scale)
            rounded = some.round()
            lowest, highest = torch.aminmax(some.sub_(rounded))
            doubtful = np.flatnonzero(some.abs().numpy() > sure) if max(-lowest, highest) > sure else None
            some.copy_(rounded)
            if doubtful is not None:
                some[doubtful] = torch.from_numpy(np.rint(scale * self._exact(start, len(some), doubtful)))
        return out

    def _uniform(self, start: int, count: int) -> np.ndarray:
        """(2, n): radii and angles of the chunk that begins at a value."""
        pairs = (count + 1) // 2
        return self._stream.uniform(2 * pairs, block=start * 8 // BLOCK).reshape(2, pairs)

    def _exact(self, start: int, count: int, index: np.ndarray) -> np.ndarray:
        """Values of a chunk by the formula as it stands."""
        uniform = self._uniform(start, count)
        second, pair = np.divmod(index, uniform.shape[1])
        radius, angle = uniform[:, pair]
        turned = np.where(second == 0, np.cos(2 * pi * angle), np.sin(2 * pi * angle))
        exact: np.ndarray = np.sqrt(-2 * np.log1p(-radius)) * turned
        return exact


class DeviceNoise:
    """ChaCha20 on a device, which is never waited for."""

    def __init__(self, key: bytes, device: torch.device) -> None:
        self._stream, self._device = chacha.Stream(key, device), device

    def normal(self, count: int) -> Tensor:
        """``count`` standard normal values, (count,) float64."""
        return self._made(count, 1.0)

    def whole(self, count: int, scale: float, /) -> Tensor:
        """``count`` standard normal values times ``scale``, rounded to whole numbers, (count,) float64."""
        return self._made(count, scale).round_()

    def _made(self, count: int, scale: float) -> Tensor:
        out = torch.empty(count, dtype=torch.float64, device=self._device)
        for start, some in _chunks(out, DEVICE_CHUNK):
            pairs = (len(some) + 1) // 2
            uniform = self._stream.uniform(2 * pairs, block=start // chacha.VALUES)
            _box_muller(uniform.view(2, pairs), some, scale)
        return out


def _chunks(out: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """Where each begins, and its part of ``out``."""
    return zip(
        range(0, len(out), size), out.split(size), strict=False
    )  # without a value there is still a part


def _box_muller(uniform: Tensor, out: Tensor, scale: float = 1.0) -> None:
    """(2, n) uniforms, which are lost, to 2 n values times ``scale``, or one less where ``out`` is odd."""
    radius, angle = uniform
    radius.neg_().log1p_().mul_(-2).sqrt_()  # sqrt(-2 log(1 - u)), 1 - u in (0, 1]
    radius.mul_(scale)
    angle.mul_(2 * pi)
    first, second = out[: len(radius)], out[len(radius) :]
    torch.cos(angle, out=first).mul_(radius)
    there = len(second)
    torch.sin(angle[:there], out=second).mul_(radius[:there])
