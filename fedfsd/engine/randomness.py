"""Secret randomness for everything that touches data: AES-256-CTR streams under HKDF keys.

One run key a plan, from the operating system; each use has a key of its own by label, region, plan,
round, step and the inbound arrays. torch's CPU generator is not used: its streams are told apart by
32 bits of seed only.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedfsd import canonical
from fedfsd.errors import NotReadyError

KEY_BYTES = 32
BLOCK = 16  # bytes of one AES block


@dataclass(frozen=True)
class RoundKey:
    """The run key bound to one round of one plan on one set of inbound arrays."""

    run_key: bytes
    region: str
    plan_hash: str
    round: int
    arrays_sha256: str

    def stream(self, label: str, step: int) -> Stream:
        """The stream for one purpose in one step."""
        return Stream(self.key(label, step))

    def key(self, label: str, step: int) -> bytes:
        """The key for one purpose in one step."""
        info = {
            "label": label,
            "region": self.region,
            "plan": self.plan_hash,
            "round": self.round,
            "step": step,
            "arrays": self.arrays_sha256,
        }
        key = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=_encoded(info))
        return key.derive(self.run_key)


def _encoded(info: dict[str, object]) -> bytes:
    """Canonical JSON: of plain names, hashes and counts, json's own is the same, and twenty times faster."""
    return json.dumps(info, sort_keys=True, separators=(",", ":")).encode()


class Stream:
    """A keyed stream of random bytes that can be read from any block on."""

    def __init__(self, key: bytes) -> None:
        self._algorithm = algorithms.AES(key)

    def bits(self, count: int, *, block: int = 0) -> np.ndarray:
        """``count`` uniform 64-bit integers starting at AES block ``block``, (count,) uint64."""
        encryptor = Cipher(self._algorithm, modes.CTR(block.to_bytes(BLOCK, "big"))).encryptor()
        return np.frombuffer(encryptor.update(bytes(8 * count)), dtype="<u8")

    def uniform(self, count: int, *, block: int = 0) -> np.ndarray:
        """``count`` values in [0, 1) with 53 random bits, (count,) float64."""
        upper = self.bits(count, block=block) >> np.uint64(11)
        values = upper.view(np.int64).astype(np.float64)  # processors convert signed numbers faster
        values *= 2.0**-53
        return values


def run_key(folder: Path, plan_hash: str, *, create: bool = True) -> bytes:
    """The secret run key of a plan (a file of mode 0600).

    Args:
        create: make it from the operating system's entropy where there is none: when the plan is approved
            and the key committed to. Training only reads it.

    Raises:
        NotReadyError: no key, or a damaged one.
    """
    path = folder / f"{plan_hash}.key"
    folder.mkdir(parents=True, exist_ok=True)
    if create and not path.exists():
        # A link appears whole or not at all: a crash must never leave a short, guessable key.
        descriptor, part = tempfile.mkstemp(dir=folder, prefix=path.name)  # mode 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(part, path)
        os.unlink(part)
    key = path.read_bytes() if path.exists() else b""
    if len(key) != KEY_BYTES or not any(key):  # zeros: its destruction was cut off
        raise NotReadyError(
            path.name,
            got=f"{len(key)} bytes" if any(key) else "no key",
            expected=f"{KEY_BYTES} bytes",
            hint="this plan cannot be continued: start a new run",
        )
    return key


def destroy_run_key(folder: Path, plan_hash: str) -> None:
    """Destroy the run key once the plan is settled: whoever held it could take the noise off again.

    Its bytes are overwritten before its name goes. What a copying file system, a snapshot or a drive's own
    reserve still has of them is beyond this program: keep such folders on an encrypted disk.
    """
    for path in folder.glob(f"{plan_hash}.key*"):  # with the parts that a crash may have left
        with suppress(FileNotFoundError):
            with path.open("r+b") as file:
                file.write(bytes(max(KEY_BYTES, os.fstat(file.fileno()).st_size)))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()


def known_key(plan_hash: str, noise_key: str | None) -> bytes:
    """The key of a rehearsal: ``noise_key`` (hex) or one anybody can derive from the plan."""
    return bytes.fromhex(noise_key or canonical.digest({"rehearsal": plan_hash}))
