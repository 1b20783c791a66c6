"""What the test sink has written: a file a process, a line of facts before each content."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Record:
    """One thing that one end sent or received: ``kind`` is request, reply, metadata or status."""

    side: str
    method: str
    kind: str
    call: int
    content: bytes


class Recorder:
    """Appends records to a file in ``folder`` that only this object writes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = folder / f"{os.getpid()}-{os.urandom(4).hex()}.border"
        self._file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._numbers, self._lock = itertools.count(1), threading.Lock()

    def call(self, side: str, method: str) -> Callable[[str, bytes], None] | None:
        """What writes the records of one call, or None for calls that do not cross the border."""
        if method.startswith("/flwr."):
            return None
        number = next(self._numbers)

        def write(kind: str, content: bytes) -> None:
            head = json.dumps([side, method, kind, number, len(content)]).encode() + b"\n"
            left = memoryview(head + content)
            with self._lock:
                while left:
                    left = left[os.write(self._file, left) :]

        return write

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)


def read(folder: Path) -> list[Record]:
    """Everything recorded in ``folder``; of a process that was killed, up to its last whole record."""
    records = []
    for number, path in enumerate(sorted(folder.glob("*.border"))):
        content, at = path.read_bytes(), 0
        while (end := content.find(b"\n", at)) >= 0:
            side, method, kind, call, size = json.loads(content[at:end])
            at = end + 1 + size
            if at > len(content):
                break
            records.append(Record(side, method, kind, number << 32 | call, content[end + 1 : at]))
    return records


def streams(records: list[Record]) -> Iterator[tuple[str, list[bytes]]]:
    """(what it is, contents): the records of one kind, call by call and then over all calls of a method."""
    for key in (
        lambda one: (one.side, one.method, one.kind, one.call),
        lambda one: (one.side, one.method, one.kind),
    ):
        groups: dict[tuple[Any, ...], list[bytes]] = {}
        for record in records:
            groups.setdefault(key(record), []).append(record.content)
        for parts, contents in groups.items():
            yield " ".join(map(str, parts[:3])), contents
