"""Two hashes that entries carry: over the installed program, and over a run's secrets."""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import fedfsd
from fedfsd import canonical

_KEY_PREFIX, _BOTH_PREFIX = b"fedfsd/run-key/v1\n", b"fedfsd/run-key/v2\n"
_COINS_PREFIX = b"fedfsd/canaries/v1\n"


@lru_cache(maxsize=1)
def code() -> str:
    """Hex hash over every file of the installed package (FORMAT.md, section 9)."""
    package = Path(fedfsd.__file__).parent
    files = {
        path.relative_to(package).as_posix(): canonical.sha256(path.read_bytes())
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    return canonical.digest(files)


def key_commitment(run_key: bytes) -> str:
    """What a plan's entry says of its secret key and of its canaries' coins; 256 random bits hide each."""
    return opened_commitment(key_hash(run_key), coins_seed(run_key))


def key_hash(run_key: bytes) -> str:
    """The key's part of the commitment."""
    return hashlib.sha256(_KEY_PREFIX + run_key).hexdigest()


def coins_seed(run_key: bytes) -> bytes:
    """The secret of the coins, 32 bytes: it may be opened after the plan, and says nothing of the key."""
    return hmac.digest(run_key, _COINS_PREFIX, "sha256")


def coins_commitment(seed: bytes) -> str:
    """The coins' part of the commitment."""
    return hashlib.sha256(_COINS_PREFIX + seed).hexdigest()


def opened_commitment(key: str, seed: bytes) -> str:
    """What a plan's entry must say if these are the hash of its key and the secret of its coins."""
    parts = bytes.fromhex(key) + bytes.fromhex(coins_commitment(seed))
    return hashlib.sha256(_BOTH_PREFIX + parts).hexdigest()


def version() -> str:
    """The installed version, for people; ``code`` is what counts."""
    try:
        return metadata.version("fedfsd")
    except metadata.PackageNotFoundError:  # run from a folder that was never installed
        return "unknown"
