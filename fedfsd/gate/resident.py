"""The mark of a model that must not leave its region, and the refusal of everything that bears it.

A region's own model (``engine.resident``) was trained without noise. Its file says so among its metadata, and
whoever here reads weights to start from, to train or to send asks ``demand_shareable`` first. A copy without
the mark looks like any weights: the runner that made the model knows its values again when a plan wants to
start from them, and a model that was changed by one bit is known by nobody.

>>> is_marked(b"weights of a training with noise")
False
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedfsd.errors import RefusedError
from fedfsd.plan.plan import BLOCKS, Arrays

FILE, CARD = "resident.safetensors", "resident.json"
MARK = "fedfsd.resident"
_LENGTH, _MOST = 8, 100_000_000  # bytes of a safetensors file: its header's length, and the longest header


def is_marked(content: bytes | memoryview | Path) -> bool:
    """Whether a file, or bytes that begin like one, are a region's own model."""
    return MARK in _metadata(content)


def demand_shareable(content: bytes | memoryview | Path, *, place: str) -> None:
    """RefusedError for a region's own model. What is no file of weights at all is for others to refuse."""
    if is_marked(content):
        raise _refused(place, "a region's own model, trained without noise")


def weights_sha256(arrays: Arrays) -> str:
    """Of the trained values in their order, without blocks beside the model: little-endian float32."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        if name not in BLOCKS:
            digest.update(array.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def demand_other_start(folder: Path, arrays: Arrays) -> None:
    """RefusedError where a plan starts from the values of the own model in a runner's ``folder``.

    The sum is worked out in every region, so that the time it takes does not say which of them has one.
    """
    mine, card = weights_sha256(arrays), {}
    with suppress(OSError, ValueError):
        card = json.loads((folder / CARD).read_bytes())
    if card.get("weights_sha256") == mine:
        raise _refused("plan.model", "the values of this region's own model, trained without noise")


def _refused(place: str, got: str) -> RefusedError:
    return RefusedError(
        place,
        got=got,
        expected="weights that may leave a region",
        hint="use the model.safetensors of a run; delete every copy of the other outside its region",
    )


def _metadata(content: bytes | memoryview | Path) -> dict[str, Any]:
    """What a safetensors file says of itself; empty for anything else."""
    with suppress(OSError, ValueError, RecursionError):
        header = json.loads(_header(content))
        found = header.get("__metadata__") if isinstance(header, dict) else None
        return found if isinstance(found, dict) else {}
    return {}


def _header(content: bytes | memoryview | Path) -> bytes:
    if isinstance(content, Path):
        with content.open("rb") as file:
            return file.read(min(int.from_bytes(file.read(_LENGTH), "little"), _MOST))
    end = _LENGTH + min(int.from_bytes(content[:_LENGTH], "little"), _MOST)
    return bytes(content[_LENGTH:end]) if bytes(content[_LENGTH : _LENGTH + 1]) == b"{" else b""
