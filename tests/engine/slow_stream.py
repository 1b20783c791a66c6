"""The secret streams a second time, from their description alone.

HKDF by HMAC, AES block by block, floats one by one: of ``fedfsd`` only canonical JSON is shared. The key of a
stream is HKDF-SHA-256 (RFC 5869, no salt) of the run key, with the canonical JSON of label, region, plan,
round, step and inbound arrays as its information. The stream is AES-256 of the counters 0, 1, 2 ... (16
bytes, big-endian); each 8 bytes are one little-endian number, whose upper 53 bits are a uniform in [0, 1).
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedfsd import canonical

Draw = Callable[[int], float]
"""The i-th uniform of a stream."""


def stream(run_key: bytes, label: str, step: int, *, region: str, plan: str, round: int, arrays: str) -> Draw:
    """The uniforms of one purpose in one step."""
    info = {"label": label, "region": region, "plan": plan, "round": round, "step": step, "arrays": arrays}
    secret = hmac.digest(bytes(32), run_key, hashlib.sha256)
    key = hmac.digest(secret, canonical.encode(info) + b"\x01", hashlib.sha256)
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()

    def draw(index: int) -> float:
        block = encryptor.update((index // 2).to_bytes(16, "big"))
        part = block[8:] if index % 2 else block[:8]
        return (int.from_bytes(part, "little") >> 11) / 2**53

    return draw


def vehicles(draw: Draw, roster: int, rate: float) -> list[int]:
    """Slot i is sampled where the i-th uniform is below the rate."""
    return [slot for slot in range(roster) if draw(slot) < rate]


def windows(draw: Draw, slot: int, count: int, k: int) -> list[int]:
    """At most k of a vehicle's windows; a slot has k uniforms of its own, padded to whole AES blocks.

    Each uniform is a rank among the windows that are left.
    """
    left, first = list(range(count)), slot * (k + k % 2)
    return [left.pop(int(draw(first + number) * len(left))) for number in range(min(k, count))]


def normals(draw: Draw, count: int) -> list[float]:
    """Box and Muller: n radii, n angles, then n cosines and n sines (up to 65,536 values)."""
    assert count <= 65_536
    pairs = (count + 1) // 2
    radii = [math.sqrt(-2 * math.log1p(-draw(number))) for number in range(pairs)]
    angles = [2 * math.pi * draw(pairs + number) for number in range(pairs)]
    both = [(radius, angle) for radius, angle in zip(radii, angles, strict=True)]
    return [r * math.cos(a) for r, a in both] + [r * math.sin(a) for r, a in both][: count - pairs]


def grid(std: float, clip: float, size: int) -> float:
    """The largest power of two that is at most 2^-20 std, and whose diagonal of ``size`` axes 2^-11 clip."""
    unit = Fraction(2) ** 40
    while unit > Fraction(std) / 2**20 or unit**2 * size > (Fraction(clip) / 2**11) ** 2:
        unit /= 2
    return float(unit)


def clipping_norm(std: float, clip: float, *, roster: int, size: int) -> float:
    """C less a unit of the grid in every number, and less what float64 rounds."""
    floats = 2**-52 * (4 * roster**2 + 64 * roster + size + 4) * clip
    return clip - grid(std, clip, size) * math.sqrt(size) - floats


def on_grid(value: float, unit: float) -> float:
    """The multiple of ``unit`` nearest to ``value``."""
    return float(round(Fraction(value) / Fraction(unit)) * Fraction(unit))


def noised(total: Sequence[float], std: float, clip: float, draw: Draw) -> list[float]:
    """A clipped sum and its noise, each rounded to the grid."""
    unit, noise = grid(std, clip, len(total)), normals(draw, len(total))
    return [on_grid(s, unit) + on_grid(std * n, unit) for s, n in zip(total, noise, strict=True)]
