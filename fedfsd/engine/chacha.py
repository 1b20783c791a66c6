"""ChaCha20 (RFC 8439) on any device, in whole-number operations of torch: the noise of accelerators.

Shapes: n blocks of 16 words of 32 bits, or of 8 numbers of 64.

A stream has a key of its own, so its nonce is zero; block b is the cipher's block of counter b. Each 8 bytes
of keystream are one little-endian number, whose upper 53 bits are a uniform in [0, 1), as in ``randomness``.
On CUDA one compiled function (``torch.cuda.jiterator``) does what otherwise takes some 600 small ones.
Neither is believed: before a device's first use its blocks are compared with those of the RFC.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fedfsd.errors import NotReadyError

VALUES = 8
"""In a block."""
_BLOCKS = 1 << 32  # of a key: the counter has 32 bits
_CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")
_ROTATIONS = (16, 12, 8, 7)
# RFC 8439, appendix A.1, vectors 1 and 2: key and nonce zero, counters 0 and 1.
_BLOCK_0 = (
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
)
_BLOCK_1 = (
    "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
    "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
)
Key = tuple[int, ...]
"""Eight words."""
Blocks = Callable[[Tensor, Key], Tensor]
"""Counters (n,) int64 -> (n, 8) int64, the keystream's numbers in two's complement."""


class Stream:
    """A keyed stream of random numbers, made on a device."""

    def __init__(self, key: bytes, device: torch.device) -> None:
        self._key, self._device = struct.unpack("<8I", key), device
        self._blocks = blocks_of(device)

    def bits(self, count: int, *, block: int = 0) -> Tensor:
        """``count`` uniform 64-bit integers starting at block ``block``, (count,) int64."""
        blocks = -(-count // VALUES)
        if block + blocks > _BLOCKS:
            raise ValueError(f"a stream has {_BLOCKS} blocks")
        counters = torch.arange(block, block + blocks, device=self._device)
        return self._blocks(counters, self._key).flatten()[:count]

    def uniform(self, count: int, *, block: int = 0) -> Tensor:
        """``count`` values in [0, 1) with 53 random bits, (count,) float64."""
        upper = (self.bits(count, block=block) >> 11).bitwise_and_(2**53 - 1)
        return upper.double().mul_(2.0**-53)


@lru_cache(maxsize=16)
def blocks_of(device: torch.device) -> Blocks:
    """The fastest on ``device`` that is ChaCha20.

    Raises:
        NotReadyError: a device that computes something else.
    """
    for make in (fused, operations) if device.type == "cuda" else (operations,):
        try:
            found = make(torch.arange(2, device=device), (0,) * 8)
        except RuntimeError:
            continue  # no compiler for it: slower, and as secret
        if found.cpu().numpy().astype("<i8").tobytes().hex() == _BLOCK_0 + _BLOCK_1:
            return make
    raise NotReadyError(
        "training.device",
        got=f"{device}, where ChaCha20 is not what RFC 8439 says",
        expected="whole numbers that wrap at 32 bits",
        hint='set device = "cpu"',
    )


def operations(counters: Tensor, key: Key) -> Tensor:
    """The blocks by ordinary operations, each on a word of all blocks; int32 wraps as uint32 does."""
    start = torch.zeros(16, len(counters), dtype=torch.int32, device=counters.device)
    words = torch.tensor([*_CONSTANTS, *key], device=counters.device).to(torch.int32)
    start[:12] = words[:, None]
    start[12] = counters.to(torch.int32)
    a, b, c, d = start.clone().view(4, 4, -1)
    spare = torch.empty_like(a)
    for _ in range(10):
        _quarter_rounds(a, b, c, d, spare)
        b, c, d = b.roll(-1, 0), c.roll(-2, 0), d.roll(-3, 0)  # columns become diagonals
        _quarter_rounds(a, b, c, d, spare)
        b, c, d = b.roll(1, 0), c.roll(2, 0), d.roll(3, 0)
    return torch.cat([a, b, c, d]).add_(start).t().reshape(-1).view(torch.int64).view(-1, VALUES)


def _quarter_rounds(a: Tensor, b: Tensor, c: Tensor, d: Tensor, spare: Tensor) -> None:
    """Four at a time, in place."""
    for turn, bits in enumerate(_ROTATIONS):
        to, by, turned = (a, b, d) if turn % 2 == 0 else (c, d, b)
        turned.bitwise_xor_(to.add_(by))
        torch.bitwise_right_shift(turned, 32 - bits, out=spare).bitwise_and_((1 << bits) - 1)
        turned.bitwise_left_shift_(bits).bitwise_or_(spare)


def fused(counters: Tensor, key: Key) -> Tensor:
    """The blocks by one function compiled for CUDA."""
    return torch.stack(_compiled()(counters, **dict(zip(_KEY_WORDS, key, strict=True))), dim=1)


_KEY_WORDS = tuple(f"key{index}" for index in range(8))
_SOURCE = """
template <typename T>
void chacha20(T counter, {keys}, {numbers}) {{
    const unsigned int start[16] = {{
        {constants},
        {words},
        (unsigned int)counter, 0u, 0u, 0u}};
    unsigned int x[16];
    #pragma unroll
    for (int i = 0; i < 16; i++) x[i] = start[i];
    auto turn = [](unsigned int value, int bits) {{ return value << bits | value >> (32 - bits); }};
    auto quarter = [&](int a, int b, int c, int d) {{
        x[a] += x[b]; x[d] = turn(x[d] ^ x[a], 16);
        x[c] += x[d]; x[b] = turn(x[b] ^ x[c], 12);
        x[a] += x[b]; x[d] = turn(x[d] ^ x[a], 8);
        x[c] += x[d]; x[b] = turn(x[b] ^ x[c], 7);
    }};
    #pragma unroll
    for (int round = 0; round < 10; round++) {{
        quarter(0, 4, 8, 12); quarter(1, 5, 9, 13); quarter(2, 6, 10, 14); quarter(3, 7, 11, 15);
        quarter(0, 5, 10, 15); quarter(1, 6, 11, 12); quarter(2, 7, 8, 13); quarter(3, 4, 9, 14);
    }}
    #pragma unroll
    for (int i = 0; i < 16; i++) x[i] += start[i];
    {stores}
}}
"""


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., tuple[Tensor, ...]]:
    from torch.cuda import jiterator

    source = _SOURCE.format(
        keys=", ".join(f"T {word}" for word in _KEY_WORDS),
        numbers=", ".join(f"T& number{index}" for index in range(VALUES)),
        constants=", ".join(f"{word}u" for word in _CONSTANTS),
        words=", ".join(f"(unsigned int){word}" for word in _KEY_WORDS),
        stores=" ".join(
            f"number{i} = (T)((unsigned long long)x[{2 * i + 1}] << 32 | x[{2 * i}]);" for i in range(VALUES)
        ),
    )
    make: Any = jiterator._create_multi_output_jit_fn
    function: Callable[..., tuple[Tensor, ...]] = make(
        source, num_outputs=VALUES, **dict.fromkeys(_KEY_WORDS, 0)
    )
    return function
