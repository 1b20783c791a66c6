"""The folders that the commands of a region and a coordinator work on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RegionFolder = Annotated[Path, typer.Option("--region", "-r", metavar="FOLDER", help="The region's folder.")]
Train = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="The runner's folder; by default train/ of the region."),
]
CoordinatorFolder = Annotated[
    Path, typer.Option("--coordinator", "-C", metavar="FOLDER", help="The coordinator's folder.")
]
HERE = Path()
