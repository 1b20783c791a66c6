"""``fedfsd data generate``: a table of traffic that nobody drove."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.destination import Output, checked
from fedfsd.plain_text import plain

_REGIONS = ("CN", "EU", "US", "SG")


def generate(
    output: Output,
    regions: Annotated[
        list[str] | None,
        typer.Option("--region", metavar="REGION", help="A region with a traffic profile; repeatable."),
    ] = None,
    vehicles: Annotated[int, typer.Option(metavar="N", help="Vehicles in each region.")] = 700,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal tables.")] = 1,
    _json: Json = False,
) -> Answer:
    """Generate simulated traffic.

    Of CN, EU, US and SG, or of the regions named. Needs the extra "generate".
    """
    checked(output, ".parquet")
    from fedfsd.drive import table, traffic

    made = traffic.generate(
        tuple(regions or _REGIONS),
        vehicles=vehicles,
        seed=seed,
        progress=_progress if sys.stderr.isatty() else None,
    )
    table.write(made, output)
    document = {"file": str(output), "rows": made.rows.num_rows, "regions": list(made.regions)}
    return Answer(document, f"{plain(output)}: {made.rows.num_rows} rows of {', '.join(made.regions)}")


def _progress(region: str, done: int, of: int) -> None:
    print(f"\r{region} {done}/{of}", end="\n" if done == of else "", file=sys.stderr, flush=True)
