"""``fedfsd clean``: what a run folder should not be handed on with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.extra import extra
from fedfsd.plain_text import plain


def clean(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    ledgers: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the regions' ledgers are kept; in the run if left out."),
    ] = None,
    _json: Json = False,
) -> Answer:
    """Destroy run keys and recorded windows.

    An interrupted run cannot be resumed afterwards. Its regions' other keys, ledgers and outboxes stay: of a
    run folder hand on what its README.md names.
    """
    with extra("simulation"):
        from fedfsd.simulation.clean import clean as work

        done = {str(run): work(run, ledgers) for run in runs}
    text = [
        f"{plain(run)}: {one.keys} run key{'' if one.keys == 1 else 's'} destroyed, "
        f"{'test windows removed' if one.windows else 'no test windows there'}"
        for run, one in done.items()
    ]
    return Answer({"runs": {run: asdict(one) for run, one in done.items()}}, "\n".join(text))
