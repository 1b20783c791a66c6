"""The same entries, one a line, in a file that should lie on another disk than the ledger."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import IO

from fedfsd.errors import NotReadyError
from fedfsd.ledger.disk import sync_folder

RECOVER = "fedfsd region recover"


class Mirror:
    """The mirror file at ``path``; ``count`` entries in ``bytes`` bytes are known to be in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = self.bytes = 0
        self.late: list[bytes] = []
        """Entries that an earlier writer committed but could not bring here; they are here now."""

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

        A mirror whose disk is full stays behind: the ledger can be read, and nothing is written to it.

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
            with suppress(NotReadyError):
                self._append_late(missing)

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
            if self.count in added and self.count + len(added) > max(added):
                self._append([*added.values()])
            else:
                self._append_late([*entries_from(self.count)])

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

    def _append_late(self, contents: list[bytes]) -> None:
        self._append(contents)
        self.late += contents

    def _read_on(self, file: IO[bytes]) -> None:
        file.seek(self.bytes)
        tail = file.read()
        if self._size() < self.bytes:
            raise self._differs()
        self.count += tail.count(b"\n")
        self.bytes += tail.rfind(b"\n") + 1

    def _append(self, contents: list[bytes]) -> None:
        if not contents:
            return
        try:
            end = self._write(b"".join(content + b"\n" for content in contents))
        except OSError as error:
            raise self._behind(error) from None
        self.count, self.bytes = self.count + len(contents), end

    def _write(self, content: bytes) -> int:
        """Write at the end of what is known, in the place of an unfinished line; the new end."""
        end = self.bytes
        descriptor = os.open(self.path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, self.bytes)
            while content:
                written = os.pwrite(descriptor, content, end)
                content, end = content[written:], end + written
            os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, self.bytes)
            raise
        finally:
            os.close(descriptor)
        return end

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

    def _behind(self, error: OSError) -> NotReadyError:
        return NotReadyError(
            f"mirror {self.path}",
            got=f"{error.strerror}: entries from {self.count} on are in the ledger and not yet here",
            expected="a disk with room",
            hint="make room, then run the same command again: no entry is written twice",
        )

    def _differs(self) -> NotReadyError:
        return NotReadyError(
            f"mirror {self.path.name}",
            got="another history than the ledger's",
            expected="the same entries",
            hint="stop this region: one of the two files was changed",
        )


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    return (line[:-1] for line in file if line.endswith(b"\n"))
