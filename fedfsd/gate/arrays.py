"""Arrays against their schema, and their one canonical byte string."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from mmap import mmap

import numpy as np

from fedfsd.errors import RefusedError
from fedfsd.plan.plan import Arrays, ArraySchema


def check(arrays: Arrays, schema: Sequence[ArraySchema], *, max_magnitude: float = np.inf) -> None:
    """Refuse arrays that differ from ``schema`` in names, order, shapes or dtypes, or are not finite.

    Raises:
        RefusedError: names the first array that differs, never its values.
    """
    names = [array.name for array in schema]
    if list(arrays) != names:
        raise RefusedError(
            "arrays",
            got=f"{len(arrays)} arrays, not the plan's names in order",
            expected=f"{len(names)} arrays of the plan",
            hint="send the arrays of the plan's model",
        )
    for entry in schema:
        array = arrays[entry.name]
        if array.dtype != np.dtype(entry.dtype) or array.shape != entry.shape:
            raise RefusedError(
                f"array {entry.name}",
                got=f"{array.dtype} {array.shape}",
                expected=f"{entry.dtype} {entry.shape}",
                hint="send the arrays of the plan's model",
            )
        # min and max carry NaN, and unlike isfinite they allocate nothing.
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        if not (np.isfinite(low) and np.isfinite(high) and max(-low, high) <= max_magnitude):
            raise RefusedError(
                f"array {entry.name}",
                got="a value that is not finite or too large",
                expected=f"finite values up to {max_magnitude:g}",
            )


def to_bytes(arrays: Arrays, schema: Sequence[ArraySchema]) -> bytes:
    """The elements in schema order as little-endian float32, and nothing else."""
    return b"".join(parts(arrays, schema))


def content(arrays: Arrays, schema: Sequence[ArraySchema]) -> bytes | memoryview:
    """``to_bytes`` without a copy where the arrays lie one behind the other in one buffer."""
    flat = arrays[schema[0].name].base if schema else None
    if not isinstance(flat, np.ndarray) or flat.dtype != np.dtype("<f4") or not flat.flags.c_contiguous:
        return to_bytes(arrays, schema)
    place = flat.ctypes.data
    for entry in schema:
        array = arrays[entry.name]
        if array.base is not flat or array.ctypes.data != place or not array.flags.c_contiguous:
            return to_bytes(arrays, schema)
        place += array.nbytes
    return flat.reshape(-1).view(np.uint8).data[: place - flat.ctypes.data].toreadonly()


def parts(arrays: Arrays, schema: Sequence[ArraySchema]) -> list[memoryview]:
    """``to_bytes`` in pieces, without a copy if the arrays already have this layout."""
    found = (np.ascontiguousarray(arrays[entry.name], dtype="<f4") for entry in schema)
    return [array.reshape(-1).view(np.uint8).data for array in found]


def view(content: bytes | memoryview | mmap, schema: Sequence[ArraySchema]) -> dict[str, np.ndarray]:
    """The arrays back from ``to_bytes``, as views of ``content``. A wrong length: RefusedError."""
    return _split(_flat(content, schema).astype(np.float32, copy=False), schema)


def sha256(arrays: Arrays, schema: Sequence[ArraySchema]) -> str:
    """Hex SHA-256 of the canonical bytes."""
    digest = hashlib.sha256()
    for part in parts(arrays, schema):
        digest.update(part)
    return digest.hexdigest()


def _flat(content: bytes | memoryview | mmap, schema: Sequence[ArraySchema]) -> np.ndarray:
    expected = 4 * sum(entry.size for entry in schema)
    if len(content) != expected:
        raise RefusedError("release", got=f"{len(content)} bytes", expected=f"{expected} bytes")
    return np.frombuffer(content, dtype="<f4")


def _split(flat: np.ndarray, schema: Sequence[ArraySchema]) -> dict[str, np.ndarray]:
    ends = np.cumsum([entry.size for entry in schema])
    found = zip(schema, np.split(flat, ends[:-1]), strict=True)
    return {entry.name: part.reshape(entry.shape) for entry, part in found}
