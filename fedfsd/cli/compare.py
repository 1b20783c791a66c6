"""``fedfsd compare``: several runs beside each other, and what all of them cost together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.extra import extra


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Where table and figure go.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Put run folders beside each other.

    Table and figure of utility against epsilon, per region, and what all the runs cost together.
    """
    with extra("simulation"), extra("pictures"):
        from fedfsd.simulation.compare import compare as work

        found = work(runs, output)
    return Answer(found, str(found))
