"""What an import keeps on disk so that it needs little memory: unnamed files, gone with the process.

``Spool`` keeps rows in the order in which they came, for a second look. ``Parts`` brings the rows of one
owner together that lie anywhere in a file. Both stay in memory while they are small.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa

from fedfsd.drive.reader.drive import COMPRESSED, MAX_BYTES, damaged, too_large

# Bytes that are kept in memory before a file is used.
HELD = 128 * 2**20
# Parts into which more than that is spread: as many as keep each well below it, within these bounds.
FEWEST, MOST = 4, 128
# How many times larger a compressed file may be expected to be.
_UNPACKED = 8
# How many times larger one may be: recordings have noise.
MOST_UNPACKED = 200
_CHUNK = 2**20


class Spool:
    """Batches of rows with one schema, read again in the order in which they were added."""

    def __init__(self, folder: Path | None, *, held: int = HELD) -> None:
        made = (
            tempfile.SpooledTemporaryFile(max_size=held, dir=None if folder is None else str(folder))  # noqa: SIM115 - closed by __exit__
            if held
            else tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        )
        self._file: Any = made
        self._writer: pa.RecordBatchStreamWriter | None = None

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        self._file.close()

    def add(self, rows: pa.RecordBatch) -> None:
        """Append a batch."""
        if self._writer is None:
            self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), rows.schema)
        self._writer.write_batch(rows)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """All batches; nothing can be added afterwards."""
        if self._writer is None:
            return
        self._writer.close()
        self._file.seek(0)
        yield from pa.ipc.open_stream(pa.PythonFile(self._file, "r"))


class Parts:
    """Rows of a file spread by their owner: all rows of one are in one part, in the order of the file."""

    def __init__(self, path: Path, folder: Path | None) -> None:
        expected = path.stat().st_size * (_UNPACKED if _codec(path) else 1)
        self._count = min(max(4 * expected // HELD, FEWEST), MOST)
        self._folder = folder
        self._whole: list[tuple[pa.Table, np.ndarray]] = []
        self._size = 0
        self._spools: list[Spool] = []
        self._waiting: list[list[pa.Table]] = []
        self._waits = [0] * self._count  # bytes that wait

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *error: object) -> None:
        for spool in self._spools:
            spool.__exit__(*error)

    def add(self, rows: pa.Table, names: pa.Array, owner: np.ndarray) -> None:
        """Take rows, (R,), and the number of each one's owner, (R,), among the owners' names."""
        part = np.array([crc32(name.encode()) % self._count for name in names.to_pylist()], np.int16)
        self._whole.append((rows, part[owner]))
        self._size += rows.nbytes
        if self._size > HELD and not self._spools:
            self._spools = [Spool(self._folder, held=0) for _ in range(self._count)]
            self._waiting = [[] for _ in range(self._count)]
        if self._spools:
            self._spread()

    def __iter__(self) -> Iterator[pa.Table]:
        """Each part with rows; while all of it is small, that is one."""
        if not self._spools and self._whole:
            yield pa.concat_tables([rows for rows, _ in self._whole])
        for number, spool in enumerate(self._spools):
            self._write(number)
            if batches := list(spool):
                yield pa.Table.from_batches(batches)

    def _spread(self) -> None:
        """Give each part its rows, which are written once there are enough of them."""
        while self._whole:  # the memory of one is the next one's
            rows, part = self._whole.pop(0)
            order = np.argsort(part, kind="stable")
            ordered = rows.take(pa.array(order))
            bounds = np.searchsorted(part[order], np.arange(self._count + 1))
            for number in np.flatnonzero(np.diff(bounds)).tolist():
                self._waiting[number].append(
                    ordered.slice(bounds[number], bounds[number + 1] - bounds[number])
                )
                self._waits[number] += self._waiting[number][-1].nbytes
                if self._waits[number] > HELD // self._count:
                    self._write(number)

    def _write(self, number: int) -> None:
        if self._waiting[number]:
            rows = pa.concat_tables(self._waiting[number]).unify_dictionaries()
            for batch in rows.combine_chunks().to_batches():
                self._spools[number].add(batch)
            self._waiting[number], self._waits[number] = [], 0


@contextmanager
def unpacked(path: Path, folder: Path | None) -> Iterator[Path]:
    """``path`` itself; for a compressed file an unpacked copy with the same ending, removed afterwards.

    Raises:
        DataError: not a readable file, empty, or compressed and damaged.
    """
    with opened(path) as take:
        if not (first := take(_CHUNK)):
            raise damaged(path, "an empty file", "a recording")
        if _codec(path) is None:
            yield path
            return
        with tempfile.NamedTemporaryFile(dir=folder, suffix=path.with_suffix("").suffix) as copy:
            while first:
                copy.write(first)
                first = take(_CHUNK)
            copy.flush()
            yield Path(copy.name)


def content(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of one small file, unpacked.

    Raises:
        DataError: not a readable file, empty, damaged, or larger than ``limit`` bytes (unpacked).
    """
    with opened(path) as take:
        found = take(limit + 1)
    if len(found) > limit:
        raise too_large(path, f"more than {limit} bytes", limit)
    if not found:
        raise damaged(path, "an empty file", "a recording")
    return found


@contextmanager
def opened(path: Path) -> Iterator[Callable[[int], bytes]]:
    """A function that takes the next bytes of a file, of a compressed one unpacked; fewer only at its end.

    Raises:
        DataError: not a readable file, or compressed and damaged, or so that it grows without bounds.
    """
    codec = _codec(path)
    left = max(HELD, MOST_UNPACKED * path.stat().st_size)
    with path.open("rb") as file:
        stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), codec) if codec else file

        def take(count: int) -> bytes:
            nonlocal left
            try:
                found: bytes = stream.read(count)
            except (pa.ArrowInvalid, OSError):
                what = f"a {codec} file that is cut short or damaged" if codec else "no readable file"
                raise damaged(path, what, "a whole one") from None
            left -= len(found) if codec else 0
            if left < 0:
                what = f"a {codec} file that unpacks to over {MOST_UNPACKED} times its size"
                raise damaged(path, what, "a recording")
            return found

        yield take


def _codec(path: Path) -> str | None:
    """How a file is compressed as a whole."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise FileNotFoundError
        with path.open("rb") as file:
            head = file.read(4)
    except OSError:
        raise damaged(path, "no readable file", "a recording") from None
    return next((codec for magic, codec in COMPRESSED.items() if head.startswith(magic)), None)
