"""The same entries, one a line, in a file that should lie on another disk than the ledger."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import IO

from fedfsd.errors import NotReadyError
from fedfsd.ledger.disk import sync_folder, unwritable

RECOVER = "fedfsd region recover"


class Mirror:
    """The mirror file at ``path``; ``count`` entries in ``bytes`` bytes are known to be in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = self.bytes = 0

    @classmethod
    def create(cls, path: Path) -> None:
        """An empty mirror in a folder that exists. NotReadyError where there is one already."""
        try:
            path.open("xb").close()
            sync_folder(path.parent)
        except OSError as error:
            raise NotReadyError(
                f"mirror {path.name}", got=error.strerror, expected="a new file in a writable folder"
            ) from None

    def begin(self, entries: Iterable[bytes]) -> None:
        """Compare with all ``entries`` of the ledger, which nobody may write meanwhile.

        Raises:
            NotReadyError: no mirror, another history, or a mirror that is ahead of the ledger.
        """
        with self._locked() as file:
            missing = []
            for content, line in zip_longest(entries, _whole_lines(file)):
                if content is None:
                    raise self.ahead()
                if line is None:
                    missing.append(content)
                elif line != content:
                    raise self._differs()
                else:
                    self.count, self.bytes = self.count + 1, self.bytes + len(line) + 1
            self._append(file, missing)

    def refresh(self) -> None:
        """Count what other processes have appended."""
        if self._size() != self.bytes:
            with self._locked() as file:
                self._read_on(file)

    def catch_up(self, added: Mapping[int, bytes], entries_from: Callable[[int], Iterable[bytes]]) -> None:
        """Append, synced, the entries just ``added`` by number, and whatever else the mirror lacks."""
        with self._locked() as file:
            if self._size() != self.bytes:
                self._read_on(file)
            following = self.count in added and self.count + len(added) > max(added)
            self._append(file, [*added.values()] if following else [*entries_from(self.count)])

    def lines(self) -> list[bytes]:
        """Every entry in the mirror; an unfinished last line was never acknowledged."""
        with self._locked() as file:
            return list(_whole_lines(file))

    def ahead(self) -> NotReadyError:
        """The ledger has fewer entries than its mirror: it was put back to an older state."""
        return NotReadyError(
            "ledger",
            got="fewer entries than its mirror",
            expected="the newest copy: an older one would forget what was spent",
            hint=RECOVER,
        )

    def _read_on(self, file: IO[bytes]) -> None:
        file.seek(self.bytes)
        tail = file.read()
        if self._size() < self.bytes:
            raise self._differs()
        self.count += tail.count(b"\n")
        self.bytes += tail.rfind(b"\n") + 1

    def _append(self, file: IO[bytes], contents: list[bytes]) -> None:
        if not contents:
            return
        try:
            if self._size() != self.bytes:  # an unfinished line of a writer that died
                file.truncate(self.bytes)
            file.seek(self.bytes)
            file.write(b"".join(content + b"\n" for content in contents))
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from None
        self.count, self.bytes = self.count + len(contents), file.tell()

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        try:
            file = self.path.open("r+b")
        except OSError as error:
            raise NotReadyError(
                f"mirror {self.path.name}", got=error.strerror, expected="the ledger's mirror", hint=RECOVER
            ) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return -1  # and the next opening says why

    def _differs(self) -> NotReadyError:
        return NotReadyError(
            f"mirror {self.path.name}",
            got="another history than the ledger's",
            expected="the same entries",
            hint="stop this region: one of the two files was changed",
        )


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    return (line[:-1] for line in file if line.endswith(b"\n"))
