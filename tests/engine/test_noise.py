"""Noise: the shape of its values, the streams' bytes used once, and the same whole numbers everywhere."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from setting import examples

from fedfsd.engine import chacha, noise, randomness
from fedfsd.engine.noise import DEVICE_CHUNK, HOST_CHUNK, DeviceNoise, HostNoise
from fedfsd.engine.randomness import RoundKey, Stream

CPU = torch.device("cpu")
KEY = RoundKey(bytes(range(32)), "CN", "a" * 64, 3, "b" * 64)


def on_host(key: RoundKey, step: int) -> noise.Noise:
    return noise.of_step(key, step, CPU)


def on_device(key: RoundKey, step: int) -> noise.Noise:
    """What an accelerator makes; its operations are those of any device."""
    return DeviceNoise(key.key("noise, chacha20", step), CPU)


KINDS = pytest.mark.parametrize("kind", [on_host, on_device])

OTHER_USES = {
    "label": lambda kind: HostNoise(KEY.stream("windows", 5)),
    "step": lambda kind: kind(KEY, 6),
    "region": lambda kind: kind(replace(KEY, region="EU"), 5),
    "round": lambda kind: kind(replace(KEY, round=4), 5),
    "plan": lambda kind: kind(replace(KEY, plan_hash="c" * 64), 5),
    "arrays": lambda kind: kind(replace(KEY, arrays_sha256="c" * 64), 5),
    "run key": lambda kind: kind(replace(KEY, run_key=bytes(32)), 5),
    "shifted": lambda kind: kind(replace(KEY, region="CN3", round=5), 3),
}


@KINDS
def test_noise_of_two_uses_is_unrelated(kind):
    others = OTHER_USES | {"cipher": lambda kind: {on_host: on_device, on_device: on_host}[kind](KEY, 5)}
    values = {"itself": kind(KEY, 5).normal(10_000).numpy()}
    values |= {name: make(kind).normal(10_000).numpy() for name, make in others.items()}
    for one, other in combinations(values, 2):
        z = values[one] @ values[other] / 100
        assert abs(z) < 4.5, (one, other)
        assert not np.isin(values[one][:1000], values[other]).any(), (one, other)


def test_no_key_serves_two_ciphers():
    assert KEY.key("noise", 5) != KEY.key("noise, chacha20", 5)


@KINDS
def test_noise_is_normal(kind):
    values = kind(KEY, 1).normal(400_000).numpy()
    n = len(values)
    assert values.dtype == np.float64
    assert abs(values.mean()) * np.sqrt(n) < 5
    assert abs(values.var() - 1) / np.sqrt(2 / n) < 5
    assert abs(stats.skew(values)) / np.sqrt(6 / n) < 5
    assert abs(stats.kurtosis(values)) / np.sqrt(24 / n) < 5
    assert stats.kstest(values, "norm").pvalue > 1e-6
    for bound in (3.0, 4.0):  # what is beyond, on either side
        expected = n * stats.norm.sf(bound)
        for beyond in ((values > bound).sum(), (values < -bound).sum()):
            assert abs(beyond - expected) < 6 * np.sqrt(expected)
    neighbours = values[:-1] @ values[1:] / np.sqrt(n - 1)
    assert abs(neighbours) < 5


@KINDS
def test_the_two_halves_of_a_pair_are_unrelated(kind):
    first, second = kind(KEY, 1).normal(65_536).numpy().reshape(2, -1)
    for left, right in ((first, second), (first**2 - 1, second**2 - 1), (np.abs(first), np.abs(second))):
        assert abs(stats.pearsonr(left, right).statistic) * np.sqrt(32_768) < 5


class Fixed(Stream):
    """A stream that yields one 64-bit value for the radii and one for the angles."""

    def __init__(self, radius: int, angle: int) -> None:
        super().__init__(bytes(32))
        self.radius, self.angle = radius, angle

    def bits(self, count: int, *, block: int = 0) -> np.ndarray:
        half = count // 2
        return np.array([self.radius] * half + [self.angle] * (count - half), np.uint64)


def test_the_tails_reach_beyond_those_of_24_bit_uniforms():
    """float32 uniforms end at 5.77 standard deviations; 53 bits end at sqrt(2 ln 2^53) = 8.57."""
    top, furthest = 2**64 - 1, np.sqrt(2 * 53 * np.log(2))
    assert float(HostNoise(Fixed(top, 0)).normal(2).max()) == pytest.approx(furthest)
    assert float(HostNoise(Fixed(top, 2**63)).normal(2).min()) == pytest.approx(-furthest)
    for radius in (0, 1, 2**11, 2**63, top):
        for angle in (0, 1, 2**62, 2**63, top):
            assert HostNoise(Fixed(radius, angle)).normal(2).isfinite().all()


@KINDS
@pytest.mark.parametrize("count", [0, 1, 2, 3, 65_535, 65_536, 65_537, 131_071, 131_073])
def test_chunks_join_without_gap_or_repeat(kind, monkeypatch, count):
    monkeypatch.setattr(noise, "DEVICE_CHUNK", HOST_CHUNK)
    values = kind(KEY, 2).normal(count).numpy()
    assert values.shape == kind(KEY, 2).whole(count, 8.0).shape == (count,)
    assert np.isfinite(values).all()
    assert len(np.unique(values)) == count
    whole = count - count % 65_536
    np.testing.assert_array_equal(kind(KEY, 2).normal(200_000)[:whole].numpy(), values[:whole])


def formula(uniform: np.ndarray) -> np.ndarray:
    """The values of one chunk, as numpy has them."""
    radius, angle = uniform.reshape(2, -1)
    radius, angle = np.sqrt(-2 * np.log1p(-radius)), 2 * np.pi * angle
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])


def host_formula(count: int) -> np.ndarray:
    """What noise was made by from the first release on."""
    stream, chunks = KEY.stream("noise", 4), range(0, count, HOST_CHUNK)
    sizes = [(min(HOST_CHUNK, count - start) + 1) // 2 * 2 for start in chunks]
    found = [
        formula(stream.uniform(size, block=start // 2)) for start, size in zip(chunks, sizes, strict=True)
    ]
    return np.concatenate(
        [part[: min(HOST_CHUNK, count - start)] for start, part in zip(chunks, found, strict=True)]
    )


@pytest.mark.parametrize("count", [1, 7, 65_536, 65_539])
@pytest.mark.parametrize("scale", [2.0**20, 1.3 * 2**24, 2.0**34, 1.7])
def test_whole_numbers_are_the_formulas_to_the_last_one(count, scale):
    """Whatever makes it faster: the noise of a plan stays what it was, in every release."""
    found = on_host(KEY, 4).whole(count, scale).numpy()
    np.testing.assert_array_equal(found, np.rint(scale * host_formula(count)))


@settings(deadline=None, max_examples=examples(30))
@given(offsets=st.lists(st.integers(-40, 40), min_size=1, max_size=30), number=st.integers(0, 2**24))
def test_between_two_whole_numbers_the_formula_decides(offsets, number):
    """Scales under which a value comes to lie as near the middle as floats can tell."""
    exact = host_formula(256)
    for index, offset in enumerate(offsets):
        middle = (number + 0.5) / abs(exact[index])
        scale = float(middle + offset * np.spacing(middle))
        found = on_host(KEY, 4).whole(256, scale).numpy()
        np.testing.assert_array_equal(found, np.rint(scale * exact))


def test_values_are_those_of_twice_the_digits():
    """Torch's cosines and logarithms may differ from another library's in the last bits, and no further."""
    stream = KEY.stream("noise", 4)
    long = formula(stream.uniform(HOST_CHUNK).astype(np.longdouble))
    found = on_host(KEY, 4).normal(HOST_CHUNK).numpy()
    angles = np.abs(2 * np.pi * stream.uniform(HOST_CHUNK)[HOST_CHUNK // 2 :])
    assert angles.max() < 2 * np.pi
    assert np.abs(found / host_formula(HOST_CHUNK) - 1).max() <= 8 * 2**-52  # of 16 that are doubted
    assert np.abs(found - long).max() <= 2.0**-48


def test_a_device_uses_chacha20_as_the_host_uses_aes():
    """Radii, then angles, from OpenSSL's keystream."""
    key = KEY.key("noise, chacha20", 4)
    encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    uniform = (np.frombuffer(encryptor.update(bytes(8 * 1000)), "<u8") >> np.uint64(11)) * 2.0**-53
    found = on_device(KEY, 4)
    np.testing.assert_allclose(found.normal(1000).numpy(), formula(uniform), rtol=2**-48)
    np.testing.assert_array_equal(found.whole(1000, 2.0**20).numpy(), np.rint(2.0**20 * formula(uniform)))


