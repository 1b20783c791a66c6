"""Arrays and rows in unnamed files that stand for memory: the system may put any of it back onto the disk.

The files are in the folder for temporary ones (``TMPDIR``): a disk, and an encrypted one, as for the tables.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod

import numpy as np
import pyarrow as pa

from fedfsd.errors import NotReadyError


def zeros(shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """An array of zeros. NotReadyError where there is no room for it."""
    if 0 in shape:
        return np.zeros(shape, kind)
    with _room(), tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, prod(shape) * kind.itemsize)  # a full disk would end the process
        return np.memmap(file, kind, "r+", shape=shape)


def rows(parts: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """Rows of which one part at a time is in memory. NotReadyError where there is no room for them."""
    with _room(), tempfile.NamedTemporaryFile() as file:
        with pa.ipc.new_file(file, schema) as writer:
            for part in parts:
                writer.write_table(part.cast(schema))
        file.flush()
        return pa.ipc.open_file(pa.memory_map(file.name)).read_all()


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotReadyError(
            tempfile.gettempdir(),
            got=error.strerror or "a file that cannot be written",
            expected="room for the frames that are read",
            hint="set TMPDIR to a folder on a disk with more room",
        ) from None
