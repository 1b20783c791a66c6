"""ChaCha20 by torch: the RFC's blocks, another library's, and the function that CUDA compiles."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st
from setting import examples

from fedfsd.engine import chacha
from fedfsd.engine.chacha import Stream
from fedfsd.errors import NotReadyError

CPU = torch.device("cpu")
KEYS = st.binary(min_size=32, max_size=32)

# RFC 8439, appendix A.1, vectors 1 to 3: key, counter, block; the nonce is zero.
VECTORS = (
    (
        bytes(32),
        0,
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    (
        bytes(32),
        1,
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    (
        bytes(31) + b"\x01",
        1,
        "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
        "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
    ),
)


def keystream(key: bytes, count: int, block: int) -> bytes:
    """8 ``count`` bytes, by OpenSSL."""
    nonce = block.to_bytes(4, "little") + bytes(12)
    return Cipher(algorithms.ChaCha20(key, nonce), None).encryptor().update(bytes(8 * count))


def made(key: bytes, count: int, block: int = 0) -> bytes:
    return Stream(key, CPU).bits(count, block=block).numpy().astype("<i8").tobytes()


@pytest.mark.parametrize(("key", "counter", "block"), VECTORS)
def test_blocks_are_the_rfcs(key, counter, block):
    assert made(key, 8, counter).hex() == block


@settings(deadline=None, max_examples=examples(25))
@given(key=KEYS, count=st.integers(0, 200), block=st.integers(0, 2**32 - 30))
def test_the_keystream_is_openssls_from_any_block(key, count, block):
    assert made(key, count, block) == keystream(key, count, block)


def test_a_stream_does_not_begin_again():
    """Its counter has 32 bits: no value may repeat the keystream of another."""
    assert len(made(bytes(32), 8, 2**32 - 1)) == 64
    with pytest.raises(ValueError, match="blocks"):
        Stream(bytes(32), CPU).bits(9, block=2**32 - 1)


def test_a_device_that_computes_something_else_is_refused(monkeypatch):
    """Whole numbers that do not wrap, or another cipher, must not become noise."""
    monkeypatch.setattr(chacha, "operations", lambda counters, _: torch.zeros(len(counters), 8).long())
    with pytest.raises(NotReadyError) as caught:
        chacha.blocks_of.__wrapped__(CPU)
    assert "RFC 8439" in str(caught.value)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler to try the function of CUDA with")
def test_the_function_that_cuda_compiles_is_the_same_cipher(tmp_path):
    source = chacha._compiled().code_string + (
        """
extern "C" void block(long counter, const long* k, long* o) {
    chacha20<long>(counter, k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7],
                   o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]);
}
"""
    )
    (tmp_path / "chacha.cpp").write_text(source)
    library = tmp_path / "chacha.so"
    command = ["g++", "-shared", "-fPIC", "-w", "-o", library, tmp_path / "chacha.cpp"]
    subprocess.run(command, check=True)
    function = ctypes.CDLL(str(library)).block
    for key, counter in ((bytes(range(200, 232)), 0), (bytes([255] * 32), 2**32 - 1)):
        words = np.frombuffer(key, "<u4").astype(np.int64)
        out = np.empty(8, np.int64)
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (words, out))
        function(ctypes.c_long(counter), *pointers)
        assert out.tobytes() == keystream(key, 8, counter)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
def test_cuda_makes_the_same_keystream():
    device = torch.device("cuda")
    counters = torch.arange(2**32 - 5000, 2**32, device=device)
    key = tuple(range(2**32 - 8, 2**32))
    wanted = chacha.operations(counters.cpu(), key)
    for make in (chacha.operations, chacha.fused):
        assert torch.equal(make(counters, key).cpu(), wanted)