def test_which_cipher_follows_from_the_device():
    assert isinstance(noise.of_step(KEY, 0, CPU), HostNoise)
    assert HOST_CHUNK * 8 % randomness.BLOCK == 0
    assert DEVICE_CHUNK % chacha.VALUES == 0


@pytest.mark.parametrize("ask", [lambda one: one.normal(200_001), lambda one: one.whole(200_001, 8.0)])
def test_chunks_use_the_keystream_once(ask):
    """No two values may share keystream: the blocks asked for must not overlap."""
    spans = []

    class Watched(Stream):
        def bits(self, count: int, *, block: int = 0) -> np.ndarray:
            spans.append((block, block + -(-8 * count // randomness.BLOCK)))
            return super().bits(count, block=block)

    ask(HostNoise(Watched(bytes(32))))
    assert len(spans) == 4
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_chunks_on_a_device_use_the_keystream_once(monkeypatch):
    spans = []
    whole = chacha.Stream.bits

    def watched(self: chacha.Stream, count: int, *, block: int = 0) -> torch.Tensor:
        spans.append((block, block + -(-count // chacha.VALUES)))
        return whole(self, count, block=block)

    monkeypatch.setattr(chacha.Stream, "bits", watched)
    monkeypatch.setattr(noise, "DEVICE_CHUNK", HOST_CHUNK)
    on_device(KEY, 0).whole(200_001, 8.0)
    assert len(spans) == 4
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
