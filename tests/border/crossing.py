"""Did anything raw cross? Everything that was recorded, whole and field by field, against the canaries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from border import canary, recorder


def found(folder: Path, needles: canary.Needles) -> list[str]:
    """What of ``needles`` is in the recording in ``folder``, and where; empty where all is well."""
    search = canary.Search(needles)
    hits: dict[str, None] = {}
    for where, contents in recorder.streams(recorder.read(folder)):
        for content in _joined(where, contents):
            hits.update((f"{hit}: {where}", None) for hit in search(content))
    return list(hits)


def _joined(where: str, contents: list[bytes]) -> Iterator[bytes]:
    """The contents of one stream in a row, and field by field where they are messages."""
    yield b"\n".join(contents)
    if where.endswith(("request", "reply")):
        yield from canary.fields(contents)
