"""The arrays that a round starts from, fetched into a file, so that an interrupted transfer resumes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import grpc

from fedfsd.border import wire
from fedfsd.node.line import CoordinatorLine

LEAST_PROGRESS = 65_536
"""Bytes that one stream must bring at least, unless it comes to the end."""


def fetch(line: CoordinatorLine, folder: Path, *, sha256: bytes, size: int) -> Path:
    """The file in ``folder`` with those ``size`` bytes; any other file there is removed.

    Raises:
        WireError: the coordinator sends other bytes, more of them, or next to none.
        grpc.RpcError: the connection fails; what came is kept.
        OSError: a full disk.
    """
    path = folder / sha256.hex()
    for other in folder.iterdir():
        if other.name not in (path.name, f"{path.name}.part"):
            other.unlink()
    if path.exists():
        if _sha256(path) == sha256:
            return path
        path.unlink()  # a power cut between the name and the bytes, or a bad disk
    part = folder / f"{path.name}.part"
    while (there := _offset(part, size)) < size:
        _stream(line, part, sha256, there, size)
        if _offset(part, size) < min(there + LEAST_PROGRESS, size):
            raise _wrong("a stream without progress", f"at least {LEAST_PROGRESS} bytes")
    if _sha256(part) != sha256:
        part.unlink()
        raise _wrong("bytes with a different SHA-256", "the announced one")
    return part.replace(path)


def _stream(line: CoordinatorLine, part: Path, sha256: bytes, there: int, size: int) -> None:
    """Append what one stream brings."""
    try:
        with part.open("ab") as file:
            for chunk in line.fetch(sha256, there):
                if chunk.sha256 != sha256 or chunk.offset != there:
                    raise _wrong("an unexpected chunk", "the next one")
                if there + len(chunk.content) > size:
                    raise _wrong("more bytes than announced", f"{size} bytes")
                file.write(chunk.content)
                there += len(chunk.content)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            raise


def _offset(part: Path, size: int) -> int:
    """How much is there; more than there can be is thrown away."""
    there = part.stat().st_size if part.exists() else 0
    if there > size:
        part.unlink()
        return 0
    return there


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _wrong(got: str, expected: str) -> wire.WireError:
    return wire.WireError("arrays", got=got, expected=expected)
