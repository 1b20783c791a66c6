"""``fedfsd data generate``: a table of traffic that nobody drove."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.destination import Output, checked
from fedfsd.cli.extra import extra
from fedfsd.plain_text import plain


class TaskOption(StrEnum):
    """What the table is for."""

    forecasting = "forecasting"
    camera = "camera"


_REGIONS = ("CN", "EU", "US", "SG")


def generate(
    output: Output,
    regions: Annotated[
        list[str] | None,
        typer.Option("--region", metavar="REGION", help="A region with a traffic profile; repeatable."),
    ] = None,
    vehicles: Annotated[int, typer.Option(metavar="N", help="Vehicles in each region.")] = 700,
    task: Annotated[
        TaskOption, typer.Option(help="Tracks for forecasting, or drives of fleet cars with a camera.")
    ] = TaskOption.forecasting,
    frames: Annotated[int, typer.Option(metavar="N", help="Frames of each fleet car.")] = 6,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal tables.")] = 1,
    _json: Json = False,
) -> Answer:
    """Generate simulated traffic.

    Of CN, EU, US and SG, or of the regions named. Tracks need the extra "generate"; a fleet with cameras
    has the regions public and generic, too.
    """
    checked(output, ".parquet")
    chosen, progress = tuple(regions or _REGIONS), _progress if sys.stderr.isatty() else None
    if task == TaskOption.camera:
        with extra("training"):
            from fedfsd.task.camera import fleet
        rows = fleet.write(output, chosen, cars=vehicles, frames=frames, seed=seed, progress=progress)
    else:
        from fedfsd.drive import table, traffic

        made = traffic.generate(chosen, vehicles=vehicles, seed=seed, progress=progress)
        table.write(made, output)
        rows, chosen = made.rows.num_rows, made.regions
    document = {"file": str(output), "rows": rows, "regions": list(chosen)}
    return Answer(document, f"{plain(output)}: {rows} rows of {', '.join(chosen)}")


def _progress(region: str, done: int, of: int) -> None:
    print(f"\r{region} {done}/{of}", end="\n" if done == of else "", file=sys.stderr, flush=True)
