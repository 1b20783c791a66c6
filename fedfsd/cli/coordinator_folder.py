"""The option that the commands of ``fedfsd coordinator`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[
    Path, typer.Option("--coordinator", "-C", metavar="FOLDER", help="The coordinator's folder.")
]
HERE = Path()
