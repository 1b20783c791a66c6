"""Two hashes that entries carry: over the installed program, and over a run's secret key."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import fedfsd
from fedfsd import canonical

_KEY_PREFIX = b"fedfsd/run-key/v1\n"


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
    """What a plan's entry says of its secret key; the key's 256 random bits hide it."""
    return hashlib.sha256(_KEY_PREFIX + run_key).hexdigest()


def version() -> str:
    """The installed version, for people; ``code`` is what counts."""
    try:
        return metadata.version("fedfsd")
    except metadata.PackageNotFoundError:  # run from a folder that was never installed
        return "unknown"
