"""Where a result goes, checked before the work that makes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fedfsd.errors import NotReadyError

Output = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write.")]


def checked(path: Path, *suffixes: str) -> Path:
    """``path``, where it can be written and its name ends in one of ``suffixes`` (NotReadyError)."""
    if path.suffix.lower() not in suffixes:
        raise NotReadyError(
            str(path),
            got=f"the ending {path.suffix or 'none'}",
            expected=" or ".join(suffixes),
            hint=f"name it {path.stem}{suffixes[0]}",
        )
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise NotReadyError(
            str(path),
            got="a folder" if path.is_dir() else "no writable folder",
            expected="a file in a folder that exists",
            hint="choose another -o",
        )
    return path
