"""Released updates as files in a folder, found by the hash of their content, whatever they are called."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

MAX_UPDATE = 2**34
"""Bytes of a file that may be an update."""


@dataclass(frozen=True)
class Updates:
    """The files below ``folder``."""

    folder: Path
    _hashes: dict[int, dict[str, Path]] = field(default_factory=dict)
    """By size, which is all that is read of a file that no release has."""

    def find(self, sha256: str, size: int) -> Path | None:
        """The file with that content."""
        if size not in self._hashes and size <= MAX_UPDATE:
            files = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
            self._hashes[size] = {_hash(path): path for path in files if path.stat().st_size == size}
        return self._hashes.get(size, {}).get(sha256)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
