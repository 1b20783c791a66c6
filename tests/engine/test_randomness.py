"""Keys and streams: published vectors, independence of uses, shape of the noise."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedfsd import canonical
from fedfsd.engine import randomness
from fedfsd.engine.randomness import RoundKey, Stream

KEY = RoundKey(bytes(range(32)), "CN", "a" * 64, 3, "b" * 64)

# NIST SP 800-38A, F.5.5 CTR-AES256.Encrypt.
NIST_KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
NIST_COUNTER = int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16)
NIST_PLAIN = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
NIST_CIPHER = bytes.fromhex(
    "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
    "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
)


def test_the_stream_is_aes_256_in_counter_mode():
    expected = bytes(a ^ b for a, b in zip(NIST_PLAIN, NIST_CIPHER, strict=True))
    assert Stream(NIST_KEY).bits(8, block=NIST_COUNTER).tobytes() == expected


def test_step_keys_are_hkdf_sha256_of_the_run_key():
    """RFC 5869 by hand, one block, no salt; the information is canonical JSON of everything it binds."""
    info = canonical.encode(
        {"label": "noise", "region": "CN", "plan": "a" * 64, "round": 3, "step": 5, "arrays": "b" * 64}
    )
    secret = hmac.digest(bytes(32), KEY.run_key, hashlib.sha256)
    key = hmac.digest(secret, info + b"\x01", hashlib.sha256)
    np.testing.assert_array_equal(KEY.stream("noise", 5).bits(16), Stream(key).bits(16))


@settings(deadline=None)
@given(count=st.integers(0, 50), block=st.integers(0, 2**20))
def test_a_stream_can_be_read_from_any_block(count, block):
    stream = KEY.stream("noise", 0)
    whole = stream.bits(2 * 30 + count, block=block)
    np.testing.assert_array_equal(stream.bits(count, block=block + 30), whole[60:])


OTHER_USES = {
    "label": lambda: KEY.stream("windows", 5),
    "step": lambda: KEY.stream("noise", 6),
    "region": lambda: replace(KEY, region="EU").stream("noise", 5),
    "round": lambda: replace(KEY, round=4).stream("noise", 5),
    "plan": lambda: replace(KEY, plan_hash="c" * 64).stream("noise", 5),
    "arrays": lambda: replace(KEY, arrays_sha256="c" * 64).stream("noise", 5),
    "run key": lambda: replace(KEY, run_key=bytes(32)).stream("noise", 5),
    "shifted": lambda: replace(KEY, region="CN3", round=5).stream("noise", 3),
}


def test_noise_of_two_uses_is_unrelated():
    values = {"itself": KEY.stream("noise", 5).normal(10_000)}
    values |= {name: make().normal(10_000) for name, make in OTHER_USES.items()}
    for one, other in combinations(values, 2):
        z = values[one] @ values[other] / 100
        assert abs(z) < 4.5, (one, other)
        assert not np.isin(values[one][:1000], values[other]).any(), (one, other)


def test_noise_is_normal():
    values = KEY.stream("noise", 1).normal(400_000)
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


def test_the_two_halves_of_a_pair_are_unrelated():
    values = KEY.stream("noise", 1).normal(65_536)
    first, second = values[:32_768], values[32_768:]
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
    top = 2**64 - 1
    assert Fixed(top, 0).normal(2).max() == pytest.approx(np.sqrt(2 * 53 * np.log(2)))
    assert Fixed(top, 2**63).normal(2).min() == pytest.approx(-np.sqrt(2 * 53 * np.log(2)))
    for radius in (0, 1, 2**11, 2**63, top):
        for angle in (0, 1, 2**62, 2**63, top):
            assert np.isfinite(Fixed(radius, angle).normal(2)).all()


def test_uniforms_stay_below_one():
    assert Fixed(2**64 - 1, 2**64 - 1).uniform(2).max() == 1 - 2**-53
    assert Fixed(0, 0).uniform(2).min() == 0


@pytest.mark.parametrize("count", [0, 1, 2, 3, 65_535, 65_536, 65_537, 131_071, 131_073])
def test_chunks_join_without_gap_or_repeat(count):
    values = KEY.stream("noise", 2).normal(count)
    assert values.shape == (count,)
    assert np.isfinite(values).all()
    assert len(np.unique(values)) == count
    whole = count - count % 65_536
    np.testing.assert_array_equal(KEY.stream("noise", 2).normal(200_000)[:whole], values[:whole])


@pytest.mark.parametrize("count", [1, 7, 65_536, 65_539])
def test_noise_is_the_formulas_to_the_bit(count):
    """Whatever makes it faster: the noise of a plan stays what it was, in every release."""
    wanted = []
    for start in range(0, count, 65_536):
        pairs = (min(65_536, count - start) + 1) // 2
        uniform = KEY.stream("noise", 4).uniform(2 * pairs, block=start // 2)
        radius, angle = np.sqrt(-2 * np.log1p(-uniform[:pairs])), 2 * np.pi * uniform[pairs:]
        wanted += [radius * np.cos(angle), radius * np.sin(angle)]
    np.testing.assert_array_equal(KEY.stream("noise", 4).normal(count), np.concatenate(wanted)[:count])


def test_chunks_use_the_keystream_once():
    """No two values may share keystream: the blocks asked for must not overlap."""
    spans = []

    class Watched(Stream):
        def bits(self, count: int, *, block: int = 0) -> np.ndarray:
            spans.append((block, block + -(-8 * count // randomness.BLOCK)))
            return super().bits(count, block=block)

    Watched(bytes(32)).normal(200_001)
    assert len(spans) == 4
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


@settings(deadline=None, max_examples=30)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_other_keys_give_other_streams(one, other):
    same = (Stream(one).bits(4) == Stream(other).bits(4)).all()
    assert same == (one == other)
