"""Keys and streams: published vectors, independent of each other."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from setting import examples

from fedfsd import canonical
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


def test_uniforms_have_53_bits_and_stay_below_one():
    stream = KEY.stream("windows", 1)
    wanted = [(int(bits) >> 11) / 2**53 for bits in stream.bits(1000, block=5)]
    assert stream.uniform(1000, block=5).tolist() == wanted
    assert Fixed(2**64 - 1).uniform(2).max() == 1 - 2**-53
    assert Fixed(0).uniform(2).min() == 0


class Fixed(Stream):
    """A stream of one 64-bit value."""

    def __init__(self, value: int) -> None:
        super().__init__(bytes(32))
        self.value = value

    def bits(self, count: int, *, block: int = 0) -> np.ndarray:
        return np.full(count, self.value, np.uint64)


@settings(deadline=None, max_examples=examples(30))
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_other_keys_give_other_streams(one, other):
    same = (Stream(one).bits(4) == Stream(other).bits(4)).all()
    assert same == (one == other)
