"""Arrays and rows in unnamed files that stand for memory: the system may put any of it back onto the disk.

The files are in the folder for temporary ones (``TMPDIR``), which should be on a disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

import numpy as np
import pyarrow as pa


def zeros(shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """An array of zeros."""
    if 0 in shape:
        return np.zeros(shape, kind)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, kind, "w+", shape=shape)


def rows(parts: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """Rows of which one part at a time is in memory."""
    with tempfile.NamedTemporaryFile() as file:
        with pa.ipc.new_file(file, schema) as writer:
            for part in parts:
                writer.write_table(part.cast(schema))
        file.flush()
        return pa.ipc.open_file(pa.memory_map(file.name)).read_all()
