"""Arrays on disk by the hash of their canonical bytes: what three regions start from is kept once."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fedfsd.errors import RefusedError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.ledger.disk import sync_folder, unwritable
from fedfsd.plan.plan import Arrays, ArraySchema

_BLOCK = 2**20


class Shelf:
    """Files named by their SHA-256 in ``folder``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def path(self, sha256: str) -> Path:
        """The path of the bytes with that hash."""
        return self._folder / sha256

    def put(self, arrays: Arrays, schema: Sequence[ArraySchema]) -> str:
        """Keep checked arrays durably; the hex SHA-256 of their canonical bytes. No copy is made of them.

        Raises:
            NotReadyError: the disk is full or cannot be written.
        """
        path = self.path(gate_arrays.sha256(arrays, schema))
        if path.exists():
            return path.name
        draft = path.with_name(path.name + ".draft")
        try:
            with draft.open("wb") as file:
                for part in gate_arrays.parts(arrays, schema):
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            sync_folder(self._folder)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise unwritable(path, error) from None
        return path.name

    def keep(self, only: Collection[str]) -> None:
        """Forget everything but these hashes."""
        for path in self._folder.iterdir():
            if path.name not in only:
                path.unlink(missing_ok=True)


def size_of(schema: Sequence[ArraySchema]) -> int:
    """Canonical bytes of arrays of that schema."""
    return 4 * sum(entry.size for entry in schema)


def hash_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


def arrays_in(path: Path, schema: Sequence[ArraySchema]) -> dict[str, np.ndarray]:
    """The arrays in a file of canonical bytes, read as they are looked at. A wrong length: RefusedError."""
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise RefusedError("release", got="an empty file", expected="arrays") from None
    return gate_arrays.view(content, schema)


class Filed(Mapping[str, np.ndarray]):
    """The arrays in such a file, mapped on demand: memory has only the arrays in use."""

    def __init__(self, path: Path, schema: Sequence[ArraySchema]) -> None:
        self._path, self._schema = path, tuple(schema)

    def __getitem__(self, name: str) -> np.ndarray:
        return arrays_in(self._path, self._schema)[name]

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in self._schema)

    def __len__(self) -> int:
        return len(self._schema)
