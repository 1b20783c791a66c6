"""A data set's label bound to its content: the ledger has a salted commitment, this region what opens it."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from fedfsd import canonical
from fedfsd.errors import DataError

SALT_BYTES = 32
_PREFIX = b"fedfsd/data-set/v1\n"


def commit(folder: Path, label: str, data: Path | None) -> str:
    """The commitment to ``label`` and to the files of ``data``, a table or a folder of tables.

    The opening (label, salt, SHA-256 of each file) stays in a new file of ``folder``, mode 0600;
    without the salt the commitment reveals nothing about the data.

    Raises:
        DataError: no table in ``data``.
    """
    opening = canonical.encode(
        {"data_set": label, "salt": secrets.token_hex(SALT_BYTES), "files": _files(data) if data else {}}
    )
    commitment = hashlib.sha256(_PREFIX + opening).hexdigest()
    path = folder / f"{commitment[:16]}.json"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(opening)
        file.flush()
        os.fsync(file.fileno())
    return commitment


def _files(data: Path) -> dict[str, str]:
    paths = sorted(data.glob("*.parquet")) if data.is_dir() else [data] if data.is_file() else []
    if not paths:
        raise DataError(
            str(data),
            got="no *.parquet file" if data.is_dir() else "no such file",
            expected="a table or a folder of tables",
            hint="leave --data out to commit to the label alone",
        )
    found = {}
    for path in paths:
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
